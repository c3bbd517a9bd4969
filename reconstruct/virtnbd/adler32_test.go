package virtnbd

import (
	"bytes"
	"hash/adler32"
	"math/rand/v2"
	"testing"
)

// TestAdler: the sum is that of the standard library, for bytes of all kinds, in any
// parts, written one after the other or joined.
func TestAdler(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 3<<20)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	for _, content := range [][]byte{noise, make([]byte, 1<<20), bytes.Repeat([]byte{0xff}, 5<<20+7), nil, {1}, noise[:adlerBlock], noise[:adlerBlock-1]} {
		for range 20 {
			written, joined := newAdler(), newAdler()
			for p := content; len(p) > 0; {
				n := min(1+rng.IntN(1+rng.IntN(2<<20)), len(p))
				if rng.IntN(2) == 0 {
					n = min(n, 1+rng.IntN(3*adlerBlock))
				}
				part := newAdler()
				part.write(p[:n])
				written.write(p[:n])
				joined.join(part)
				p = p[n:]
				if len(content)-len(p) < 1<<20 && rng.IntN(100) > 0 {
					continue
				}
				if want := adler32.Checksum(content[:len(content)-len(p)]); written.sum() != want || joined.sum() != want {
					t.Fatalf("%d bytes: %08x written, %08x joined, want %08x", len(content)-len(p), written.sum(), joined.sum(), want)
				}
			}
			if want := adler32.Checksum(content); written.sum() != want || joined.sum() != want || joined.n != int64(len(content)) {
				t.Fatalf("%d bytes: %08x written, %08x joined, want %08x", len(content), written.sum(), joined.sum(), want)
			}
		}
	}
}

func BenchmarkAdler(b *testing.B) {
	p := bytes.Repeat([]byte("0123456789abcde\xff"), 1<<14)
	b.Run("library", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			adler32.Checksum(p)
		}
	})
	b.Run("own", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			s := newAdler()
			s.write(p)
		}
	})
}
