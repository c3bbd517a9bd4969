package qcow2

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

const refTableReserved = 0x1ff // bits 0 to 8 of a refcount table entry

// refcounts is the refcount table, with the refcount blocks that were asked for:
// section "Host cluster management". Changes stay in memory until flush.
type refcounts struct {
	f           File
	geometry    Geometry
	tableOffset HostOffset
	room        int64    // entries that the table in the file has
	table       []uint64 // longer than room: the table has to move
	blocks      map[int64]*refBlock
}

// A refBlock is a refcount block. fresh ones are not in the table of the file yet.
type refBlock struct {
	host  HostOffset
	data  []byte
	dirty map[int]bool // sectors
	fresh bool
}

// loadRefcounts loads the refcount table.
func loadRefcounts(f File, img *Image) (*refcounts, error) {
	h := &img.header
	r := &refcounts{f: f, geometry: img.geometry, tableOffset: h.RefcountTableOffset, blocks: map[int64]*refBlock{}}
	n := int64(h.RefcountTableClusters) << h.ClusterBits
	switch {
	case n == 0:
		return nil, headerError("refcount_table_clusters", 56, 0, "must not be 0")
	case !within(h.RefcountTableOffset, uint64(n), img.size):
		return nil, headerError("refcount_table_offset", 48, uint64(h.RefcountTableOffset),
			"the refcount table (%d bytes) reaches beyond the end of the file (%d bytes)", n, img.size)
	}
	b := make([]byte, n)
	if err := readFull(f, b, h.RefcountTableOffset); err != nil {
		return nil, fmt.Errorf("reading the refcount table: %w", err)
	}
	r.room = n / 8
	r.table = make([]uint64, r.room)
	for i := range r.table {
		r.table[i] = binary.BigEndian.Uint64(b[i*8:])
		if err := r.checkEntry(int64(i), img.size); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *refcounts) checkEntry(i, fileSize int64) error {
	e := r.table[i]
	host := HostOffset(e &^ refTableReserved)
	rule := ""
	switch {
	case e == 0:
	case e&refTableReserved != 0:
		rule = "reserved bits must be zero"
	case !r.geometry.aligned(host):
		rule = "the refcount block must be aligned to a cluster"
	case !within(host, uint64(r.geometry.ClusterSize()), fileSize):
		rule = "the refcount block lies beyond the end of the file"
	}
	if rule == "" {
		return nil
	}
	return entryError("refcount table", i, r.tableOffset+HostOffset(i*8), e, rule)
}

// block is the refcount block with that index, or nil where there is none.
func (r *refcounts) block(index int64) (*refBlock, error) {
	if b := r.blocks[index]; b != nil {
		return b, nil
	}
	if index >= int64(len(r.table)) || r.table[index] == 0 {
		return nil, nil
	}
	b := &refBlock{host: HostOffset(r.table[index]), data: make([]byte, r.geometry.ClusterSize()), dirty: map[int]bool{}}
	if err := readFull(r.f, b.data, b.host); err != nil {
		return nil, fmt.Errorf("reading refcount block %d: %w", index, err)
	}
	r.blocks[index] = b
	return b, nil
}

// add makes a new block, all zero, at host.
func (r *refcounts) add(index int64, host HostOffset) {
	for index >= int64(len(r.table)) {
		r.table = append(r.table, 0)
	}
	r.table[index] = uint64(host)
	r.blocks[index] = &refBlock{host: host, data: make([]byte, r.geometry.ClusterSize()), dirty: map[int]bool{}, fresh: true}
}

// get is the refcount of a cluster; 0 where no block counts it.
func (r *refcounts) get(cluster int64) (uint64, error) {
	per := r.geometry.refcountsPerBlock()
	b, err := r.block(cluster / per)
	if b == nil || err != nil {
		return 0, err
	}
	return r.geometry.refcountAt(b.data, cluster%per), nil
}

// refcountAt is entry i of a refcount block: section "Refcount block entry".
func (g Geometry) refcountAt(b []byte, i int64) uint64 {
	switch g.RefcountOrder {
	case 3:
		return uint64(b[i])
	case 4:
		return uint64(binary.BigEndian.Uint16(b[2*i:]))
	case 5:
		return uint64(binary.BigEndian.Uint32(b[4*i:]))
	case 6:
		return binary.BigEndian.Uint64(b[8*i:])
	}
	bits := int64(g.RefcountBits())
	return uint64(b[i*bits/8]>>(i*bits%8)) & (1<<bits - 1)
}

// putRefcount sets entry i of a refcount block; n must fit.
func (g Geometry) putRefcount(b []byte, i int64, n uint64) {
	switch g.RefcountOrder {
	case 3:
		b[i] = byte(n)
	case 4:
		binary.BigEndian.PutUint16(b[2*i:], uint16(n))
	case 5:
		binary.BigEndian.PutUint32(b[4*i:], uint32(n))
	case 6:
		binary.BigEndian.PutUint64(b[8*i:], n)
	default:
		bits := int64(g.RefcountBits())
		at, shift := i*bits/8, i*bits%8
		b[at] = b[at]&^(byte(1<<bits-1)<<shift) | byte(n)<<shift
	}
}

// set changes the refcount of a cluster, which must have a block; n must fit.
func (r *refcounts) set(cluster int64, n uint64) {
	per := r.geometry.refcountsPerBlock()
	b, i := r.blocks[cluster/per], cluster%per
	b.dirty[int(i*int64(r.geometry.RefcountBits())/8/512)] = true
	r.geometry.putRefcount(b.data, i, n)
}

// dirty reports that there is something for flushBlocks to write.
func (r *refcounts) dirty() bool {
	for _, b := range r.blocks {
		if len(b.dirty) > 0 {
			return true
		}
	}
	return false
}

// flushBlocks writes what changed in blocks: fresh ones whole, of others the
// sectors.
func (r *refcounts) flushBlocks() error {
	for _, index := range slices.Sorted(maps.Keys(r.blocks)) { // always in the same order
		b := r.blocks[index]
		if len(b.dirty) == 0 {
			continue
		}
		if err := r.flushBlock(b); err != nil {
			return fmt.Errorf("writing refcount block %d: %w", index, err)
		}
		clear(b.dirty)
	}
	return nil
}

func (r *refcounts) flushBlock(b *refBlock) error {
	if b.fresh {
		return writeFull(r.f, b.data, b.host)
	}
	for _, sector := range slices.Sorted(maps.Keys(b.dirty)) {
		at := sector * 512
		if err := writeFull(r.f, b.data[at:at+512], b.host+HostOffset(at)); err != nil {
			return err
		}
	}
	return nil
}

// linkBlocks writes the table entries of fresh blocks, in a table that has room
// for them. It reports whether there were any.
func (r *refcounts) linkBlocks() (bool, error) {
	any := false
	for _, index := range slices.Sorted(maps.Keys(r.blocks)) {
		b := r.blocks[index]
		if !b.fresh {
			continue
		}
		entry := binary.BigEndian.AppendUint64(nil, uint64(b.host))
		if err := writeFull(r.f, entry, r.tableOffset+HostOffset(index*8)); err != nil {
			return any, fmt.Errorf("writing entry %d of the refcount table: %w", index, err)
		}
		b.fresh, any = false, true
	}
	return any, nil
}

// linked says that a table with all blocks in it has been linked.
func (r *refcounts) linked() {
	for _, b := range r.blocks {
		b.fresh = false
	}
}

// encodeTable is the whole table, of n entries.
func (r *refcounts) encodeTable(n int64) []byte {
	b := make([]byte, 0, n*8)
	for _, e := range r.table {
		b = binary.BigEndian.AppendUint64(b, e)
	}
	return append(b, make([]byte, n*8-int64(len(b)))...)
}

// writeFull writes all of p at host.
func writeFull(f File, p []byte, host HostOffset) error {
	_, err := f.WriteAt(p, int64(host))
	return err
}
