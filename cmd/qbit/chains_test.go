package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/qbitkit/qbit/testimages"
)

// A chainOfDisk is the backups of one disk, frozen or fresh, with the truth.
type chainOfDisk struct {
	source string // the surviving image with the bitmaps
	points []testimages.ChainPoint
}

// links are the arguments for the chain up to point n.
func (c *chainOfDisk) links(n int) []string {
	var args []string
	for _, p := range c.points[:n+1] {
		name := p.File
		if p.Format == "raw" {
			name = "raw:" + name
		}
		args = append(args, name)
	}
	return args
}

// changed are the flags that give the links up to point n their bitmaps, where
// they name no backing file: they may be lossy, and the header cannot tell.
func (c *chainOfDisk) changed(n int) []string {
	var args []string
	for i, p := range c.points[:n+1] {
		if i > 0 && p.Backing == "" {
			args = append(args, "--changed", c.links(n)[i]+"="+c.source+":"+p.Bitmap)
		}
	}
	return args
}

// lossy reports that a link cannot represent zeroes.
func (c *chainOfDisk) lossy() bool {
	return slices.ContainsFunc(c.points, func(p testimages.ChainPoint) bool { return p.Lossy })
}

// restoresEveryPoint restores a chain at every point, to each kind of target, and
// wants the true bytes.
func (c *chainOfDisk) restoresEveryPoint(t *testing.T) {
	t.Helper()
	before := c.fingerprints(t)
	for n, p := range c.points {
		dir := t.TempDir()
		args := append([]string{"restore", "--strict", "--output=json", "--digest=sha256"}, c.links(n)...)
		args = append(args, c.changed(n)...)
		raw := filepath.Join(dir, "disk.raw")
		c.wantRestored(t, p, append(args, "-o", raw))
		if got := fileSHA256(t, raw); got != p.SHA256 {
			t.Errorf("%s: the raw file has sha256 %s, not %s", p.Checkpoint, got, p.SHA256)
		}
		if n != 0 && n != len(c.points)-1 {
			continue // the other targets need not see every point
		}
		image := filepath.Join(dir, "disk.qcow2")
		c.wantRestored(t, p, append(args, "-O", "qcow2", "--cluster-size", []string{"64k", "4k", "2M"}[n%3], "-o", image))
		c.wantDigest(t, p, image)
		onto := filepath.Join(dir, "onto")
		if err := os.WriteFile(onto, []byte(strings.Repeat("old", int(p.Size/3+1))), 0o600); err != nil {
			t.Fatal(err)
		}
		c.wantRestored(t, p, append(args, "--onto", onto))
		c.wantDigest(t, p, "raw:"+cutTo(t, onto, p.Size))
	}
	if after := c.fingerprints(t); after != before {
		t.Errorf("the backups were touched:\nbefore %s\nafter  %s", before, after)
	}
}

func (c *chainOfDisk) wantRestored(t *testing.T, p testimages.ChainPoint, args []string) {
	t.Helper()
	stdout, stderr, status := qbit(args...)
	if status != 0 {
		t.Fatalf("%s: qbit %q: status %d\n%s", p.Checkpoint, args, status, stderr)
	}
	var report restoreReport
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	if report.Size != p.Size || report.Digests["sha256"] != p.SHA256 {
		t.Errorf("%s: qbit %q\nrestored %d bytes, sha256 %s\nwanted   %d bytes, sha256 %s", p.Checkpoint, args,
			report.Size, report.Digests["sha256"], p.Size, p.SHA256)
	}
}

func (c *chainOfDisk) wantDigest(t *testing.T, p testimages.ChainPoint, disk string) {
	t.Helper()
	stdout, stderr, status := qbit("digest", "--digest=sha256", disk)
	if status != 0 || strings.TrimSpace(stdout) != "sha256:"+p.SHA256 {
		t.Errorf("%s: digest of %s: status %d, %s%s, wanted %s", p.Checkpoint, disk, status, stdout, stderr, p.SHA256)
	}
}

// warnsOfLossyLinks wants a warning for each link that cannot represent zeroes,
// and no result at all with --strict.
func (c *chainOfDisk) warnsOfLossyLinks(t *testing.T) {
	t.Helper()
	last := len(c.points) - 1
	out := filepath.Join(t.TempDir(), "disk.raw")
	_, stderr, status := qbit(append(append([]string{"restore"}, c.links(last)...), "-o", out)...)
	if status != 0 {
		t.Fatalf("status %d: %s", status, stderr)
	}
	for i, p := range c.points {
		warned := strings.Contains(stderr, "warning: "+c.links(last)[i]+": ") && strings.Contains(stderr, "zero")
		if p.Lossy && !warned {
			t.Errorf("no warning about %s:\n%s", p.File, stderr)
		}
	}
	strict := filepath.Join(t.TempDir(), "strict.raw")
	_, stderr, status = qbit(append(append([]string{"restore", "--strict"}, c.links(last)...), "-o", strict)...)
	if status != exitBad || !strings.Contains(stderr, "--strict") {
		t.Errorf("--strict: status %d: %s", status, stderr)
	}
	wantNothing(t, filepath.Dir(strict))
}

// fingerprints are content, size and time of every backup.
func (c *chainOfDisk) fingerprints(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, p := range append([]testimages.ChainPoint{{File: c.source}}, c.points...) {
		if p.File == "" {
			continue
		}
		info, err := os.Stat(p.File)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %s %s\n", filepath.Base(p.File), fileSHA256(t, p.File), info.ModTime().Format(time.RFC3339Nano))
	}
	return b.String()
}

// TestFrozenChains restores every chain in testimages at every point. Nothing of
// what the increments name as their backing file exists here.
func TestFrozenChains(t *testing.T) {
	for _, name := range testimages.Chains() {
		t.Run(name, func(t *testing.T) {
			chain, err := testimages.Extract(t.TempDir(), name)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range chain.Disks {
				c := &chainOfDisk{source: d.Source, points: d.Points}
				c.restoresEveryPoint(t)
				if c.lossy() {
					c.warnsOfLossyLinks(t)
				}
			}
		})
	}
}

// TestFrozenLossy shows that the bitmaps are what makes lossy chains right: without
// them old bytes come back.
func TestFrozenLossy(t *testing.T) {
	for _, name := range []string{"v2", "raw"} {
		chain, err := testimages.Extract(t.TempDir(), name)
		if err != nil {
			t.Fatal(err)
		}
		d := chain.Disks[0]
		c := &chainOfDisk{source: d.Source, points: d.Points}
		last := len(c.points) - 1
		stdout, _, status := qbit(append([]string{"digest", "--digest=sha256"}, c.links(last)...)...)
		if status != 0 || strings.Contains(stdout, c.points[last].SHA256) {
			t.Errorf("%s: without bitmaps the chain came back right: the frozen chain tests nothing", name)
		}
	}
}

func fileSHA256(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// cutTo cuts a file that is larger than the disk which was written over it.
func cutTo(t *testing.T, path string, size int64) string {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantNothing wants a folder to be empty: nothing that looks like a result.
func wantNothing(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s was left behind", e.Name())
	}
}
