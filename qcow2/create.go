package qcow2

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// A Writer fills a new image. Clusters that are never written stay as Create left
// them: unallocated, which reads as zero or, with a backing file, as what it holds.
//
// WriteAt, WriteCompressed, Zero and Place may be called from several goroutines
// for ranges that do not overlap. Its memory is bounded: the L1 table (32 MiB at
// the most), the refcount table (8 MiB), 16 MiB of L2 tables, a few refcount
// blocks, two clusters for each goroutine that compresses, and the bitmaps.
type Writer struct {
	f        File
	data     File // of guest bytes: f, or the external data file
	layout   Layout
	geometry Geometry
	size     int64
	budget   int64 // bytes of L2 tables
	encoders encoderPool

	mu      sync.Mutex // guards all below; never held while guest bytes are written
	next    HostOffset // the next free cluster
	refs    newRefcounts
	packed  packer
	l1      []uint64
	tables  map[int64]*newTable
	order   []int64 // of tables, oldest first
	bitmaps *Tx
	err     error // the first failure, or errWriterClosed: nothing is done after it
}

// errWriterClosed is what a Writer answers after Close.
var errWriterClosed = errors.New("the image is finished already")

// Create begins an image in f, which should be empty: what it holds is cut away,
// and so is what an external data file holds. The magic is written by Close, so
// until then f is no qcow2 image. A layout that cannot be is an error that leaves
// the files alone.
func Create(f File, l Layout) (*Writer, error) {
	w, err := newWriter(f, l)
	if err != nil {
		return nil, err
	}
	if err := w.begin(); err != nil {
		return nil, err
	}
	return w, nil
}

// newWriter checks the layout.
func newWriter(f File, l Layout) (*Writer, error) {
	w, err := l.plan()
	if err != nil {
		return nil, err
	}
	w.f, w.data = f, f
	if d := w.layout.DataFile; d != nil {
		if w.data = d.File; d.File == nil {
			return nil, errors.New("an external data file is asked for, and no file is given for it")
		}
	}
	w.refs.geometry = w.geometry
	w.tables = map[int64]*newTable{}
	w.l1 = make([]uint64, w.l1Size())
	w.bitmaps = &Tx{img: &Image{header: *w.header(), geometry: w.geometry, active: view{size: w.size}}}
	return w, nil
}

// l1Size is the number of entries of the L1 table.
func (w *Writer) l1Size() uint64 { return w.geometry.l1EntriesFor(uint64(w.size)) }

// begin empties the files. The header of an older image must be gone before
// anything else is written, its data file too.
func (w *Writer) begin() error {
	if err := w.f.Truncate(0); err != nil {
		return err
	}
	if err := w.f.Sync(); err != nil {
		return err
	}
	if _, err := w.allocate(1); err != nil { // for the header
		return err
	}
	if w.layout.DataFile != nil {
		for _, size := range []int64{0, w.size} {
			if err := w.data.Truncate(size); err != nil {
				return fmt.Errorf("the external data file: %w", err)
			}
		}
	}
	return w.preallocate()
}

// WriteAt writes guest bytes. A cluster that is written in part reads as zero
// elsewhere. After an error of the file every later call, and Close, is an error.
// A cluster that WriteCompressed has written cannot be written again.
func (w *Writer) WriteAt(p []byte, off int64) (int, error) {
	if err := w.checkRange("writing", off, int64(len(p))); err != nil {
		return 0, err
	}
	n, err := w.write(p, off)
	if err != nil {
		w.fail(err)
	}
	return n, err
}

// checkRange checks that a range lies in the disk.
func (w *Writer) checkRange(doing string, off, n int64) error {
	if off < 0 || n < 0 || off > w.size || n > w.size-off {
		return fmt.Errorf("%s [%d, +%d): outside of the disk (%d bytes)", doing, off, n, w.size)
	}
	return nil
}

// fail keeps the first failure.
func (w *Writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = fmt.Errorf("an earlier write failed: %w", err)
	}
}

// write writes p, which lies in the disk.
func (w *Writer) write(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		host, n, err := w.place(off+int64(done), int64(len(p)-done))
		if err != nil {
			return done, err
		}
		m, err := w.data.WriteAt(p[done:done+int(n)], int64(host))
		done += m
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// Close finishes the image: bitmaps, tables and refcounts first, then, after a
// sync, the magic. It does not close the files. After an error f holds no image;
// or, where only the last sync failed, perhaps the whole one.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.err = w.finish()
	if w.err != nil {
		return w.err
	}
	w.err = errWriterClosed
	return nil
}

// finish writes all that is not yet in the file.
func (w *Writer) finish() error {
	w.packed.giveBack(w)
	for _, index := range w.order {
		if err := w.writeWords(w.tables[index].host, w.tables[index].entries); err != nil {
			return err
		}
	}
	h := w.header()
	directory, err := w.writeBitmaps()
	if err != nil {
		return err
	}
	if err := w.writeL1(h); err != nil {
		return err
	}
	if err := w.writeRefcounts(h); err != nil {
		return err
	}
	if err := w.f.Truncate(int64(w.next)); err != nil {
		return err
	}
	return w.link(h, directory)
}

// magicLength is what makes a file an image: magic and version, in one sector.
const magicLength = 8

// link writes the first cluster without the magic, syncs it and all else, and then
// writes the magic: until then the file is no image, however long the header is and
// wherever a write of it fails.
func (w *Writer) link(h *Header, bitmaps []byte) error {
	first, err := w.firstCluster(h, bitmaps)
	if err != nil {
		return err
	}
	if err := writeFull(w.f, first[magicLength:], magicLength); err != nil {
		return err
	}
	if w.layout.DataFile != nil {
		if err := w.data.Sync(); err != nil {
			return fmt.Errorf("the external data file: %w", err)
		}
	}
	if err := w.f.Sync(); err != nil {
		return err
	}
	if err := writeFull(w.f, first[:magicLength], 0); err != nil {
		return err
	}
	return w.f.Sync()
}

var _ io.WriterAt = (*Writer)(nil)
