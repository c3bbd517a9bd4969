package bitmap

import "fmt"

// Union marks dirty in b what is dirty in o. A bitmap o of another granularity
// is rounded outwards to that of b: its bytes stay dirty. Bitmaps of disks of
// different sizes are an error that names both, and change nothing.
func (b *Bitmap) Union(o *Bitmap) error {
	o, err := b.match("union", o, (*Bitmap).WithGranularity)
	if err == nil {
		b.combine(o, unionOf)
	}
	return err
}

// Intersect leaves dirty in b only what is dirty in o too. A bitmap o of another
// granularity is rounded outwards to that of b, so that no byte which is dirty
// in both becomes clean. Sizes are treated as Union does.
func (b *Bitmap) Intersect(o *Bitmap) error {
	o, err := b.match("intersection", o, (*Bitmap).WithGranularity)
	if err == nil {
		b.combine(o, intersectionOf)
	}
	return err
}

// Difference marks clean in b what is dirty in o. A bitmap o of another
// granularity is rounded INWARDS to that of b: a granule of b is taken away only
// when all of its bytes inside of the disk are dirty in o, for otherwise bytes
// that are dirty in b alone would be lost. Sizes are treated as Union does.
func (b *Bitmap) Difference(o *Bitmap) error {
	o, err := b.match("difference", o, (*Bitmap).inwards)
	if err == nil {
		b.combine(o, differenceOf)
	}
	return err
}

// Complement makes dirty what is clean, and clean what is dirty.
func (b *Bitmap) Complement() {
	for i := range b.spans {
		s := &b.spans[i]
		s.ones = chunkBits - s.ones
		if s.words != nil {
			s.words.complement()
		}
	}
	b.trim()
}

// match returns o in the granularity of b.
func (b *Bitmap) match(what string, o *Bitmap, convert func(*Bitmap, int64) (*Bitmap, error)) (*Bitmap, error) {
	if b.size != o.size {
		return nil, fmt.Errorf("bitmap: %s of bitmaps of disks of different sizes: %d and %d bytes", what, b.size, o.size)
	}
	if b.shift == o.shift {
		return o, nil
	}
	return convert(o, b.Granularity())
}

// combine replaces b by op of b and o, which has as many bits. It may use up the
// words of b, but leaves those of o alone.
func (b *Bitmap) combine(o *Bitmap, op func(x, y *span, end int64) span) {
	out := make([]span, 0, max(len(b.spans), len(o.spans)))
	x, y := cursor{spans: b.spans}, cursor{spans: o.spans}
	for pos := int64(0); pos < chunksFor(b.bits); {
		xs, ys := x.at(pos), y.at(pos)
		end := min(xs.end, ys.end)
		out = push(out, op(xs, ys, end))
		pos = end
	}
	b.spans = out
}

// unionOf is the union of two spans up to end. Words that only x has go over as
// they are, words that only y has are copied.
func unionOf(x, y *span, end int64) span {
	switch {
	case x.isOnes() || y.isOnes():
		return uniform(end, true)
	case y.isZero():
		return span{end: end, words: x.words, ones: x.ones}
	case x.isZero():
		return y.cloneTo(end)
	}
	return wordsSpan(end, x.words, x.words.union(y.words))
}

func intersectionOf(x, y *span, end int64) span {
	switch {
	case x.isZero() || y.isZero():
		return uniform(end, false)
	case y.isOnes():
		return span{end: end, words: x.words, ones: x.ones}
	case x.isOnes():
		return y.cloneTo(end)
	}
	return wordsSpan(end, x.words, x.words.intersect(y.words))
}

func differenceOf(x, y *span, end int64) span {
	switch {
	case x.isZero() || y.isOnes():
		return uniform(end, false)
	case y.isZero():
		return span{end: end, words: x.words, ones: x.ones}
	case x.isOnes():
		c := y.cloneTo(end)
		c.words.complement()
		c.ones = chunkBits - c.ones
		return c
	}
	return wordsSpan(end, x.words, x.words.difference(y.words))
}
