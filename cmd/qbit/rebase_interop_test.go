package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

// TestInteropRebase rebases the top of random chains with qbit onto another layer, onto
// another chain's, or onto none, and its twin with qemu-img: the disk stays the same,
// and the header says the same.
func TestInteropRebase(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	for seed := range uint64(rounds(4, 200)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 3))
			ours := newRandomChain(t, rng, 2+rng.IntN(3))
			rebaseBoth(t, ours, rng)
		})
	}
}

func rebaseBoth(t *testing.T, ours *randomChain, rng *rand.Rand) {
	top := len(ours.names) - 1
	theirs, before := ours.twin(), ours.content(top)
	name, format := "", ""
	switch rng.IntN(3) {
	case 0:
		i := rng.IntN(top)
		name, format = ours.names[i], ours.formatOf(i)
	case 1: // a stranger, larger or smaller
		other := *ours
		other.names, other.raw = []string{"other"}, false
		other.rng = rng
		size := int64(1+rng.IntN(9)) << 20
		interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", other.path(0), fmt.Sprint(size))
		other.write(other.path(0), "qcow2", size)
		name, format = "other", "qcow2"
		other.dir = theirs.dir
		writeFile(t, other.path(0), must(os.ReadFile(ours.dir+"/other")))
	}
	args := []string{"rebase", "--allow-refs", ours.dir, "-b", name}
	qemu := []string{"rebase", "-f", "qcow2", "-b", name}
	if name != "" {
		args, qemu = append(args, "-F", format), append(qemu, "-F", format)
	}
	out, said, status := qbit(append(args, ours.path(top))...)
	if status != 0 {
		t.Fatalf("qbit %q: status %d\n%s%s", args, status, out, said)
	}
	interop.Run(t, "qemu-img", append(qemu, theirs.path(top))...)
	ours.expectSound(top)
	ours.expectInfo(theirs, top)
	if !bytes.Equal(ours.content(top), before) {
		t.Errorf("%q changed the disk: %s", args, out)
	}
	// There and back again, now by the name alone: the maps, or the bytes, prove it.
	if name != "" {
		_, said, status := qbit("rebase", "--trust", "-u", "--prove", "-b", name, "-F", format, ours.path(top))
		if status != 0 {
			t.Errorf("-u --prove onto the same: status %d\n%s", status, said)
		}
	}
}

// TestInteropRebaseAlone gives images that stand alone a backing file: what they do not
// hold reads as zero, and must go on to, also in version 2, which has no zero clusters.
func TestInteropRebaseAlone(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	for _, compat := range []string{"0.10", "1.1"} {
		t.Run(compat, func(t *testing.T) {
			c := &randomChain{t: t, dir: t.TempDir(), names: []string{"new.qcow2", "top.qcow2"}}
			interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", c.path(0), "3M")
			interop.Run(t, "qemu-io", "-c", "write -P 7 0 3M", c.path(0))
			interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat="+compat, c.path(1), "2M")
			interop.Run(t, "qemu-io", "-c", "write -P 3 1M 100k", c.path(1))
			before := c.content(1)
			if out, said, status := qbit("rebase", "--trust", "-b", "new.qcow2", c.path(1)); status != 0 {
				t.Fatalf("status %d\n%s%s", status, out, said)
			}
			c.expectSound(1)
			if !bytes.Equal(c.content(1), before) {
				t.Error("the disk changed")
			}
		})
	}
}

// TestInteropRebaseProve: a backing file that was moved, one that is not the right one,
// and one that cannot be told.
func TestInteropRebaseProve(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	c := &randomChain{t: t, dir: t.TempDir(), names: []string{"full.qcow2", "over.qcow2", "moved.qcow2", "wrong.qcow2"}}
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", c.path(0), "16M")
	interop.Run(t, "qemu-io", "-c", "write -P 1 1M 6M", c.path(0))
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "full.qcow2", "-F", "qcow2", c.path(1))
	interop.Run(t, "qemu-io", "-c", "write -P 2 9M 1M", "-c", "write -P 7 12M 4M", c.path(1))
	sealed := t.TempDir()
	writeFile(t, sealed+"/full.qcow2", must(os.ReadFile(c.path(0))))
	if out, said, status := qbit("seal", sealed); status != 0 {
		t.Fatalf("seal: status %d\n%s%s", status, out, said)
	}
	if err := os.Rename(c.path(0), c.path(2)); err != nil {
		t.Fatal(err)
	}
	// Behind 12M the image holds all: what is there does not matter.
	interop.Run(t, "qemu-io", "-c", "write -P 9 13M 1M", c.path(2))
	writeFile(t, c.path(3), must(os.ReadFile(c.path(2))))
	interop.Run(t, "qemu-io", "-c", "write -P 8 2M 512", c.path(3))
	before := must(os.ReadFile(c.path(1)))
	prove := func(want int, says, name string, more ...string) {
		t.Helper()
		out, said, status := qbit(append(append([]string{"rebase", "-u", "--prove", "--trust", "-b", name}, more...), c.path(1))...)
		if status != want || !strings.Contains(out+said, says) {
			t.Errorf("-b %s %q: status %d, %s%s", name, more, status, out, said)
		}
		if want != 0 && !bytes.Equal(must(os.ReadFile(c.path(1))), before) {
			t.Errorf("-b %s %q: the refusal changed the image", name, more)
		}
	}
	prove(1, "there is no qbit-manifest.json", "moved.qcow2")
	m := sealed + "/qbit-manifest.json"
	prove(2, `the new backing file is not the point "full.qcow2" (by the old name)`, "wrong.qcow2", "--manifest", m)
	prove(1, `there is no point "other"`, "moved.qcow2", "--manifest", m, "--at", "other")
	prove(0, `proven: the new backing file holds the point "full.qcow2" (by the old name)`, "moved.qcow2", "--manifest", m)
	before = must(os.ReadFile(c.path(1)))
	prove(2, "the disk would change in 64 KiB, from byte 2097152 on", "wrong.qcow2")
	prove(0, "proven: the disk stays the same", "moved.qcow2")
	before = must(os.ReadFile(c.path(1)))
	prove(2, "would change", "")
}
