package qcow2_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/interop"
)

// A modelBitmap is what a bitmap must be.
type modelBitmap struct {
	bits *bitmap.Bitmap
	auto bool
}

// A bitmapSet is what an image must hold, by name.
type bitmapSet map[string]modelBitmap

func (s bitmapSet) names() []string {
	var names []string
	for name := range s {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// editImage runs fn on an Editor of the image, under QEMU's lock.
func editImage(t *testing.T, path string, fn func(*qcow2.Editor) error) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := qcow2.Lock(f, qcow2.LockWrite); err != nil {
		t.Fatal(err)
	}
	// A process that another test is just starting may hold the file a moment longer.
	defer qcow2.Unlock(f)
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	e, err := qcow2.Edit(f, info.Size(), nil)
	if err == nil {
		err = fn(e)
	}
	if err != nil {
		t.Fatalf("editing %s: %v", path, err)
	}
}

// readBitmaps is what qbit finds in an image.
func readBitmaps(t *testing.T, path string) bitmapSet {
	t.Helper()
	img := openFile(t, path)
	list, err := img.Bitmaps()
	if err != nil {
		t.Fatal(err)
	}
	found := bitmapSet{}
	for _, b := range list {
		bits, err := img.LoadBitmap(b.Name)
		if err != nil {
			t.Fatalf("bitmap %q: %v", b.Name, err)
		}
		found[b.Name] = modelBitmap{bits, b.Auto}
	}
	return found
}

// expectBitmapsOfQbit wants exactly these bitmaps in the image, bit by bit.
func expectBitmapsOfQbit(t *testing.T, path string, want bitmapSet) {
	t.Helper()
	got := readBitmaps(t, path)
	if !slices.Equal(got.names(), want.names()) {
		t.Fatalf("qbit finds bitmaps %q, there must be %q", got.names(), want.names())
	}
	for name, w := range want {
		g := got[name]
		if g.auto != w.auto {
			t.Fatalf("bitmap %q: qbit reads recording %v, must be %v", name, g.auto, w.auto)
		}
		if !g.bits.Equal(w.bits) {
			t.Fatalf("bitmap %q (granularity %d): qbit reads %v, must be %v (granularity %d)", name,
				g.bits.Granularity(), someRanges(g.bits), someRanges(w.bits), w.bits.Granularity())
		}
	}
}

// listedBitmap is a bitmap in qemu-img info.
type listedBitmap struct {
	Name        string
	Flags       []string
	Granularity int64
}

// qemuInfo is the part of qemu-img info that we compare.
type qemuInfo struct {
	VirtualSize int64  `json:"virtual-size"`
	Backing     string `json:"backing-filename"`
	Specific    struct {
		Data struct {
			Compat   string
			Lazy     bool   `json:"lazy-refcounts"`
			DataFile string `json:"data-file"`
			Bitmaps  []listedBitmap
		}
	} `json:"format-specific"`
}

func infoOfQEMU(t *testing.T, path string) qemuInfo {
	t.Helper()
	var info qemuInfo
	decodeQEMU(t, interop.Run(t, "qemu-img", "info", "-f", "qcow2", "--output=json", path), &info)
	return info
}

// expectListedByQEMU wants the same names, flags and granularities from qemu-img.
func expectListedByQEMU(t *testing.T, path string, want bitmapSet) {
	t.Helper()
	info := infoOfQEMU(t, path)
	if n := len(info.Specific.Data.Bitmaps); n != len(want) {
		t.Fatalf("qemu-img lists %d bitmaps, there must be %q: %+v", n, want.names(), info.Specific.Data.Bitmaps)
	}
	for _, b := range info.Specific.Data.Bitmaps {
		var flags []string
		if want[b.Name].auto {
			flags = []string{"auto"}
		}
		w, ok := want[b.Name]
		if !ok || b.Granularity != w.bits.Granularity() || !slices.Equal(b.Flags, flags) {
			t.Fatalf("qemu-img lists %+v, there must be flags %v and granularity of %+v", b, flags, w)
		}
	}
}

// expectBitsOfQEMU wants the same bits from QEMU, as an NBD client is told them.
func expectBitsOfQEMU(t *testing.T, path, name string, want *bitmap.Bitmap) {
	t.Helper()
	got, err := bitmap.New(want.Size(), want.Granularity())
	if err != nil {
		t.Fatal(err)
	}
	end := int64(0)
	for _, r := range bitsOfQEMU(t, path, name) {
		if r.Offset != end {
			t.Fatalf("bitmap %q: QEMU tells nothing of %d to %d", name, end, r.Offset)
		}
		end += r.Length
		if r.Type != 0 {
			got.Set(r.Offset, r.Length)
		}
		if whole := want.Granularity(); end != want.Size() && end%whole != 0 {
			t.Fatalf("bitmap %q: QEMU's range ends at %d, its granularity is %d", name, end, whole)
		}
	}
	if end != want.Size() || !got.Equal(want) {
		t.Fatalf("bitmap %q: QEMU reads %v up to %d, must be %v up to %d", name, someRanges(got), end, someRanges(want), want.Size())
	}
}

type nbdRange struct{ Offset, Length, Type int64 }

// bitsOfQEMU has libnbd start qemu-nbd and ask it; the socket is handed over, so
// that there is nothing to wait for.
func bitsOfQEMU(t *testing.T, path, name string) []nbdRange {
	t.Helper()
	var ranges []nbdRange
	decodeQEMU(t, interop.Run(t, "nbdinfo", "--json", "--map=qemu:dirty-bitmap:"+name, "--",
		"[", "qemu-nbd", "-r", "-f", "qcow2", "-B", name, path, "]"), &ranges)
	return ranges
}

func decodeQEMU(t *testing.T, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
}

// someRanges are the first dirty ranges, for messages.
func someRanges(b *bitmap.Bitmap) string {
	var some []bitmap.Range
	for r := range b.Ranges() {
		if some = append(some, r); len(some) == 8 {
			break
		}
	}
	return fmt.Sprintf("%d dirty bytes in %v…", b.Count(), some)
}

// expectSound wants an image without any finding, also without leaks.
func expectSound(t *testing.T, path string) {
	t.Helper()
	interop.Run(t, "qemu-img", "check", "-f", "qcow2", path)
}
