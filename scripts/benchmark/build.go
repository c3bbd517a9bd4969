package main

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
	tib = 1 << 40
)

// A chain is a full backup and increments, made anew for each run of the benchmark.
type chain struct {
	size     int64    // bytes of the disk
	links    int      // the full backup included
	fullData int64    // bytes written to the full backup
	incData  int64    // bytes written to each increment
	spread   bool     // fullData is of all links together: each write is in one of them
	unit     [2]int64 // the least and most bytes a write has
	align    int64    // of writes; 0: 4 KiB
	options  string   // with which images are created; may be ""
}

// data is about how much the chain holds: what a restore of it writes.
func (c chain) data() int64 {
	if c.spread {
		return c.fullData
	}
	return c.fullData + int64(c.links-1)*c.incData
}

// A guestWrite is what a guest wrote at once.
type guestWrite struct {
	off, n int64
	value  int
}

// build makes the chain in a folder; each image names the one before it as its
// backing file, which is what qemu-img needs to read it. The same chain gets the same
// bytes each time.
func (c chain) build(dir string) ([]string, error) {
	var links []string
	for i, writes := range c.plan(rand.New(rand.NewPCG(1, 2))) {
		path := filepath.Join(dir, fmt.Sprintf("link%03d.qcow2", i))
		args := []string{"create", "-q", "-f", "qcow2"}
		if c.options != "" {
			args = append(args, "-o", c.options)
		}
		if i > 0 {
			args = append(args, "-u", "-b", links[i-1], "-F", "qcow2")
		}
		if err := tool("qemu-img", append(args, path, fmt.Sprint(c.size))...); err != nil {
			return nil, err
		}
		if err := writeAll(path, writes); err != nil {
			return nil, err
		}
		links = append(links, path)
	}
	return links, nil
}

// plan is what is written to each link.
func (c chain) plan(rng *rand.Rand) [][]guestWrite {
	plans := make([][]guestWrite, c.links)
	full := c.inOrder(rng)
	if c.spread {
		for _, w := range full {
			i := rng.IntN(c.links)
			plans[i] = append(plans[i], w)
		}
		return plans
	}
	plans[0] = full
	for i := 1; i < c.links; i++ {
		plans[i] = c.scattered(rng)
	}
	return plans
}

// one is a write of random length, at no place yet.
func (c chain) one(rng *rand.Rand) guestWrite {
	n := c.unit[0] + rng.Int64N(c.unit[1]-c.unit[0]+1)
	return guestWrite{n: c.down(n), value: 1 + rng.IntN(255)}
}

// down rounds down to what writes are aligned to.
func (c chain) down(n int64) int64 { return n &^ (max(c.align, 4*kib) - 1) }

// inOrder is what a full backup holds, one after the other with gaps between, as a
// guest's files lie.
func (c chain) inOrder(rng *rand.Rand) (writes []guestWrite) {
	at := int64(0)
	for left := c.fullData; left > 0; {
		w := c.one(rng)
		w.n = min(w.n, max(c.down(left), c.unit[0]))
		gap := float64(c.size-c.fullData) * float64(w.n) / float64(c.fullData) // on average
		at += c.down(rng.Int64N(int64(2*gap) + 1))
		if at+w.n > c.size {
			break
		}
		w.off = at
		writes = append(writes, w)
		at, left = at+w.n, left-w.n
	}
	return writes
}

// scattered is what an increment holds, at random places.
func (c chain) scattered(rng *rand.Rand) (writes []guestWrite) {
	for left := c.incData; left > 0; {
		w := c.one(rng)
		w.off = c.down(rng.Int64N(c.size - w.n))
		writes = append(writes, w)
		left -= w.n
	}
	return writes
}

// writeAll writes to an image.
func writeAll(path string, writes []guestWrite) error {
	var script strings.Builder
	for _, w := range writes {
		fmt.Fprintf(&script, "write -q -P %d %d %d\n", w.value, w.off, w.n)
	}
	cmd := exec.Command("qemu-io", "-t", "unsafe", path)
	cmd.Stdin = strings.NewReader(script.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-io: %w: %.1000s", err, out)
	}
	return nil
}

// createImage makes an image without a backing file.
func createImage(path string, size int64, options string) error {
	args := []string{"create", "-q", "-f", "qcow2"}
	if options != "" {
		args = append(args, "-o", options)
	}
	return tool("qemu-img", append(args, path, fmt.Sprint(size))...)
}
