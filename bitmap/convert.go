package bitmap

// WithGranularity returns a copy of b with another granularity, rounded
// outwards: a granule of the copy is dirty when any of its bytes is dirty in b.
// The granularity must be one that New takes. Coarser costs a pass over the
// bits; finer may cost memory up to WireSize of the copy.
func (b *Bitmap) WithGranularity(granularity int64) (*Bitmap, error) {
	shift, err := shiftOf(granularity)
	if err != nil {
		return nil, err
	}
	if shift == b.shift {
		return b.Clone(), nil
	}
	// By factors of two: each is a few word operations, and the sum of them is
	// within twice the largest.
	c := b
	for c.shift < shift {
		c = c.halved()
	}
	for c.shift > shift {
		c = c.doubled()
	}
	return c, nil
}

// inwards is WithGranularity that rounds the other way: a granule of the copy
// is dirty when all of its bytes inside of the disk are. It is not exported
// because only what is taken away may be rounded so.
func (b *Bitmap) inwards(granularity int64) (*Bitmap, error) {
	clean := b.Clone()
	clean.Complement()
	c, err := clean.WithGranularity(granularity)
	if err != nil {
		return nil, err
	}
	c.Complement()
	return c, nil
}

// Resize changes the size of the disk to 0 to MaxSize bytes. What is added is
// dirty or clean as asked; a granule that was dirty and reached past the old end
// stays dirty as a whole. What is cut off is forgotten: growing again does not
// bring it back.
func (b *Bitmap) Resize(size int64, dirty bool) error {
	if err := checkSize(size); err != nil {
		return err
	}
	old := b.size
	b.size = size
	bits := b.granulesUp(size)
	if bits <= b.bits {
		b.truncate(bits)
	} else {
		b.extend(bits)
	}
	if dirty && size > old {
		b.Set(old, size-old)
	}
	return nil
}

// extend adds clean granules.
func (b *Bitmap) extend(bits int64) {
	b.bits = bits
	if chunks := chunksFor(bits); len(b.spans) == 0 || b.spans[len(b.spans)-1].end < chunks {
		b.spans = push(b.spans, uniform(chunks, false))
	}
}

// halved returns b at twice the granularity. A pair of chunks becomes one.
func (b *Bitmap) halved() *Bitmap {
	h := blank(b.size, b.shift+1)
	c := cursor{spans: b.spans}
	for pos, end := int64(0), chunksFor(h.bits); pos < end; {
		s := c.at(2 * pos)
		if n := (s.end - 2*pos) / 2; s.words == nil && n > 0 {
			pos += n
			h.spans = push(h.spans, span{end: pos, ones: s.ones})
			continue
		}
		w := new(words)
		halve(w[:chunkWords/2], s)
		if s := c.at(2*pos + 1); s != nil {
			halve(w[chunkWords/2:], s)
		}
		pos++
		h.spans = push(h.spans, wordsSpan(pos, w, w.ones()))
	}
	return h
}

// halve puts one chunk of s into half a chunk.
func halve(dst []uint64, s *span) {
	for i := range dst {
		switch {
		case s.words != nil:
			dst[i] = halveWord(s.words[2*i]) | halveWord(s.words[2*i+1])<<32
		case s.isOnes():
			dst[i] = allOnes
		}
	}
}

// halveWord makes each pair of bits one bit, the or of both.
func halveWord(x uint64) uint64 {
	x = (x | x>>1) & 0x5555555555555555
	x = (x | x>>1) & 0x3333333333333333
	x = (x | x>>2) & 0x0f0f0f0f0f0f0f0f
	x = (x | x>>4) & 0x00ff00ff00ff00ff
	x = (x | x>>8) & 0x0000ffff0000ffff
	return (x | x>>16) & 0x00000000ffffffff
}

// doubled returns b at half the granularity. A chunk becomes two.
func (b *Bitmap) doubled() *Bitmap {
	d := blank(b.size, b.shift-1)
	for i := range b.spans {
		s := &b.spans[i]
		if s.words == nil {
			d.spans = push(d.spans, span{end: 2 * s.end, ones: s.ones})
			continue
		}
		for half := range 2 {
			w := new(words)
			double(w, s.words[half*chunkWords/2:])
			d.spans = push(d.spans, wordsSpan(2*s.end-1+int64(half), w, w.ones()))
		}
	}
	d.truncate(d.bits) // the last granule may have been one of which half was past the end
	return d
}

// double puts half a chunk into a whole one.
func double(dst *words, src []uint64) {
	for i := range dst {
		dst[i] = doubleWord(src[i/2] >> (i % 2 * 32))
	}
}

// doubleWord makes each of the low 32 bits a pair of that bit.
func doubleWord(x uint64) uint64 {
	x &= 0x00000000ffffffff
	x = (x | x<<16) & 0x0000ffff0000ffff
	x = (x | x<<8) & 0x00ff00ff00ff00ff
	x = (x | x<<4) & 0x0f0f0f0f0f0f0f0f
	x = (x | x<<2) & 0x3333333333333333
	x = (x | x<<1) & 0x5555555555555555
	return x | x<<1
}
