package reconstruct

import (
	"encoding/binary"
	"math/bits"
	"sync"

	"github.com/cespare/xxhash/v2"
)

const (
	// hashStripe is how many bytes xxHash takes at a time, 8 in each of four lanes.
	hashStripe = 32
	// hashStep is how far apart the states are that are kept of a chunk that begins
	// with zeros: a cluster of the usual size.
	hashStep = 64 << 10
	// hashLanes is where the four lanes stand in a marshaled state.
	hashLanes = 4
	hashTotal = hashLanes + hashStripe // behind them, the number of bytes

	hashPrime1 = 0x9e3779b185ebca87
)

// A chunkHash is the 64-bit xxHash of a chunk, to which zeros can be added without
// having any. On a large disk that is nearly empty most of what is hashed are the zeros
// around a few blocks: those that a chunk begins with cost nothing, and
// the others less than as bytes.
type chunkHash struct {
	xxhash.Digest
	n int64 // bytes so far
}

func newChunkHash() *chunkHash {
	h := new(chunkHash)
	h.Reset()
	return h
}

// Reset begins a new chunk.
func (h *chunkHash) Reset() {
	h.Digest.Reset()
	h.n = 0
}

// Write adds bytes.
func (h *chunkHash) Write(p []byte) (int, error) {
	h.n += int64(len(p))
	return h.Digest.Write(p)
}

// zeros adds n zeros.
func (h *chunkHash) zeros(n int64) {
	if h.n == 0 && n >= hashStep {
		i := min(n, ChunkSize) / hashStep
		h.restore(leadingZeros()[i-1])
		n -= i * hashStep
	}
	if whole := n - n%hashStripe; h.n%hashStripe == 0 && whole > 0 {
		h.stripes(whole / hashStripe)
		n -= whole
	}
	for n > 0 {
		part := min(n, int64(len(zeros)))
		h.Write(zeros[:part])
		n -= part
	}
}

// stripes adds n stripes of zeros, between two stripes.
func (h *chunkHash) stripes(n int64) {
	state, _ := h.MarshalBinary() // it cannot fail
	var v [4]uint64
	for i := range v {
		v[i] = binary.LittleEndian.Uint64(state[hashLanes+8*i:])
	}
	a, b, c, d := v[0], v[1], v[2], v[3]
	for range n {
		a = bits.RotateLeft64(a, 31) * hashPrime1
		b = bits.RotateLeft64(b, 31) * hashPrime1
		c = bits.RotateLeft64(c, 31) * hashPrime1
		d = bits.RotateLeft64(d, 31) * hashPrime1
	}
	for i, x := range [4]uint64{a, b, c, d} {
		binary.LittleEndian.PutUint64(state[hashLanes+8*i:], x)
	}
	binary.LittleEndian.PutUint64(state[hashTotal:], uint64(h.n+n*hashStripe))
	h.restore(state)
}

// restore goes on from a state that MarshalBinary gave.
func (h *chunkHash) restore(state []byte) {
	if err := h.UnmarshalBinary(state); err != nil {
		panic("reconstruct: " + err.Error()) // it is a state of this very package
	}
	h.n = int64(binary.LittleEndian.Uint64(state[hashTotal:]))
}

// leadingZeros are the states after each hashStep of a chunk that begins with zeros.
var leadingZeros = sync.OnceValue(func() (states [ChunkSize / hashStep][]byte) {
	h := newChunkHash()
	for i := range states {
		h.stripes(hashStep / hashStripe)
		states[i], _ = h.MarshalBinary()
	}
	return states
})
