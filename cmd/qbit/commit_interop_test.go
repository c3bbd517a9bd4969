package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

// A randomChain is a chain of images that qemu-img and qemu-io made, in a folder: l0 is
// the lowest.
type randomChain struct {
	t     *testing.T
	rng   *rand.Rand
	dir   string
	names []string
	sizes []int64
	raw   bool // l0 is raw
}

var chainOptions = []string{"compat=1.1", "cluster_size=4k", "cluster_size=2M", "compat=0.10", "extended_l2=on,cluster_size=16k",
	"cluster_size=512,refcount_bits=8", "lazy_refcounts=on"}

// newRandomChain makes n layers of different sizes with data, zeros, discarded and
// compressed clusters in them.
func newRandomChain(t *testing.T, rng *rand.Rand, n int) *randomChain {
	c := &randomChain{t: t, rng: rng, dir: t.TempDir()}
	for i := range n {
		size := int64(2+rng.IntN(6)) << 20
		if rng.IntN(3) == 0 {
			size += int64(rng.IntN(2048)) * 512
		}
		c.add(i, size)
		c.write(c.path(i), c.formatOf(i), size)
	}
	return c
}

func (c *randomChain) path(i int) string { return filepath.Join(c.dir, c.names[i]) }

func (c *randomChain) formatOf(i int) string {
	if i == 0 && c.raw {
		return "raw"
	}
	return "qcow2"
}

func (c *randomChain) add(i int, size int64) {
	c.names, c.sizes = append(c.names, fmt.Sprintf("l%d", i)), append(c.sizes, size)
	if i == 0 && c.rng.IntN(3) == 0 {
		c.raw = true
		interop.Run(c.t, "qemu-img", "create", "-q", "-f", "raw", c.path(0), fmt.Sprint(size))
		return
	}
	args := []string{"create", "-q", "-f", "qcow2", "-o", chainOptions[c.rng.IntN(len(chainOptions))]}
	if i > 0 {
		args = append(args, "-b", c.names[i-1], "-F", c.formatOf(i-1))
	}
	interop.Run(c.t, "qemu-img", append(args, c.path(i), fmt.Sprint(size))...)
}

// write does random guest writes.
func (c *randomChain) write(path, format string, size int64) {
	args := []string{"-f", format}
	for range 3 + c.rng.IntN(8) {
		off := c.rng.Int64N(size) &^ 511
		n := min(1+c.rng.Int64N(600<<10), size-off) &^ 511
		switch c.rng.IntN(6) {
		case 0:
			args = append(args, "-c", fmt.Sprintf("write -z %d %d", off, n))
		case 1:
			args = append(args, "-c", fmt.Sprintf("discard %d %d", off, n))
		case 2:
			args = append(args, "-c", fmt.Sprintf("write -P 0 %d %d", off, n))
		case 3:
			if off &= ^int64(2<<20 - 1); format == "qcow2" && size-off >= 2<<20 {
				args = append(args, "-c", fmt.Sprintf("write -c -P %d %d %d", 1+c.rng.IntN(200), off, 2<<20))
				break
			}
			fallthrough
		default:
			args = append(args, "-c", fmt.Sprintf("write -P %d %d %d", 1+c.rng.IntN(200), off, n))
		}
	}
	// A compressed write over what is there is refused; what the others did counts.
	if out, err := exec.Command("qemu-io", append(args, path)...).CombinedOutput(); err != nil && !bytes.Contains(out, []byte("write failed")) {
		c.t.Fatalf("qemu-io %q: %v\n%s", args, err, out)
	}
}

// twin is a copy of the whole chain.
func (c *randomChain) twin() *randomChain {
	o := *c
	o.dir = c.t.TempDir()
	for i := range c.names {
		writeFile(c.t, o.path(i), must(os.ReadFile(c.path(i))))
	}
	return &o
}

// content is what QEMU reads of a layer.
func (c *randomChain) content(i int) []byte {
	out := filepath.Join(c.t.TempDir(), "content")
	interop.Run(c.t, "qemu-img", "convert", "-f", c.formatOf(i), "-O", "raw", c.path(i), out)
	return must(os.ReadFile(out))
}

// expectSound has qemu-img check a layer.
func (c *randomChain) expectSound(i int) {
	c.t.Helper()
	if c.formatOf(i) == "qcow2" {
		interop.Run(c.t, "qemu-img", "check", "-f", "qcow2", c.path(i))
	}
}

// A qemuInfo is a part of what qemu-img info prints.
type qemuInfo struct {
	Size    int64  `json:"virtual-size"`
	Backing string `json:"backing-filename"`
	Format  string `json:"backing-filename-format"`
}

func (c *randomChain) info(i int) (info qemuInfo) {
	c.t.Helper()
	out := interop.Run(c.t, "qemu-img", "info", "-f", c.formatOf(i), "--output=json", c.path(i))
	if err := json.Unmarshal(out, &info); err != nil {
		c.t.Fatal(err)
	}
	return info
}

func (c *randomChain) expectInfo(o *randomChain, i int) {
	c.t.Helper()
	if a, b := c.info(i), o.info(i); a != b {
		c.t.Errorf("layer %d: qbit left %+v, qemu-img %+v", i, a, b)
	}
}

func rounds(few, full int) int {
	if os.Getenv("QBIT_FULL") == "1" {
		return full
	}
	return few
}

// TestInteropCommit commits in random chains with qbit, and in their twins with
// qemu-img: every layer that is still valid reads the same, and has the same size.
func TestInteropCommit(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	for seed := range uint64(rounds(4, 200)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 2))
			ours := newRandomChain(t, rng, 2+rng.IntN(3))
			top := len(ours.names) - 1
			base := rng.IntN(top)
			if base > 0 && rng.IntN(2) == 0 || rng.IntN(2) == 0 {
				base = top - 1
			}
			commitBoth(t, ours, top, base, rng.IntN(3) == 0)
		})
	}
}

func commitBoth(t *testing.T, ours *randomChain, top, base int, drop bool) {
	theirs := ours.twin()
	before := ours.content(top)
	args := []string{"commit", "--allow-refs", ours.dir}
	qemu := []string{"commit", "-q", "-f", "qcow2"}
	if base < top-1 {
		args = append(args, "-b", ours.path(base))
		qemu = append(qemu, "-b", theirs.path(base))
	}
	if drop {
		args, qemu = append(args, "-d"), append(qemu, "-d")
	}
	if out, said, status := qbit(append(args, ours.path(top))...); status != 0 {
		t.Fatalf("qbit %q: status %d\n%s%s", args, status, out, said)
	}
	out, err := exec.Command("qemu-img", append(qemu, theirs.path(top))...).CombinedOutput()
	if err != nil && !bytes.Contains(out, []byte("Operation not supported")) { // it cannot let version 2 grow
		t.Fatalf("qemu-img %q: %v\n%s", qemu, err, out)
	}
	for _, i := range []int{top, base} {
		ours.expectSound(i)
		if err != nil {
			continue
		}
		ours.expectInfo(theirs, i)
		if !bytes.Equal(ours.content(i), theirs.content(i)) {
			t.Errorf("%q: layer %d of %d does not read as after qemu-img commit", args, i, top)
		}
	}
	if !bytes.Equal(ours.content(top), before) {
		t.Errorf("%q changed the disk", args)
	}
	if !drop && base == top-1 {
		expectEmpty(t, ours, top)
	}
}

// TestInteropCommitShortBetween: where an image in between ends the disk is zero, and so
// is the base afterwards.
func TestInteropCommitShortBetween(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	c := &randomChain{t: t, dir: t.TempDir(), names: []string{"l0", "l1", "l2"}}
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", c.path(0), "6M")
	interop.Run(t, "qemu-io", "-c", "write -P 1 0 6M", c.path(0))
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "l0", "-F", "qcow2", c.path(1), "2M")
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "l1", "-F", "qcow2", c.path(2), "4M")
	before := c.content(2)
	commitBoth(t, c, 2, 0, false)
	if _, said, status := qbit("rebase", "-u", "-b", "l0", "--trust", c.path(2)); status != 0 {
		t.Fatal(said)
	}
	if !bytes.Equal(c.content(2), before) {
		t.Error("on the base alone the disk reads otherwise")
	}
}

// expectEmpty wants nothing to come from a layer itself.
func expectEmpty(t *testing.T, c *randomChain, i int) {
	t.Helper()
	var extents []struct {
		Depth   int
		Present bool
	}
	if err := json.Unmarshal(interop.Run(t, "qemu-img", "map", "-f", "qcow2", "--output=json", c.path(i)), &extents); err != nil {
		t.Fatal(err)
	}
	for _, e := range extents {
		if e.Depth == 0 && e.Present {
			t.Errorf("layer %d still holds something: %+v", i, extents)
			return
		}
	}
}

// TestInteropCommitSnapshots: what internal snapshots show is not changed unasked.
func TestInteropCommitSnapshots(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	c := &randomChain{t: t, rng: rand.New(rand.NewPCG(1, 1)), dir: t.TempDir(), names: []string{"l0", "l1"}}
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", c.path(0), "4M")
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "l0", "-F", "qcow2", c.path(1))
	interop.Run(t, "qemu-io", "-c", "write -P 1 1M 64k", c.path(1))
	interop.Run(t, "qemu-img", "snapshot", "-c", "snap", c.path(1))
	interop.Run(t, "qemu-io", "-c", "write -P 2 1M 64k", c.path(1))
	old, before := must(os.ReadFile(c.path(0))), c.content(1)
	writeFile(t, filepath.Join(c.dir, "kept"), must(os.ReadFile(c.path(1))))
	interop.Run(t, "qemu-io", "-c", "write -P 3 2M 64k", c.path(1))
	_, said, status := qbit("commit", "--trust", c.path(1))
	if status != 1 || !strings.Contains(said, `its snapshot "snap" reads 64 KiB of what would change`) {
		t.Errorf("status %d: %s", status, said)
	}
	if !bytes.Equal(must(os.ReadFile(c.path(0))), old) {
		t.Error("the refusal changed the backing file")
	}
	// What the snapshot holds itself may change below it.
	writeFile(t, c.path(1), must(os.ReadFile(filepath.Join(c.dir, "kept"))))
	if _, said, status := qbit("commit", "--trust", c.path(1)); status != 0 {
		t.Fatalf("status %d: %s", status, said)
	}
	c.expectSound(1)
	expectEmpty(t, c, 1)
	if !bytes.Equal(c.content(1), before) {
		t.Error("the disk changed")
	}
	interop.Run(t, "qemu-img", "snapshot", "-a", "snap", c.path(1))
	if got := c.content(1); got[1<<20] != 1 {
		t.Errorf("the snapshot reads %d", got[1<<20])
	}
}
