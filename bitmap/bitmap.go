// Package bitmap holds dirty bitmaps in memory: which granules of a virtual
// disk changed. It knows set algebra, changes of granularity and of size, runs,
// and the form in which qcow2 stores the bits ("Bitmap data" in QEMU's
// docs/interop/qcow2.txt). It touches no files.
//
// The one law: a bitmap may say too much (that costs time) but never too little
// (that loses data). All that has to round, rounds towards dirty.
//
// Offsets and lengths are bytes of the virtual disk. Where a range is asked for
// that is partly outside of the disk, the part inside counts; a range of
// negative length, and one wholly outside, is empty. No offset or length makes a
// method panic.
//
// Memory follows the dirty ranges, not the disk: stretches that are wholly clean
// or wholly dirty cost 24 bytes whatever their length, and 2^15 granules that
// are neither cost 4 KiB. A bitmap that nothing was set in costs nothing, however
// large the disk claims to be; none costs more than about WireSize (in units of
// 4 KiB), so who bounds WireSize bounds the memory.
package bitmap

import "fmt"

// Limits of a bitmap, in bytes. The granularities are those of qcow2
// (granularity_bits 9 to 31).
const (
	MinGranularity = int64(512)
	MaxGranularity = int64(2) << 30
	MaxSize        = int64(1) << 62
)

// A Bitmap says of each granule of a disk whether it is dirty. The last granule
// may reach past the end of the disk; its part inside is what counts.
//
// A Bitmap belongs to one goroutine. Methods that change nothing (Test, Count,
// Ranges, AppendWire, …) may be called from several while nobody changes it.
type Bitmap struct {
	size  int64 // bytes of the disk
	bits  int64 // granules: size / granularity, rounded up
	shift uint8 // log2 of the granularity
	spans []span
}

// New returns a clean bitmap of a disk of size bytes, 0 to MaxSize and of any
// alignment. The granularity, in bytes, is a power of two between MinGranularity
// and MaxGranularity.
func New(size, granularity int64) (*Bitmap, error) {
	shift, err := shiftOf(granularity)
	if err != nil {
		return nil, err
	}
	if err := checkSize(size); err != nil {
		return nil, err
	}
	b := blank(size, shift)
	if b.bits > 0 {
		b.spans = []span{uniform(chunksFor(b.bits), false)}
	}
	return b, nil
}

// blank is a bitmap without spans yet.
func blank(size int64, shift uint8) *Bitmap {
	b := &Bitmap{size: size, shift: shift}
	b.bits = b.granulesUp(size)
	return b
}

func checkSize(size int64) error {
	if size < 0 || size > MaxSize {
		return fmt.Errorf("bitmap: disk size must be 0 to %d bytes, is %d", MaxSize, size)
	}
	return nil
}

func shiftOf(granularity int64) (uint8, error) {
	for s := uint8(9); s <= 31; s++ {
		if granularity == 1<<s {
			return s, nil
		}
	}
	return 0, fmt.Errorf("bitmap: granularity must be a power of two between %d and %d bytes, is %d",
		MinGranularity, MaxGranularity, granularity)
}

// Size is the size of the disk in bytes.
func (b *Bitmap) Size() int64 { return b.size }

// Granularity is the number of bytes that one bit stands for.
func (b *Bitmap) Granularity() int64 { return 1 << b.shift }

// granulesUp is n bytes in granules, rounded up.
func (b *Bitmap) granulesUp(n int64) int64 { return (n + b.Granularity() - 1) >> b.shift }

// clip returns the part of the range that lies in the disk as [lo, hi).
func (b *Bitmap) clip(off, n int64) (lo, hi int64) { return clip(off, n, b.size) }

// clip returns the part of [off, off+n) that lies in [0, size) as [lo, hi), with
// lo == hi when there is none. No sum in it overflows.
func clip(off, n, size int64) (lo, hi int64) {
	if n <= 0 || off >= size {
		return 0, 0
	}
	if off < 0 {
		n += off
		off = 0
	}
	if n <= 0 {
		return 0, 0
	}
	return off, off + min(n, size-off)
}

// Set marks every granule dirty that the range touches.
func (b *Bitmap) Set(off, n int64) {
	lo, hi := b.clip(off, n)
	b.assign(lo>>b.shift, b.granulesUp(hi), true)
}

// Unset marks those granules clean that lie wholly in the range. The last
// granule of the disk does when its part inside of the disk does.
func (b *Bitmap) Unset(off, n int64) {
	lo, hi := b.clip(off, n)
	end := hi >> b.shift
	if hi == b.size {
		end = b.bits
	}
	b.assign(b.granulesUp(lo), end, false)
}

// SetAll marks the whole disk dirty.
func (b *Bitmap) SetAll() { b.assign(0, b.bits, true) }

// Clear marks the whole disk clean.
func (b *Bitmap) Clear() { b.assign(0, b.bits, false) }

// Test tells whether the byte at off is dirty. Outside of the disk none is.
func (b *Bitmap) Test(off int64) bool {
	if off < 0 || off >= b.size {
		return false
	}
	return b.testBit(off >> b.shift)
}

func (b *Bitmap) testBit(bit int64) bool {
	i, _ := b.find(bit >> chunkShift)
	s := &b.spans[i]
	if s.words == nil {
		return s.isOnes()
	}
	return s.words.test(int(bit & chunkMask))
}

// Count is the number of dirty bytes, the last granule counted as far as the
// disk goes. Its cost follows the number of spans, not that of the bits.
func (b *Bitmap) Count() int64 {
	var ones, start int64
	for i := range b.spans {
		s := &b.spans[i]
		ones += (s.end - start) * int64(s.ones)
		start = s.end
	}
	n := ones << b.shift
	if b.size > 0 && b.testBit(b.bits-1) {
		n -= b.bits<<b.shift - b.size
	}
	return n
}

// Equal tells whether o has the same size, granularity and dirty granules.
func (b *Bitmap) Equal(o *Bitmap) bool {
	if b.size != o.size || b.shift != o.shift || len(b.spans) != len(o.spans) {
		return false
	}
	for i := range b.spans {
		x, y := &b.spans[i], &o.spans[i]
		if x.end != y.end || x.ones != y.ones {
			return false
		}
		if x.words != nil && *x.words != *y.words { // equal ones: both have words or neither
			return false
		}
	}
	return true
}

// Clone returns a copy that shares nothing with b.
func (b *Bitmap) Clone() *Bitmap {
	c := *b
	c.spans = make([]span, len(b.spans))
	for i := range b.spans {
		c.spans[i] = b.spans[i].cloneTo(b.spans[i].end)
	}
	return &c
}
