package qcow2

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/qbitkit/qbit/bitmap"
)

// A session is what is known of an image while it is being changed: its refcounts,
// what refers to which cluster, and what is free. It is found out once and kept right
// by every change.
type session struct {
	f     File
	img   *Image
	refs  *refcounts
	x     *references
	alloc *allocator
	kept  *bitmap.Bitmap // clusters of bitmaps
	first []byte         // the first cluster as it stands

	retired []hostRange // a refcount table that has moved
}

// newSession reads what a session knows; counted says that guest clusters will be
// given back, for which the references to each have to be counted.
func newSession(f File, img *Image, counted bool) (*session, error) {
	s := &session{f: f, img: img}
	var err error
	if s.refs, err = loadRefcounts(f, img); err != nil {
		return nil, err
	}
	if s.x, err = findReferences(img, s.refs, counted); err != nil {
		return nil, err
	}
	s.first, err = img.firstCluster()
	return s, err
}

// know takes over what the bitmaps use: kept, and gone.
func (s *session) know(kept *bitmap.Bitmap, gone []hostRange, unknown bool) error {
	s.kept = kept
	used := s.x.used.Clone()
	if s.alloc != nil {
		used = s.alloc.used
	}
	for _, other := range []*bitmap.Bitmap{s.x.refs, kept} {
		if err := used.Union(other); err != nil {
			return err
		}
	}
	for _, r := range gone {
		used.Set(int64(r.host), r.n)
	}
	if s.alloc == nil {
		s.alloc = newAllocator(s.img, s.refs, used, false)
	}
	s.alloc.atEnd = s.x.unknown || unknown
	return nil
}

func (s *session) clusters(n int64) int64 {
	return (n + s.img.geometry.ClusterSize() - 1) >> s.img.geometry.ClusterBits
}

// write is the gate of the fill phase: only what was allocated since the last change
// is ever written.
func (s *session) write(host HostOffset, b []byte) error {
	if !s.alloc.owns(host, int64(len(b))) {
		return fmt.Errorf("refusing to write %d bytes at %s, which were not allocated: this is a bug", len(b), host)
	}
	return writeFull(s.f, b, host)
}

// allocate is the first phase: refcounts, and a refcount table of so many clusters at
// table, where it has to move. Blocks and a new table stand in clusters that nothing
// points at until they are whole.
func (s *session) allocate(table HostOffset, clusters int64) error {
	if err := s.refs.flushBlocks(); err != nil {
		return err
	}
	if clusters > 0 {
		return s.moveTable(table, clusters)
	}
	if err := s.f.Sync(); err != nil {
		return err
	}
	linked, err := s.refs.linkBlocks()
	if err == nil && linked {
		err = s.f.Sync()
	}
	return err
}

// moveTable writes the larger refcount table to its place and links it in the
// header's first sector.
func (s *session) moveTable(table HostOffset, clusters int64) error {
	n := clusters << s.img.geometry.ClusterBits
	if err := s.write(table, s.refs.encodeTable(n/8)); err != nil {
		return err
	}
	if err := s.f.Sync(); err != nil {
		return err
	}
	if err := s.writeSector(func(b []byte) { putRefTable(b, table, uint32(clusters)) }); err != nil {
		return err
	}
	s.retired = append(s.retired, hostRange{s.refs.tableOffset, s.refs.room * 8})
	s.x.refs.Unset(int64(s.refs.tableOffset), s.refs.room*8)
	s.refs.linked()
	s.refs.tableOffset, s.refs.room = table, n/8
	return s.f.Sync()
}

// writeSector changes the header's first sector.
func (s *session) writeSector(edit func(sector []byte)) error {
	sector := bytes.Clone(s.first[:atomicUnit])
	edit(sector)
	if err := overwriteSector(s.f, sector, s.first[:atomicUnit]); err != nil {
		return err
	}
	copy(s.first, sector)
	return nil
}

// clearAutoclear clears the autoclear bits that are not known, as the specification
// wants it of who writes.
func (s *session) clearAutoclear() error {
	if s.img.header.Version < 3 || binary.BigEndian.Uint64(s.first[88:])&^(AutoclearBitmaps|AutoclearRawData) == 0 {
		return nil
	}
	if err := s.writeSector(clearUnknownAutoclear); err != nil {
		return err
	}
	return s.f.Sync()
}

// extend makes the file as long as what was allocated needs.
func (s *session) extend() error {
	if size := s.alloc.fileSize(); size != s.alloc.size {
		return s.f.Truncate(size)
	}
	return nil
}

// extendWhole is extend, for a file whose last cluster is going to be written in place:
// it may be cut.
func (s *session) extendWhole() error {
	whole := alignUp(s.alloc.size, s.img.geometry.ClusterSize())
	if size := max(s.alloc.fileSize(), whole); size != s.alloc.size {
		if err := s.f.Truncate(size); err != nil {
			return err
		}
	}
	s.alloc.size = whole
	return nil
}

// releaseCluster takes one from a refcount that is higher than the references that
// are left; more than one above is a leak that was there before, and the result.
func (s *session) releaseCluster(cluster int64, left uint64) (leaked bool, err error) {
	n, err := s.refs.get(cluster)
	if err != nil || n <= left {
		return false, err
	}
	s.refs.set(cluster, n-1)
	if n == 1 {
		size := s.img.geometry.ClusterSize()
		s.alloc.used.Unset(cluster*size, size)
		s.alloc.next = min(s.alloc.next, cluster)
	}
	return n > left+1, nil
}

// giveBack undoes the allocation after a failure, as far as the file allows; what
// it cannot undo is leaked. Refcount blocks that were made stay: they count
// themselves.
func (s *session) giveBack() {
	for _, cluster := range s.alloc.counts {
		if b, err := s.refs.block(cluster / s.img.geometry.refcountsPerBlock()); err != nil || b == nil || b.fresh {
			continue
		}
		s.refs.set(cluster, 0)
	}
	if s.refs.flushBlocks() != nil || s.f.Sync() != nil {
		return
	}
	if len(s.alloc.counts) == len(s.alloc.taken) { // no refcount structure is new
		if s.f.Truncate(s.alloc.size) == nil {
			s.f.Sync()
		}
	}
}

// settle takes what was allocated for a part of the image, and lets go of refcount
// blocks if there are many.
func (s *session) settle() error {
	g := s.img.geometry
	size := s.alloc.fileSize()
	for _, b := range []*bitmap.Bitmap{s.x.used, s.x.refs, s.alloc.used, s.kept} {
		if err := b.Resize(alignUp(size, g.ClusterSize()), false); err != nil {
			return err
		}
	}
	for _, c := range s.alloc.counts {
		delete(s.alloc.taken, c)
		s.alloc.used.Set(c*g.ClusterSize(), g.ClusterSize())
	}
	for c := range s.alloc.taken {
		s.alloc.used.Set(c*g.ClusterSize(), g.ClusterSize())
		s.x.refs.Set(c*g.ClusterSize(), g.ClusterSize())
	}
	clear(s.alloc.taken)
	s.alloc.counts, s.alloc.file, s.alloc.size = nil, s.alloc.end, size
	if int64(len(s.refs.blocks))*g.ClusterSize() > keptRefBlocks && !s.refs.dirty() {
		clear(s.refs.blocks)
	}
	return nil
}

// trim cuts free clusters off the end of the file. Their refcounts are 0 on the disk.
func (s *session) trim() error {
	if s.alloc.atEnd {
		return nil
	}
	cluster := s.img.geometry.ClusterSize()
	end := s.alloc.file
	for ; end > 1; end-- {
		if n, err := s.refs.get(end - 1); err != nil {
			return err
		} else if n > 0 || s.alloc.used.Test((end-1)*cluster) {
			break
		}
	}
	if end*cluster >= s.alloc.size {
		return nil
	}
	if err := s.f.Truncate(end * cluster); err != nil {
		return err
	}
	s.alloc.file, s.alloc.end, s.alloc.size = end, end, end*cluster
	s.alloc.next = min(s.alloc.next, end)
	if err := s.f.Sync(); err != nil {
		return err
	}
	return s.settle()
}

// keptRefBlocks is how many bytes of refcount blocks are kept from change to change.
const keptRefBlocks = 16 << 20
