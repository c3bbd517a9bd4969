package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

// TestInteropResize resizes the top of random chains several times: what was there
// stays, what is added is zero. Beside qemu-img, as far as that can: it does not let
// version 2 grow over a backing file, and after shrinking and growing it shows what an
// odd last cluster held.
func TestInteropResize(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	for seed := range uint64(rounds(4, 150)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 4))
			ours := newRandomChain(t, rng, 1+rng.IntN(3))
			theirs, top := ours.twin(), len(ours.names)-1
			want := ours.content(top)
			for range 3 {
				size := 512 * (1 + rng.IntN(20000))
				args := []string{"resize", "--trust", "-f", ours.formatOf(top), "--shrink", ours.path(top), fmt.Sprint(size)}
				if out, said, status := qbit(args...); status != 0 {
					t.Fatalf("qbit %q: status %d\n%s%s", args, status, out, said)
				}
				want = append(want, make([]byte, max(0, size-len(want)))...)[:size:size]
				ours.expectSound(top)
				if !bytes.Equal(ours.content(top), want) {
					t.Fatalf("%q: it does not read as before, with zeros", args)
				}
				out, err := exec.Command("qemu-img", "resize", "-q", "-f", ours.formatOf(top), "--shrink", theirs.path(top), fmt.Sprint(size)).CombinedOutput()
				switch {
				case err == nil:
					ours.expectInfo(theirs, top)
				case bytes.Contains(out, []byte("Operation not supported")):
					return
				default:
					t.Fatalf("qemu-img resize: %v\n%s", err, out)
				}
			}
		})
	}
}
