package bitmap

import "testing"

// half is a bitmap of 64 TiB at 64 KiB of which half of the granules are dirty,
// in the pattern, so that each chunk has words (128 MiB of them).
func half(b *testing.B, pattern byte) *Bitmap {
	x := mustNew(b, 64*tib, 65536)
	p := make([]byte, 1<<20)
	for i := range p {
		p[i] = pattern
	}
	for off := int64(0); off < x.WireSize(); off += int64(len(p)) {
		if _, err := x.LoadWire(off, p); err != nil {
			b.Fatal(err)
		}
	}
	return x
}

func BenchmarkUnionCount(b *testing.B) {
	x, y := half(b, 0xaa), half(b, 0x66)
	for b.Loop() {
		if err := x.Union(y); err != nil || x.Count() != 48*tib {
			b.Fatal(err, x.Count())
		}
	}
}

func BenchmarkUnionSparse(b *testing.B) {
	x, y := mustNew(b, 64*tib, 65536), mustNew(b, 64*tib, 65536)
	scatter(1000)(x)
	scatter(999)(y)
	for b.Loop() {
		if err := x.Union(y); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWire(b *testing.B) {
	x := half(b, 0xaa)
	y := mustNew(b, x.Size(), x.Granularity())
	const cluster = 65536
	p := make([]byte, 0, cluster)
	b.SetBytes(x.WireSize())
	for b.Loop() {
		for off := int64(0); off < x.WireSize(); off += cluster {
			p = x.AppendWire(p[:0], off, cluster)
			if _, err := y.LoadWire(off, p); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkRanges(b *testing.B) {
	x := half(b, 0xaa)
	for b.Loop() {
		n := 0
		for range x.RangesIn(0, tib) {
			n++
		}
		if n != int(tib/65536/2) {
			b.Fatal(n)
		}
	}
}

func BenchmarkCoarser(b *testing.B) {
	x := half(b, 0x11)
	for b.Loop() {
		if _, err := x.WithGranularity(1 << 20); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSetScattered(b *testing.B) {
	x := mustNew(b, 64*tib, 65536)
	off := int64(1)
	for b.Loop() {
		off = off * 6364136223846793005 & (64*tib - 1)
		x.Set(off, 1)
	}
}
