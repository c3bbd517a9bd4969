package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// TestBackupCircle writes to the disks of a domain, resizes them, lays overlays over
// them as external snapshots do, and forgets checkpoints, at random, and backs them up
// each time since a random checkpoint. Every point is proven, as sealed, and restores to
// what the disks were then.
func TestBackupCircle(t *testing.T) {
	circles := 2
	if os.Getenv("QBIT_FULL") == "1" {
		circles = 60
	}
	for seed := range circles {
		c := newRing(t, uint64(seed))
		for i := range 7 {
			c.change()
			c.backup(fmt.Sprintf("cp%d", i))
		}
		c.restore()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// A ring is a domain, what its disks hold, and what they held at each checkpoint.
type ring struct {
	t      *testing.T
	rng    *rand.Rand
	dir    string
	disks  []*ringDisk
	since  []string // checkpoints of which all images have the bitmaps
	points map[string][][]byte
}

// A ringDisk is one disk: its images, and its bytes.
type ringDisk struct {
	target string
	images []string // the topmost last
	bytes  []byte
}

func (d *ringDisk) top() string { return d.images[len(d.images)-1] }

func newRing(t *testing.T, seed uint64) *ring {
	dir, err := os.MkdirTemp("/dev/shm", "qbit-circle") // nothing has to outlive a power cut here
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &ring{t: t, rng: rand.New(rand.NewPCG(seed, 21)), dir: dir, points: map[string][][]byte{}}
	c.check(os.Mkdir(c.path("out"), 0o777))
	for _, target := range []string{"vda", "vdb"} {
		d := &ringDisk{target: target, bytes: make([]byte, 512*(1+c.rng.IntN(12<<10)))}
		c.disks = append(c.disks, d)
		c.create(d, qcow2.Layout{Size: int64(len(d.bytes)), ClusterSize: 512 << c.rng.IntN(9)})
	}
	return c
}

func (c *ring) path(name string) string { return filepath.Join(c.dir, name) }

func (c *ring) check(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// create adds a new topmost image to a disk.
func (c *ring) create(d *ringDisk, l qcow2.Layout) {
	c.t.Helper()
	path := c.path(fmt.Sprintf("%s-%d.qcow2", d.target, len(d.images)))
	f := must(os.Create(path))
	w, err := qcow2.Create(f, l)
	c.check(err)
	c.check(w.Close())
	c.check(f.Close())
	d.images = append(d.images, path)
}

// edit opens the topmost image of a disk for changing.
func (c *ring) edit(d *ringDisk, change func(e *qcow2.Editor) error) {
	c.t.Helper()
	f := must(os.OpenFile(d.top(), os.O_RDWR, 0))
	defer f.Close()
	e, err := qcow2.Edit(f, must(f.Stat()).Size(), &qcow2.Options{OpenRef: c.openRef})
	c.check(err)
	c.check(change(e))
}

func (c *ring) openRef(ref qcow2.Ref) (qcow2.Disk, error) {
	f, err := os.Open(ref.Name)
	if err != nil {
		return nil, err
	}
	c.t.Cleanup(func() { f.Close() })
	return qcow2.Open(f, must(f.Stat()).Size(), &qcow2.Options{OpenRef: c.openRef})
}

// change does to the disks what happens between two backups.
func (c *ring) change() {
	c.t.Helper()
	for _, d := range c.disks {
		c.write(d)
		switch c.rng.IntN(6) {
		case 0:
			c.resize(d)
			c.write(d)
		case 1:
			c.snapshot(d)
			c.write(d)
		}
	}
	if len(c.since) > 2 && c.rng.IntN(3) == 0 {
		c.forget()
	}
}

func (c *ring) write(d *ringDisk) {
	c.t.Helper()
	c.edit(d, func(e *qcow2.Editor) error {
		g, err := e.Guest(nil)
		if err != nil {
			return err
		}
		for range c.rng.IntN(8) {
			off := c.rng.Int64N(int64(len(d.bytes))) &^ 511
			p := d.bytes[off:min(len(d.bytes), int(off)+512*(1+c.rng.IntN(300)))]
			fill := byte(c.rng.IntN(4))
			copy(p, bytes.Repeat([]byte{fill}, len(p)))
			if fill == 0 && c.rng.IntN(2) == 0 {
				err = g.Zero(off, int64(len(p)))
			} else {
				_, err = g.WriteAt(p, off)
			}
			c.check(err)
		}
		return g.Close()
	})
}

func (c *ring) resize(d *ringDisk) {
	c.t.Helper()
	now := make([]byte, 512*(1+c.rng.IntN(12<<10)))
	copy(now, d.bytes)
	d.bytes = now
	c.edit(d, func(e *qcow2.Editor) error { return e.Resize(int64(len(now)), &qcow2.ResizeOptions{Shrink: true}) })
}

// snapshot lays an overlay over a disk, with the bitmaps of the image below, clean, as
// libvirt does.
func (c *ring) snapshot(d *ringDisk) {
	c.t.Helper()
	below := d.top()
	c.create(d, qcow2.Layout{Size: int64(len(d.bytes)), ClusterSize: 64 << 10, Backing: &qcow2.Ref{Kind: qcow2.RefBacking, Name: below, Format: "qcow2"}})
	c.edit(d, func(e *qcow2.Editor) error {
		return e.Update(func(tx *qcow2.Tx) error {
			for _, name := range c.since {
				if err := tx.AddBitmap(name, must(bitmap.New(int64(len(d.bytes)), 64<<10)), true); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// forget deletes a checkpoint from all images.
func (c *ring) forget() {
	c.t.Helper()
	i := c.rng.IntN(len(c.since))
	name := c.since[i]
	c.since = slices.Delete(c.since, i, i+1)
	for _, d := range c.disks {
		for _, path := range d.images {
			if out, said, status := qbit("bitmap", "--remove", path, name); status != 0 && !strings.Contains(said, name) {
				c.t.Fatalf("status %d: %s%s", status, out, said)
			}
		}
	}
}

// backup makes a backup since a random checkpoint, or a full one.
func (c *ring) backup(name string) {
	c.t.Helper()
	var disks strings.Builder
	for _, d := range c.disks {
		fmt.Fprintf(&disks, "<disk type='file' device='disk'><driver type='qcow2'/><source file='%s'/><target dev='%s'/></disk>", d.top(), d.target)
	}
	writeFile(c.t, c.path("vm.xml"), []byte("<domain type='qemu'><name>vm</name><devices>"+disks.String()+"</devices></domain>"))
	args := []string{"backup", "--domain", c.path("vm.xml"), "-o", c.path("out"), "--checkpoint", name, "--manifest", "--trust",
		"--cluster-size", fmt.Sprint(512 << c.rng.IntN(13))}
	if n := c.rng.IntN(len(c.since) + 1); n > 0 {
		args = append(args, "--since", c.since[n-1])
	}
	if c.rng.IntN(3) == 0 {
		args = append(args, "--compress")
	}
	if out, said, status := qbit(args...); status != 0 {
		c.t.Fatalf("qbit %q: status %d\n%s%s", args, status, out, said)
	}
	c.since = append(c.since, name)
	for _, d := range c.disks {
		c.points[name] = append(c.points[name], bytes.Clone(d.bytes))
	}
}

// restore brings every point back.
func (c *ring) restore() {
	c.t.Helper()
	out, said, status := qbit("verify", c.path("out"))
	if status != 0 || strings.Contains(out, "not compared") || strings.Contains(out, "doubt") {
		c.t.Errorf("verify: status %d\n%s%s", status, out, said)
	}
	for name, want := range c.points {
		to := c.path("restored-" + name)
		c.check(os.Mkdir(to, 0o777))
		if out, said, status := qbit("restore", "-q", c.path("out"), "--at", name, "-o", to); status != 0 {
			c.t.Errorf("restore --at %s: status %d\n%s%s", name, status, out, said)
			continue
		}
		for i, d := range c.disks {
			if got := must(os.ReadFile(filepath.Join(to, d.target+".raw"))); !bytes.Equal(got, want[i]) {
				c.t.Errorf("%s at %s is another disk", d.target, name)
			}
		}
		c.check(os.RemoveAll(to))
	}
}
