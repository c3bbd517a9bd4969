package qcow2

import (
	"errors"
	"fmt"
	"io"
	"iter"
)

// errStop ends a walk whose caller has seen enough. It never leaves the package.
var errStop = errors.New("stop")

// A view is a virtual disk of an image: what its active L1 table, or that of a
// snapshot, maps.
type view struct {
	img    *Image
	l1     HostOffset
	l1Size int64 // entries
	size   int64 // bytes of the virtual disk
}

func (v *view) Size() int64 { return v.size }

// Extents implements Disk. It follows the sections "L1 table entry", "L2 table
// entry", "Extended L2 Entries" and "Backing file".
func (v *view) Extents(off, n int64) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		m := merger{emit: func(e Extent) bool { return yield(e, nil) }}
		err := v.checkRange(off, n)
		if err == nil {
			err = v.walkLayers(off, off+n, &m)
		}
		if errors.Is(err, errStop) || !m.flush() || err == nil {
			return
		}
		yield(Extent{}, err)
	}
}

func (v *view) checkRange(off, n int64) error {
	if off < 0 || n < 0 || off > v.size || n > v.size-off {
		return fmt.Errorf("range [%d, +%d) is outside of the disk (%d bytes)", off, n, v.size)
	}
	return nil
}

// walkLayers walks this image and, for what is absent in it, its backing disk.
func (v *view) walkLayers(off, end int64, out *merger) error {
	if v.img.backing == nil {
		return v.walk(off, end, out.add)
	}
	var below error
	own := merger{emit: func(e Extent) bool {
		if e.Kind != Absent {
			return out.add(e)
		}
		below = v.walkBelow(e, out)
		return below == nil
	}}
	err := v.walk(off, end, own.add)
	if err == nil && !own.flush() {
		err = errStop
	}
	if below != nil {
		return below
	}
	return err
}

// walkBelow walks the backing disk where e is absent. What lies beyond the end
// of a shorter backing file belongs to this layer, and reads as zero.
func (v *view) walkBelow(e Extent, out *merger) error {
	end := min(e.End(), v.img.backing.Size())
	if e.Off < end {
		for x, err := range v.img.backing.Extents(e.Off, end-e.Off) {
			if err != nil {
				return err
			}
			x.Depth++
			if !out.add(x) {
				return errStop
			}
		}
	}
	if e.End() > end && !out.add(e.Slice(max(end, e.Off), e.End())) {
		return errStop
	}
	return nil
}

// walk emits the extents of this layer alone, unmerged: cluster by cluster, but runs of
// empty entries at once.
func (v *view) walk(off, end int64, emit func(Extent) bool) error {
	if m := v.img.header.CryptMethod; m != CryptNone {
		return &UnsupportedError{Feature: "encryption with " + m.String()}
	}
	cover := v.img.geometry.l2Coverage()
	room := v.img.size >> v.img.geometry.ClusterBits // tables that the file can hold
	allowed := v.img.limits.L2Bytes >> v.img.geometry.ClusterBits
	for off < end {
		index := off / cover
		tableEnd := min(end, (index+1)*cover)
		l2, err := v.l2Table(index)
		switch {
		case err != nil:
			return err
		case l2 != 0 && room == 0:
			return entryError("L1 table", index, v.l1+HostOffset(index*8), uint64(l2),
				"more L2 tables than the file has clusters: some are used again")
		case l2 != 0 && allowed == 0:
			return limitError("l2-bytes", v.img.limits.L2Bytes, entryError("L1 table", index, v.l1+HostOffset(index*8), uint64(l2),
				"the L2 tables of this range have more bytes than are read in one walk"))
		case l2 != 0:
			room, allowed = room-1, allowed-1
			err = v.walkTable(l2, off, tableEnd, emit)
		case !emit(Extent{Off: off, Len: tableEnd - off}):
			err = errStop
		}
		if err != nil {
			return err
		}
		off = tableEnd
	}
	return nil
}

// l2Table is where the L2 table of an L1 entry stands; 0 where there is none.
func (v *view) l2Table(index int64) (HostOffset, error) {
	if index >= v.l1Size {
		return 0, nil // the L1 table of an older, smaller snapshot
	}
	const perSlice = sliceBytes / 8
	first := index / perSlice * perSlice
	n := min(perSlice, v.l1Size-first)
	table, err := v.img.tables.load(v.l1+HostOffset(first*8), int(n))
	if err != nil {
		return 0, err
	}
	e := l1Entry(table[index-first])
	if e == 0 {
		return 0, nil
	}
	rule := checkL1(e, v.img.geometry, v.img.size)
	if at := e.offset(); rule == "" && at >= v.l1 && at-v.l1 < HostOffset(v.l1Size*8) {
		rule = "the L2 table is the L1 table itself"
	}
	if rule != "" {
		return 0, entryError("L1 table", index, v.l1+HostOffset(index*8), uint64(e), rule)
	}
	return e.offset(), nil
}

func entryError(structure string, index int64, host HostOffset, value uint64, rule string) error {
	return &FormatError{Structure: structure, Field: fmt.Sprintf("entry %d", index), Host: host, Value: value, Msg: rule}
}

// walkTable emits the extents of [off, end), which one L2 table maps.
func (v *view) walkTable(l2 HostOffset, off, end int64, emit func(Extent) bool) error {
	for off < end {
		s, err := v.l2Slice(l2, off)
		if err != nil {
			return err
		}
		for to := min(end, s.end); off < to; {
			next := s.absentEnd(off, to)
			if next > off {
				err = stopped(emit(Extent{Off: off, Len: next - off}))
			} else {
				next = min(to, s.clusterEnd(off))
				err = v.walkCluster(s, off, next, emit)
			}
			if err != nil {
				return err
			}
			off = next
		}
	}
	return nil
}

// An l2Slice is a loaded part of an L2 table and the guest bytes that it maps.
type l2Slice struct {
	geometry Geometry
	words    []uint64
	host     HostOffset
	first    int64 // index of its first entry in the table
	off, end int64 // guest bytes
}

func (v *view) l2Slice(l2 HostOffset, off int64) (l2Slice, error) {
	s := v.img.geometry.l2SliceAt(l2, off)
	var err error
	s.words, err = v.img.tables.load(s.host, v.img.geometry.l2SliceWords())
	return s, err
}

// l2SliceWords is the number of words in a slice of an L2 table.
func (g Geometry) l2SliceWords() int { return int(min(g.ClusterSize(), sliceBytes) / 8) }

// l2SliceAt is the slice of the table at l2 that maps off, not yet loaded.
func (g Geometry) l2SliceAt(l2 HostOffset, off int64) l2Slice {
	perSlice := int64(g.l2SliceWords()) / g.l2EntryWords()
	start := off >> g.ClusterBits / perSlice * perSlice // in clusters of the disk
	first := start % g.l2Entries()
	return l2Slice{geometry: g, host: l2 + HostOffset(first*g.l2EntryWords()*8), first: first,
		off: start << g.ClusterBits, end: (start + perSlice) << g.ClusterBits}
}

// table is where the whole table stands.
func (s *l2Slice) table() HostOffset {
	return s.host - HostOffset(s.first*s.geometry.l2EntryWords()*8)
}

func (s *l2Slice) clusterStart(off int64) int64 { return off &^ (s.geometry.ClusterSize() - 1) }
func (s *l2Slice) clusterEnd(off int64) int64   { return s.clusterStart(off) + s.geometry.ClusterSize() }

// entry is the entry that maps off; the bitmap is 0 without extended entries.
func (s *l2Slice) entry(off int64) (l2Entry, subclusterBitmap) {
	i := (off - s.off) >> s.geometry.ClusterBits
	if s.geometry.ExtendedL2 {
		return l2Entry(s.words[2*i]), subclusterBitmap(s.words[2*i+1])
	}
	return l2Entry(s.words[i]), 0
}

// absentEnd is where the run of empty entries that maps off ends, to at the latest; off
// where that has another entry. Most tables of a large disk hold little else.
func (s *l2Slice) absentEnd(off, to int64) int64 {
	per := s.geometry.l2EntryWords()
	first := (off - s.off) >> s.geometry.ClusterBits * per
	n := first
	for n < int64(len(s.words)) && s.words[n] == 0 {
		n++
	}
	if n-first < per {
		return off
	}
	return min(to, s.off+n/per<<s.geometry.ClusterBits)
}

// fail is the error that the entry which maps off breaks a rule.
func (s *l2Slice) fail(off int64, rule string) error {
	i := (off - s.off) >> s.geometry.ClusterBits
	host := s.host + HostOffset(i*s.geometry.l2EntryWords()*8)
	entry, _ := s.entry(off)
	return entryError("L2 table", s.first+i, host, uint64(entry), rule)
}

// walkCluster emits the extents of [off, end), which lies in one cluster.
func (v *view) walkCluster(s l2Slice, off, end int64, emit func(Extent) bool) error {
	entry, bitmap := s.entry(off)
	if entry.compressed() {
		if rule := v.checkCompressed(entry); rule != "" {
			return s.fail(off, rule)
		}
		return stopped(emit(Extent{Off: off, Len: end - off, Kind: Compressed}))
	}
	if rule := checkStandard(entry, v.img.geometry, v.img.dataFile != nil); rule != "" {
		return s.fail(off, rule)
	}
	m := entry.meaning(v.img.dataFile != nil)
	if m.hasHost && m.host == s.table() && v.img.dataFile == nil {
		return s.fail(off, "the data cluster is the L2 table itself")
	}
	if v.img.dataFile != nil && m.hasHost && m.host != HostOffset(s.clusterStart(off)) {
		return s.fail(off, "the offset must match the guest offset with an external data file")
	}
	if v.img.geometry.ExtendedL2 {
		return v.walkSubclusters(s, m, bitmap, off, end, emit)
	}
	return v.emitPart(s, m, off, end, emit)
}

func stopped(more bool) error {
	if more {
		return nil
	}
	return errStop
}

// checkCompressed checks a compressed cluster descriptor against the file. Its
// length may run beyond the end by less than the last sector.
func (v *view) checkCompressed(e l2Entry) string {
	if v.img.dataFile != nil {
		return "compressed clusters are not allowed with an external data file"
	}
	host, length := e.compressedRange(v.img.geometry)
	if !within(host, uint64(max(1, length-511)), v.img.size) {
		return fmt.Sprintf("the compressed data (%d bytes at %s) lies beyond the end of the file", length, host)
	}
	return ""
}

// emitPart emits [off, end) of a cluster, stored as m says.
func (v *view) emitPart(s l2Slice, m mapping, off, end int64, emit func(Extent) bool) error {
	e := Extent{Off: off, Len: end - off, Kind: m.kind, HasHost: m.hasHost}
	if m.hasHost {
		e.Host = m.host + HostOffset(off-s.clusterStart(off))
		e.Storage = v.img.storage
	}
	if m.kind == Data {
		if err := v.checkData(s, e); err != nil {
			return err
		}
	}
	return stopped(emit(e))
}

func (v *view) checkData(s l2Slice, e Extent) error {
	if v.img.storage == nil {
		return &RefError{Ref: *v.img.dataFile}
	}
	if !within(e.Host, uint64(e.Len), v.img.storageSize) {
		return s.fail(e.Off, fmt.Sprintf("the data cluster lies beyond the end of the file (%d bytes)", v.img.storageSize))
	}
	return nil
}

// walkSubclusters emits [off, end) of a cluster with an extended L2 entry.
func (v *view) walkSubclusters(s l2Slice, m mapping, b subclusterBitmap, off, end int64, emit func(Extent) bool) error {
	if rule := checkSubclusters(b, m.hasHost); rule != "" {
		return s.fail(off, rule)
	}
	size := v.img.geometry.SubclusterSize()
	for off < end {
		i := int(off-s.clusterStart(off)) / int(size)
		m.kind = b.kind(i)
		last := i + 1
		for last < subclustersPerCluster && b.kind(last) == m.kind {
			last++
		}
		next := min(end, s.clusterStart(off)+int64(last)*size)
		if err := v.emitPart(s, m, off, next, emit); err != nil {
			return err
		}
		off = next
	}
	return nil
}

// A merger joins extents that follow each other.
type merger struct {
	emit func(Extent) bool
	cur  Extent
}

// add takes the next extent; false means that nobody wants more.
func (m *merger) add(e Extent) bool {
	if m.cur.Len > 0 && m.cur.follows(e) {
		m.cur.Len += e.Len
		return true
	}
	ok := m.flush()
	m.cur = e
	return ok
}

func (m *merger) flush() bool {
	if m.cur.Len == 0 {
		return true
	}
	e := m.cur
	m.cur = Extent{}
	return m.emit(e)
}

var _ io.ReaderAt = (*view)(nil)
