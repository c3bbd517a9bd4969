package fuzz

import (
	"bytes"
	"errors"
	"io/fs"
	"runtime"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
)

// Limits of what FuzzOpen asks of one image. The reader must work in time and
// memory that follow from these and from the file, not from its claims.
const (
	maxExtents   = 2048
	maxSamples   = 32
	maxListed    = 4         // snapshots and bitmaps that are read
	maxWalk      = 128 << 20 // guest bytes that are walked
	allocBound   = 24 << 20  // bytes that all of it may allocate, and
	allocPerByte = 256       // for each byte of the file
)

// FuzzOpen opens any bytes and asks for all that the reader gives. Properties:
// no panic; all that is allocated, freed or not, stays below allocBound and
// allocPerByte bytes for each byte of the file; every error is of a documented
// type, so what a file claims beyond its end is found before it is read.
func FuzzOpen(f *testing.F) {
	for _, b := range seedFiles(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		visit(t, file)
		runtime.ReadMemStats(&after)
		got, bound := after.TotalAlloc-before.TotalAlloc, allocBound+allocPerByte*uint64(len(file))
		if got > bound {
			t.Fatalf("%d bytes were allocated for a file of %d bytes, the bound is %d", got, len(file), bound)
		}
	})
}

func visit(t *testing.T, file []byte) {
	img, err := qcow2.Open(bytes.NewReader(file), int64(len(file)), nil)
	documented(t, "open", err)
	if err != nil {
		return
	}
	_, _, _ = img.Header(), img.Extensions(), img.FeatureNames()
	if img.Unopened() != nil != (img.Backing() != nil) {
		t.Fatalf("backing file %v, unopened %v", img.Backing(), img.Unopened())
	}
	visitDisk(t, img)
	visitSnapshots(t, img)
	visitBitmaps(t, img)
}

// visitDisk walks a disk from its start and from its end, and reads samples.
func visitDisk(t *testing.T, d qcow2.Disk) {
	n := min(d.Size(), maxWalk)
	visitExtents(t, d, 0, n)
	if n < d.Size() {
		visitExtents(t, d, d.Size()-n, n)
	}
	p := make([]byte, 700)
	for i := int64(0); i < maxSamples; i++ {
		off := d.Size() / maxSamples * i
		if d.Size() <= maxSamples<<10 {
			off = i << 10
		}
		if off >= d.Size() {
			return
		}
		_, err := d.ReadAt(p[:min(int64(len(p)), d.Size()-off)], off)
		documented(t, "read", err)
	}
}

func visitExtents(t *testing.T, d qcow2.Disk, off, n int64) {
	pos, count := off, 0
	for e, err := range d.Extents(off, n) {
		documented(t, "extents", err)
		if err != nil {
			return
		}
		if e.Off != pos || e.Len <= 0 || e.Len > off+n-pos {
			t.Fatalf("extent %+v at %d of [%d, +%d)", e, pos, off, n)
		}
		if count++; count == maxExtents {
			return
		}
		pos = e.End()
	}
	if pos != off+n {
		t.Fatalf("extents of [%d, +%d) end at %d without an error", off, n, pos)
	}
}

func visitSnapshots(t *testing.T, img *qcow2.Image) {
	list, err := img.Snapshots()
	documented(t, "snapshots", err)
	for _, s := range list[:min(len(list), maxListed)] {
		d, err := img.SnapshotDisk(s.ID)
		documented(t, "snapshot "+s.ID, err)
		if err == nil {
			visitDisk(t, d)
		}
	}
	_, missing := img.SnapshotDisk("no such snapshot")
	notThere(t, err, missing)
}

func visitBitmaps(t *testing.T, img *qcow2.Image) {
	list, err := img.Bitmaps()
	documented(t, "bitmaps", err)
	for _, b := range list[:min(len(list), maxListed)] {
		_, err := img.ReadBitmap(b)
		documented(t, "read bitmap "+b.Name, err)
		_, err = img.LoadBitmap(b.Name)
		documented(t, "load bitmap "+b.Name, err)
	}
	_, missing := img.LoadBitmap("no such bitmap")
	notThere(t, err, missing)
}

// notThere checks the error for a name that no seed has.
func notThere(t *testing.T, listing, missing error) {
	if listing == nil && missing != nil && !errors.Is(missing, fs.ErrNotExist) {
		t.Fatalf("not an fs.ErrNotExist: %v", missing)
	}
	documented(t, "what is not there", missing)
}

// documented checks that an error is of a type that the package promises for
// files whose size is told truly.
func documented(t *testing.T, what string, err error) {
	var (
		format      *qcow2.FormatError
		unsupported *qcow2.UnsupportedError
		ref         *qcow2.RefError
		notFound    *qcow2.NotFoundError
	)
	switch {
	case err == nil, errors.As(err, &format), errors.As(err, &unsupported), errors.As(err, &ref), errors.As(err, &notFound):
	case errors.Is(err, qcow2.ErrNotQcow2), errors.Is(err, qcow2.ErrBitmapInUse), errors.Is(err, qcow2.ErrBitmapsStale):
	default:
		t.Fatalf("%s: an error of type %T that nobody promised: %v", what, err, err)
	}
	if err != nil && len(err.Error()) > 1<<20 {
		t.Fatalf("%s: an error of %d bytes", what, len(err.Error()))
	}
}
