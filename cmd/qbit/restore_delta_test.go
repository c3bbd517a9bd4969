package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages"
	"github.com/qbitkit/qbit/testimages/sets"
)

// TestDeltaChains brings a file from any point of every frozen chain to any other, by
// the links that make them right, and wants the true bytes and what was beyond them.
func TestDeltaChains(t *testing.T) {
	for _, name := range testimages.Chains() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			chain := must(testimages.Extract(t.TempDir(), name))
			for _, d := range chain.Disks {
				c := &deltaChain{chainOfDisk: chainOfDisk{source: d.Source, points: d.Points}, path: filepath.Join(t.TempDir(), "device")}
				c.allPairs(t)
			}
		})
	}
}

// A deltaChain is the backups of a disk, and the bytes of every point.
type deltaChain struct {
	chainOfDisk
	path  string
	truth [][]byte
}

func (c *deltaChain) allPairs(t *testing.T) {
	t.Helper()
	last := len(c.points) - 1
	longest := int64(0)
	for n, p := range c.points {
		raw := filepath.Join(t.TempDir(), "truth")
		c.wantRestored(t, p, append(append([]string{"restore", "--output=json", "--digest=sha256"}, append(c.links(n), c.changed(n)...)...), "-o", raw))
		c.truth = append(c.truth, must(os.ReadFile(raw)))
		longest = max(longest, p.Size)
	}
	for from := range c.points {
		for to := range c.points {
			if !wantPair(from, to, last) {
				continue
			}
			device := bytes.Repeat([]byte("old"), int(longest/3+500))
			copy(device, c.truth[from])
			args := append([]string{"restore", "-q", "--from", c.links(last)[from], "--to", filepath.Base(c.points[to].File), "--onto", c.path}, c.links(last)...)
			c.wantDelta(t, to, device, append(args, c.changed(max(from, to))...))
		}
	}
}

// wantDelta runs qbit on a device, which then has to hold the truth of a point.
func (c *deltaChain) wantDelta(t *testing.T, to int, device []byte, args []string) {
	t.Helper()
	writeFile(t, c.path, device)
	if _, stderr, status := qbit(args...); status != exitDone {
		t.Fatalf("qbit %q: status %d\n%s", args, status, stderr)
	}
	want := append(append([]byte(nil), c.truth[to]...), device[len(c.truth[to]):]...)
	if !bytes.Equal(must(os.ReadFile(c.path)), want) {
		t.Fatalf("qbit %q: the file does not hold the point, or not what was beyond", args)
	}
}

// TestDeltaSets does the same with every set of backups, as each tool leaves them,
// where a manifest is beside some of them. Where a set can give the truth of both points,
// the way between them does too.
func TestDeltaSets(t *testing.T) {
	tools := map[string]bool{}
	for i, s := range sets.All() {
		if os.Getenv("QBIT_FULL") != "1" && tools[s.Tool] && i%5 != 0 {
			continue
		}
		tools[s.Tool] = true
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			l := laySet(t, s)
			d := &deltaSet{laidSet: l, truth: map[string][]byte{}}
			d.look(t)
			if i%2 == 0 && !s.Zip && s.Map == "" {
				_, _, status := qbit("seal", "-q", "--assume", l.path)
				d.sealed = status == exitDone // otherwise some points are, or none
			}
			for _, disk := range s.Disks() {
				d.allPairs(t, disk)
			}
		})
	}
}

// A deltaSet is a set, and the bytes of its points.
type deltaSet struct {
	*laidSet
	sealed bool
	truth  map[string][]byte // by the ID of the backup
}

// allPairs goes from each point of a disk to each, as far as they can be restored.
func (d *deltaSet) allPairs(t *testing.T, disk string) {
	t.Helper()
	var points []*pointJSON
	for _, truth := range d.Points(disk) {
		p := d.row(truth)
		if p == nil {
			continue
		}
		raw := filepath.Join(t.TempDir(), "truth")
		_, _, status := qbit(append([]string{"restore", "-q", "--assume", d.path, "-o", raw, "--disk", title(p), "--at", p.ID}, d.flag...)...)
		if status == exitDone {
			points, d.truth[p.ID] = append(points, p), must(os.ReadFile(raw))
		}
	}
	for i, from := range points {
		for j, to := range points {
			if wantPair(i, j, len(points)-1) {
				d.pair(t, from, to)
			}
		}
	}
}

// wantPair picks some of the pairs of points, for a short test: from end to end, and
// to the point in the middle.
func wantPair(from, to, last int) bool {
	return os.Getenv("QBIT_FULL") == "1" || from == 0 && to == last || from == last && (to == 0 || to == last/2)
}

func (d *deltaSet) pair(t *testing.T, from, to *pointJSON) {
	t.Helper()
	old, want := d.truth[from.ID], d.truth[to.ID]
	path := filepath.Join(t.TempDir(), "device")
	device := append(append([]byte(nil), old...), make([]byte, max(0, len(want)-len(old)))...)
	writeFile(t, path, device)
	args := append([]string{"restore", "--assume", "--output=json", d.path, "--onto", path, "--disk", title(to), "--from", from.ID, "--at", to.ID}, d.flag...)
	stdout, stderr, status := qbit(args...)
	if status != exitDone {
		if !strings.Contains(stderr, "no backup in common") || !bytes.Equal(must(os.ReadFile(path)), device) {
			t.Errorf("%s to %s: status %d, or something was written: %s", from.ID, to.ID, status, stderr)
		}
		return
	}
	if got := must(os.ReadFile(path)); !bytes.Equal(got[:len(want)], want) || !bytes.Equal(got[len(want):], device[len(want):]) {
		t.Errorf("%s to %s: other bytes than the truth\n%s", from.ID, to.ID, stderr)
	}
	var report restoreReport
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || report.Delta == nil || d.sealed && report.Delta.How != "manifest" {
		t.Errorf("%s to %s: %v: %s", from.ID, to.ID, err, stdout)
	}
}
