package main

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/qbitkit/qbit/testimages"
)

// TestAgainst: every increment that libvirt wrote holds all that the bitmap of its
// interval says; one that cannot tell zeroes does not, where something was zeroed.
func TestAgainst(t *testing.T) {
	found := 0
	for _, name := range testimages.Chains() {
		dir := t.TempDir()
		c, err := testimages.Extract(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range c.Disks {
			for _, p := range d.Points[1:] {
				if d.Source != "" && p.Bitmap != "" {
					found += coversBitmap(t, dir, name+" "+d.Target, d.Source, p)
				}
			}
		}
	}
	if found == 0 {
		t.Error("no lossy increment lacks anything")
	}
}

// coversBitmap compares a point with its bitmap, and returns 1 where something is
// missing as it has to be.
func coversBitmap(t *testing.T, dir, name, source string, p testimages.ChainPoint) int {
	t.Helper()
	l := &laidSet{path: dir}
	r, status := l.verify(t, "--against", fmt.Sprintf("%s=%s:%s", filepath.Base(p.File), source, p.Bitmap))
	if len(r.Against) != 1 {
		t.Fatalf("%s, %s: status %d, %+v", name, p.Checkpoint, status, r.Against)
	}
	a := r.Against[0]
	switch {
	case a.Dirty == 0:
		t.Errorf("%s, %s: the bitmap is clean", name, p.Checkpoint)
	case !p.Lossy && (a.Missing > 0 || a.Rounded > 0):
		t.Errorf("%s, %s: %+v", name, p.Checkpoint, a)
	case p.Lossy && a.Missing > 0 && (len(a.First) == 0 || status != exitBad):
		t.Errorf("%s, %s: status %d, %+v", name, p.Checkpoint, status, a)
	case a.Missing > 0:
		return 1
	}
	return 0
}
