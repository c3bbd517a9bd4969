package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/interop"
)

// createBoth runs create and qemu-img create with the same arguments, of which "FILE"
// is the image and "DATA" its data file; each in files of its own.
func createBoth(t *testing.T, dir string, args ...string) (ours, theirs string, ourStatus int, theirErr error) {
	t.Helper()
	fill := func(who string) []string {
		var list []string
		for _, a := range args {
			a = strings.ReplaceAll(a, "FILE", filepath.Join(dir, who+".img"))
			list = append(list, strings.ReplaceAll(a, "DATA", filepath.Join(dir, who+".data")))
		}
		return list
	}
	c, said := testConsole()
	ourStatus = run(context.Background(), c, append([]string{"create"}, fill("ours")...))
	out, err := exec.Command("qemu-img", append([]string{"create"}, fill("theirs")...)...).CombinedOutput()
	t.Logf("%s%s", said, out)
	return filepath.Join(dir, "ours.img"), filepath.Join(dir, "theirs.img"), ourStatus, err
}

// headerFacts are the fields of a header that do not say where something stands.
func headerFacts(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := qcow2.Open(bytes.NewReader(b), int64(len(b)), nil)
	if err != nil {
		t.Fatal(err)
	}
	h := img.Header()
	var exts []string
	for _, e := range img.Extensions() {
		data := string(e.Data)
		if e.Type == qcow2.ExtFeatureNames { // each has its own words
			continue
		}
		if e.Type == qcow2.ExtDataFile {
			data = filepath.Ext(data)
		}
		exts = append(exts, fmt.Sprintf("%s %q", e.Name(), data))
	}
	slices.Sort(exts)
	return fmt.Sprintf("version %d, cluster_bits %d, size %d, l1_size %d, incompatible %#x, compatible %#x, autoclear %#x, refcount_order %d, header_length %d, compression_type %s, backing %v, %v",
		h.Version, h.ClusterBits, h.Size, h.L1Size, h.IncompatibleFeatures, h.CompatibleFeatures, h.AutoclearFeatures,
		h.RefcountOrder, h.HeaderLength, h.CompressionType, img.Backing(), exts)
}

// mapOfQEMU is what qemu-img map says, without the offsets.
func mapOfQEMU(t *testing.T, path string) string {
	t.Helper()
	var list []map[string]any
	if err := json.Unmarshal(interop.Run(t, "qemu-img", "map", "--output=json", path), &list); err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		delete(e, "offset")
	}
	return fmt.Sprint(list)
}

// The same options give an image with the same header, and the same map, as those of
// qemu-img create.
func TestInteropCreate(t *testing.T) {
	interop.Need(t, "qemu-img")
	base := t.TempDir()
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", base+"/base.qcow2", "3M")
	interop.Run(t, "qemu-img", "create", "-q", "-f", "raw", base+"/base.raw", "1234567")
	for _, line := range []string{
		"-f qcow2 FILE 1M",
		"-f qcow2 FILE 1000",
		"-f qcow2 FILE 1.5k",
		"-f qcow2 FILE 10G",
		"-f qcow2 -o size=2M FILE",
		"-f qcow2 -o cluster_size=512 FILE 1M",
		"-f qcow2 -o cluster_size=4k FILE 1G",
		"-f qcow2 -o cluster_size=2M FILE 64T",
		"-f qcow2 -o compat=0.10 FILE 1M",
		"-f qcow2 -o compat=v2 FILE 1M",
		"-f qcow2 -o compat=1.1 FILE 1M",
		"-f qcow2 -o compat=v3,lazy_refcounts=on FILE 1M",
		"-f qcow2 -o lazy_refcounts=on -o refcount_bits=1 FILE 1M",
		"-f qcow2 -o refcount_bits=64,lazy_refcounts=off FILE 1M",
		"-f qcow2 -o extended_l2=on FILE 1G",
		"-f qcow2 -o extended_l2=on,cluster_size=16k,compression_type=zstd FILE 1G",
		"-f qcow2 -o compression_type=zlib FILE 1M",
		"-f qcow2 -o preallocation=off FILE 1M",
		"-f qcow2 -o preallocation=metadata FILE 1M",
		"-f qcow2 -o preallocation=metadata,cluster_size=512 FILE 3M",
		"-f qcow2 -o preallocation=falloc FILE 1M",
		"-f qcow2 -o preallocation=full FILE 1M",
		"-f qcow2 -o preallocation=metadata,extended_l2=on FILE 1M",
		"-f qcow2 -o preallocation=full,extended_l2=on -b BASE/base.qcow2 -F qcow2 FILE",
		"-f qcow2 -o data_file=DATA FILE 1M",
		"-f qcow2 -o data_file=DATA,data_file_raw=on FILE 1M",
		"-f qcow2 -o data_file=DATA,preallocation=metadata FILE 1M",
		"-f qcow2 -o data_file=DATA,preallocation=full FILE 1M",
		"-f qcow2 -b BASE/base.qcow2 -F qcow2 FILE",
		"-f qcow2 -b BASE/base.qcow2 -F qcow2 -o compat=0.10 FILE",
		"-f qcow2 -b BASE/base.qcow2 -F qcow2 FILE 5M",
		"-f qcow2 -b BASE/base.qcow2 -F qcow2 FILE 1M",
		"-f qcow2 -b BASE/base.raw -F raw FILE",
		"-f qcow2 -b BASE/base.raw -F raw -o cluster_size=512 FILE",
		"-f qcow2 -o backing_file=BASE/base.raw,backing_fmt=raw FILE",
		"-f qcow2 -u -b nowhere.qcow2 -F qcow2 FILE 1M",
	} {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			t.Log(line)
			ours, theirs, status, err := createBoth(t, t.TempDir(), strings.Fields(strings.ReplaceAll(line, "BASE", base))...)
			if status != exitDone || err != nil {
				t.Fatalf("status %d; qemu-img: %v", status, err)
			}
			if a, b := headerFacts(t, ours), headerFacts(t, theirs); a != b {
				t.Errorf("the header is\n%s, of qemu-img\n%s", a, b)
			}
			if strings.Contains(line, "nowhere") {
				return
			}
			interop.Run(t, "qemu-img", "check", "-f", "qcow2", ours)
			if strings.Contains(line, "=512") || strings.Contains(line, "DATA") {
				return // what of the file is a hole depends on where the tables stand, and on what was written first
			}
			if a, b := mapOfQEMU(t, ours), mapOfQEMU(t, theirs); a != b {
				t.Errorf("qemu-img map:\n%.500s, of qemu-img's own\n%.500s", a, b)
			}
		})
	}
}

// Raw disks are as long as those of qemu-img, and stored in as many blocks or more.
func TestInteropCreateRaw(t *testing.T) {
	interop.Need(t, "qemu-img")
	for _, line := range []string{
		"-f raw FILE 1M", "-f raw FILE 1000", "-f raw FILE 0",
		"-f raw -o preallocation=off FILE 1M", "-f raw -o preallocation=falloc FILE 1M", "-f raw -o preallocation=full FILE 1M",
	} {
		ours, theirs, status, err := createBoth(t, t.TempDir(), strings.Fields(line)...)
		if status != exitDone || err != nil {
			t.Fatalf("%s: status %d; qemu-img: %v", line, status, err)
		}
		a, b := must(os.Stat(ours)), must(os.Stat(theirs))
		if a.Size() != b.Size() || strings.Contains(line, "1M") && allocatedBytes(a) < allocatedBytes(b)-65536 {
			t.Errorf("%s: %d bytes, %d stored; of qemu-img %d, %d stored", line, a.Size(), allocatedBytes(a), b.Size(), allocatedBytes(b))
		}
	}
}

// What qemu-img create refuses is refused, and nothing is left.
func TestInteropCreateRefuses(t *testing.T) {
	interop.Need(t, "qemu-img")
	base := t.TempDir()
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", base+"/base.qcow2", "3M")
	for _, line := range []string{
		"-f qcow2 FILE", "-f qcow2 FILE -1", "-f qcow2 FILE 1e3", "-f qcow2 FILE 1KiB", "-f qcow2 FILE 1E", "-f qcow2 FILE 9E",
		"-f qcow2 -o size=2M FILE 3M", "-f qcow2 -o foo=1 FILE 1M", "-f qcow2 -o compat=v4 FILE 1M",
		"-f qcow2 -o refcount_bits=3 FILE 1M", "-f qcow2 -o refcount_bits=128 FILE 1M", "-f qcow2 -o refcount_bits=0 FILE 1M",
		"-f qcow2 -o cluster_size=3k FILE 1M", "-f qcow2 -o cluster_size=4M FILE 1M", "-f qcow2 -o cluster_size=256 FILE 1M",
		"-f qcow2 -o cluster_size=512 FILE 129G", "-f qcow2 -o extended_l2=on,cluster_size=8k FILE 1M",
		"-f qcow2 -o compat=0.10,lazy_refcounts=on FILE 1M", "-f qcow2 -o compat=0.10,refcount_bits=8 FILE 1M",
		"-f qcow2 -o compat=0.10,extended_l2=on FILE 1M", "-f qcow2 -o compat=0.10,compression_type=zstd FILE 1M",
		"-f qcow2 -o compat=0.10,data_file=DATA FILE 1M", "-f qcow2 -o data_file_raw=on FILE 1M",
		"-f qcow2 -o data_file=DATA,data_file_raw=on -b BASE/base.qcow2 -F qcow2 FILE 1M",
		"-f qcow2 -o preallocation=metadata -b BASE/base.qcow2 -F qcow2 FILE", "-f qcow2 -o preallocation=some FILE 1M",
		"-f qcow2 -b nowhere -F qcow2 FILE", "-f qcow2 -b nowhere -F qcow2 -u FILE", "-f qcow2 -b nowhere -u FILE 1M",
		"-f raw -b BASE/base.qcow2 FILE 1M", "-f raw -o preallocation=metadata FILE 1M", "-f raw -o cluster_size=4k FILE 1M",
		"-f qcow2 -u -o cluster_size=512 -F qcow2 -b " + strings.Repeat("n", 400) + " FILE 1M",
		"-f qcow2 -u -F qcow2 -b " + strings.Repeat("n", 1024) + " FILE 1M",
	} {
		dir := t.TempDir()
		ours, _, status, err := createBoth(t, dir, strings.Fields(strings.ReplaceAll(line, "BASE", base))...)
		if status == exitDone || err == nil {
			t.Errorf("%.100s: status %d; qemu-img: %v", line, status, err)
		}
		left, _ := filepath.Glob(filepath.Join(dir, "*ours*"))
		hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
		if len(left)+len(hidden) > 0 {
			t.Errorf("%.100s: %s is left of %s", line, append(left, hidden...), ours)
		}
	}
}
