package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages/sets"
)

// TestRestoreChecksums flips a bit of a stream that is not compressed: nothing but the
// .chksum file shows it. The disk is not restored, and a device that was to be written
// over is as it was.
func TestRestoreChecksums(t *testing.T) {
	s := sets.Get("virtnbd-chksum")
	l := laySet(t, s)
	points := s.Points(s.Disks()[0])
	at := []string{"restore", l.path, "--disk", points[0].Disk, "--at", points[len(points)-1].Point}
	device := filepath.Join(t.TempDir(), "device")
	before := bytes.Repeat([]byte("old "), int(points[len(points)-1].Size)/4)
	writeFile(t, device, before)

	if _, stderr, status := qbit(append(slices.Clip(at), "-o", filepath.Join(t.TempDir(), "sound.raw"))...); status != exitDone {
		t.Fatalf("before: status %d: %s", status, stderr)
	}
	if _, err := sets.Mutate("CorruptFrame").Apply(l.dir(), s); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "disk.raw")
	for _, to := range [][]string{{"-o", out}, {"-o", out, "-O", "qcow2"}, {"--onto", device}} {
		_, stderr, status := qbit(append(slices.Clip(at), to...)...)
		if status != exitBad || !strings.Contains(stderr, "its adler32 is") {
			t.Errorf("%q: status %d: %s", to, status, stderr)
		}
	}
	if _, err := os.Lstat(out); err == nil {
		t.Error("there is a result")
	}
	if got, err := os.ReadFile(device); err != nil || !bytes.Equal(got, before) {
		t.Errorf("the device was written to: %v", err)
	}
}
