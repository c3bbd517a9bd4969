package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages"
	"github.com/qbitkit/qbit/testimages/sets"
)

// squashArgs are the arguments for the links from number first to last, with the
// bitmaps of those that are lossy.
func (c *chainOfDisk) squashArgs(first, last int) []string {
	args := c.links(last)[first:]
	if first > 0 {
		args = append(args, "--increment")
	}
	all := c.changed(last)
	for i := 1; i < len(all); i += 2 {
		if slices.ContainsFunc(args, func(link string) bool { return strings.HasPrefix(all[i], link+"=") }) &&
			!strings.HasPrefix(all[i], c.links(0)[0]+"=") {
			args = append(args, all[i-1:i+1]...)
		}
	}
	return args
}

// squashes puts the links from first to last together, in one of several ways, and
// returns what it wrote.
func (c *chainOfDisk) squashes(t *testing.T, dir string, first, last int) string {
	t.Helper()
	out := filepath.Join(dir, fmt.Sprintf("squashed-%d-%d.qcow2", first, last))
	args := append([]string{"squash", "--strict", "--output=json", "-o", out}, c.squashArgs(first, last)...)
	switch (first + last) % 4 {
	case 1:
		args = append(args, "--compress")
	case 2:
		args = append(args, "--compress=zstd", "--keep-zeros")
	case 3:
		args = append(args, "--cluster-size=512")
	}
	stdout, stderr, status := qbit(args...)
	if status != 0 {
		t.Fatalf("qbit %q: status %d\n%s", args, status, stderr)
	}
	var report squashReport
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	kind := "increment"
	if first == 0 {
		kind = "full"
	}
	if report.Kind != kind || report.Size != c.points[last].Size || len(report.Links) != last-first+1 {
		t.Errorf("links %d to %d: reported %s", first, last, stdout)
	}
	return out
}

// squashesEveryRun puts every run of links together: the chain with the result in
// their place has the true bytes at every point from there on.
func (c *chainOfDisk) squashesEveryRun(t *testing.T) {
	t.Helper()
	before := c.fingerprints(t)
	dir := t.TempDir()
	for first := range c.points {
		for last := first; last < len(c.points); last++ {
			out := c.squashes(t, dir, first, last)
			for _, at := range []int{last, len(c.points) - 1} {
				c.wantSquashed(t, out, first, last, at)
			}
			if err := os.Remove(out); err != nil {
				t.Fatal(err)
			}
		}
	}
	if after := c.fingerprints(t); after != before {
		t.Errorf("the backups were touched:\nbefore %s\nafter  %s", before, after)
	}
}

// wantSquashed wants the true bytes of a point of the chain in which the links from
// first to last are one.
func (c *chainOfDisk) wantSquashed(t *testing.T, out string, first, last, at int) {
	t.Helper()
	links := slices.Concat(c.links(at)[:first], []string{out}, c.links(at)[last+1:])
	args := append([]string{"restore", "--strict", "--output=json", "--digest=sha256", "-o", filepath.Join(t.TempDir(), "disk.raw")}, links...)
	all := c.changed(at)
	for i := 1; i < len(all); i += 2 {
		if slices.ContainsFunc(links[1:], func(link string) bool { return strings.HasPrefix(all[i], link+"=") }) {
			args = append(args, all[i-1:i+1]...)
		}
	}
	c.wantRestored(t, c.points[at], args)
}

// TestSquashFrozenChains squashes every run of links of every chain in testimages.
func TestSquashFrozenChains(t *testing.T) {
	for _, name := range testimages.Chains() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			chain, err := testimages.Extract(t.TempDir(), name)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range chain.Disks {
				c := &chainOfDisk{source: d.Source, points: d.Points}
				if testing.Short() || os.Getenv("QBIT_FULL") != "1" {
					c.points = c.points[:min(len(c.points), 4)]
				}
				c.squashesEveryRun(t)
			}
		})
	}
}

// TestSquashSets squashes, in every folder of backups as tools leave them, what leads to
// each point: from the full backup on, and from the point before.
func TestSquashSets(t *testing.T) {
	for _, s := range sets.All() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			l := laySet(t, s)
			l.look(t)
			for _, truth := range s.Truth {
				if truth.Wants == sets.Right {
					l.wantSquashed(t, truth)
				}
			}
		})
	}
}

// squash squashes in the folder, and gives what it wrote.
func (l *laidSet) squash(t *testing.T, p *pointJSON, flags ...string) (out, stderr string, status int) {
	t.Helper()
	out = filepath.Join(t.TempDir(), "out.qcow2")
	args := slices.Concat([]string{"squash", l.path, "--assume", "--to", p.ID, "--disk", title(p), "-o", out}, l.flag, flags)
	_, stderr, status = qbit(args...)
	return out, stderr, status
}

func (l *laidSet) wantSquashed(t *testing.T, truth sets.Truth) {
	t.Helper()
	p := l.row(truth)
	if p == nil {
		t.Errorf("%s: the plan does not know it", truth.Files[0])
		return
	}
	full, stderr, status := l.squash(t, p)
	if status != 0 {
		t.Errorf("%s: status %d: %s", p.ID, status, stderr)
		return
	}
	l.wantContent(t, truth, full)
	parent := l.parentOf(p)
	if parent == nil {
		return
	}
	below, _, status := l.squash(t, parent)
	inc, stderr, status2 := l.squash(t, p, "--from", parent.ID)
	if status != 0 || status2 != 0 {
		t.Errorf("%s: status %d, %d: %s", p.ID, status, status2, stderr)
		return
	}
	l.wantContent(t, truth, below, inc)
}

// parentOf is the point on which a point stands; nil: it is whole.
func (l *laidSet) parentOf(p *pointJSON) *pointJSON {
	if len(p.Route) < 2 {
		return nil
	}
	for i := range l.plan.Points {
		if q := &l.plan.Points[i]; q.ID == p.Route[len(p.Route)-2] && q.Disk == p.Disk && q.Domain == p.Domain {
			return q
		}
	}
	return nil
}

func (l *laidSet) wantContent(t *testing.T, truth sets.Truth, links ...string) {
	t.Helper()
	stdout, stderr, status := qbit(append([]string{"digest", "--digest=sha256"}, links...)...)
	if status != 0 || strings.TrimSpace(stdout) != "sha256:"+truth.SHA256 {
		t.Errorf("%s as %d links: status %d, %s%s, wanted %s", truth.Files[0], len(links), status, stdout, stderr, truth.SHA256)
	}
}
