package main

import (
	"encoding/binary"
	"errors"

	"github.com/qbitkit/qbit/qcow2"
)

// isPreallocated reports an image whose clusters were allocated before they were
// written: QEMU takes it for one when clearly more clusters are in use than the
// filesystem stores, and then asks the file itself which of them are holes.
func (l *layer) isPreallocated() bool {
	if l.preallocated == nil {
		is := detectPreallocation(l)
		l.preallocated = &is
	}
	return *l.preallocated
}

func detectPreallocation(l *layer) bool {
	h := l.image.Header()
	cluster := l.image.Geometry().ClusterSize()
	stored := allocatedBytes(l.file.info) / cluster
	enough := max(stored*10/9, stored+2)
	all := (l.file.size + cluster - 1) / cluster
	if all < enough {
		return false
	}
	u := usedCounter{file: l.file, header: h, cluster: cluster, left: all, enough: enough}
	return u.walk() == nil && u.used >= enough
}

// A usedCounter counts the clusters whose refcount is not zero, until there are
// enough of them.
type usedCounter struct {
	file    *imageFile
	header  qcow2.Header
	cluster int64
	left    int64 // clusters of the file that were not looked at
	used    int64
	enough  int64
	block   []byte // the refcount block that was read last
	blockAt int64
}

var errRefcounts = errors.New("the refcounts cannot be read")

// walk follows the refcount table, a part of it at a time.
func (u *usedCounter) walk() error {
	u.block = make([]byte, u.cluster)
	part := make([]byte, u.cluster)
	for i := range int64(u.header.RefcountTableClusters) {
		if _, err := u.file.ReadAt(part, int64(u.header.RefcountTableOffset)+i*u.cluster); err != nil {
			return err
		}
		for ; len(part) > 0 && u.left > 0 && u.used < u.enough; part = part[8:] {
			if err := u.addBlock(int64(binary.BigEndian.Uint64(part) &^ 511)); err != nil {
				return err
			}
		}
		part = make([]byte, u.cluster)
	}
	return nil
}

// addBlock counts the clusters of one refcount block; 0: all of them are free.
func (u *usedCounter) addBlock(host int64) error {
	bits := int64(1) << u.header.RefcountOrder
	n := min(u.cluster*8/bits, u.left)
	u.left -= n
	switch {
	case host == 0:
		return nil
	case host < 0 || host > u.file.size:
		return errRefcounts
	case host != u.blockAt:
		if _, err := u.file.ReadAt(u.block, host); err != nil {
			return err
		}
		u.blockAt = host
	}
	for i := int64(0); i < n && u.used < u.enough; i++ {
		if refcountUsed(u.block, i, bits) {
			u.used++
		}
	}
	return nil
}

// refcountUsed reports that entry i of a refcount block is not zero; entries
// smaller than a byte start at its least significant bit.
func refcountUsed(block []byte, i, bits int64) bool {
	if bits < 8 {
		mask := byte(1<<bits - 1)
		return block[i*bits/8]>>(i*bits%8)&mask != 0
	}
	for _, b := range block[i*bits/8 : (i+1)*bits/8] {
		if b != 0 {
			return true
		}
	}
	return false
}
