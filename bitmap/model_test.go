package bitmap

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A model is a bitmap as slow and plain as can be: one bool a granule, and each
// rule said in bytes.
type model struct {
	size, gran int64
	dirty      []bool
}

func newModel(size, gran int64) *model {
	m := &model{size: size, gran: gran}
	for off := int64(0); off < size; off += gran {
		m.dirty = append(m.dirty, false)
	}
	return m
}

// granule returns the bytes [lo, hi) of the disk that granule i stands for.
func (m *model) granule(i int) (lo, hi int64) {
	lo = int64(i) * m.gran
	return lo, min(lo+m.gran, m.size)
}

func (m *model) set(lo, hi int64) {
	for i := range m.dirty {
		if s, e := m.granule(i); max(s, lo) < min(e, hi) {
			m.dirty[i] = true
		}
	}
}

func (m *model) unset(lo, hi int64) {
	for i := range m.dirty {
		if s, e := m.granule(i); lo <= s && e <= hi {
			m.dirty[i] = false
		}
	}
}

func (m *model) count() (n int64) {
	for i, d := range m.dirty {
		if s, e := m.granule(i); d {
			n += e - s
		}
	}
	return n
}

// runs are those of [lo, hi), which is in the disk.
func (m *model) runs(lo, hi int64) (runs []Run) {
	for i, d := range m.dirty {
		s, e := m.granule(i)
		s, e = max(s, lo), min(e, hi)
		if s >= e {
			continue
		}
		if n := len(runs); n > 0 && runs[n-1].Dirty == d {
			runs[n-1].Len += e - s
			continue
		}
		runs = append(runs, Run{s, e - s, d})
	}
	return runs
}

// outwards and inwards convert by looking at what each granule of the result
// overlaps.
func (m *model) outwards(gran int64) *model {
	c := newModel(m.size, gran)
	for i, d := range m.dirty {
		if d {
			s, e := m.granule(i)
			for k := s / gran; k*gran < e; k++ {
				c.dirty[k] = true
			}
		}
	}
	return c
}

func (m *model) inwards(gran int64) *model {
	c := newModel(m.size, gran)
	for k := range c.dirty {
		c.dirty[k] = true
	}
	for i, d := range m.dirty {
		if !d {
			s, e := m.granule(i)
			for k := s / gran; k*gran < e; k++ {
				c.dirty[k] = false
			}
		}
	}
	return c
}

func (m *model) resize(size int64, dirty bool) {
	old, bits := m.size, m.dirty
	*m = *newModel(size, m.gran)
	copy(m.dirty, bits)
	if dirty {
		m.set(old, size)
	}
}

// wire is the wire form, n bytes from off on, zeros outside.
func (m *model) wire(off, n int64) []byte {
	p := make([]byte, n)
	for i, d := range m.dirty {
		if at := int64(i/8) - off; d && at >= 0 && at < n {
			p[at] |= 1 << (i % 8)
		}
	}
	return p
}

// bitmap builds the same with the code under test, granule by granule run.
func (m *model) bitmap(t fataler) *Bitmap {
	b, err := New(m.size, m.gran)
	if err != nil {
		t.Fatalf("new: %v", err)
	}
	for _, r := range m.runs(0, m.size) {
		if r.Dirty {
			b.Set(r.Off, r.Len)
		}
	}
	return b
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// same fails unless b says what m says, by each way of asking, and is sound.
func same(t fataler, b *Bitmap, m *model) {
	t.Helper()
	sound(t, b)
	if b.Size() != m.size || b.Granularity() != m.gran || b.bits != int64(len(m.dirty)) {
		t.Fatalf("size %d granularity %d bits %d, want %d %d %d", b.Size(), b.Granularity(), b.bits, m.size, m.gran, len(m.dirty))
	}
	want := m.runs(0, m.size)
	if got := slices.Collect(b.Runs(0, b.Size())); !slices.Equal(got, want) {
		t.Fatalf("runs %v\nwant %v", got, want)
	}
	if got, want := slices.Collect(b.Ranges()), dirtyOf(want); !slices.Equal(got, want) {
		t.Fatalf("ranges %v\nwant %v", got, want)
	}
	if got, want := b.Count(), m.count(); got != want {
		t.Fatalf("count %d, want %d", got, want)
	}
}

func dirtyOf(runs []Run) (ranges []Range) {
	for _, r := range runs {
		if r.Dirty {
			ranges = append(ranges, Range{r.Off, r.Len})
		}
	}
	return ranges
}

// sound fails unless the spans of b obey what the comment on span says.
func sound(t fataler, b *Bitmap) {
	t.Helper()
	end := int64(0)
	for i := range b.spans {
		s := &b.spans[i]
		switch uniform := s.words == nil; {
		case s.end <= end:
			t.Fatalf("span %d ends at %d, before its start %d", i, s.end, end)
		case uniform && !s.isZero() && !s.isOnes():
			t.Fatalf("span %d has no words and %d ones", i, s.ones)
		case uniform && i > 0 && b.spans[i-1].words == nil && b.spans[i-1].ones == s.ones:
			t.Fatalf("span %d could be one with that before", i)
		case !uniform && (s.isZero() || s.isOnes() || s.ones != s.words.ones() || s.end != end+1):
			t.Fatalf("span %d [%d, %d) has words, ones %d, counted %d", i, end, s.end, s.ones, s.words.ones())
		}
		end = s.end
	}
	if end != chunksFor(b.bits) {
		t.Fatalf("spans end at chunk %d, want %d", end, chunksFor(b.bits))
	}
	c := b.cursorAt(b.bits)
	if limit := end << chunkShift; c.next(b.bits, limit, true) != limit {
		t.Fatalf("bits past the end of the disk are set")
	}
}

// drawModel draws a bitmap of a few chunks, its borders more often than not near
// those of chunks.
func drawModel(t *rapid.T) *model {
	gran := int64(1) << rapid.IntRange(9, 31).Draw(t, "granularity bits")
	return drawModelOf(t, drawSize(t, gran), gran)
}

func drawModelOf(t *rapid.T, size, gran int64) *model {
	m := newModel(size, gran)
	for range rapid.IntRange(0, 4).Draw(t, "ranges") {
		lo, hi := drawClipped(t, m)
		m.set(lo, hi)
	}
	if len(m.dirty) > 0 && rapid.Bool().Draw(t, "noise") {
		seed := rapid.Uint64().Draw(t, "seed")
		lo, hi := drawClipped(t, m)
		for i := lo / gran; i < hi/gran; i++ {
			seed = seed*6364136223846793005 + 1442695040888963407
			m.dirty[i] = seed>>63 != 0
		}
	}
	return m
}

func drawSize(t *rapid.T, gran int64) int64 {
	chunks := rapid.Int64Range(0, 4).Draw(t, "chunks")
	bits := max(chunks<<chunkShift+rapid.Int64Range(-130, 130).Draw(t, "more bits"), 0)
	return max(bits*gran-rapid.Int64Range(0, gran-1).Draw(t, "less bytes"), 0)
}

// drawOff draws an offset near the border of a chunk, of the disk, or anywhere.
func drawOff(t *rapid.T, m *model) int64 {
	base := rapid.Int64Range(0, m.size/m.gran>>chunkShift+1).Draw(t, "chunk") << chunkShift * m.gran
	switch rapid.IntRange(0, 3).Draw(t, "where") {
	case 0:
		base = m.size
	case 1:
		base = rapid.Int64Range(0, m.size).Draw(t, "off")
	}
	return base + rapid.Int64Range(-70, 70).Draw(t, "granules")*m.gran + rapid.SampledFrom([]int64{0, 0, -1, 1, m.gran / 2}).Draw(t, "bytes")
}

// drawClipped draws a range and cuts it to the disk.
func drawClipped(t *rapid.T, m *model) (lo, hi int64) {
	off, n := drawRange(t, m)
	return cut(m, off, n)
}

func drawRange(t *rapid.T, m *model) (off, n int64) {
	off, end := drawOff(t, m), drawOff(t, m)
	if rapid.IntRange(0, 9).Draw(t, "backwards") > 0 && end < off {
		off, end = end, off
	}
	return off, end - off
}

func cut(m *model, off, n int64) (lo, hi int64) {
	lo, hi = max(off, 0), min(off+n, m.size)
	if lo >= hi {
		return 0, 0
	}
	return lo, hi
}

var _ fataler = (*testing.T)(nil)
