package qcow2_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/interop"
)

// rewrites are what makes QEMU write the header in its own order; each is one
// command, DIR and IMAGE put in.
var rewrites = []struct {
	name string
	args []string
	does func(*headerTrip)
}{
	{"amend", []string{"qemu-img", "amend", "-f", "qcow2", "-o", "lazy_refcounts=on", "IMAGE"}, nil},
	{"rebase", []string{"qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "DIR/another.raw", "IMAGE"},
		func(h *headerTrip) { h.backing = filepath.Join(h.dir, "another.raw") }},
	{"write", []string{"qemu-io", "-f", "qcow2", "-c", "write -P 5 3M 64k", "IMAGE"},
		func(h *headerTrip) { h.recorded(3<<20, 64<<10) }},
	{"bitmap", []string{"qemu-img", "bitmap", "--merge", "second", "-f", "qcow2", "IMAGE", "first"},
		func(h *headerTrip) { h.want["first"] = h.want["first"].merged(h.want["second"]) }},
	{"snapshot", []string{"qemu-img", "snapshot", "-c", "point", "IMAGE"}, nil},
	{"no backing file", []string{"qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "", "IMAGE"},
		func(h *headerTrip) { h.backing = "" }},
	{"amend back", []string{"qemu-img", "amend", "-f", "qcow2", "-o", "lazy_refcounts=off", "IMAGE"}, nil},
	{"long backing name", []string{"qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "DIR/LONG/another.raw", "IMAGE"},
		func(h *headerTrip) { h.backing = h.dir + "/" + longFolder + "/another.raw" }},
}

// longFolder makes a backing file name reach from the first sector into the second.
var longFolder = strings.Repeat("./", 120)[:239]

// A headerTrip is an image whose header qbit and QEMU write in turns.
type headerTrip struct {
	*trip
	backing string
}

// TestInteropHeaderRewrite lets QEMU write the header anew after a change by qbit,
// which had put the bitmaps extension into the first sector: nothing may be lost,
// whoever writes, and after qbit it is in the first sector again.
func TestInteropHeaderRewrite(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io", "qemu-nbd", "nbdinfo")
	for _, cluster := range []int64{1 << 10, 64 << 10, 2 << 20} {
		for i, first := range rewrites {
			t.Run(fmt.Sprintf("%d %s", cluster, first.name), func(t *testing.T) {
				t.Parallel()
				h := newHeaderTrip(t, cluster)
				for n := range rewrites {
					r := (i + n) % len(rewrites)
					h.rewrite(r)
					h.editAgain()
					if n == 1 && os.Getenv("QBIT_FULL") != "1" {
						break
					}
				}
			})
		}
	}
}

func newHeaderTrip(t *testing.T, cluster int64) *headerTrip {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"base.raw", "another.raw"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 4096), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h := &headerTrip{trip: &trip{t: t, rng: rand.New(rand.NewPCG(1, uint64(cluster))), dir: dir,
		path: filepath.Join(dir, "disk.qcow2"), size: 8 << 20, want: bitmapSet{}}, backing: filepath.Join(dir, "base.raw")}
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", fmt.Sprintf("cluster_size=%d", cluster),
		"-F", "raw", "-b", h.backing, h.path, fmt.Sprint(h.size))
	h.qemuIO("write -P 3 100k 900k")
	h.addUnknownExtension()
	editImage(t, h.path, func(e *qcow2.Editor) error {
		return e.Update(func(tx *qcow2.Tx) error {
			for _, name := range []string{"first", "second"} {
				h.want[name] = modelBitmap{h.randomBits(), name == "first"}
				if err := tx.AddBitmap(name, h.want[name].bits, h.want[name].auto); err != nil {
					return err
				}
			}
			return nil
		})
	})
	h.check(true)
	return h
}

// addUnknownExtension puts an extension that nobody knows before all others: QEMU
// keeps those, and so must we. What followed is the same as before.
func (h *headerTrip) addUnknownExtension() {
	const length = 112 // of QEMU's header structure
	ours := append([]byte("\x51\x62\x69\x74\x00\x00\x00\x05"), "qbit!\x00\x00\x00"...)
	f, err := os.OpenFile(h.path, os.O_RDWR, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1024)
	if _, err := f.ReadAt(b, 0); err != nil {
		h.t.Fatal(err)
	}
	moved := append(append(slices.Clone(b[:length]), ours...), b[length:len(b)-len(ours)]...)
	binary.BigEndian.PutUint64(moved[8:], binary.BigEndian.Uint64(b[8:])+uint64(len(ours))) // backing_file_offset
	if _, err := f.WriteAt(moved, 0); err != nil {
		h.t.Fatal(err)
	}
}

// rewrite runs one of the commands of QEMU.
func (h *headerTrip) rewrite(i int) {
	h.t.Helper()
	r := rewrites[i]
	before := h.otherExtensions()
	args := slices.Clone(r.args)
	for i := range args {
		args[i] = strings.NewReplacer("DIR", h.dir, "IMAGE", h.path, "LONG", longFolder).Replace(args[i])
	}
	h.note("%.90q", args)
	interop.Run(h.t, args[0], args[1:]...)
	if r.does != nil {
		r.does(h)
	}
	if i := slices.IndexFunc(before, func(e string) bool { return strings.HasPrefix(e, "51626974") }); i < 0 || !slices.Contains(h.otherExtensions(), before[i]) {
		h.t.Fatalf("the unknown extension is lost: before %q, after %q", before, h.otherExtensions())
	}
	h.check(false)
}

// editAgain changes all bitmaps by qbit.
func (h *headerTrip) editAgain() {
	h.t.Helper()
	before := h.otherExtensions()
	editImage(h.t, h.path, func(e *qcow2.Editor) error {
		return e.Update(func(tx *qcow2.Tx) error {
			for _, name := range h.want.names() {
				b := modelBitmap{h.randomBits(), h.want[name].auto}
				h.want[name] = b
				if err := tx.ReplaceBitmap(name, b.bits); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if diff := cmp.Diff(before, h.otherExtensions()); diff != "" {
		h.t.Fatalf("qbit changed other extensions (-before +after):\n%s", diff)
	}
	h.check(true)
}

func (h *headerTrip) recorded(off, n int64) {
	for name, b := range h.want {
		if b.auto {
			b.bits = b.bits.Clone()
			b.bits.Set(off, n)
			h.want[name] = b
		}
	}
}

// check wants all of the image as it must be.
func (h *headerTrip) check(afterQbit bool) {
	h.t.Helper()
	expectBitmapsOfQbit(h.t, h.path, h.want)
	expectListedByQEMU(h.t, h.path, h.want)
	expectSound(h.t, h.path)
	if got := infoOfQEMU(h.t, h.path).Backing; got != h.backing {
		h.t.Fatalf("the backing file is %q, must be %q", got, h.backing)
	}
	if afterQbit {
		expectInFirstSector(h.t, h.path)
		h.expectAllBits()
	}
}

// otherExtensions are all but the bitmaps extension, sorted by type.
func (h *headerTrip) otherExtensions() []string {
	h.t.Helper()
	var list []string
	for _, e := range openFile(h.t, h.path).Extensions() {
		if e.Type != qcow2.ExtBitmaps {
			list = append(list, fmt.Sprintf("%08x %q", e.Type, e.Data))
		}
	}
	slices.Sort(list)
	return list
}

// openFile opens an image until the test ends.
func openFile(t *testing.T, path string) *qcow2.Image {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	img, err := qcow2.Open(f, info.Size(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// expectInFirstSector wants the bitmaps extension, if there is one, whole in the
// first 512 bytes of the file, and before all others.
func expectInFirstSector(t *testing.T, path string) {
	t.Helper()
	for i, e := range openFile(t, path).Extensions() {
		if end := int(e.Host) + 8 + len(e.Data); e.Type == qcow2.ExtBitmaps && (end > 512 || i > 0) {
			t.Errorf("the bitmaps extension is number %d and ends at byte %d; it must be the first, in the first sector", i, end)
		}
	}
}
