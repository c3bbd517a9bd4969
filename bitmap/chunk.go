package bitmap

import (
	"encoding/binary"
	"math/bits"
)

// A chunk is 2^15 bits: 4 KiB of words, one page and one size class of the
// allocator, so that a lone dirty granule costs 4 KiB and no more, while the 24
// bytes of the span that describes a chunk stay small beside it. qcow2 stores
// bitmaps in clusters of 512 B to 2 MiB; of a chunk and a cluster, the one always
// divides the other.
const (
	chunkShift = 15
	chunkBits  = 1 << chunkShift
	chunkMask  = chunkBits - 1
	chunkBytes = chunkBits / 8
	chunkWords = chunkBits / 64
)

// words are the bits of one chunk: bit i is bit i%64 of word i/64.
type words [chunkWords]uint64

const allOnes = ^uint64(0)

// fill makes every bit val.
func (w *words) fill(val bool) {
	var x uint64
	if val {
		x = allOnes
	}
	for i := range w {
		w[i] = x
	}
}

// assign makes the bits [lo, hi) val and returns by how many the number of
// ones grew.
func (w *words) assign(lo, hi int, val bool) (grown int32) {
	for lo < hi {
		i, end := lo/64, min(lo|63+1, hi)
		mask := allOnes << (lo % 64)
		if end%64 != 0 {
			mask &= 1<<(end%64) - 1
		}
		old := w[i]
		if val {
			w[i] |= mask
		} else {
			w[i] &^= mask
		}
		grown += int32(bits.OnesCount64(w[i]) - bits.OnesCount64(old))
		lo = end
	}
	return grown
}

// test tells whether bit i is one.
func (w *words) test(i int) bool { return w[i/64]>>(i%64)&1 != 0 }

// next returns the first bit at or after i that is val, chunkBits if none is.
func (w *words) next(i int, val bool) int {
	var flip uint64
	if !val {
		flip = allOnes
	}
	x := (w[i/64] ^ flip) >> (i % 64)
	if x != 0 {
		return i + bits.TrailingZeros64(x)
	}
	for k := i/64 + 1; k < chunkWords; k++ {
		if x := w[k] ^ flip; x != 0 {
			return k*64 + bits.TrailingZeros64(x)
		}
	}
	return chunkBits
}

// ones counts the bits that are one.
func (w *words) ones() int32 {
	n := 0
	for _, x := range w {
		n += bits.OnesCount64(x)
	}
	return int32(n)
}

// union makes w the bits of w or o and counts them; so do the next two, with
// their own operation. They are written out because a function value would be
// called once a word.
func (w *words) union(o *words) int32 {
	n := 0
	for i, x := range o {
		x |= w[i]
		w[i] = x
		n += bits.OnesCount64(x)
	}
	return int32(n)
}

func (w *words) difference(o *words) int32 {
	n := 0
	for i, x := range o {
		x = w[i] &^ x
		w[i] = x
		n += bits.OnesCount64(x)
	}
	return int32(n)
}

func (w *words) intersect(o *words) int32 {
	n := 0
	for i, x := range o {
		x &= w[i]
		w[i] = x
		n += bits.OnesCount64(x)
	}
	return int32(n)
}

func (w *words) complement() {
	for i := range w {
		w[i] = ^w[i]
	}
}

func (w *words) clone() *words {
	c := *w
	return &c
}

// appendBytes appends the bytes [lo, hi) of the chunk's wire form.
func (w *words) appendBytes(dst []byte, lo, hi int) []byte {
	for ; lo < hi && lo%8 != 0; lo++ {
		dst = append(dst, w.byteAt(lo))
	}
	for ; hi-lo >= 8; lo += 8 {
		dst = binary.LittleEndian.AppendUint64(dst, w[lo/8])
	}
	for ; lo < hi; lo++ {
		dst = append(dst, w.byteAt(lo))
	}
	return dst
}

// store puts p at byte lo of the chunk's wire form.
func (w *words) store(lo int, p []byte) {
	for ; len(p) > 0 && lo%8 != 0; lo, p = lo+1, p[1:] {
		w.setByte(lo, p[0])
	}
	for ; len(p) >= 8; lo, p = lo+8, p[8:] {
		w[lo/8] = binary.LittleEndian.Uint64(p)
	}
	for ; len(p) > 0; lo, p = lo+1, p[1:] {
		w.setByte(lo, p[0])
	}
}

func (w *words) byteAt(i int) byte { return byte(w[i/8] >> (i % 8 * 8)) }

func (w *words) setByte(i int, v byte) {
	shift := i % 8 * 8
	w[i/8] = w[i/8]&^(0xff<<shift) | uint64(v)<<shift
}

// onesIn counts the bits of p that are one.
func onesIn(p []byte) int {
	n := 0
	for ; len(p) >= 8; p = p[8:] {
		n += bits.OnesCount64(binary.LittleEndian.Uint64(p))
	}
	for _, v := range p {
		n += bits.OnesCount8(v)
	}
	return n
}
