package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

// TestInteropInjectedChanges makes system calls of qbit commit and rebase fail: each is
// an error, or the work is done all the same; the disk reads the same, and no image has
// anything worse than leaks.
func TestInteropInjectedChanges(t *testing.T) {
	interop.Need(t, "strace", "qemu-img", "qemu-io")
	binary := buildQbit(t)
	c := &randomChain{t: t, rng: rand.New(rand.NewPCG(1, 1)), dir: t.TempDir(), names: []string{"l0", "l1"}}
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", c.path(0), "8M")
	interop.Run(t, "qemu-io", "-c", "write -P 1 0 2M", c.path(0))
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "l0", "-F", "qcow2", c.path(1), "16M")
	interop.Run(t, "qemu-io", "-c", "write -P 2 1M 64k", "-c", "write -z 1500k 64k", "-c", "write -P 3 9M 64k", c.path(1))
	before, saved, failed := c.content(1), c.twin(), 0
	for _, args := range [][]string{{"commit", "--trust", c.path(1)}, {"rebase", "--trust", "-b", "", c.path(1)}} {
		for _, call := range []string{"pwrite64:error=ENOSPC", "fsync:error=EIO", "ftruncate:error=EIO"} {
			for n := range rounds(4, 20) {
				for i := range c.names {
					writeFile(t, c.path(i), must(os.ReadFile(saved.path(i))))
				}
				status, out := runInjected(t, fmt.Sprintf("%s:when=%d+100", call, n+1), append([]string{binary}, args...)...)
				if status != 0 {
					failed++
				}
				if !bytes.Equal(c.content(1), before) {
					t.Errorf("%s %s, call %d: status %d, and the disk reads otherwise: %s", args[0], call, n+1, status, out)
				}
				if got := c.content(0); args[0] == "commit" && status == 0 && !bytes.Equal(got, before) {
					t.Errorf("%s, call %d: status 0, and not all is in the base: %s", call, n+1, out)
				}
				c.expectLeaksAtMost(0)
				c.expectLeaksAtMost(1)
			}
		}
	}
	if failed < 10 {
		t.Errorf("only %d runs failed: the calls that were made to fail are not those that qbit makes", failed)
	}
}
