package qcow2_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

// An imageKind is a kind of image that bitmaps are put into.
type imageKind struct {
	name    string
	cluster int64
	options []string // of qemu-img create
	build   func(*testing.T, *rand.Rand, *trip)
}

// imageKinds are the shapes that an Editor has to know. Each is made by QEMU.
var imageKinds = []imageKind{
	{name: "plain", cluster: 64 << 10},
	{name: "least clusters", cluster: 512, options: []string{"refcount_bits=8"}},
	{name: "least refcounts", cluster: 4 << 10, options: []string{"refcount_bits=1"}},
	{name: "widest refcounts", cluster: 4 << 10, options: []string{"refcount_bits=64"}},
	{name: "largest clusters", cluster: 2 << 20, options: []string{"refcount_bits=2"}},
	{name: "lazy refcounts", cluster: 64 << 10, options: []string{"lazy_refcounts=on"}},
	{name: "extended L2", cluster: 16 << 10, options: []string{"extended_l2=on", "refcount_bits=32"}},
	{name: "snapshots", cluster: 1 << 10, build: addSnapshots},
	{name: "data file", cluster: 64 << 10, options: []string{"data_file=DIR/disk.data"}},
	{name: "raw data file", cluster: 8 << 10, options: []string{"data_file=DIR/disk.data", "data_file_raw=on"}},
	{name: "backing file", cluster: 512, options: []string{"backing_file=DIR/base.raw", "backing_fmt=raw"}},
	{name: "compressed", cluster: 32 << 10, options: []string{"compression_type=zstd", "refcount_bits=4"}, build: addCompressed},
	{name: "preallocated", cluster: 2 << 10, options: []string{"preallocation=metadata"}},
}

// newTrip makes an image of that kind with some data in it.
func newTrip(t *testing.T, kind imageKind, rng *rand.Rand) *trip {
	t.Helper()
	dir := t.TempDir()
	tr := &trip{t: t, rng: rng, dir: dir, path: filepath.Join(dir, "disk.qcow2"), want: bitmapSet{}}
	// The bits of the finest bitmap fill some clusters, where that does not take
	// too large a disk.
	tr.size = min(kind.cluster*8*512*3, 1<<30)
	if kind.name == "preallocated" {
		tr.size = 40 << 20
	}
	tr.size -= rng.Int64N(tr.size/3) &^ 511
	base := filepath.Join(dir, "base.raw")
	if err := os.WriteFile(base, []byte(strings.Repeat("base ", 20<<10)), 0o644); err != nil {
		t.Fatal(err)
	}
	options := append([]string{fmt.Sprintf("cluster_size=%d", kind.cluster)}, kind.options...)
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o",
		strings.ReplaceAll(strings.Join(options, ","), "DIR", dir), tr.path, fmt.Sprint(tr.size))
	tr.guestWrites(6)
	if kind.build != nil {
		kind.build(t, rng, tr)
	}
	tr.takeTruth()
	return tr
}

func addSnapshots(t *testing.T, _ *rand.Rand, tr *trip) {
	for _, name := range []string{"first", "second"} {
		interop.Run(t, "qemu-img", "snapshot", "-c", name, tr.path)
		tr.guestWrites(3)
	}
}

func addCompressed(t *testing.T, rng *rand.Rand, tr *trip) {
	for range 4 {
		at := rng.Int64N(tr.size/(32<<10)) * (32 << 10)
		if at+32<<10 <= tr.size {
			tr.qemuIO(fmt.Sprintf("write -c -P %d %d 32k", rng.IntN(256), at))
		}
	}
}
