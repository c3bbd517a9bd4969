package bitmap

import "fmt"

// The wire form is the qcow2 specification's "Bitmap data": bit i is bit i%8,
// the least significant first, of byte i/8. Bits past the end of the disk are
// written as zero. It is read and written in pieces of any length and in any
// order, one cluster each as qcow2's bitmap table has them.

// WireSize is the length of the wire form in bytes: one bit a granule, rounded
// up.
func (b *Bitmap) WireSize() int64 { return (b.bits + 7) / 8 }

// AppendWire appends n bytes of the wire form from byte off on. Bytes outside of
// the wire form are zero, as the unused rest of the last cluster has to be.
func (b *Bitmap) AppendWire(dst []byte, off int64, n int) []byte {
	lo, hi := clip(off, int64(n), b.WireSize())
	if lo == hi {
		return appendFill(dst, n, 0)
	}
	before := int(lo - off)
	dst = appendFill(dst, before, 0)
	c := b.cursorAt(lo * 8)
	for pos := lo; pos < hi; {
		chunk := pos / chunkBytes
		s, start := c.at(chunk), int(pos%chunkBytes)
		if s.words == nil {
			end := min(s.end*chunkBytes, hi)
			dst = appendFill(dst, int(end-pos), s.wireByte())
			pos = end
			continue
		}
		end := min((chunk+1)*chunkBytes, hi)
		dst = s.words.appendBytes(dst, start, start+int(end-pos))
		pos = end
	}
	return appendFill(dst, n-before-int(hi-lo), 0)
}

// wireByte is each byte of the wire form of a span without words.
func (s *span) wireByte() byte {
	if s.isOnes() {
		return 0xff
	}
	return 0
}

// appendFill appends n bytes, none if n is negative.
func appendFill(dst []byte, n int, v byte) []byte {
	n = max(n, 0)
	dst = append(dst, make([]byte, n)...)
	if tail := dst[len(dst)-n:]; v != 0 {
		for i := range tail {
			tail[i] = v
		}
	}
	return dst
}

// LoadWire replaces the bits of the wire form from byte off on by those of p.
// Bits past the end of the disk are ignored; tail tells that some of them were
// set, against the specification. An off that is not in the wire form, or at
// its end, is an error and changes nothing.
func (b *Bitmap) LoadWire(off int64, p []byte) (tail bool, err error) {
	size := b.WireSize()
	if off < 0 || off > size {
		return false, fmt.Errorf("bitmap: load of %d bytes at byte %d of a wire form of %d bytes", len(p), off, size)
	}
	tail = b.tailSet(off, p)
	if rest := size - off; int64(len(p)) > rest {
		p = p[:rest]
	}
	reachesEnd := off+int64(len(p)) == size
	for len(p) > 0 {
		start := int(off % chunkBytes)
		n := min(len(p), chunkBytes-start)
		b.loadIn(off/chunkBytes, start, p[:n])
		off, p = off+int64(n), p[n:]
	}
	if reachesEnd {
		b.trim()
	}
	return tail, nil
}

// tailSet tells whether p, at byte off, has bits past the end of the disk that
// are one.
func (b *Bitmap) tailSet(off int64, p []byte) bool {
	full := b.bits / 8 // the bytes before this one have no such bits
	if off+int64(len(p)) <= full {
		return false
	}
	if off <= full && p[full-off]>>(b.bits%8) != 0 {
		return true
	}
	return onesIn(p[max(full+1-off, 0):]) != 0
}

// loadIn puts p at byte start of a chunk.
func (b *Bitmap) loadIn(chunk int64, start int, p []byte) {
	first := chunk<<chunkShift + int64(start)*8
	switch onesIn(p) {
	case 0:
		b.assign(first, first+int64(len(p))*8, false)
	case len(p) * 8:
		b.assign(first, first+int64(len(p))*8, true)
	default:
		i := b.open(chunk)
		s := &b.spans[i]
		s.words.store(start, p)
		s.ones = s.words.ones()
	}
}

// SetWireRun makes all bits in n bytes of the wire form from byte off on one or
// zero, as a bitmap table entry without data says. What lies outside of the wire
// form, and bits past the end of the disk, are left out.
func (b *Bitmap) SetWireRun(off, n int64, ones bool) {
	lo, hi := clip(off, n, b.WireSize())
	b.assign(lo*8, min(hi*8, b.bits), ones)
}

// WireState tells whether the n bytes of the wire form from byte off on, as
// AppendWire would give them, are all zero, or all ones. A piece that reaches
// past the end of the disk has zeros there and is never all ones; an empty piece
// is both.
func (b *Bitmap) WireState(off, n int64) (allZero, allOne bool) {
	if n <= 0 {
		return true, true
	}
	lo, hi := clip(off, n, b.WireSize())
	if lo == hi {
		return true, false
	}
	inside := hi-lo == n && hi*8 <= b.bits
	lo, hi = lo*8, hi*8
	c := b.cursorAt(lo)
	ahead := c // a cursor does not go back
	allZero = c.next(lo, hi, true) == hi
	allOne = inside && ahead.next(lo, hi, false) == hi
	return allZero, allOne
}
