package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// manyBitmaps is QEMU's limit.
const manyBitmaps = 65535

// runMany lists the bitmaps of an image that has as many as there can be.
func runMany(s settings) error {
	return inFolder(s, func(s settings) error {
		dir := s.dir
		path := filepath.Join(dir, "image.qcow2")
		if err := os.WriteFile(path, imageOfBitmaps(manyBitmaps), 0o666); err != nil {
			return err
		}
		info := func(program string) *contestant {
			return &contestant{name: filepath.Base(program) + " info", args: []string{program, "info", "--output=json", path}, limit: s.limit}
		}
		ours, qemu := info(s.qbit), info("qemu-img")
		qemu.rounds = 1
		if err := countBitmaps(ours.args); err != nil {
			return err
		}
		r := race{title: fmt.Sprintf("info of an image with %d bitmaps", manyBitmaps), runs: []*contestant{ours, qemu},
			note: "What `qemu-img info` takes grows with the square of their number; it is ended at the limit."}
		return r.run(s)
	})
}

// countBitmaps wants a command to list all bitmaps.
func countBitmaps(args []string) error {
	out, err := exec.Command(args[0], args[1:]...).Output()
	if err != nil {
		return fmt.Errorf("%q: %w", args, err)
	}
	var info struct {
		Format struct {
			Data struct{ Bitmaps []json.RawMessage }
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return err
	}
	if n := len(info.Format.Data.Bitmaps); n != manyBitmaps {
		return fmt.Errorf("%q lists %d bitmaps, not %d", args, n, manyBitmaps)
	}
	return nil
}

// A layout is where the structures of an image with bitmaps stand, in clusters.
type layout struct {
	directory       []byte
	tables, end     int // the first cluster of the bitmap tables, and of nothing
	refTable        int
	refTableLen     int
	refBlocks       int
	refBlocksLen    int
	l1, directoryAt int
}

// manyCluster is the size of the image's clusters, and manyDisk that of its disk, of
// which a bitmap table has one entry.
const (
	manyCluster = 512
	manyDisk    = 64 * mib
)

// imageOfBitmaps is an image with n bitmaps in which nothing is dirty: to add as many
// takes too long. The header is followed by the refcount table and blocks, the L1
// table, the directory, and a table for each bitmap.
func imageOfBitmaps(n int) []byte {
	l := layoutOf(n)
	b := make([]byte, l.end*manyCluster)
	l.putHeader(b, n)
	for i := range l.refBlocksLen {
		binary.BigEndian.PutUint64(b[l.refTable*manyCluster+8*i:], uint64((l.refBlocks+i)*manyCluster))
	}
	for i := range l.end { // refcounts of 16 bits, all 1
		binary.BigEndian.PutUint16(b[l.refBlocks*manyCluster+2*i:], 1)
	}
	copy(b[l.directoryAt*manyCluster:], l.directory)
	return b
}

func clustersFor(size int) int { return (size + manyCluster - 1) / manyCluster }

// layoutOf finds how long the refcounts have to be, which count their own clusters.
func layoutOf(n int) layout {
	l := layout{refTable: 1}
	l1 := clustersFor(8 * manyDisk / (manyCluster * manyCluster / 8))
	for {
		l.refBlocks = l.refTable + l.refTableLen
		l.l1 = l.refBlocks + l.refBlocksLen
		l.directoryAt = l.l1 + l1
		l.tables = l.directoryAt + clustersFor(len(directoryOf(n, 0)))
		l.end = l.tables + n
		blocks := clustersFor(2 * l.end)
		table := clustersFor(8 * blocks)
		if blocks == l.refBlocksLen && table == l.refTableLen {
			l.directory = directoryOf(n, l.tables)
			return l
		}
		l.refBlocksLen, l.refTableLen = blocks, table
	}
}

// directoryOf is the bitmap directory: bitmaps of 64 KiB that record.
func directoryOf(n, tables int) []byte {
	var b bytes.Buffer
	for i := range n {
		name := fmt.Sprintf("bitmap-%05d", i)
		entry := make([]byte, 24, 40)
		binary.BigEndian.PutUint64(entry, uint64((tables+i)*manyCluster))
		binary.BigEndian.PutUint32(entry[8:], 1)  // entries of the table
		binary.BigEndian.PutUint32(entry[12:], 2) // recording
		entry[16], entry[17] = 1, 16              // a dirty bitmap of 1<<16
		binary.BigEndian.PutUint16(entry[18:], uint16(len(name)))
		entry = append(entry, name...)
		b.Write(append(entry, make([]byte, -len(entry)&7)...))
	}
	return b.Bytes()
}

// putHeader writes the header of version 3 and the bitmaps extension behind it.
func (l layout) putHeader(b []byte, n int) {
	put32 := func(at int, v uint32) { binary.BigEndian.PutUint32(b[at:], v) }
	put64 := func(at, v int) { binary.BigEndian.PutUint64(b[at:], uint64(v)) }
	copy(b, "QFI\xfb")
	put32(4, 3)
	put32(20, 9)
	put64(24, manyDisk)
	put32(36, manyDisk/(manyCluster*manyCluster/8))
	put64(40, l.l1*manyCluster)
	put64(48, l.refTable*manyCluster)
	put32(56, uint32(l.refTableLen))
	put64(88, 1) // autoclear: the bitmaps are consistent
	put32(96, 4) // refcounts of 16 bits
	put32(100, 112)
	put32(112, 0x23852875) // the bitmaps extension
	put32(116, 24)
	put32(120, uint32(n))
	put64(128, len(l.directory))
	put64(136, l.directoryAt*manyCluster)
}
