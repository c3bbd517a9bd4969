package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qbitkit/qbit/testimages/interop"
)

// wantMeasured wants the figures of qemu-img, for the same arguments.
func wantMeasured(t *testing.T, dir string, args ...string) {
	t.Helper()
	var want, got map[string]int64
	args = append([]string{"measure", "--output=json"}, args...)
	if err := json.Unmarshal([]byte(mustRun(t, dir, "qemu-img", args...)), &want); err != nil {
		t.Fatal(err)
	}
	ours, _ := mustQbit(t, append(args, "--trust")...)
	if err := json.Unmarshal([]byte(ours), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%q (-qemu-img +qbit):\n%s", args, diff)
	}
	human := mustRun(t, dir, "qemu-img", append([]string{"measure", "--output=human"}, args[2:]...)...)
	if ours, _ := mustQbit(t, append(append([]string{"measure", "--output=human"}, args[2:]...), "--trust")...); ours != human {
		t.Errorf("%q: %s\nwant %s", args, ours, human)
	}
}

// TestInteropMeasureSizes measures empty disks.
func TestInteropMeasureSizes(t *testing.T) {
	interop.Need(t, "qemu-img")
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 63))
	for _, size := range []string{"0", "1", "512", "513", "65537", "1M", "7777777777", "64G", "10T"} {
		wantMeasured(t, dir, "-O", "qcow2", "--size", size)
		wantMeasured(t, dir, "-O", "raw", "--size", size)
	}
	for range 20 {
		options := fmt.Sprintf("cluster_size=%d,refcount_bits=%d", 512<<r.IntN(13), 1<<r.IntN(7))
		options += []string{"", "", ",preallocation=metadata", ",preallocation=full", ",lazy_refcounts=on"}[r.IntN(5)]
		wantMeasured(t, dir, "-O", "qcow2", "-o", options, "--size", fmt.Sprint(r.Int64N(64<<30)))
	}
	wantMeasured(t, dir, "-O", "qcow2", "-o", "extended_l2=on,cluster_size=16k", "--size", "1G")
	wantMeasured(t, dir, "-O", "qcow2", "-o", "backing_file=x,backing_fmt=raw", "--size", "1G")
}

// TestInteropMeasureDisks measures disks that QEMU wrote, converts them, and wants no
// file to be larger than it was measured.
func TestInteropMeasureDisks(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	for seed := range uint64(2) {
		r := rand.New(rand.NewPCG(seed, 64))
		dir := t.TempDir()
		t.Chdir(dir)
		links := overlayChain(t, r, dir, 3)
		mustRun(t, dir, "qemu-img", "bitmap", "--add", "-g", "4k", links[2], "bits")
		mustRun(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", "pre.qcow2", "3M")
		mustRun(t, dir, "qemu-io", "-c", "write -P 5 1M 200k", "pre.qcow2")
		mustRun(t, dir, "qemu-img", "convert", "-O", "raw", links[2], "disk.raw")
		for _, src := range [][]string{{links[0]}, {links[2]}, {"pre.qcow2"}, {"-f", "raw", "disk.raw"}} {
			for i, options := range []string{"cluster_size=64k", "cluster_size=512", "cluster_size=2M", "extended_l2=on", "preallocation=full", "compat=0.10"} {
				wantMeasured(t, dir, append([]string{"-O", "qcow2", "-o", options}, src...)...)
				wantEnough(t, append(src, fmt.Sprintf("out-%s-%d.qcow2", src[len(src)-1], i)), options)
			}
			wantMeasured(t, dir, append([]string{"-O", "raw"}, src...)...)
		}
		wantMeasured(t, dir, "-O", "qcow2", "-o", "backing_file="+links[0]+",backing_fmt=qcow2", links[2])
	}
}

// wantEnough converts and wants the file to be no larger than was measured.
func wantEnough(t *testing.T, args []string, options string) {
	t.Helper()
	out := args[len(args)-1]
	convert := []string{"convert", "-q", "--trust", "-O", "qcow2", "-o", options}
	stdout, _ := mustQbit(t, append([]string{"measure", "--output=json", "--trust", "-O", "qcow2", "-o", options}, args[:len(args)-1]...)...)
	var m struct {
		Required int64 `json:"required"`
		Full     int64 `json:"fully-allocated"`
		Bitmaps  int64 `json:"bitmaps"`
	}
	if err := json.Unmarshal([]byte(stdout), &m); err != nil {
		t.Fatal(err)
	}
	if m.Bitmaps > 0 && !strings.Contains(options, "compat") {
		convert = append(convert, "--bitmaps")
	}
	mustQbit(t, append(convert, args...)...)
	info, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > m.Required+m.Bitmaps || m.Required > m.Full {
		t.Errorf("%q with %s: %d bytes, measured %+v", args, options, info.Size(), m)
	}
}
