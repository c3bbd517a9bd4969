package bitmap

import (
	"testing"
	"unsafe"
)

// bytes is what b holds on to.
func (b *Bitmap) bytes() int64 {
	n := int64(unsafe.Sizeof(*b)) + int64(cap(b.spans))*int64(unsafe.Sizeof(span{}))
	for i := range b.spans {
		if b.spans[i].words != nil {
			n += int64(unsafe.Sizeof(words{}))
		}
	}
	return n
}

const tib = int64(1) << 40

// TestMemory: it follows the dirty ranges, not the disk.
func TestMemory(t *testing.T) {
	kib := int64(1024)
	for _, c := range []struct {
		what       string
		size, gran int64
		do         func(b *Bitmap)
		most       int64
	}{
		{"clean", 64 * tib, 65536, func(*Bitmap) {}, kib},
		{"clean, the largest disk", MaxSize, 512, func(*Bitmap) {}, kib},
		{"wholly dirty", 64 * tib, 65536, (*Bitmap).SetAll, kib},
		{"wholly dirty, with a last chunk in part", 64*tib - 1234567, 65536, (*Bitmap).SetAll, 5 * kib},
		{"wholly dirty, the largest disk", MaxSize - 1, 512, (*Bitmap).SetAll, 5 * kib},
		{"lower half", 64 * tib, 65536, func(b *Bitmap) { b.Set(0, 32*tib) }, kib},
		{"one granule", 64 * tib, 65536, func(b *Bitmap) { b.Set(tib, 1) }, 5 * kib},
		{"100 scattered granules", 64 * tib, 65536, scatter(100), 100*4*kib + 12*kib},
		{"filled granule by granule", 1 << 36, 65536, fillSlowly, kib},
		{"all set and taken back", 1 << 36, 65536, func(b *Bitmap) { fillSlowly(b); emptySlowly(b) }, kib},
		{"loaded from full bytes", 1 << 36, 65536, loadOnes, kib},
		{"complement of clean", 64 * tib, 65536, (*Bitmap).Complement, kib},
		{"union that fills", 1 << 36, 65536, unionOfHalves, kib},
		{"cut to nothing", 1 << 36, 65536, func(b *Bitmap) { scatter(30)(b); b.Resize(0, false) }, 4 * kib},
	} {
		b := mustNew(t, c.size, c.gran)
		c.do(b)
		sound(t, b)
		if got := b.bytes(); got > c.most {
			t.Errorf("%s: %d bytes, want at most %d", c.what, got, c.most)
		}
	}
}

func scatter(n int64) func(*Bitmap) {
	return func(b *Bitmap) {
		for i := range n {
			b.Set(b.Size()/n*i, 1)
		}
	}
}

func fillSlowly(b *Bitmap) {
	for off := int64(0); off < b.Size(); off += b.Granularity() {
		b.Set(off, b.Granularity())
	}
}

func emptySlowly(b *Bitmap) {
	for off := int64(0); off < b.Size(); off += b.Granularity() {
		b.Unset(off, b.Granularity())
	}
}

func loadOnes(b *Bitmap) {
	p := make([]byte, 512)
	for i := range p {
		p[i] = 0xff
	}
	for off := int64(0); off < b.WireSize(); off += 512 {
		b.LoadWire(off, p)
	}
}

// unionOfHalves makes every even granule dirty, and then the others.
func unionOfHalves(b *Bitmap) {
	for off := int64(0); off < b.Size(); off += 2 * b.Granularity() {
		b.Set(off, 1)
	}
	o := b.Clone()
	o.Complement()
	b.Union(o)
}

// TestMemoryOfConversion: neither way may pass through the bits that a wholly
// dirty stretch would have.
func TestMemoryOfConversion(t *testing.T) {
	b := mustNew(t, MaxSize, 512)
	b.Set(tib, MaxSize/2)
	for _, gran := range []int64{1024, 65536, MaxGranularity, 512} {
		c, err := b.WithGranularity(gran)
		if err != nil {
			t.Fatal(err)
		}
		if c.Count() != MaxSize/2 || c.bytes() > 16*1024 {
			t.Errorf("at %d: count %d in %d bytes", gran, c.Count(), c.bytes())
		}
		b = c
	}
}
