package main

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
)

// A benchCase is a chain of images, made anew for each run of the benchmark.
type benchCase struct {
	name     string
	size     int64    // bytes of the disk
	links    int      // the full backup included
	fullData int64    // bytes written to the full backup
	incData  int64    // bytes written to each increment
	unit     [2]int64 // the least and most bytes a write has
	format   string   // of the result
	slow     bool     // qemu-img takes minutes, and runs once
}

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
	tib = 1 << 40
)

func cases(s settings) []benchCase {
	part := func(n int64) int64 { return n * s.scale / 100 }
	return []benchCase{
		{name: "8 GiB disk, 4 GiB of data, 20 links", size: part(8 * gib), links: 20,
			fullData: part(3 * gib), incData: part(100 * mib), unit: [2]int64{64 * kib, 4 * mib}, format: "raw"},
		// The result is qcow2, for many filesystems have no raw file of that size.
		{name: "64 TiB disk, 1 GiB of data, 50 links", size: 64 * tib, links: 50,
			fullData: part(900 * mib), incData: part(2 * mib), unit: [2]int64{4 * kib, 256 * kib}, format: "qcow2", slow: true},
	}
}

// build makes the chain; each image names the one before it as its backing
// file, which is what qemu-img needs to read it.
func (c benchCase) build(dir string) ([]string, error) {
	rng := rand.New(rand.NewPCG(1, 2))
	var links []string
	for i := range c.links {
		path := filepath.Join(dir, fmt.Sprintf("link%03d.qcow2", i))
		args := []string{"create", "-q", "-f", "qcow2"}
		data := c.fullData
		if i > 0 {
			args = append(args, "-b", links[i-1], "-F", "qcow2")
			data = c.incData
		}
		args = append(args, path, fmt.Sprint(c.size))
		if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("qemu-img %q: %s", args, out)
		}
		if err := c.fill(path, data, i == 0, rng); err != nil {
			return nil, err
		}
		links = append(links, path)
	}
	return links, nil
}

// fill writes data bytes: in order for a full backup, as a guest's files lie,
// and at random places for an increment.
func (c benchCase) fill(path string, data int64, inOrder bool, rng *rand.Rand) error {
	var script strings.Builder
	at := int64(0)
	for data > 0 {
		n := (c.unit[0] + rng.Int64N(c.unit[1]-c.unit[0]+1)) &^ 4095
		if inOrder {
			gap := float64(c.size-c.fullData) * float64(n) / float64(c.fullData) // on average
			at += rng.Int64N(int64(2*gap)+1) &^ 4095
		} else {
			at = rng.Int64N(c.size-n) &^ 4095
		}
		if at+n > c.size {
			break
		}
		fmt.Fprintf(&script, "write -q -P %d %d %d\n", 1+rng.IntN(255), at, n)
		at, data = at+n, data-n
	}
	cmd := exec.Command("qemu-io", "-t", "unsafe", path)
	cmd.Stdin = strings.NewReader(script.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-io: %w: %s", err, out)
	}
	return nil
}
