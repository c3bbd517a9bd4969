package virtnbd

import (
	"bytes"
	"sync"
	"testing"

	"github.com/qbitkit/qbit/testimages/streams"
)

// Many streams that share memory take no more than there is, but for what is being
// read, and give the right bytes: one after the other, and all at once.
func TestSharedMemory(t *testing.T) {
	const size, many = 3 << 20, 12
	file, disk := bigStream(size, 3<<20, streams.Form{})
	for _, memory := range []int64{1 << 20, 6 << 20, 100 << 20} {
		m := NewMemory(memory, many)
		var all []*Stream
		for range many {
			all = append(all, open(t, file, &Options{Shared: m}))
		}
		for _, s := range all {
			ascend(t, s, 512<<10, 2, disk)
		}
		wantWithin(t, m, all, memory)
		readTogether(t, all, disk)
		wantWithin(t, m, all, memory+many*2*int64(all[0].cache.size+windowSize))
		for _, s := range all {
			idle(t, s)
		}
	}
}

// readTogether reads all streams side by side, a piece of each at a time, as a chain
// of backups is read.
func readTogether(t *testing.T, all []*Stream, disk []byte) {
	t.Helper()
	const piece = 200 << 10
	var wg sync.WaitGroup
	for worker := range 2 {
		wg.Go(func() {
			p := make([]byte, piece)
			for off := worker * piece; off < len(disk); off += 2 * piece {
				p := p[:min(piece, len(disk)-off)]
				for _, s := range all {
					if _, err := s.ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, disk[off:off+len(p)]) {
						t.Errorf("read at %d: %v, or other bytes", off, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

// wantWithin wants the segments of all streams to be what the memory knows of, and no
// more than most bytes.
func wantWithin(t *testing.T, m *Memory, all []*Stream, most int64) {
	t.Helper()
	taken, bytes := int64(0), int64(0)
	for _, s := range all {
		for _, g := range s.cache.segs {
			bytes += int64(len(g.buf))
		}
	}
	taken = m.bytes - m.left
	if bytes != taken {
		t.Errorf("%d bytes are in segments, and %d were taken", bytes, taken)
	}
	if bytes > most {
		t.Errorf("%d bytes are taken of %d", bytes, most)
	}
}
