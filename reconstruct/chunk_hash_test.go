package reconstruct

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// TestChunkHash: zeros that are only told of give the hash that zeros give, wherever
// they are.
func TestChunkHash(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	units := []int64{1, 31, 32, 512, 4096, hashStep, hashStep + 32, 1 << 20}
	h := newChunkHash()
	for round := range 300 {
		h.Reset()
		var content []byte
		for len(content) < ChunkSize && rng.IntN(8) > 0 {
			n := units[rng.IntN(len(units))] * (1 + rng.Int64N(5))
			if n = min(n, int64(ChunkSize-len(content))); rng.IntN(2) == 0 {
				h.zeros(n)
				content = append(content, make([]byte, n)...)
			} else {
				part := noise[:min(n, int64(len(noise)))]
				h.Write(part)
				content = append(content, part...)
			}
		}
		if got, want := h.Sum64(), xxhash.Sum64(content); got != want {
			t.Fatalf("round %d, %d bytes: %016x, want %016x", round, len(content), got, want)
		}
	}
	for n := int64(0); n <= ChunkSize+hashStep; n += 65521 {
		h.Reset()
		h.zeros(n)
		if got, want := h.Sum64(), xxhash.Sum64(make([]byte, n)); got != want {
			t.Errorf("%d zeros: %016x, want %016x", n, got, want)
		}
	}
}

func BenchmarkChunkHash(b *testing.B) {
	h := newChunkHash()
	data := bytes.Repeat([]byte{1}, 4096)
	b.SetBytes(ChunkSize)
	for b.Loop() {
		h.Reset()
		h.Write(data)
		h.zeros(ChunkSize - 4096)
	}
}
