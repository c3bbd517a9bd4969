package virtnbd

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/qbitkit/qbit/testimages/streams"
)

// bigStream is a stream of LZ4 frames of frame bytes each, in one data frame, and
// its disk.
func bigStream(size, frame int, form streams.Form) ([]byte, []byte) {
	disk := bytes.Repeat(text(9, 777777), size/777777+1)[:size]
	w := packed(int64(size), int64(size))
	w.LZ4(0, disk, frame, form)
	w.Stop()
	return w.Bytes(), disk
}

// ascend reads the disk in pieces, upwards, in several goroutines, as the copy
// engine does.
func ascend(t testing.TB, s *Stream, piece int64, workers int, disk []byte) {
	t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			p := make([]byte, piece)
			for {
				off := next.Add(piece) - piece
				if off >= s.Size() {
					return
				}
				p := p[:min(piece, s.Size()-off)]
				if n, err := s.ReadAt(p, off); n < len(p) || err != nil {
					t.Errorf("read at %d: %d, %v", off, n, err)
					return
				}
				if disk != nil && !bytes.Equal(p, disk[off:off+int64(len(p))]) {
					t.Errorf("read at %d: other bytes", off)
				}
			}
		})
	}
	wg.Wait()
}

// In a copy nothing is decoded twice, and memory stays in its bounds.
func TestAscending(t *testing.T) {
	const size = 12 << 20
	for _, tt := range []struct {
		frame, piece, memory int64
		form                 streams.Form
	}{
		{4 << 20, 4 << 20, 0, streams.Form{}},
		{4<<20 - 4096, 512 << 10, 0, streams.Form{Stored: true}},
		{5<<20 - 12345, 4 << 20, 12 << 20, streams.Form{NoBlockSum: true}},
		{3 << 20, 512 << 10, 6 << 20, streams.Form{BlockBits: 18, Stored: true}},
		{size, 1 << 20, 8 << 20, streams.Form{}},                                // larger than the memory
		{2 << 20, 512 << 10, 7 << 20, streams.Form{NoSize: true, Stored: true}}, // one entry of 12 MiB
	} {
		file, disk := bigStream(size, int(tt.frame), tt.form)
		for _, workers := range []int{1, 2, 5} {
			t.Run(fmt.Sprintf("frames of %d, pieces of %d, memory %d, %d workers", tt.frame, tt.piece, tt.memory, workers), func(t *testing.T) {
				s := open(t, file, &Options{Memory: tt.memory})
				ascend(t, s, tt.piece, workers, disk)
				if s.cache.decoded > size {
					t.Errorf("%d bytes were decoded of %d", s.cache.decoded, size)
				}
				if n := int64(len(s.cache.segs)); tt.memory > 0 && n > tt.memory>>20+int64(workers) {
					t.Errorf("%d segments", n)
				}
				idle(t, s)
			})
		}
	}
}

// idle checks that the cache holds on to nothing but segments.
func idle(t *testing.T, s *Stream) {
	t.Helper()
	c := s.cache
	kept := 0
	for number, u := range c.open {
		kept += len(u.segs)
		if u.users != 0 || len(u.segs) == 0 || u.dec.t.buf != nil {
			t.Errorf("entry %d: %d users, %d segments", number, u.users, len(u.segs))
		}
	}
	for _, g := range c.segs {
		if g.pins != 0 {
			t.Errorf("a segment is held %d times", g.pins)
		}
		if g.unit == nil {
			kept++
		}
	}
	if kept != len(c.segs) {
		t.Errorf("%d segments of %d are accounted for", kept, len(c.segs))
	}
}

// Readers at random places, with little memory, read what there is.
func TestRandomReaders(t *testing.T) {
	const size = 8 << 20
	for _, form := range []streams.Form{{}, {NoSize: true, Stored: true}, {BlockBits: 20, Independent: true}} {
		file, disk := bigStream(size, 3<<20, form)
		s := open(t, file, &Options{Memory: 5 << 20})
		var wg sync.WaitGroup
		for worker := range uint64(4) {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(worker, 5))
				for range 25 {
					off := r.Int64N(size)
					p := make([]byte, min(r.Int64N(1<<r.IntN(23))+1, size-off))
					if _, err := s.ReadAt(p, off); err != nil || !bytes.Equal(p, disk[off:][:len(p)]) {
						t.Errorf("read of [%d, +%d): %v", off, len(p), err)
					}
				}
			})
		}
		wg.Wait()
		idle(t, s)
	}
}

// Small reads of one place decode once.
func TestReadsAgain(t *testing.T) {
	const size = 4 << 20
	file, disk := bigStream(size, size, streams.Form{})
	s := open(t, file, nil)
	p := make([]byte, 4096)
	for range 3 {
		for off := int64(0); off < size; off += 64 << 10 {
			if _, err := s.ReadAt(p, off); err != nil || !bytes.Equal(p, disk[off:][:4096]) {
				t.Fatal(off, err)
			}
		}
	}
	if s.cache.decoded != size {
		t.Errorf("%d bytes were decoded of %d", s.cache.decoded, size)
	}
}

// One damaged frame stops only those who read it, however many wait for it.
func TestBrokenTogether(t *testing.T) {
	const size, frame = 6 << 20, 2 << 20
	disk := text(9, size)
	w := packed(size, size)
	var parts [][]byte
	for off := 0; off < size; off += frame {
		parts = append(parts, streams.Form{}.Frame(disk[off:off+frame]))
	}
	parts[1][len(parts[1])/2] ^= 1
	w.Parts(0, size, true, parts...)
	s := open(t, stopped(w), nil)
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			p := make([]byte, 256<<10)
			for off := next.Add(1) - 1; off < size/int64(len(p)); off = next.Add(1) - 1 {
				at := off * int64(len(p))
				_, err := s.ReadAt(p, at)
				switch {
				case err != nil && at/frame == 1:
					failed.Add(1)
				case err != nil || !bytes.Equal(p, disk[at:][:len(p)]):
					t.Errorf("read at %d: %v", at, err)
				}
			}
		})
	}
	wg.Wait()
	if n := failed.Load(); n < 3 || n > 5 {
		t.Errorf("%d reads failed", n)
	}
	if s.cache.decoded > size {
		t.Errorf("%d bytes were decoded of %d", s.cache.decoded, size)
	}
}

// Who waits for a unit that somebody else decodes does what comes next, as far as
// there is memory that the units before do not need.
func TestHelp(t *testing.T) {
	const frame = 4 << 20
	file, disk := bigStream(5*frame, frame, streams.Form{Stored: true})
	for _, tt := range []struct {
		memory int64
		want   [5]int64 // steps of helpStep decoded of each entry
	}{
		{64 << 20, [5]int64{0, 8, 8, 8, 8}},
		{14 << 20, [5]int64{0, 8, 8, 3, 0}},
		{5 << 20, [5]int64{0, 1, 0, 0, 0}},
		{4 << 20, [5]int64{}},
	} {
		s := open(t, file, &Options{Memory: tt.memory})
		c := s.cache
		u := c.use(0, false)
		u.mu.Lock() // somebody decodes it
		for c.help(u) {
		}
		for i, want := range tt.want {
			var done int64
			if v := c.open[int64(i)]; v != nil {
				done = v.done
			}
			if done != want*helpStep {
				t.Errorf("memory of %d: %d bytes were decoded of entry %d, want %d", tt.memory, done, i, want*helpStep)
			}
		}
		u.mu.Unlock()
		c.leave(u)
		ascend(t, s, 1<<20, 2, disk)
		if c.decoded > 5*frame {
			t.Errorf("memory of %d: %d bytes were decoded of %d", tt.memory, c.decoded, 5*frame)
		}
		idle(t, s)
	}
}

// A unit that cannot be decoded is passed over by those who help.
func TestHelpBroken(t *testing.T) {
	const frame = 2 << 20
	disk := text(9, 3*frame)
	w := packed(3*frame, 3*frame)
	parts := [][]byte{streams.Form{}.Frame(disk[:frame]), streams.Form{}.Frame(disk[frame : 2*frame]), streams.Form{}.Frame(disk[2*frame:])}
	parts[1][100] ^= 1
	w.Parts(0, 3*frame, true, parts...)
	s := open(t, stopped(w), nil)
	u := s.cache.use(0, false)
	u.mu.Lock()
	s.cache.help(u)
	for s.cache.help(u) {
	}
	if v := s.cache.open[2]; v == nil || v.done != frame {
		t.Error("the entry behind the broken one was not decoded")
	}
}

// In the steady state of a copy nothing is allocated for a piece.
func TestAllocations(t *testing.T) {
	file, _ := bigStream(8<<20, 8<<20, streams.Form{})
	s := open(t, file, nil)
	p := make([]byte, 64<<10)
	var off int64
	if n := testing.AllocsPerRun(120, func() {
		if _, err := s.ReadAt(p, off); err != nil {
			t.Error(err)
		}
		off += int64(len(p))
	}); n > 1 {
		t.Errorf("%v allocations for each read", n)
	}
}

// A unit whose last segment was taken is begun anew: what follows refers to it.
func TestTailTaken(t *testing.T) {
	const frame, n = 2 << 20, 8
	file, disk := bigStream(n*frame, frame, streams.Form{NoBlockSum: true, NoContentSum: true})
	s := open(t, file, &Options{Memory: 1})
	p := make([]byte, 5000)
	u := s.cache.use(0, false) // somebody else wants it too: it stays open
	for _, at := range []int64{0, 300000, 1 << 20, 1500000} {
		for i := range int64(n) {
			off := i*frame + at
			if _, err := s.ReadAt(p, off); err != nil || !bytes.Equal(p, disk[off:][:len(p)]) {
				t.Fatalf("read at %d: %v", off, err)
			}
		}
	}
	s.cache.leave(u)
	if len(s.cache.segs) > minSegments {
		t.Errorf("%d segments", len(s.cache.segs))
	}
	idle(t, s)
}
