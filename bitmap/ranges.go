package bitmap

import "iter"

// A Range is a stretch of dirty bytes of the disk.
type Range struct {
	Off, Len int64
}

// A Run is a stretch of bytes of the disk that are all dirty or all clean.
type Run struct {
	Off, Len int64
	Dirty    bool
}

// cursor walks the spans of a bitmap upwards: each step costs what it passes.
type cursor struct {
	spans []span
	i     int
}

// at returns the span that holds the chunk, nil past the last one. Chunks must
// not be asked for in descending order.
func (c *cursor) at(chunk int64) *span {
	for c.i < len(c.spans) && c.spans[c.i].end <= chunk {
		c.i++
	}
	if c.i == len(c.spans) {
		return nil
	}
	return &c.spans[c.i]
}

// next returns the first bit in [lo, hi) that is val, hi if none is.
func (c *cursor) next(lo, hi int64, val bool) int64 {
	for lo < hi {
		s := c.at(lo >> chunkShift)
		switch {
		case s == nil:
			return hi
		case s.words != nil:
			i := s.words.next(int(lo&chunkMask), val)
			lo = lo&^chunkMask + int64(i)
			if i < chunkBits {
				return min(lo, hi)
			}
		case s.isOnes() == val:
			return lo
		default:
			lo = s.end << chunkShift
		}
	}
	return hi
}

// cursorAt is a cursor that starts at the span of the bit, found by bisection.
func (b *Bitmap) cursorAt(bit int64) cursor {
	i, _ := b.find(bit >> chunkShift)
	return cursor{spans: b.spans, i: i}
}

// Runs yields the runs of the range that are dirty or clean, in turns, without
// gaps, so that they cover exactly its part inside of the disk. The first and
// the last are cut where the range is. The bitmap must not be changed meanwhile:
// what is yielded then is not defined.
func (b *Bitmap) Runs(off, n int64) iter.Seq[Run] {
	return func(yield func(Run) bool) {
		lo, hi := b.clip(off, n)
		last := b.granulesUp(hi)
		c := b.cursorAt(lo >> b.shift)
		for lo < hi {
			bit := lo >> b.shift
			dirty := c.next(bit, bit+1, true) == bit
			end := min(c.next(bit, last, !dirty)<<b.shift, hi)
			if !yield(Run{Off: lo, Len: end - lo, Dirty: dirty}) {
				return
			}
			lo = end
		}
	}
}

// RangesIn yields the dirty ranges inside of the range, ascending, with clean
// bytes between each two, cut where the range and the disk end. The bitmap must
// not be changed meanwhile.
func (b *Bitmap) RangesIn(off, n int64) iter.Seq[Range] {
	return func(yield func(Range) bool) {
		for r := range b.Runs(off, n) {
			if r.Dirty && !yield(Range{Off: r.Off, Len: r.Len}) {
				return
			}
		}
	}
}

// Ranges yields all dirty ranges of the disk, as RangesIn does.
func (b *Bitmap) Ranges() iter.Seq[Range] { return b.RangesIn(0, b.size) }

// Next returns the offset of the first dirty byte at or after off, and whether
// there is one.
func (b *Bitmap) Next(off int64) (int64, bool) { return b.next(off, true) }

// NextClean returns the offset of the first clean byte of the disk at or after
// off, and whether there is one.
func (b *Bitmap) NextClean(off int64) (int64, bool) { return b.next(off, false) }

func (b *Bitmap) next(off int64, val bool) (int64, bool) {
	off = max(off, 0)
	if off >= b.size {
		return 0, false
	}
	bit := off >> b.shift
	c := b.cursorAt(bit)
	found := c.next(bit, b.bits, val)
	if found == b.bits {
		return 0, false
	}
	return max(off, found<<b.shift), true
}
