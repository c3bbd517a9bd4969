package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

const (
	bitmapDisk    = 16 * tib
	bitmapCluster = 64 * kib
	perCluster    = bitmapCluster * 8 * bitmapCluster // bytes of the disk that a cluster of bits stands for
)

// A bitmapCase is one operation on the bitmaps of an image, done by qbit and by
// QEMU on copies of the same image.
type bitmapCase struct {
	name  string
	image string
	ours  []string // IMAGE stands for the copy
	qemu  []string
	same  []string // bitmaps that both must leave alike; none: their output is compared
}

// runBitmaps times qbit bitmap beside qemu-img bitmap, and the listing of ranges
// beside qemu-nbd with nbdinfo.
func runBitmaps(s settings) error {
	for _, tool := range []string{"qemu-img", "qemu-nbd", "nbdinfo"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	return inFolder(s, func(s settings) error {
		dir := s.dir
		cases, err := bitmapCases(s, dir)
		if err != nil {
			return err
		}
		for _, c := range cases {
			if err := c.run(s, dir); err != nil {
				return err
			}
		}
		return nil
	})
}

// bitmapCases makes the images: an empty one, one with two bitmaps of which every
// other bit is dirty, at random, one with many short ranges, and one whose tables
// map all of a smaller disk.
func bitmapCases(s settings, dir string) ([]bitmapCase, error) {
	path := func(name string) string { return filepath.Join(dir, name+".qcow2") }
	empty, half, ranges, mapped := path("empty"), path("half"), path("ranges"), path("mapped")
	for _, make := range []func() error{
		func() error { return createImage(empty, bitmapDisk, "") },
		func() error { return makeHalfDirty(s, half) },
		func() error { return makeRanges(s, ranges) },
		func() error { return createImage(mapped, s.part(tib, gib), "preallocation=metadata") },
	} {
		if err := make(); err != nil {
			return nil, err
		}
	}
	bitmap := func(name, image, target string, args ...string) bitmapCase {
		words := append(append([]string{"bitmap"}, args...), "IMAGE", target)
		return bitmapCase{name: name, image: image, ours: append([]string{s.qbit}, words...),
			qemu: append([]string{"qemu-img"}, words...), same: []string{target}}
	}
	return []bitmapCase{
		bitmap("add to an empty image of 16 TiB", empty, "new", "--add", "-g", "65536"),
		bitmap("add beside two half-dirty bitmaps", half, "new", "--add", "-g", "65536"),
		bitmap("merge two half-dirty bitmaps", half, "a", "--merge", "b"),
		bitmap("clear a half-dirty bitmap", half, "a", "--clear"),
		bitmap("add to an image with 1 TiB mapped", mapped, "new", "--add", "-g", "65536"),
		{name: "list 256 Ki ranges", image: ranges,
			ours: []string{s.qbit, "bitmap", "--ranges", "--output=json", "IMAGE", "r"},
			qemu: []string{"nbdinfo", "--json", "--map=qemu:dirty-bitmap:r", "--", "[", "qemu-nbd", "-r", "-f", "qcow2", "-B", "r", "IMAGE", "]"}},
	}, nil
}

// makeHalfDirty makes bitmaps a and b.
func makeHalfDirty(s settings, path string) error {
	rng := rand.NewChaCha8([32]byte{1})
	if err := createImage(path, bitmapDisk, ""); err != nil {
		return err
	}
	for _, name := range []string{"a", "b"} {
		if err := fillBitmap(s, path, name, func(b []byte) { rng.Read(b) }); err != nil {
			return err
		}
	}
	return nil
}

// makeRanges makes bitmap r, of 512 ranges in each cluster.
func makeRanges(s settings, path string) error {
	rng := rand.New(rand.NewPCG(1, 2))
	if err := createImage(path, bitmapDisk, ""); err != nil {
		return err
	}
	return fillBitmap(s, path, "r", func(b []byte) {
		for i := 0; i < len(b); i += len(b) / 512 {
			b[i+1+rng.IntN(100)] = 0x18
		}
	})
}

// fillBitmap adds a bitmap with one dirty bit in each cluster of its data, and
// then fills those clusters, which nothing else in the file looks like.
func fillBitmap(s settings, path, name string, fill func([]byte)) error {
	args := []string{"bitmap", "--add", "-g", "65536"}
	for off := int64(0); off < bitmapDisk; off += perCluster {
		args = append(args, "--set", fmt.Sprintf("%d+1", off))
	}
	if err := tool(s.qbit, append(args, path, name)...); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	found := 0
	b, blank := make([]byte, bitmapCluster), make([]byte, bitmapCluster)
	blank[0] = 1
	for at := int64(0); ; at += bitmapCluster {
		if _, err := io.ReadFull(io.NewSectionReader(f, at, bitmapCluster), b); err != nil {
			break // the end of the file
		}
		if !bytes.Equal(b, blank) {
			continue
		}
		clear(b)
		fill(b)
		found++
		if _, err := f.WriteAt(b, at); err != nil {
			return err
		}
	}
	if want := bitmapDisk / perCluster; found != want {
		return fmt.Errorf("bitmap %s has %d clusters of data, not %d", name, found, want)
	}
	return nil
}

// run lets both work on copies, in turns.
func (c bitmapCase) run(s settings, dir string) error {
	peer := "qemu-img bitmap"
	if len(c.same) == 0 {
		peer = "nbdinfo [ qemu-nbd ]"
	}
	ours := &contestant{name: "qbit bitmap", output: filepath.Join(dir, "ours.qcow2")}
	qemu := &contestant{name: peer, output: filepath.Join(dir, "qemu.qcow2")}
	ours.args, qemu.args = onCopy(c.ours, ours.output), onCopy(c.qemu, qemu.output)
	r := race{title: c.name, runs: []*contestant{ours, qemu},
		before: func(r *contestant) error { return copyImage(c.image, r.output) },
		same:   func(*contestant, *contestant) error { return c.expectSame(s, ours, qemu) }}
	return r.run(s)
}

func onCopy(args []string, image string) []string {
	args = slices.Clone(args)
	args[slices.Index(args, "IMAGE")] = image
	return args
}

// copyImage copies an image, holes kept, and has it stored, so that the next
// command's flush does not pay for it.
func copyImage(from, to string) error {
	if err := tool("cp", from, to); err != nil {
		return err
	}
	return tool("sync", to)
}

// expectSame checks that both did the same, so that no speed is won by being wrong.
func (c bitmapCase) expectSame(s settings, ours, qemu *contestant) error {
	for _, name := range c.same {
		if err := tool("qemu-img", "check", "-q", ours.output); err != nil {
			return err
		}
		out, err := exec.Command(s.qbit, "bitmap", "--diff", name, "-b", qemu.output, ours.output, name).CombinedOutput()
		if err != nil || bytes.Count(out, []byte(": 0 B (")) != 2 {
			return fmt.Errorf("bitmap %s differs: %w: %.200s", name, err, out)
		}
	}
	if len(c.same) > 0 {
		return nil
	}
	out, err := outputSum(onCopy(c.ours, ours.output))
	if err != nil {
		return err
	}
	theirs, err := outputSum(onCopy(c.qemu, qemu.output))
	if err == nil && out != theirs {
		err = errors.New("the outputs differ")
	}
	return err
}

// outputSum is the checksum of what a command prints. It is not kept: a process
// begins with the memory of the one that started it.
func outputSum(args []string) ([sha256.Size]byte, error) {
	h := sha256.New()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout = h
	err := cmd.Run()
	return [sha256.Size]byte(h.Sum(nil)), err
}
