package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/qbitkit/qbit/testimages/interop"
	"github.com/qbitkit/qbit/testimages/sets/maker"
)

// TestInteropFreshVirtnbd has virtnbdbackup back up machines that nobody has seen
// before, and restores every point from what it left.
func TestInteropFreshVirtnbd(t *testing.T) {
	interop.Need(t, maker.Tools()...)
	host, err := maker.Start(t.Context(), openDir(t))
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	rounds := 1
	if os.Getenv("QBIT_FULL") == "1" {
		rounds = 6
	}
	seed := uint64(time.Now().UnixNano())
	for i := range rounds {
		recipe := randomRecipe(seed + uint64(i))
		dir := openDir(t)
		made, err := host.Make(t.Context(), dir, recipe)
		if err != nil {
			t.Fatalf("%+v: %v", recipe, err)
		}
		for _, row := range made.Truth {
			restoreRow(t, filepath.Join(dir, "backup"), row)
		}
		if t.Failed() {
			t.Fatalf("the backups were made from %+v", recipe)
		}
	}
}

// openDir is a folder that the daemon's user can reach, which folders of a test are
// not.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "qbit")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func restoreRow(t *testing.T, folder string, row maker.Row) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "disk.raw")
	_, stderr, status := qbit("restore", folder, "--disk", row.Disk, "--at", row.Point, "-q", "-o", out)
	if status != exitDone {
		t.Errorf("%s at %s: status %d\n%s", row.Disk, row.Point, status, stderr)
		return
	}
	if got := fileSHA256(t, out); got != row.SHA256 {
		t.Errorf("%s at %s: sha256 is %s, not %s", row.Disk, row.Point, got, row.SHA256)
	}
}

// randomRecipe draws a machine, and what happens to it.
func randomRecipe(seed uint64) maker.Recipe {
	rng := rand.New(rand.NewPCG(seed, 0))
	r := maker.Recipe{Name: "fresh", Domain: "fresh"}
	for i := range 1 + rng.IntN(2) {
		r.Disks = append(r.Disks, maker.Disk{Target: []string{"vda", "vdb"}[i], Format: "qcow2", Size: int64(4+rng.IntN(8))<<20 + int64(rng.IntN(2))*512})
	}
	if rng.IntN(2) == 0 {
		r.Flags = []string{"-z"}
	}
	for i := range 3 + rng.IntN(2) {
		s := maker.Step{Level: "inc", Writes: map[string][]string{}}
		if i == 0 {
			s.Level = "full"
		}
		for _, d := range r.Disks {
			for range 1 + rng.IntN(6) {
				s.Writes[d.Target] = append(s.Writes[d.Target], randomWrite(rng, d.Size))
			}
		}
		r.Steps = append(r.Steps, s)
	}
	return r
}

// randomWrite is an operation of qemu-io, in sectors or in whole clusters.
func randomWrite(rng *rand.Rand, size int64) string {
	unit := []int64{512, 4 << 10, 64 << 10}[rng.IntN(3)]
	off := rng.Int64N(size/unit) * unit
	n := min((1+rng.Int64N(8))*unit, (size-off)/unit*unit)
	switch rng.IntN(4) {
	case 0:
		return fmt.Sprintf("write -z %d %d", off, n)
	case 1:
		return fmt.Sprintf("discard %d %d", off, n)
	}
	return fmt.Sprintf("write -P %d %d %d", 1+rng.IntN(255), off, n)
}
