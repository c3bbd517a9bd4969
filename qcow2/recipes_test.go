package qcow2_test

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// TestRecipes breaks one rule of the format at a time.
func TestRecipes(t *testing.T) {
	for _, r := range build.Recipes() {
		t.Run(r.Name, func(t *testing.T) {
			err := notice(t, r)
			switch {
			case r.When == build.WhenAny || r.When == build.WhenRefcounts || forgiven[r.Name]:
				return
			case err == nil:
				t.Fatalf("nobody noticed: %s", r.Rule)
			}
			checkNamed(t, r, err)
		})
	}
}

// notice does what must fail and returns the error; what must not fail is
// checked here.
func notice(t *testing.T, r build.Recipe) error {
	img, err := openBuilt(r.Image, r.Data, nil)
	if err != nil || r.When == build.WhenOpen {
		if err != nil && r.Disk != nil {
			t.Fatalf("the image must open: %v", err)
		}
		return err
	}
	got, readErr := readAll(img)
	_, walkErr := walkAll(img)
	if r.Disk != nil {
		if readErr != nil || walkErr != nil || !bytes.Equal(got, r.Disk.Bytes()) {
			t.Fatalf("guest data must read: %v, %v", readErr, walkErr)
		}
	}
	switch r.When {
	case build.WhenSnapshots:
		_, err = img.Snapshots()
	case build.WhenSnapshot:
		err = readSnapshot(img)
	case build.WhenBitmaps:
		err = loadFirstBitmap(img)
	default:
		err = readErr
	}
	return err
}

func readSnapshot(img *qcow2.Image) error {
	d, err := img.SnapshotDisk("1")
	if err == nil {
		_, err = readAll(d)
	}
	return err
}

func loadFirstBitmap(img *qcow2.Image) error {
	list, err := img.Bitmaps()
	if err == nil && len(list) > 0 {
		if _, err = img.LoadBitmap(list[0].Name); errors.Is(err, qcow2.ErrBitmapInUse) {
			_, err = img.ReadBitmap(list[0])
		}
	}
	return err
}

// otherPlace is where we find the fault in another place than the recipe says,
// which is as right.
var otherPlace = map[string]string{
	"header: l1_size claims more than the file has":         "header: l1_table_offset",
	"header extension: encryption header missing":           "header: crypt_method",
	"snapshot table: more snapshots than entries":           "snapshot table: entry",
	"snapshot table: extra data too short for version 3":    "snapshot table: entry",
	"snapshot table: l1_size claims more than the file has": "snapshot table: l1_table_offset",
	"snapshot table: disk_size beyond the L1 table":         "snapshot table: ",
	"header extension: bitmaps: directory of 64 MiB":        "bitmaps extension: bitmap_directory_offset",
	"bitmap directory: fewer entries than bitmaps":          "bitmaps extension: bitmap_directory_size",
	"bitmap directory: more entries than bitmaps":           "bitmap directory: bitmap_directory_size",
	"bitmap directory: cut by its size":                     "bitmap directory: name_size",
}

// forgiven are faults that do not change what is read. They are for check.
var forgiven = map[string]bool{
	"bitmap directory: padding":         true,
	"bitmap data: bits beyond the disk": true,
}

// checkNamed wants the error to name the structure and field that the recipe
// broke, as far as it is an error of the format.
func checkNamed(t *testing.T, r build.Recipe, err error) {
	var format *qcow2.FormatError
	if !errors.As(err, &format) {
		return
	}
	structure, field := r.Structure, r.Field
	if place, ok := otherPlace[r.Name]; ok {
		structure, field, _ = strings.Cut(place, ": ")
	}
	if field == "" && structure == r.Structure {
		return // cut somewhere: whoever points there notices
	}
	if structure == "header extension" && format.Structure == "bitmaps extension" {
		structure = format.Structure
	}
	if format.Structure != structure || !strings.Contains(format.Field, field) {
		t.Errorf("wanted %s: %s\ngot    %s: %s (%v)", structure, field, format.Structure, format.Field, err)
	}
}

// TestRecipesNeedLittle opens and reads every broken image with a bound on what
// is allocated: no claim in an image is believed.
func TestRecipesNeedLittle(t *testing.T) {
	const limit = 16 << 20
	for _, r := range build.Recipes() {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if img, err := openBuilt(r.Image, r.Data, nil); err == nil {
			img.ReadAt(make([]byte, 64<<10), 0)
			if d, err := img.SnapshotDisk("1"); err == nil {
				d.ReadAt(make([]byte, 64<<10), 0)
			}
			loadFirstBitmap(img)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > limit {
			t.Errorf("%s: %d bytes were allocated", r.Name, got)
		}
	}
}
