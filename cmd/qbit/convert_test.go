package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

// Disks one behind the other read as their bytes one behind the other, each filled up
// to the end of its last sector.
func TestJoinedDisks(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 70))
		var chains []*chain
		var want []byte
		for range 1 + r.IntN(4) {
			p := make([]byte, r.IntN(3000))
			for i := range p {
				p[i] = byte(r.Uint32())
			}
			chains = append(chains, &chain{disk: reconstruct.NewRaw(bytes.NewReader(p), int64(len(p)), nil)})
			want = append(want, append(p, make([]byte, -len(p)&511)...)...)
		}
		j := joinDisks(chains)
		if j.Size() != int64(len(want)) {
			t.Fatalf("seed %d: %d bytes, want %d", seed, j.Size(), len(want))
		}
		for range 20 {
			off := r.Int64N(j.Size() + 1)
			wantJoined(t, r, j, want, off, r.Int64N(j.Size()-off+1))
		}
	}
}

func wantJoined(t *testing.T, r *rand.Rand, j *joinedDisks, want []byte, off, n int64) {
	t.Helper()
	p := bytes.Repeat([]byte{0xee}, int(n)+r.IntN(2))
	got, err := j.ReadAt(p, off)
	if full := int64(len(p)) <= j.Size()-off; full != (err == nil) || !full && err != io.EOF {
		t.Fatalf("reading [%d, +%d): %v", off, len(p), err)
	}
	if !bytes.Equal(p[:got], want[off:off+int64(got)]) || int64(got) != min(int64(len(p)), j.Size()-off) {
		t.Fatalf("reading [%d, +%d): %d bytes, or wrong ones", off, len(p), got)
	}
	next := off
	for e, err := range j.Extents(off, n) {
		if err != nil || e.Off != next || e.Len <= 0 {
			t.Fatalf("extent %+v at %d, %v", e, next, err)
		}
		part := make([]byte, e.Len)
		if e.Kind == qcow2.Data {
			if _, err := e.Storage.ReadAt(part, int64(e.Host)); err != nil && err != io.EOF {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(part, want[e.Off:e.End()]) {
			t.Fatalf("extent %+v has other bytes", e)
		}
		next = e.End()
	}
	if next != off+n {
		t.Fatalf("extents of [%d, +%d) end at %d", off, n, next)
	}
}

// -S rounds up to a power of two.
func TestSparseBlock(t *testing.T) {
	for size, want := range map[sizeValue]int64{0: 4096, 512: 512, 1024: 1024, 1536: 2048, 4096: 4096, 65536: 65536, 66048: 131072, 4 << 20: 4 << 20} {
		v := convertCommand{sparse: size}
		if got := v.block(); got != want {
			t.Errorf("-S %d looks for blocks of %d, want %d", size, got, want)
		}
	}
}
