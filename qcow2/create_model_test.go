package qcow2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// A writerModel is the truth about a disk: the bytes, and the state of each cluster.
type writerModel struct {
	layout  Layout // with what the Writer makes of it
	bytes   []byte
	state   []modelState
	bitmaps []modelBits
}

type modelBits struct {
	name string
	auto bool
	bits *bitmap.Bitmap
}

type modelState uint8

const (
	modelAbsent modelState = iota
	modelZero
	modelData
	modelPacked // or data, where it did not shrink
)

func newWriterModel(c *layoutTrial) *writerModel {
	l := c.layout
	l.setDefaults()
	m := &writerModel{layout: l, bytes: make([]byte, l.Size), state: make([]modelState, (l.Size+l.ClusterSize-1)/l.ClusterSize)}
	if l.Preallocation != PreallocationOff && !l.ExtendedL2 || c.raw {
		for i := range m.state {
			m.state[i] = modelData
		}
	}
	return m
}

// clusters yields the clusters that a range touches.
func (m *writerModel) clusters(off, n int64) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		for i := off / m.layout.ClusterSize; n > 0 && i*m.layout.ClusterSize < off+n && yield(i); i++ {
		}
	}
}

// canChange reports that no cluster of the range is compressed.
func (m *writerModel) canChange(off, n int64) bool {
	for i := range m.clusters(off, n) {
		if m.state[i] == modelPacked {
			return false
		}
	}
	return true
}

func (m *writerModel) write(p []byte, off int64) {
	copy(m.bytes[off:], p)
	for i := range m.clusters(off, int64(len(p))) {
		m.state[i] = modelData
	}
}

func (m *writerModel) zero(off, n int64) {
	if !m.layout.Sparse {
		return
	}
	clear(m.bytes[off : off+n])
	for i := range m.clusters(off, n) {
		switch {
		case m.state[i] != modelAbsent:
		case m.layout.Version == 2:
			m.state[i] = modelData
		default:
			m.state[i] = modelZero
		}
	}
}

func (m *writerModel) compress(p []byte, off int64) {
	copy(m.bytes[off:], p)
	for i := range m.clusters(off, int64(len(p))) {
		start := i * m.layout.ClusterSize
		zero := isZero(m.bytes[start:min(start+m.layout.ClusterSize, m.layout.Size)])
		switch {
		case m.state[i] == modelData:
		case !zero:
			m.state[i] = modelPacked
		case !m.layout.Sparse || m.state[i] == modelZero:
		case m.layout.Version == 2:
			m.state[i] = modelData
		default:
			m.state[i] = modelZero
		}
	}
}

// A memoryDisk is a data file as the reader wants it.
type memoryDisk struct {
	io.ReaderAt
	size int64
}

func (d memoryDisk) Size() int64 { return d.size }
func (d memoryDisk) Extents(off, n int64) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		yield(Extent{Off: off, Len: n, Kind: Data, Storage: d.ReaderAt, Host: HostOffset(off), HasHost: true}, nil)
	}
}

// check opens an image and compares it with the model.
func (m *writerModel) check(r io.ReaderAt, size int64, data *crash.File) error {
	img, err := Open(r, size, &Options{OpenRef: func(ref Ref) (Disk, error) {
		if ref.Kind == RefData {
			return memoryDisk{data, data.Size()}, nil
		}
		return nil, nil
	}})
	if err != nil {
		return err
	}
	if err := m.checkHeader(img); err != nil {
		return err
	}
	if err := m.checkClusters(img); err != nil {
		return err
	}
	if data != nil && data.Size() != m.layout.Size {
		return fmt.Errorf("the data file has %d bytes, the disk %d", data.Size(), m.layout.Size)
	}
	return m.checkBitmaps(img)
}

func (m *writerModel) checkHeader(img *Image) error {
	h, l := img.Header(), &m.layout
	if int(h.Version) != l.Version || img.Geometry().RefcountBits() != l.RefcountBits || img.Size() != l.Size ||
		img.Geometry().ExtendedL2 != l.ExtendedL2 || img.LazyRefcounts() != l.LazyRefcounts || h.CompressionType != l.Compression {
		return fmt.Errorf("the header is %+v", h)
	}
	ref := img.Backing()
	if (ref == nil) != (l.Backing == nil) || ref != nil && *ref != *l.Backing {
		return fmt.Errorf("the backing file is %+v", ref)
	}
	for i, e := range img.Extensions() {
		if e.Type == ExtBitmaps && (i != 0 || e.Host+32 > atomicUnit) {
			return fmt.Errorf("the bitmaps extension stands at %s", e.Host)
		}
	}
	return nil
}

func (m *writerModel) checkClusters(img *Image) error {
	at := int64(0)
	got := make([]byte, m.layout.ClusterSize)
	for e, err := range img.Extents(0, m.layout.Size) {
		if err != nil {
			return err
		}
		for ; at < e.End(); at += m.layout.ClusterSize {
			i := at / m.layout.ClusterSize
			want := m.bytes[at:min(at+m.layout.ClusterSize, m.layout.Size)]
			if !m.state[i].matches(e.Kind) {
				return fmt.Errorf("cluster %d is %v, want %v", i, e.Kind, m.state[i])
			}
			if e.Kind == Absent {
				continue
			}
			n, err := img.ReadAt(got[:len(want)], at)
			if n < len(want) {
				return fmt.Errorf("cluster %d: %w", i, err)
			}
			if !bytes.Equal(got[:n], want) {
				return fmt.Errorf("cluster %d holds other bytes", i)
			}
		}
	}
	return nil
}

func (s modelState) matches(k Kind) bool {
	switch s {
	case modelZero:
		return k == Zero
	case modelData:
		return k == Data
	case modelPacked:
		return k == Compressed || k == Data
	}
	return k == Absent
}

func (m *writerModel) checkBitmaps(img *Image) error {
	list, err := img.Bitmaps()
	if err != nil || len(list) != len(m.bitmaps) {
		return fmt.Errorf("%d bitmaps, want %d; %v", len(list), len(m.bitmaps), err)
	}
	for i, want := range m.bitmaps {
		got, err := img.LoadBitmap(want.name)
		if err != nil {
			return err
		}
		if !got.Equal(want.bits) || list[i].Auto != want.auto {
			return fmt.Errorf("bitmap %q is another one", want.name)
		}
	}
	return nil
}

// checkSound has every reference followed, by a reader that knows nothing of this
// package and by Check: nothing may be wrong, and nothing may leak.
func checkSound(r io.ReaderAt, size int64) error {
	a, err := build.AuditFile(r, size)
	if err != nil {
		return err
	}
	if len(a.Problems) > 0 || a.Leaks > 0 {
		return fmt.Errorf("the audit finds %q and %d leaks", a.Problems, a.Leaks)
	}
	if n := len(a.Clusters); n == 0 || a.Clusters[n-1].Count == 0 {
		return fmt.Errorf("the last of %d clusters is not used", n)
	}
	img, err := Open(r, size, nil)
	if err != nil {
		return err
	}
	_, err = img.Check(context.Background(), nil, func(f Finding) error { return fmt.Errorf("the check finds %v", f) })
	return err
}

// Images of every layout, made by random operations, read as the model says: kinds
// of clusters, bytes, and bitmaps; and every refcount is right.
func TestWriterModel(t *testing.T) {
	rounds := 12
	if os.Getenv("QBIT_FULL") != "" {
		rounds = 150
	}
	for _, c := range layoutTrials() {
		t.Run(c.name, func(t *testing.T) {
			for round := range rounds {
				rng := rand.New(rand.NewPCG(7, uint64(round)))
				m := newWriterModel(&c)
				ops := c.operations(rng, m, rng.IntN(60))
				c.addBitmaps(rng, m)
				f, data := &spaceFile{File: crash.New(nil)}, crash.New([]byte("old"))
				if err, closeErr := c.makeLayout(f, data, m, ops, false); err != nil || closeErr != nil {
					t.Fatal(round, err, closeErr)
				}
				if !c.dataFile {
					data = nil
				}
				if err := errors.Join(m.check(f, f.Size(), data), checkSound(f, f.Size())); err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
				if want := m.layout.Preallocation == PreallocationFalloc; want != (f.asked > m.layout.Size-1) {
					t.Errorf("%d bytes were set aside", f.asked)
				}
			}
		})
	}
}

// Several goroutines that write, zero and compress neighbouring clusters do not
// come into each other's way.
func TestWriterGoroutines(t *testing.T) {
	for _, c := range layoutTrials() {
		t.Run(c.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(8, 8))
			m := newWriterModel(&c)
			l := c.layout
			f, data := &spaceFile{File: crash.New(nil)}, crash.New(nil)
			if c.dataFile {
				l.DataFile = &DataFileLayout{File: data, Name: c.dataName, Raw: c.raw}
			} else {
				data = nil
			}
			w, err := Create(f, l)
			if err != nil {
				t.Fatal(err)
			}
			w.budget = 2 * l.ClusterSize
			runOperations(t, w, disjoint(c.operations(rng, m, 400), m))
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(m.check(f, f.Size(), data), checkSound(f, f.Size())); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// disjoint sorts operations into eight lists that touch different eighths of the
// disk, and leaves out those that touch two; the model is done anew with the rest.
func disjoint(ops []writerOp, m *writerModel) [8][]writerOp {
	fresh := newWriterModel(&layoutTrial{layout: m.layout, raw: m.state[0] == modelData && !m.layout.Sparse && m.layout.ExtendedL2})
	var lists [8][]writerOp
	eighth := (int64(len(m.state))/8 + 1) * m.layout.ClusterSize
	for _, o := range ops {
		if o.off/eighth != (o.off+o.n-1)/eighth || !fresh.canChange(o.off, o.n) {
			continue
		}
		lists[o.off/eighth] = append(lists[o.off/eighth], o)
		switch o.kind {
		case 'w':
			fresh.write(o.data, o.off)
		case 'z':
			fresh.zero(o.off, o.n)
		case 'c':
			fresh.compress(o.data, o.off)
		}
	}
	m.bytes, m.state = fresh.bytes, fresh.state
	return lists
}

func runOperations(t *testing.T, w *Writer, lists [8][]writerOp) {
	var wg sync.WaitGroup
	for _, list := range slices.All(lists[:]) {
		wg.Go(func() {
			for _, o := range list {
				if err := o.do(w); err != nil {
					t.Errorf("%c at %d, %d bytes: %v", o.kind, o.off, o.n, err)
				}
			}
		})
	}
	wg.Wait()
}
