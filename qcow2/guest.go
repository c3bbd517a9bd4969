package qcow2

import (
	"errors"
	"fmt"

	"github.com/qbitkit/qbit/bitmap"
)

// GuestOptions says how the guest's bytes are to be changed. The zero value is safe;
// nil is the same.
type GuestOptions struct {
	// DataFile is the image's external data file, opened for writing, and DataSize
	// its size in bytes. Without it an image that has one is refused.
	DataFile File
	DataSize int64

	// NeverInPlace has every changed cluster written anew, so that a crash leaves each
	// cluster as it was or as it is to be. Otherwise clusters that belong to the active
	// disk alone are overwritten, and a crash leaves each sector of 512 bytes of what
	// was being written old or new. Images with an external data file have no choice.
	NeverInPlace bool

	// Changes is what will be changed, as far as it is known, of any granularity and
	// of the disk's size. It is marked in all recording bitmaps before the first
	// change, in one transaction, and not kept. What is changed and was not marked
	// is marked by its batch, which costs a transaction each time.
	Changes *bitmap.Bitmap
}

// A Guest changes the guest's bytes of an image in place: those of the active disk.
// Internal snapshots stay as they are.
//
// Changes are collected into batches, of up to 16 MiB of data, and a batch is written
// in four phases, with a sync behind each: docs/crash-safety.md. A crash leaves each
// sector (with NeverInPlace: each cluster) of a batch old or new, all earlier batches
// whole, and at most leaks. Before a batch is written, every bitmap that records is
// marked dirty, in the file, for all that the batch changes.
//
// A Guest belongs to one goroutine, as its Editor does, whose other methods that
// write must not be called before Close. What Editor.Image reads is the disk as the
// last batch left it; it must not be read while a method of the Guest runs.
type Guest struct {
	e    *Editor
	s    *session
	opts GuestOptions

	recording []recorder
	disk      *view // reads what is there
	limit     int64 // bytes of the disk that count
	dataSize  int64 // of the data file
	works     []work
	at        map[int64]int // of works, by guest cluster
	data      []byte        // what the pending works write
	marks     bool          // bitmaps are to be marked
	failed    error
}

// Bounds of a batch.
const (
	batchBytes    = 16 << 20 // of data, and of L2 tables
	batchClusters = 1 << 17
)

// Guest opens the guest's bytes for changing. It follows every reference in the image
// once, and writes nothing but the marks that GuestOptions.Changes asks for.
//
// Errors: *UnsupportedError for an encrypted image and for bitmaps that record and
// cannot be understood, *RefError for an external data file that is not in the
// options, *FormatError for bitmaps that are broken (but not stale) and for an image
// that is too broken for anything to be allocated safely.
func (e *Editor) Guest(opts *GuestOptions) (*Guest, error) {
	if opts == nil {
		opts = &GuestOptions{}
	}
	if err := e.ready(); err != nil {
		return nil, err
	}
	g, err := e.newGuest(*opts)
	if err != nil {
		return nil, err
	}
	if err := g.loadRecording(); err != nil {
		return nil, err
	}
	if opts.Changes != nil {
		if err := g.markAll(opts.Changes); err != nil {
			return nil, err
		}
	}
	g.opts.Changes, g.marks = nil, true
	e.guest = g
	return g, nil
}

// newGuest is a Guest that marks no bitmaps.
func (e *Editor) newGuest(opts GuestOptions) (*Guest, error) {
	img := e.img
	switch {
	case img.header.CryptMethod != CryptNone:
		return nil, &UnsupportedError{Feature: "writing to a disk with " + img.Encryption() + " encryption"}
	case img.dataFile != nil && opts.DataFile == nil:
		return nil, &RefError{Ref: *img.dataFile}
	}
	g := &Guest{e: e, opts: opts, dataSize: opts.DataSize, at: map[int64]int{}}
	var err error
	if g.s, err = newSession(e.f, img, true); err != nil {
		return nil, err
	}
	if err := g.surveyBitmaps(); err != nil {
		return nil, err
	}
	g.view()
	return g, g.checkL1()
}

// view is what reads the disk, through the data file that is written.
func (g *Guest) view() {
	img := g.e.img
	if img.dataFile != nil {
		own := *img
		own.storage, own.storageSize = g.opts.DataFile, g.dataSize
		img = &own
	}
	g.disk = &view{img: img, l1: img.active.l1, l1Size: img.active.l1Size, size: img.active.size}
	g.limit = img.active.size
}

// checkL1 refuses an L1 table that something else refers to: its entries are written
// in place.
func (g *Guest) checkL1() error {
	h := &g.e.img.header
	size := g.e.img.geometry.ClusterSize()
	for at := int64(h.L1TableOffset); at < int64(h.L1TableOffset)+int64(h.L1Size)*8; at += size {
		if c := at / size; g.s.x.refsTo(c) != 1 || g.s.kept.Test(at) || g.s.x.refs.Test(at) {
			return headerError("l1_table_offset", 40, uint64(h.L1TableOffset), "the L1 table shares a cluster with something else, and cannot be written")
		}
	}
	return nil
}

// WriteAt writes guest bytes, which must lie in the disk. It implements io.WriterAt
// but for this: an error may be that of an earlier call, whose bytes were in the same
// batch; after an error nothing more is written. The bytes are p's: it can be used
// again at once. A cluster of which only a part is written and which is absent here
// takes the rest from the backing file: a *RefError where that is not open.
func (g *Guest) WriteAt(p []byte, off int64) (int, error) {
	if err := g.ready(off, int64(len(p))); err != nil {
		return 0, err
	}
	done := 0
	for done < len(p) {
		n := min(len(p)-done, batchBytes-len(g.data))
		g.write(p[done:done+n], off+int64(done))
		done += n
		if len(g.data) == batchBytes || len(g.works) >= batchClusters {
			if err := g.Flush(); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

// ready reports what forbids a change of n bytes at off.
func (g *Guest) ready(off, n int64) error {
	if g.failed != nil {
		return fmt.Errorf("an earlier change failed: %w", g.failed)
	}
	if g.s == nil {
		return errors.New("the guest was closed")
	}
	if off < 0 || n < 0 || off > g.limit || n > g.limit-off {
		return fmt.Errorf("writing %d bytes at %d, outside of the disk (%d bytes)", n, off, g.limit)
	}
	return nil
}

// Zero makes n bytes at off read as zero. Whole clusters become zero clusters, which
// give their space back and hide a backing file; in version 2, which has none, they
// become absent, or zeros are written where there is a backing file. In a raw data
// file zeros are written.
func (g *Guest) Zero(off, n int64) error { return g.span(off, n, baseZero) }

// Discard gives back the clusters that lie in [off, off+n) whole; other bytes stay.
// As in QEMU, what was allocated reads as zero afterwards, and so does what is absent
// over a backing file; what is absent in an image without one stays so. In version 2
// clusters become absent, or stay as they are over a backing file.
func (g *Guest) Discard(off, n int64) error { return g.span(off, n, baseDiscard) }

// Flush writes what was collected. After it all changes are on the disk.
func (g *Guest) Flush() error {
	if g.failed != nil {
		return fmt.Errorf("an earlier change failed: %w", g.failed)
	}
	if g.failed = g.flush(); g.failed != nil {
		g.works, g.data = nil, nil
	}
	return g.failed
}

// Close is Flush, and ends the Guest; the Editor can be used again, unless it failed.
func (g *Guest) Close() error {
	if g.s == nil {
		return g.failed
	}
	err := g.failed
	if err == nil {
		err = g.Flush()
	}
	size := g.s.alloc.size
	if g.e.failed == nil {
		if syncErr := g.s.f.Sync(); syncErr != nil {
			g.e.failed = syncErr
			err = errors.Join(err, syncErr)
		}
	}
	g.s, g.e.guest = nil, nil
	if g.e.failed != nil {
		return err
	}
	return errors.Join(err, g.e.changed(size))
}
