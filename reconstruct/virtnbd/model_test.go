package virtnbd

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/streams"
)

// A model is a disk, byte by byte.
type model struct {
	content []byte
	kind    []qcow2.Kind
}

// randomStream makes a stream of random frames, and what it should be.
func randomStream(r *rand.Rand, compressed bool) ([]byte, model) {
	size := 1 + r.Int64N(400000)
	m := model{make([]byte, size), make([]qcow2.Kind, size)}
	frames, data := cutDisk(r, size)
	meta := streams.Meta{VirtualSize: size, DataSize: data}
	if compressed {
		meta.Compressed = 1
	}
	w := streams.New(meta)
	for _, f := range frames {
		m.write(r, w, f, compressed)
	}
	w.Stop()
	if compressed && r.IntN(2) == 0 {
		w.Trailer()
	}
	return w.Bytes(), m
}

type randomFrame struct {
	off, len int64
	zero     bool
}

// cutDisk cuts a disk into frames and gaps, most of them in order.
func cutDisk(r *rand.Rand, size int64) (frames []randomFrame, data int64) {
	for off := int64(0); off < size; {
		n := min(size-off, r.Int64N(1<<(1+r.IntN(18))))
		if kind := r.IntN(4); kind > 0 {
			frames = append(frames, randomFrame{off, n, kind == 1})
			if kind > 1 {
				data += n
			}
		}
		off += n
	}
	if r.IntN(3) == 0 {
		r.Shuffle(len(frames), func(i, j int) { frames[i], frames[j] = frames[j], frames[i] })
	}
	return frames, data
}

func (m *model) write(r *rand.Rand, w *streams.Writer, f randomFrame, compressed bool) {
	kind := qcow2.Data
	switch {
	case f.zero:
		kind = qcow2.Zero
		w.Zero(f.off, f.len)
	case compressed:
		kind = qcow2.Compressed
		p := text(r.Uint64(), int(f.len))
		copy(m.content[f.off:], p)
		form := streams.Form{Independent: r.IntN(2) == 0, NoSize: r.IntN(3) == 0, NoBlockSum: r.IntN(3) == 0,
			NoContentSum: r.IntN(3) == 0, Stored: r.IntN(5) == 0, BlockBits: 16 + 2*r.IntN(2)}
		w.LZ4(f.off, p, r.IntN(2)*(1+r.IntN(1+int(f.len))), form)
	default:
		p := text(r.Uint64(), int(f.len))
		copy(m.content[f.off:], p)
		w.Data(f.off, p)
	}
	for i := range f.len {
		m.kind[f.off+i] = kind
	}
}

// check compares walks and reads of random ranges with the model.
func (m *model) check(t *testing.T, r *rand.Rand, s *Stream) {
	size := int64(len(m.content))
	for range 12 {
		off := r.Int64N(size + 1)
		n := r.Int64N(size - off + 1)
		m.checkWalk(t, s, off, n)
		p := make([]byte, n)
		if got, err := s.ReadAt(p, off); n > 0 && off < size && (int64(got) != n || err != nil) || !bytes.Equal(p, m.content[off:off+n]) {
			t.Fatalf("read of [%d, +%d): %d, %v", off, n, got, err)
		}
	}
}

func (m *model) checkWalk(t *testing.T, s *Stream, off, n int64) {
	pos := off
	var last qcow2.Extent
	for e, err := range s.Extents(off, n) {
		if err != nil || e.Off != pos || e.Len <= 0 || e.End() > off+n {
			t.Fatalf("walk of [%d, +%d): %+v, %v at %d", off, n, e, err, pos)
		}
		if e.Kind == last.Kind && last.Len > 0 && e.Kind != qcow2.Data {
			t.Fatalf("%+v and %+v could be one", last, e)
		}
		for i := e.Off; i < e.End(); i++ {
			if m.kind[i] != e.Kind {
				t.Fatalf("%+v: byte %d is %v", e, i, m.kind[i])
			}
		}
		if e.Kind == qcow2.Data {
			p := make([]byte, e.Len)
			if _, err := e.Storage.ReadAt(p, int64(e.Host)); err != nil || !bytes.Equal(p, m.content[e.Off:e.End()]) {
				t.Fatalf("%+v: its storage holds other bytes: %v", e, err)
			}
		}
		pos, last = e.End(), e
	}
	if pos != off+n {
		t.Fatalf("walk of [%d, +%d) ends at %d", off, n, pos)
	}
}

func TestModel(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 7))
			file, m := randomStream(r, seed%3 > 0)
			s := open(t, file, nil)
			m.check(t, r, s)
			verify(t, s, file)
			if err := s.Verify(context.Background(), nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// Every cut of a stream is refused, or, within the trailer, found by Verify.
func TestModelCut(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 8))
		file, _ := randomStream(r, seed%2 > 0)
		for range 300 {
			cut := r.IntN(len(file))
			s, err := Open(bytes.NewReader(file), int64(cut), nil)
			if err == nil && (int64(cut) < s.end || int64(cut) > s.end && s.Verify(context.Background(), nil) == nil) {
				t.Fatalf("seed %d: cut at %d of %d was not noticed", seed, cut, len(file))
			}
		}
	}
}
