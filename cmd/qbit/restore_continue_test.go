package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
	"github.com/qbitkit/qbit/testimages"
	"github.com/qbitkit/qbit/testimages/sets"
)

// commandsOf are the arguments of virsh in the last line of a report.
func commandsOf(t *testing.T, stdout string) [][]string {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	var rep continueReport
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &rep); err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for _, line := range rep.Commands {
		words := strings.Fields(line)
		if words[0] != "virsh" || strings.Contains(line, "'") {
			t.Fatalf("the command is %s", line)
		}
		all = append(all, words[1:])
	}
	return all
}

// TestContinueChains restores every frozen chain at every point, and wants the bitmap
// of each checkpoint before it to mark all that differs since, and nothing that is far
// from what the links hold.
func TestContinueChains(t *testing.T) {
	for _, name := range testimages.Chains() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			chain := must(testimages.Extract(t.TempDir(), name))
			for _, d := range chain.Disks {
				c := &deltaChain{chainOfDisk: chainOfDisk{source: d.Source, points: d.Points}}
				last := len(c.points) - 1
				for n := range c.points {
					c.truth = append(c.truth, c.content(t, n))
				}
				c.continueAt(t, last)
				c.continueAt(t, last/2)
			}
		})
	}
}

func (c *deltaChain) content(t *testing.T, n int) []byte {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "truth")
	args := append(append([]string{"restore", "-q", "-o", raw}, c.links(n)...), c.changed(n)...)
	if _, stderr, status := qbit(args...); status != exitDone {
		t.Fatal(stderr)
	}
	return must(os.ReadFile(raw))
}

// continueAt restores point n with the bitmaps of all checkpoints up to it.
func (c *deltaChain) continueAt(t *testing.T, n int) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.qcow2")
	args := append(append([]string{"restore", "-O", "qcow2", "--cluster-size=4k", "-o", out}, c.links(n)...), c.changed(n)...)
	for i, p := range c.points[:n+1] {
		args = append(args, "--continue", p.Checkpoint+"="+c.links(n)[i])
	}
	if _, stderr, status := qbit(args...); status != exitDone || !strings.Contains(stderr, "no XML is written") {
		t.Fatalf("status %d: %s", status, stderr)
	}
	f := must(os.Open(out))
	defer f.Close()
	img := must(qcow2.Open(f, must(f.Stat()).Size(), nil))
	for i, p := range c.points[:n+1] {
		info := must(img.BitmapInfo(p.Checkpoint))
		b := must(img.LoadBitmap(p.Checkpoint))
		if !info.Auto || info.InUse || info.Granularity != 4096 {
			t.Errorf("%+v", info)
		}
		c.wantMarked(t, b, i, n)
	}
}

// wantMarked wants a bitmap to mark all that differs between two points.
func (c *deltaChain) wantMarked(t *testing.T, b *bitmap.Bitmap, from, to int) {
	t.Helper()
	old, now := c.truth[from], c.truth[to]
	for off := range now {
		if (off >= len(old) || old[off] != now[off]) && !b.Test(int64(off)) && now[off] != 0 {
			t.Fatalf("%s to %s: byte %d differs and is not marked", c.points[from].Checkpoint, c.points[to].Checkpoint, off)
		}
		if off < len(old) && old[off] != now[off] && !b.Test(int64(off)) {
			t.Fatalf("%s to %s: byte %d became zero and is not marked", c.points[from].Checkpoint, c.points[to].Checkpoint, off)
		}
	}
	if from == to && b.Count() > 0 {
		t.Errorf("%s: nothing changed, and %d bytes are marked", c.points[from].Checkpoint, b.Count())
	}
}

// Two disks of one domain, one of them alone, and what libvirt is told of them.
func TestContinueFolder(t *testing.T) {
	dir := must(testimages.Extract(t.TempDir(), "twodisks"))
	set := filepath.Dir(dir.Disks[0].Points[0].File)
	out := filepath.Join(t.TempDir(), "out")
	stdout, stderr, status := qbit("restore", "--output=json", set, "-O", "qcow2", "-o", out+"/", "--continue", "cp1", "--continue", "cp3")
	if status != exitDone {
		t.Fatal(stderr)
	}
	for i, args := range commandsOf(t, stdout) {
		want := []string{"checkpoint-create", "qbit-twodisks", filepath.Join(out, []string{"cp1", "cp3"}[i]+".xml"), "--redefine"}
		if !slices.Equal(args, want) {
			t.Errorf("got %q, want %q", args, want)
		}
	}
	cp := must(libvirt.ParseCheckpoint(must(os.ReadFile(filepath.Join(out, "cp3.xml")))))
	if cp.Parent != "cp1" || len(cp.Disks) != 2 || cp.Disks[1].BitmapName(cp) != "cp3" || cp.DomainDisks()[1].Source != filepath.Join(out, "vdb.qcow2") {
		t.Errorf("%+v", cp)
	}
	if cp := must(libvirt.ParseCheckpoint(must(os.ReadFile(filepath.Join(out, "cp1.xml"))))); cp.Parent != "" || cp.CreationTime == 0 {
		t.Errorf("%+v", cp)
	}
	one := filepath.Join(t.TempDir(), "one.qcow2")
	if _, stderr, status = qbit("restore", set, "--disk", "vdb", "--at", "cp2", "-O", "qcow2", "-o", one, "--continue", "mine=cp2", "--checkpoint-xml", one+".x"); status != exitDone {
		t.Fatal(stderr)
	}
	cp = must(libvirt.ParseCheckpoint(must(os.ReadFile(one + ".x"))))
	if cp.Name != "mine" || cp.Parent != "" || cp.Disks[0].Checkpoint != "no" || cp.Disks[1].Bitmap != "mine" || cp.CreationTime == 0 {
		t.Errorf("%+v", cp)
	}
}

// Where a set does not say what the domain calls a disk there is a bitmap all the same,
// and a note; where it knows no checkpoints, any name will do.
func TestContinueUnknown(t *testing.T) {
	for _, row := range []struct{ set, disk, name, say string }{
		{"cloudstack", "", "mine=2026.03.04.10.00.00", "which disk of the domain is "},
		{"opennebula", "0", "mine", "the set knows no checkpoints; mine is taken to be that of the point 3"},
	} {
		l := laySet(t, sets.Get(row.set))
		out := filepath.Join(t.TempDir(), "out")
		disk := row.disk
		if disk == "" {
			disk = l.Disks()[0]
		}
		_, stderr, status := qbit("restore", l.path, "--assume", "--disk", disk, "-O", "qcow2", "-o", out, "--continue", row.name)
		if status != exitDone || !strings.Contains(stderr, row.say) || !strings.Contains(stderr, "no XML is written for the checkpoint") {
			t.Errorf("%s: status %d: %s", row.set, status, stderr)
			continue
		}
		f := must(os.Open(out))
		img := must(qcow2.Open(f, must(f.Stat()).Size(), nil))
		if info, err := img.BitmapInfo("mine"); err != nil || !info.Auto {
			t.Errorf("%s: %+v, %v", row.set, info, err)
		}
		f.Close()
	}
}

// The bitmap of a disk that ends within a sector has the size of the image.
func TestContinueSector(t *testing.T) {
	dir := t.TempDir()
	full, out := filepath.Join(dir, "full.raw"), filepath.Join(dir, "out.qcow2")
	writeFile(t, full, make([]byte, 5000))
	if _, stderr, status := qbit("restore", "raw:"+full, "-O", "qcow2", "-o", out, "--continue", "c"); status != exitDone {
		t.Fatal(stderr)
	}
	f := must(os.Open(out))
	defer f.Close()
	img := must(qcow2.Open(f, must(f.Stat()).Size(), nil))
	if b := must(img.LoadBitmap("c")); b.Size() != 5120 || b.Granularity() != 64<<10 || b.Count() != 0 {
		t.Errorf("%d bytes of %d, granularity %d", b.Count(), b.Size(), b.Granularity())
	}
}
