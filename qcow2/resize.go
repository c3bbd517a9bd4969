package qcow2

import (
	"encoding/binary"
	"fmt"
	"math"
)

// ResizeOptions says how a disk is to change its size. The zero value only grows; nil
// is the same.
type ResizeOptions struct {
	// Shrink allows to cut off the end of the disk, with what it holds.
	Shrink bool

	// DataFile and DataSize are as in GuestOptions. A raw data file is cut or made
	// longer with the disk.
	DataFile File
	DataSize int64
}

// Resize changes the size of the disk to size bytes, of any alignment (QEMU wants a
// multiple of 512). Snapshots keep theirs.
//
// What is added reads as zero, also over a backing file that is longer than the disk
// was (zero clusters hide it), and whatever a table held there. What is cut off is
// given back after the new size stands; with the size that the disk has already,
// Resize does only that, as after a crash.
//
// Bitmaps that record are dirty in what is added, others are clean. (QEMU 7.2 leaves
// all clean: after shrinking and growing, the next increment misses the change.) A
// crash leaves the old size with the old bitmaps, or the new size with the new ones.
// Bitmaps that are in use or stale stay so.
//
// Errors: a size that is smaller, without Shrink; *UnsupportedError for snapshots that
// do not record their size (version 2), for bitmaps that cannot be understood, and for
// an encrypted image; *RefError for an external data file that is not in the options,
// and for a backing file that has to be known and is not open.
func (e *Editor) Resize(size int64, opts *ResizeOptions) error {
	if opts == nil {
		opts = &ResizeOptions{}
	}
	if err := e.ready(); err != nil {
		return err
	}
	r := &resizer{e: e, old: e.img.Size(), size: size, opts: *opts}
	if err := r.check(); err != nil {
		return err
	}
	var err error
	if r.g, err = e.newGuest(GuestOptions{DataFile: opts.DataFile, DataSize: opts.DataSize}); err != nil {
		return err
	}
	if err := r.resizeBitmaps(); err != nil {
		return err
	}
	e.guest = r.g
	if size > r.old {
		err = r.grow()
	} else {
		err = r.shrink()
	}
	if closed := r.g.Close(); err == nil {
		err = closed
	}
	return err
}

// A resizer changes the size of a disk.
type resizer struct {
	e         *Editor
	g         *Guest
	opts      ResizeOptions
	old, size int64
	bitmaps   []resized
}

// check refuses what cannot be done, before anything is read that is large.
func (r *resizer) check() error {
	g := r.e.img.geometry
	switch {
	case r.size < 0:
		return fmt.Errorf("a disk cannot have %d bytes", r.size)
	case r.size < r.old && !r.opts.Shrink:
		return fmt.Errorf("the disk has %d bytes: making it smaller, %d bytes, loses what lies behind, and was not allowed", r.old, r.size)
	case g.l1EntriesFor(uint64(r.size)) > maxL1Bytes/8:
		return fmt.Errorf("a disk of %d bytes would need an L1 table of more than %d bytes with clusters of %d bytes", r.size, maxL1Bytes, g.ClusterSize())
	case g.Version < 3 && r.size > r.old && r.e.img.unopenedBacking() != nil:
		return &RefError{Ref: *r.e.img.backingRef} // zero clusters could hide it, were there any
	}
	list, err := r.e.img.Snapshots()
	if err != nil {
		return err
	}
	for i := range list {
		if len(list[i].ExtraData) < 16 {
			return &UnsupportedError{Feature: fmt.Sprintf("resizing a disk with snapshot %.100q, which does not record the size it has", list[i].Name)}
		}
	}
	return nil
}

// shown is the end of what a backing file shows.
func (r *resizer) shown() int64 {
	switch {
	case r.e.img.backingRef == nil:
		return 0
	case r.e.img.backing == nil:
		return math.MaxInt64
	}
	return r.e.img.backing.Size()
}

// grow has the new part read as zero before the header says that it is there.
func (r *resizer) grow() error {
	if err := r.moveL1(); err != nil {
		return fmt.Errorf("making the L1 table longer: %w", err)
	}
	r.g.limit = r.size
	shown := r.shown()
	if err := r.clearTail(r.old, shown <= r.old); err != nil {
		return err
	}
	if err := r.clear(r.roundUp(r.old), r.roundUp(r.size), shown); err != nil {
		return err
	}
	if err := r.g.Flush(); err != nil {
		return fmt.Errorf("clearing the new part of the disk: %w", err)
	}
	if err := r.growData(); err != nil {
		return fmt.Errorf("making the data file longer: %w", err)
	}
	return r.link()
}

// shrink changes the header first: until then all is there, and what lies behind the
// end afterwards is nobody's.
func (r *resizer) shrink() error {
	if r.size < r.old {
		if err := r.link(); err != nil {
			return err
		}
	}
	r.g.limit = max(r.old, r.size)
	if err := r.clearTail(r.size, true); err != nil {
		return err
	}
	g := r.e.img.geometry
	if err := r.clear(r.roundUp(r.size), int64(r.e.img.header.L1Size)*g.l2Coverage(), 0); err != nil {
		return err
	}
	if err := r.g.Flush(); err != nil {
		return fmt.Errorf("giving back what was cut off: %w", err)
	}
	if err := r.g.s.trim(); err != nil {
		r.e.failed = err
		return fmt.Errorf("cutting the file: %w", err)
	}
	return r.cutData()
}

func (r *resizer) roundUp(off int64) int64 { return alignUp(off, r.e.img.geometry.ClusterSize()) }

// clearTail has the cluster in which the disk ends hold zeros from off on. What is
// absent and shows nothing can stay so.
func (r *resizer) clearTail(off int64, absentStays bool) error {
	size := r.e.img.geometry.ClusterSize()
	from := off & (size - 1)
	if from == 0 {
		return nil
	}
	to := size
	if r.e.img.dataFile != nil {
		to = min(to, r.g.limit-(off-from))
	}
	w := r.g.pending(off / size)
	w.absentStays = absentStays
	w.add(segment{from, to, -1})
	return nil
}

// clear has [from, to) read as zero where the backing file shows something, and be
// absent where it does not: tables may hold anything behind the end of a disk.
func (r *resizer) clear(from, to, shown int64) error {
	g := r.e.img.geometry
	for off := from; off < to; {
		end := min(to, (off/g.l2Coverage()+1)*g.l2Coverage())
		l2, err := r.g.disk.l2Table(off / g.l2Coverage())
		if err != nil {
			return err
		}
		switch stop := end; {
		case l2 != 0 && end-off == g.l2Coverage() && off >= shown:
			r.g.pending(off >> g.ClusterBits).reset(baseDropTable)
		case l2 == 0:
			stop = min(end, shown)
			fallthrough
		default:
			if err := r.clearClusters(off, stop, shown); err != nil {
				return err
			}
		}
		off = end
	}
	return nil
}

func (r *resizer) clearClusters(off, end, shown int64) error {
	size := r.e.img.geometry.ClusterSize()
	for ; off < end; off += size {
		b := baseDrop
		if off < shown {
			b = baseZero
		}
		r.g.pending(off / size).reset(b)
		if len(r.g.works) >= batchClusters {
			if err := r.g.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// moveL1 makes a longer L1 table, where the disk needs one: four phases, and the link
// is the header's first sector.
func (r *resizer) moveL1() error {
	h := &r.e.img.header
	need := r.e.img.geometry.l1EntriesFor(uint64(r.size))
	if need <= uint64(h.L1Size) {
		return nil
	}
	s := r.g.s
	b := &batch{g: r.g, s: s}
	table := make([]byte, s.clusters(int64(need)*8)<<h.ClusterBits)
	if err := readFull(s.f, table[:int64(h.L1Size)*8], h.L1TableOffset); err != nil {
		return err
	}
	host, err := s.alloc.allocate(s.clusters(int64(need) * 8))
	if err != nil {
		return err
	}
	refTable, clusters, err := s.alloc.growTable()
	if err != nil {
		return err
	}
	if r.e.failed = r.writeL1(table, host, uint32(need), refTable, clusters); r.e.failed != nil {
		return r.e.failed
	}
	for at := range s.clusters(int64(need) * 8) {
		b.adopted = append(b.adopted, host+HostOffset(at<<h.ClusterBits))
	}
	b.gone = []hostRange{{h.L1TableOffset, int64(h.L1Size) * 8}}
	if err := b.adopt(); err != nil {
		return err
	}
	if r.e.failed = b.release(); r.e.failed != nil {
		return r.e.failed
	}
	return r.g.renew()
}

// writeL1 is all but the release.
func (r *resizer) writeL1(table []byte, host HostOffset, need uint32, refTable HostOffset, clusters int64) error {
	s := r.g.s
	for _, phase := range []func() error{
		func() error { return s.allocate(refTable, clusters) },
		func() error { return s.write(host, table) },
		s.extend,
		s.f.Sync,
	} {
		if err := phase(); err != nil {
			s.giveBack()
			return err
		}
	}
	err := s.writeSector(func(sector []byte) {
		binary.BigEndian.PutUint32(sector[36:], need)
		binary.BigEndian.PutUint64(sector[40:], uint64(host))
		clearUnknownAutoclear(sector)
	})
	if err != nil {
		return err
	}
	return s.f.Sync()
}

// growData has a raw data file read as the new disk does.
func (r *resizer) growData() error {
	if ref := r.e.img.dataFile; ref == nil || !ref.Raw {
		return nil
	}
	f := r.opts.DataFile
	zeros := make([]byte, 1<<20)
	for off := r.old; off < min(r.opts.DataSize, r.size); off += int64(len(zeros)) {
		if err := writeFull(f, zeros[:min(int64(len(zeros)), min(r.opts.DataSize, r.size)-off)], HostOffset(off)); err != nil {
			return err
		}
	}
	if r.opts.DataSize < r.size {
		if err := f.Truncate(r.size); err != nil {
			return err
		}
	}
	return f.Sync()
}

// cutData makes a raw data file as short as the disk.
func (r *resizer) cutData() error {
	if ref := r.e.img.dataFile; ref == nil || !ref.Raw || r.size == r.old {
		return nil
	}
	if err := r.opts.DataFile.Truncate(r.size); err != nil {
		return fmt.Errorf("cutting the data file: %w", err)
	}
	return r.opts.DataFile.Sync()
}
