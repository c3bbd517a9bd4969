package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

// mustRun runs a tool in a folder.
func mustRun(t *testing.T, dir, tool string, args ...string) string {
	t.Helper()
	out, err := inFolder(filepath.Join(dir, "x"), tool, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", tool, args, err, out)
	}
	return string(out)
}

// mustQbit runs qbit, which must do what it is told.
func mustQbit(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	stdout, stderr, status := qbit(args...)
	if status != 0 {
		t.Fatalf("qbit %q: status %d\n%s", args, status, stderr)
	}
	return stdout, stderr
}

// overlayChain has QEMU make a disk and overlays on it, each with random writes, zeros
// and discards, of random cluster sizes, and some of them of other sizes.
func overlayChain(t *testing.T, r *rand.Rand, dir string, n int) []string {
	t.Helper()
	size := int64(4 << 20)
	var names []string
	for i := range n {
		name := fmt.Sprintf("link%d.qcow2", i)
		if i > 0 && r.IntN(3) == 0 {
			size = 1<<20 + r.Int64N(6<<20)&^511
		}
		args := []string{"create", "-q", "-f", "qcow2", "-o", "cluster_size=" + []string{"4k", "64k", "512", "16k,extended_l2=on"}[r.IntN(4)]}
		if i > 0 {
			args = append(args, "-b", names[i-1], "-F", "qcow2")
		}
		mustRun(t, dir, "qemu-img", append(args, name, fmt.Sprint(size))...)
		var io []string
		for range 1 + r.IntN(8) {
			off := r.Int64N(size) &^ 511
			length := min(1+r.Int64N(300<<10), size-off) &^ 511
			if length == 0 {
				continue
			}
			verb := []string{fmt.Sprintf("write -P %d", 1+r.IntN(255)), "write -z", "write -z -u", "discard", "write -P 0"}[r.IntN(5)]
			io = append(io, "-c", fmt.Sprintf("%s %d %d", verb, off, length))
		}
		mustRun(t, dir, "qemu-io", append(io, "-f", "qcow2", name)...)
		names = append(names, name)
	}
	return names
}

// TestInteropSquash squashes runs of overlays that QEMU wrote, and has QEMU read the
// chain with the result in their place.
func TestInteropSquash(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	rounds := 8
	if os.Getenv("QBIT_FULL") == "1" {
		rounds = 200
	}
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 60))
		dir := t.TempDir()
		t.Chdir(dir)
		links := overlayChain(t, r, dir, 3+r.IntN(4))
		first := r.IntN(len(links))
		last := first + r.IntN(len(links)-first)
		args := append([]string{"squash", "--output=json", "-o", "one.qcow2"}, links[first:last+1]...)
		if first > 0 && r.IntN(2) == 0 { // otherwise the name is taken over
			args = append(args, "-B", links[first-1])
		}
		if r.IntN(3) == 0 {
			args = append(args, "--compress="+[]string{"deflate", "zstd"}[r.IntN(2)])
		}
		mustQbit(t, args...)
		if out := mustRun(t, dir, "qemu-img", "check", "one.qcow2"); !strings.Contains(out, "No errors were found") {
			t.Errorf("seed %d: %s", seed, out)
		}
		wantSame(t, dir, links[last], "one.qcow2", fmt.Sprint("seed ", seed, ": ", args))
		if last+1 < len(links) {
			mustRun(t, dir, "qemu-img", "convert", "-O", "raw", links[len(links)-1], "before.raw")
			mustRun(t, dir, "qemu-img", "rebase", "-u", "-b", "one.qcow2", "-F", "qcow2", links[last+1])
			mustRun(t, dir, "qemu-img", "convert", "-O", "raw", links[len(links)-1], "after.raw")
			if fileSHA256(t, "before.raw") != fileSHA256(t, "after.raw") {
				t.Errorf("seed %d: %q: the chain above gives another disk", seed, args)
			}
		}
		if t.Failed() {
			return
		}
	}
}

// wantSame has qemu-img compare two disks, their sizes too.
func wantSame(t *testing.T, dir, a, b, what string, flags ...string) {
	t.Helper()
	out, err := inFolder(filepath.Join(dir, "x"), "qemu-img", append(append([]string{"compare"}, flags...), a, b)...)
	if err != nil || strings.Contains(string(out), "size mismatch") {
		t.Errorf("%s: qemu-img compare %s %s: %v: %s", what, a, b, err, out)
	}
}
