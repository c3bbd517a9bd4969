package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// A checkCase is an image that qbit check and qemu-img check look at in turns.
type checkCase struct {
	name string
	make func(path string) error
}

// checkCases are images with much to count and little on the disk: what the guest has
// in them is holes.
func checkCases() []checkCase {
	filled := func(size int64, options string) func(string) error {
		return func(path string) error { return createImage(path, size, "preallocation=metadata"+options) }
	}
	return []checkCase{
		{"check a million clusters of 64 KiB", filled(64*gib, "")},
		{"check a million clusters of 512 bytes", filled(512*mib, ",cluster_size=512")},
		{"check 30 snapshots of a disk of 16 GiB", makeSnapshots},
		{"check an empty disk of 64 TiB", func(path string) error { return createImage(path, 64*tib, "") }},
		{"check a disk of 64 TiB with 2 MiB clusters, 64 of them mapped", func(path string) error {
			if err := createImage(path, 64*tib, "cluster_size=2M"); err != nil {
				return err
			}
			return touch(path, 64, tib, 0)
		}},
	}
}

// touch writes 4 KiB at n places of a disk, every step bytes from first on.
func touch(path string, n, step, first int64) error {
	var writes []guestWrite
	for i := range n {
		writes = append(writes, guestWrite{off: first + i*step, n: 4 * kib, value: int(1 + i%255)})
	}
	return writeAll(path, writes)
}

// makeSnapshots makes an image with all clusters in use and 30 snapshots, between which
// a part of the disk and of the tables is copied each time.
func makeSnapshots(path string) error {
	if err := createImage(path, 16*gib, "preallocation=metadata"); err != nil {
		return err
	}
	for i := range int64(30) {
		if err := tool("qemu-img", "snapshot", "-c", fmt.Sprintf("s%d", i), path); err != nil {
			return err
		}
		if err := touch(path, 8, 2*gib, i*mib); err != nil {
			return err
		}
	}
	return nil
}

// runChecks times qbit check beside qemu-img check. An image is read once before, so
// that it is in the page cache for both.
func runChecks(s settings) error {
	return inFolder(s, func(s settings) error {
		dir := s.dir
		for _, c := range checkCases() {
			path := filepath.Join(dir, "image.qcow2")
			if err := c.make(path); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if err := c.run(s, path); err != nil {
				return err
			}
			os.Remove(path)
		}
		return nil
	})
}

func (c checkCase) run(s settings, path string) error {
	ours := &contestant{name: "qbit check", args: []string{s.qbit, "check", path}}
	qemu := &contestant{name: "qemu-img check", args: []string{"qemu-img", "check", path}}
	if err := sameFigures(ours.args, qemu.args); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	r := race{title: c.name, runs: []*contestant{ours, qemu}}
	return r.run(s)
}

// checkFigures are what both count.
type checkFigures struct {
	End        int64 `json:"image-end-offset"`
	Total      int64 `json:"total-clusters"`
	Allocated  int64 `json:"allocated-clusters"`
	Fragmented int64 `json:"fragmented-clusters"`
	Errors     int64 `json:"check-errors"`
	Bad        int64 `json:"corruptions"`
	Leaks      int64 `json:"leaks"`
}

// sameFigures wants both to count the same, so that no speed is won by being wrong.
func sameFigures(ours, theirs []string) error {
	var figures [2]checkFigures
	for i, args := range [][]string{ours, theirs} {
		out, err := exec.Command(args[0], append(args[1:], "--output=json")...).Output()
		if err == nil {
			err = json.Unmarshal(out, &figures[i])
		}
		if err != nil {
			return fmt.Errorf("%q: %w", args, err)
		}
	}
	if figures[0] != figures[1] {
		return fmt.Errorf("qbit counts %+v, and qemu-img %+v", figures[0], figures[1])
	}
	return nil
}
