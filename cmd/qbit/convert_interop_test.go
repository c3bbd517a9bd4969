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

// convertOptions are ways to convert, of which each must give the same disk.
var convertOptions = [][]string{
	{}, {"-c"}, {"--compress=zstd"}, {"-S", "0"}, {"-S", "1M"}, {"-m", "3", "-p", "--progress=json"},
	{"-o", "cluster_size=512"}, {"-o", "cluster_size=2M", "-c"}, {"-o", "extended_l2=on,cluster_size=16k"},
	{"-o", "compat=0.10"}, {"-o", "refcount_bits=1,lazy_refcounts=on"}, {"-o", "compat=v2", "-c"},
	{"-o", "preallocation=metadata"}, {"-o", "preallocation=falloc"}, {"-o", "preallocation=full,cluster_size=4k"},
	{"-o", "data_file=ours.data"}, {"-o", "data_file=ours.data", "-o", "data_file_raw=on"}, {"--direct"}, {"-C"},
}

// TestInteropConvert converts disks that QEMU wrote; QEMU finds the results sound and
// the same.
func TestInteropConvert(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	dir := t.TempDir()
	t.Chdir(dir)
	links := overlayChain(t, rand.New(rand.NewPCG(1, 61)), dir, 3)
	top := links[len(links)-1]
	for i, options := range convertOptions {
		out := fmt.Sprintf("ours%d.qcow2", i)
		os.Remove("ours.data")
		stdout, stderr, status := qbit(append(append([]string{"convert", "--trust", "-O", "qcow2"}, options...), top, out)...)
		if status != 0 {
			if len(options) == 1 && options[0] == "--direct" && strings.Contains(stderr, "direct I/O") {
				continue // the filesystem has none
			}
			t.Errorf("%q: status %d: %s", options, status, stderr)
			continue
		}
		if !strings.Contains(stdout, "xxh64-4m:") && !strings.Contains(stdout, "not computed") {
			t.Errorf("%q: no digest: %s", options, stdout)
		}
		if check := mustRun(t, dir, "qemu-img", "check", out); !strings.Contains(check, "No errors were found") {
			t.Errorf("%q: %s", options, check)
		}
		wantSame(t, dir, top, out, fmt.Sprint(options))
	}
	for i, options := range [][]string{{}, {"-S", "0"}, {"-o", "preallocation=falloc"}, {"-o", "preallocation=full"}, {"-S", "64k"}} {
		out := fmt.Sprintf("ours%d.raw", i)
		mustQbit(t, append(append([]string{"convert", "--trust"}, options...), top, out)...)
		wantSame(t, dir, top, out, fmt.Sprint(options), "-F", "raw")
	}
}

// TestInteropConvertBacking makes overlays: what reads in the backing file as it should
// stays absent, wherever the source stands.
func TestInteropConvertBacking(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 62))
		dir := t.TempDir()
		t.Chdir(dir)
		if err := os.Rename(overlayChain(t, r, dir, 1)[0], "other.qcow2"); err != nil {
			t.Fatal(err)
		}
		links := overlayChain(t, r, dir, 3)
		top := links[2]
		mustRun(t, dir, "qemu-img", "convert", "-O", "raw", links[0], "base.raw")
		for i, below := range []string{links[0], links[1], "other.qcow2", "base.raw"} {
			out := fmt.Sprintf("over%d.qcow2", i)
			args := []string{"convert", "--trust", "-O", "qcow2", "-B", below}
			if below == "base.raw" {
				args = append(args, "-F", "raw")
			}
			switch r.IntN(3) {
			case 0:
				args = append(args, "-c")
			case 1:
				args = append(args, "-o", "compat=0.10")
			}
			stdout, _ := mustQbit(t, append(args, "--output=json", top, out)...)
			wantSame(t, dir, top, out, fmt.Sprint("seed ", seed, ": ", args))
			var rep convertReport
			if err := json.Unmarshal([]byte(stdout), &rep); err != nil {
				t.Fatal(err)
			}
			if digest, _ := mustQbit(t, "digest", "--trust", "--digest=xxh64-4m", top); strings.TrimSpace(digest) != "xxh64-4m:"+rep.Digests["xxh64-4m"] {
				t.Errorf("seed %d: the digest is %v, want %s", seed, rep.Digests, digest)
			}
		}
		mustQbit(t, "convert", "--trust", "-O", "qcow2", "-B", top, top, "same.qcow2")
		stdout, _ := mustQbit(t, "map", "--output=json", "--trust", "same.qcow2")
		if stdout == "" || strings.Contains(stdout, `"depth": 0, "present": true`) {
			t.Errorf("seed %d: an overlay of a disk on itself holds something: %s", seed, stdout)
		}
	}
}

// TestInteropConvertBitmaps carries bitmaps along as qemu-img does.
func TestInteropConvertBitmaps(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io", "qemu-nbd", "nbdinfo")
	dir := t.TempDir()
	t.Chdir(dir)
	mustRun(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "src.qcow2", "10M")
	mustRun(t, dir, "qemu-img", "bitmap", "--add", "-g", "64k", "src.qcow2", "rec")
	mustRun(t, dir, "qemu-img", "bitmap", "--add", "-g", "512", "src.qcow2", "fine")
	mustRun(t, dir, "qemu-io", "-c", "write -P 7 1M 200k", "-c", "write -P 8 5M 1k", "src.qcow2")
	mustRun(t, dir, "qemu-img", "bitmap", "--disable", "src.qcow2", "fine")
	mustRun(t, dir, "qemu-io", "-c", "write -P 9 7M 1k", "src.qcow2")
	for i, options := range [][]string{{}, {"-c"}, {"-o", "cluster_size=512"}, {"-o", "data_file=b.data"}} {
		ours, theirs := fmt.Sprintf("ours%d.qcow2", i), fmt.Sprintf("theirs%d.qcow2", i)
		mustQbit(t, append(append([]string{"convert", "-O", "qcow2", "--bitmaps"}, options...), "src.qcow2", ours)...)
		if i != 3 {
			mustRun(t, dir, "qemu-img", append(append([]string{"convert", "-O", "qcow2", "--bitmaps"}, options...), "src.qcow2", theirs)...)
			if diff := cmp.Diff(bitmapsOf(t, dir, theirs), bitmapsOf(t, dir, ours)); diff != "" {
				t.Errorf("%q: bitmaps (-qemu-img +qbit):\n%s", options, diff)
			}
		}
		for _, name := range []string{"rec", "fine"} {
			want, _ := mustQbit(t, "bitmap", "--ranges", "src.qcow2", name)
			if got, _ := mustQbit(t, "bitmap", "--ranges", ours, name); got != want {
				t.Errorf("%q: bitmap %s: %s\nwant %s", options, name, got, want)
			}
		}
		if check := mustRun(t, dir, "qemu-img", "check", ours); !strings.Contains(check, "No errors were found") {
			t.Errorf("%q: %s", options, check)
		}
	}
}

// bitmapsOf is what qemu-img says of the bitmaps of an image.
func bitmapsOf(t *testing.T, dir, name string) any {
	t.Helper()
	var info struct {
		Specific struct {
			Data struct {
				Bitmaps any `json:"bitmaps"`
			} `json:"data"`
		} `json:"format-specific"`
	}
	if err := json.Unmarshal([]byte(mustRun(t, dir, "qemu-img", "info", "--output=json", name)), &info); err != nil {
		t.Fatal(err)
	}
	return info.Specific.Data.Bitmaps
}
