package qcow2_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/interop"
)

// qemuReads wants qemu-img to find the image sound, and the guest to be as given.
func qemuReads(dir, name string, guest []byte) error {
	check := exec.Command("qemu-img", "check", "-f", "qcow2", name)
	check.Dir = dir
	if out, err := check.CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-img check: %w\n%s", err, out)
	}
	raw := name + ".raw"
	convert := exec.Command("qemu-img", "convert", "-f", "qcow2", "-O", "raw", name, raw)
	convert.Dir = dir
	if out, err := convert.CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-img convert: %w\n%s", err, out)
	}
	defer os.Remove(filepath.Join(dir, raw))
	have, err := os.ReadFile(filepath.Join(dir, raw))
	if err != nil {
		return err
	}
	guest = guest[:len(guest)&^511] // QEMU passes over what is less than a sector
	if len(have) < len(guest) || !bytes.Equal(have[:len(guest)], guest) {
		return fmt.Errorf("QEMU reads %d bytes, which are not the %d of the model", len(have), len(guest))
	}
	return nil
}

// qemu-img finds all that is written sound, and reads what the model holds.
func TestInteropGuest(t *testing.T) {
	interop.Need(t, "qemu-img")
	dir := t.TempDir()
	put := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range guestTrials() {
		if c.leaky || c.name == "ends in a cluster" {
			continue
		}
		put("base.raw", c.backing)
		for name, ops := range c.guestOperations() {
			if name != "random" && name != "one over another" && !full() {
				continue
			}
			f := c.both()
			j, err := c.run(f, ops)
			if err != nil {
				t.Fatalf("%s, %s: %v", c.name, name, err)
			}
			n := len(c.padded())
			put("data", f.Bytes()[:n])
			put("image.qcow2", f.Bytes()[n:])
			if err := qemuReads(dir, "image.qcow2", j.new); err != nil {
				t.Errorf("%s, %s: %v", c.name, name, err)
			}
		}
		sizes := c.resizes()
		size := sizes[i%len(sizes)] / 512 * 512
		if c.data != nil || size == 0 {
			continue
		}
		f := c.both()
		j, err := c.resize(f, size)
		if err != nil {
			t.Fatalf("%s, %d: %v", c.name, size, err)
		}
		put("image.qcow2", f.Bytes())
		if err := qemuReads(dir, "image.qcow2", j.guest); err != nil {
			t.Errorf("%s, resized to %d: %v", c.name, size, err)
		}
	}
}

// A qemuGuest is an image that QEMU made, and what it reads.
type qemuGuest struct {
	*rand.Rand
	t       *testing.T
	dir     string
	path    string
	guest   []byte
	backing []byte
	version int
	cluster int64
	data    bool
}

func (q *qemuGuest) run(args ...string) {
	q.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = q.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		q.t.Fatalf("%q: %v\n%s", args, err, out)
	}
}

// fill has QEMU write to n clusters, each another.
func (q *qemuGuest) fill(n int, kind string) {
	var script []string
	clusters := q.Perm((len(q.guest) + int(q.cluster) - 1) / int(q.cluster))
	for _, k := range clusters[:min(n, len(clusters))] {
		off := int64(k) * q.cluster
		size := min(q.cluster, int64(len(q.guest))-off)
		value := byte(q.IntN(255) + 1)
		script = append(script, "-c", fmt.Sprintf("%s -P %d %d %d", kind, value, off, size))
		copy(q.guest[off:off+size], bytes.Repeat([]byte{value}, int(size)))
	}
	q.run(append(append([]string{"qemu-io", "-f", "qcow2"}, script...), q.path)...)
}

func (q *qemuGuest) open() (*os.File, *os.File, *qcow2.Editor) {
	q.t.Helper()
	f, err := os.OpenFile(filepath.Join(q.dir, q.path), os.O_RDWR, 0)
	if err != nil {
		q.t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		q.t.Fatal(err)
	}
	var data *os.File
	if q.data {
		if data, err = os.OpenFile(filepath.Join(q.dir, "data.raw"), os.O_RDWR, 0); err != nil {
			q.t.Fatal(err)
		}
	}
	e, err := qcow2.Edit(f, info.Size(), &qcow2.Options{OpenRef: func(ref qcow2.Ref) (qcow2.Disk, error) {
		if ref.Kind == qcow2.RefData {
			b, err := io.ReadAll(io.NewSectionReader(data, 0, 1<<40))
			return memDisk(b), err
		}
		return memDisk(q.backing), nil
	}})
	if err != nil {
		q.t.Fatal(err)
	}
	return f, data, e
}

// session changes the guest at random.
func (q *qemuGuest) session() {
	f, data, e := q.open()
	defer f.Close()
	opts := &qcow2.GuestOptions{NeverInPlace: q.IntN(3) == 0}
	if data != nil {
		defer data.Close()
		info, _ := data.Stat()
		opts.DataFile, opts.DataSize = data, info.Size()
	}
	g, err := e.Guest(opts)
	if err != nil {
		q.t.Fatal(err)
	}
	c := &guestTrial{trial: &trial{}, version: q.version, cluster: q.cluster, backing: q.backing}
	for range 12 {
		off := q.Int64N(int64(len(q.guest)))
		n := q.Int64N(min(int64(len(q.guest))-off, 3*q.cluster) + 1)
		o := write(q.Rand, off, n)
		if k := q.IntN(5); k < 2 {
			o = guestOp{kind: "zd"[k], off: off, n: n}
		}
		if err := o.do(g); err != nil {
			q.t.Fatalf("%v: %v", o, err)
		}
		q.guest = c.apply(q.guest, []guestOp{o})
		if q.IntN(4) == 0 {
			if err := g.Flush(); err != nil {
				q.t.Fatal(err)
			}
		}
	}
	if err := g.Close(); err != nil {
		q.t.Fatal(err)
	}
	if size := (q.Int64N(2*int64(len(q.guest))) + 1) &^ 511; q.IntN(3) == 0 && size > 0 {
		if err := e.Resize(size, &qcow2.ResizeOptions{Shrink: true, DataFile: opts.DataFile, DataSize: opts.DataSize}); err != nil {
			q.t.Fatal(err)
		}
		guest := make([]byte, size)
		copy(guest, q.guest)
		q.guest = guest
	}
}

// Images that QEMU makes, changed by both in turns.
func TestInteropGuestQEMUImages(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	kinds := map[string]string{
		"plain":                 "",
		"version 2":             "compat=0.10",
		"version 2, backing":    "compat=0.10,backing_file=base.raw,backing_fmt=raw",
		"512 B, 1 refcount bit": "cluster_size=512,refcount_bits=1",
		"2 MiB, 64 bits":        "cluster_size=2M,refcount_bits=64",
		"extended L2":           "extended_l2=on,cluster_size=16k",
		"extended L2, backing":  "extended_l2=on,cluster_size=16k,backing_file=base.raw,backing_fmt=raw",
		"backing, lazy":         "lazy_refcounts=on,backing_file=base.raw,backing_fmt=raw",
		"zstd, 4 KiB, bitmaps":  "compression_type=zstd,cluster_size=4k",
		"snapshots":             "cluster_size=4k",
		"data file":             "data_file=data.raw",
		"raw data file":         "data_file=data.raw,data_file_raw=on",
	}
	rounds := 3
	if full() {
		rounds = 25
	}
	seed := uint64(0)
	for name, options := range kinds {
		seed++
		t.Run(name, func(t *testing.T) {
			q := &qemuGuest{Rand: rand.New(rand.NewPCG(seed, 3)), t: t, dir: t.TempDir(), path: "image.qcow2", version: 3, cluster: 64 << 10}
			q.make(name, options)
			for i := range rounds {
				q.session()
				if err := qemuReads(q.dir, q.path, q.guest); err != nil {
					t.Fatalf("round %d: %v", i, err)
				}
				if name == "snapshots" && i == 0 {
					q.run("qemu-img", "snapshot", "-c", "second", q.path)
				}
				q.fill(4, "write")
			}
			if name == "snapshots" {
				for _, s := range []string{"second", "first"} {
					q.run("qemu-img", "snapshot", "-a", s, q.path)
				}
				q.run("qemu-img", "check", q.path)
			}
		})
	}
}

// make has QEMU make the image and write to it.
func (q *qemuGuest) make(name, options string) {
	size := int64(9<<20 + 512*7)
	if strings.Contains(options, "cluster_size=") {
		var k int64
		var unit string
		_, after, _ := strings.Cut(options, "cluster_size=")
		fmt.Sscanf(after, "%d%1s", &k, &unit)
		q.cluster = k * map[string]int64{"k": 1 << 10, "M": 1 << 20, ",": 1}[unit]
	}
	if q.cluster < 1<<16 {
		size = 500<<10 + 512
	}
	q.guest = make([]byte, size)
	if strings.Contains(options, "backing_file") {
		q.backing = bytes.Repeat([]byte("what lies below."), int(size)/16*2/3)
		if err := os.WriteFile(filepath.Join(q.dir, "base.raw"), q.backing, 0o600); err != nil {
			q.t.Fatal(err)
		}
		copy(q.guest, q.backing)
	}
	if strings.Contains(options, "0.10") {
		q.version = 2
	}
	q.data = strings.Contains(options, "data_file")
	args := []string{"qemu-img", "create", "-q", "-f", "qcow2"}
	if options != "" {
		args = append(args, "-o", options)
	}
	q.run(append(args, q.path, fmt.Sprint(size))...)
	if !q.data {
		q.fill(5, "write -c") // what is allocated cannot be compressed later
	}
	q.fill(5, "write")
	if strings.Contains(name, "snapshots") {
		q.run("qemu-img", "snapshot", "-c", "first", q.path)
	}
	if strings.Contains(name, "bitmaps") {
		q.run("qemu-img", "bitmap", "--add", q.path, "records")
		q.run("qemu-img", "bitmap", "--add", "--disable", q.path, "does not")
	}
}
