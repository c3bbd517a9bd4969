package virtnbd

import "sync"

// A Memory is what several streams share to keep what they decode: as many as a chain
// has links take no more than one. What was read in one of them, or is the least loss
// there, makes room for what another has to decode. It may be used from several
// goroutines.
type Memory struct {
	segment int // the least bytes of a segment

	mu     sync.Mutex
	bytes  int64 // of all
	left   int64 // of them; below 0 where more had to be taken
	caches []*cache
	next   int      // whose turn it is to give
	spare  [][]byte // what was given and is not taken yet; counted as left
}

// leastSegment is the least size of a segment, where many streams share memory: of
// each that is being decoded at least one is needed.
const leastSegment = 128 << 10

// NewMemory is memory of so many bytes for so many streams. More is taken where each
// stream that is being read needs its last block, and there is not room for all.
func NewMemory(bytes int64, streams int) *Memory {
	m := &Memory{bytes: bytes, left: bytes, segment: segmentSize}
	for m.segment > leastSegment && int64(streams)*int64(m.segment+windowSize) > bytes/2 {
		m.segment /= 2
	}
	return m
}

// join has a cache take its segments from m.
func (m *Memory) join(c *cache) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.caches = append(m.caches, c)
}

// take is the memory of a new segment of c, which is locked; nil where there is none
// and it need not be. Unless it must be, others lose only what was read.
func (m *Memory) take(c *cache, must bool) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	want := int64(windowSize + c.size)
	most := 1
	if must {
		most = 3
	}
	for rank := 0; rank <= most && m.left < want; rank++ {
		for i := 0; i < len(m.caches) && m.left < want; i++ {
			if from := m.caches[(m.next+i)%len(m.caches)]; from != c {
				m.keep(from.yield(rank, want-m.left))
			}
		}
		m.next++
	}
	if m.left < want && !must {
		return nil
	}
	m.left -= want
	return m.buffer(int(want))
}

// keep takes back memory that a cache gave.
func (m *Memory) keep(given [][]byte) {
	for _, p := range given {
		m.left += int64(len(p))
	}
	m.spare = append(m.spare, given...)
}

// buffer is one that was given, if it is as large as that, or a new one: to make one
// each time would leave as much garbage as there is memory.
func (m *Memory) buffer(size int) []byte {
	for i, p := range m.spare {
		if len(p) == size {
			last := len(m.spare) - 1
			m.spare[i], m.spare[last] = m.spare[last], nil
			m.spare = m.spare[:last]
			return p
		}
	}
	m.spare = nil // of other sizes: not to have both
	return make([]byte, size)
}

// yield gives up segments of a rank, up to so many bytes, and returns their memory. A
// cache that is at work gives nothing.
func (c *cache) yield(rank int, want int64) (given [][]byte) {
	if !c.mu.TryLock() {
		return nil
	}
	defer c.mu.Unlock()
	freed := int64(0)
	kept := c.segs[:0]
	for _, g := range c.segs {
		if freed >= want || g.pins > 0 || g.rank() != rank {
			kept = append(kept, g)
			continue
		}
		if g.unit != nil {
			c.evict(g)
		}
		freed += int64(len(g.buf))
		given = append(given, g.buf)
	}
	clear(c.segs[len(kept):])
	c.segs = kept
	return given
}
