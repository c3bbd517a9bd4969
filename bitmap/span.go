package bitmap

import (
	"slices"
	"sort"
)

// A span is a run of chunks of one state: all zero or all one (any number of
// chunks, no words), or words (one chunk). It starts where the span before it
// ends.
//
// The spans of a bitmap cover its chunks without a gap and in one way only:
// words are never all zero or all one, neighbours without words differ, and
// bits past the disk's end are zero. So two bitmaps are equal when their spans
// are, and the cost of a bitmap follows its changes of state, not the disk.
type span struct {
	end   int64  // chunk after the last
	words *words // nil when all bits are the same
	ones  int32  // ones in each chunk, 0 to chunkBits
}

// uniform is the span of chunks up to end whose bits are all val.
func uniform(end int64, val bool) span {
	if val {
		return span{end: end, ones: chunkBits}
	}
	return span{end: end}
}

// wordsSpan is the span of the one chunk that ends at end, with ones counted.
func wordsSpan(end int64, w *words, ones int32) span {
	if ones == 0 || ones == chunkBits {
		w = nil
	}
	return span{end: end, words: w, ones: ones}
}

func (s *span) isZero() bool { return s.ones == 0 }
func (s *span) isOnes() bool { return s.ones == chunkBits }

// cloneTo returns s with words of its own and another end.
func (s *span) cloneTo(end int64) span {
	c := span{end: end, words: s.words, ones: s.ones}
	if c.words != nil {
		c.words = c.words.clone()
	}
	return c
}

// push appends s, which starts where the list ends, and merges it with the
// span before when both are the same throughout.
func push(list []span, s span) []span {
	if n := len(list); n > 0 {
		last := &list[n-1]
		if last.words == nil && s.words == nil && last.ones == s.ones {
			last.end = s.end
			return list
		}
	}
	return append(list, s)
}

// chunksFor is the number of chunks that hold so many bits.
func chunksFor(nbits int64) int64 { return (nbits + chunkMask) >> chunkShift }

// find returns the index of the span that holds the chunk, and its first chunk.
func (b *Bitmap) find(chunk int64) (i int, start int64) {
	i = sort.Search(len(b.spans), func(i int) bool { return b.spans[i].end > chunk })
	return i, b.startOf(i)
}

func (b *Bitmap) startOf(i int) int64 {
	if i == 0 {
		return 0
	}
	return b.spans[i-1].end
}

// splice replaces the chunks [lo, s.end) by s. Spans that reach past either end
// keep what lies outside; those are never words, which are one chunk long.
func (b *Bitmap) splice(lo int64, s span) {
	i, start := b.find(lo)
	j, _ := b.find(s.end - 1)
	var room [3]span
	list := room[:0]
	switch {
	case start < lo:
		head := b.spans[i]
		head.end = lo
		list = append(list, head)
	case i > 0:
		i--
		list = append(list, b.spans[i])
	}
	list = push(list, s)
	if b.spans[j].end == s.end && j+1 < len(b.spans) {
		j++
	}
	if tail := b.spans[j]; tail.end > s.end {
		list = push(list, tail)
	}
	b.spans = slices.Replace(b.spans, i, j+1, list...)
}

// open gives the chunk words of its own and returns the index of its span. The
// caller changes words and ones, and calls settle.
func (b *Bitmap) open(chunk int64) int {
	i, start := b.find(chunk)
	s := &b.spans[i]
	if s.words != nil {
		return i
	}
	w := new(words)
	w.fill(s.isOnes())
	b.splice(chunk, span{end: chunk + 1, words: w, ones: s.ones})
	if start < chunk {
		i++
	}
	return i
}

// settle gives up the words of a span whose bits have become the same.
func (b *Bitmap) settle(i int) {
	s := b.spans[i]
	if s.isZero() || s.isOnes() {
		b.splice(s.end-1, span{end: s.end, ones: s.ones})
	}
}

// assign makes the bits [lo, hi) val. It may reach past the last bit of the
// disk, but not past the last chunk.
func (b *Bitmap) assign(lo, hi int64, val bool) {
	first, last := lo>>chunkShift, hi>>chunkShift
	if lo >= hi {
		return
	}
	if first == last {
		b.assignIn(first, int(lo&chunkMask), int(hi&chunkMask), val)
		return
	}
	if lo&chunkMask != 0 {
		b.assignIn(first, int(lo&chunkMask), chunkBits, val)
		first++
	}
	if first < last {
		b.splice(first, uniform(last, val))
	}
	if hi&chunkMask != 0 {
		b.assignIn(last, 0, int(hi&chunkMask), val)
	}
}

// assignIn makes the bits [lo, hi) of one chunk val.
func (b *Bitmap) assignIn(chunk int64, lo, hi int, val bool) {
	i, _ := b.find(chunk)
	if s := &b.spans[i]; s.words == nil && s.isOnes() == val {
		return
	}
	i = b.open(chunk)
	s := &b.spans[i]
	s.ones += s.words.assign(lo, hi, val)
	b.settle(i)
}

// trim makes the bits past the end of the disk zero, as all else relies on.
func (b *Bitmap) trim() {
	b.assign(b.bits, chunksFor(b.bits)<<chunkShift, false)
}

// truncate makes spans, which may cover more chunks, those of a bitmap of nbits.
func (b *Bitmap) truncate(nbits int64) {
	b.bits = nbits
	chunks, keep := chunksFor(nbits), 0
	if chunks > 0 {
		i, _ := b.find(chunks - 1)
		b.spans[i].end = chunks
		keep = i + 1
	}
	clear(b.spans[keep:]) // lets go of their words
	b.spans = b.spans[:keep]
	b.trim()
}
