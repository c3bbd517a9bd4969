package qcow2_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// seeds is how many random images a test makes.
func seeds() uint64 {
	if os.Getenv("QBIT_FULL") == "1" {
		return 5000
	}
	return 150
}

// TestRandomImages reads random images that were built by hand and compares all
// that is said of them with what was put in.
func TestRandomImages(t *testing.T) {
	for seed := range seeds() {
		s := build.Random(seed)
		img, err := openBuilt(s.Bytes, s.Data, s.Backing)
		if err == nil {
			err = checkSound(img, s)
		}
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func checkSound(img *qcow2.Image, s build.Sound) error {
	if err := checkGuest(img, s.Guest(), s.Seed); err != nil {
		return err
	}
	if s.Backing == nil {
		if err := checkKinds(img, &s.Disk); err != nil {
			return err
		}
	}
	if err := checkSnapshots(img, s); err != nil {
		return err
	}
	return checkBitmaps(img, s)
}

// checkGuest compares guest bytes, read as a whole and in random pieces.
func checkGuest(d qcow2.Disk, want []byte, seed uint64) error {
	got, err := readAll(d)
	if err != nil || !bytes.Equal(got, want) {
		return fmt.Errorf("guest bytes: %v; first difference at %d", err, firstDifference(got, want))
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 8 {
		if len(want) == 0 {
			break
		}
		off := rng.Int64N(int64(len(want)))
		n := rng.Int64N(int64(len(want))-off) + 1
		p := make([]byte, n)
		if _, err := d.ReadAt(p, off); err != nil || !bytes.Equal(p, want[off:off+n]) {
			return fmt.Errorf("guest bytes [%d, +%d): %v", off, n, err)
		}
	}
	return checkExtents(d, want, rng)
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// checkExtents wants a walk to cover a random range, in order and merged, and
// each extent to say the truth about the bytes.
func checkExtents(d qcow2.Disk, want []byte, rng *rand.Rand) error {
	off := rng.Int64N(d.Size() + 1)
	n := rng.Int64N(d.Size() - off + 1)
	at := off
	var last qcow2.Extent
	for e, err := range d.Extents(off, n) {
		switch {
		case err != nil:
			return err
		case e.Off != at || e.Len <= 0:
			return fmt.Errorf("extent %+v does not follow %d", e, at)
		case last.Len > 0 && last.Kind == e.Kind && last.Depth == e.Depth && !last.HasHost && !e.HasHost:
			return fmt.Errorf("extents %+v and %+v were not merged", last, e)
		}
		at, last = e.End(), e
		if err := checkStored(e, want[e.Off:e.End()]); err != nil {
			return err
		}
	}
	if at != off+n {
		return fmt.Errorf("the walk of [%d, +%d) ended at %d", off, n, at)
	}
	return nil
}

func checkStored(e qcow2.Extent, want []byte) error {
	got := make([]byte, e.Len)
	switch e.Kind {
	case qcow2.Compressed:
		return nil
	case qcow2.Data:
		if _, err := e.Storage.ReadAt(got, int64(e.Host)); err != nil {
			return fmt.Errorf("%+v: %w", e, err)
		}
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%+v: not the guest's bytes", e)
	}
	return nil
}

// checkKinds compares the walk with what was built.
func checkKinds(d qcow2.Disk, want *build.View) error {
	all, err := walkAll(d)
	if err != nil {
		return err
	}
	var runs []build.Run
	for _, e := range all {
		kind := build.Kind(e.Kind)
		if n := len(runs); n > 0 && runs[n-1].Kind == kind {
			runs[n-1].Len += e.Len
			continue
		}
		runs = append(runs, build.Run{Off: e.Off, Len: e.Len, Kind: kind})
	}
	if diff := cmp.Diff(want.Runs, runs); diff != "" {
		return fmt.Errorf("kinds (-want +got):\n%s", diff)
	}
	return nil
}

func checkSnapshots(img *qcow2.Image, s build.Sound) error {
	list, err := img.Snapshots()
	if err != nil || len(list) != len(s.Snapshots) {
		return fmt.Errorf("%d snapshots, not %d: %v", len(list), len(s.Snapshots), err)
	}
	for i, want := range s.Snapshots {
		got := list[i]
		if got.ID != want.ID || got.Name != want.Name || got.Date.Unix() != int64(want.Seconds) ||
			got.Date.Nanosecond() != int(want.Nanosecond) || got.VMClock != want.VMClock ||
			got.VMStateSize != uint64(len(want.VMState)) || got.DiskSize != uint64(want.Disk.Size) {
			return fmt.Errorf("snapshot %+v, not %+v", got, want.Snapshot)
		}
		d, err := img.SnapshotDisk(want.Name)
		if err != nil {
			return err
		}
		if err := checkGuest(d, want.Disk.Over(s.Backing), s.Seed); err != nil {
			return fmt.Errorf("snapshot %q: %w", want.Name, err)
		}
	}
	return nil
}

func checkBitmaps(img *qcow2.Image, s build.Sound) error {
	list, err := img.Bitmaps()
	if err != nil || len(list) != len(s.Bitmaps) {
		return fmt.Errorf("%d bitmaps, not %d: %v", len(list), len(s.Bitmaps), err)
	}
	for i, want := range s.Bitmaps {
		got := list[i]
		if got.Name != want.Name || got.Granularity != want.Granularity || got.Flags != want.Flags {
			return fmt.Errorf("bitmap %+v, not %+v", got, want.Bitmap)
		}
		b, err := img.ReadBitmap(got)
		if err != nil {
			return err
		}
		var dirty []build.Range
		for r := range b.Ranges() {
			dirty = append(dirty, build.Range(r))
		}
		if diff := cmp.Diff(want.Dirty, dirty); diff != "" || b.Count() != want.DirtyBytes {
			return fmt.Errorf("bitmap %q: %d bytes (-want +got):\n%s", want.Name, b.Count(), diff)
		}
	}
	return nil
}
