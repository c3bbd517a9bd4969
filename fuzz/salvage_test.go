package fuzz

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
)

// Limits of what one salvage may allocate, freed or not: much of it is what a check
// allocates.
const (
	salvageBound   = 48 << 20
	salvagePerByte = 1024
)

// FuzzSalvage salvages any bytes. Properties: what is allocated follows from the file and
// not from its claims; errors are of the documented types; verdicts cover the disk
// exactly once, and reads never fail; what is lost reads as zeros; what a reader can
// read of an image with no fault is the same here, and not lost.
func FuzzSalvage(f *testing.F) {
	for i, b := range seedFiles(f) {
		f.Add(b, uint32(97*i), uint16(300*i), uint8(i))
	}
	f.Fuzz(func(t *testing.T, file []byte, cut uint32, below uint16, flags uint8) {
		if flags&8 != 0 {
			file = file[:int64(cut)%int64(len(file)+1)]
		}
		if flags&16 != 0 {
			file = bytes.Clone(file)
			clear(file[:min(512, len(file))])
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s, err := openSalvaged(file, int64(below), flags)
		if err != nil {
			var unsupported *qcow2.UnsupportedError
			if !errors.Is(err, qcow2.ErrNotQcow2) && !errors.As(err, &unsupported) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		judged(t, s)
		runtime.ReadMemStats(&after)
		if got, bound := after.TotalAlloc-before.TotalAlloc, salvageBound+salvagePerByte*uint64(len(file)); got > bound {
			t.Fatalf("%d bytes were allocated for a file of %d bytes, the bound is %d", got, len(file), bound)
		}
		if flags&32 == 0 {
			likeReader(t, s, file, int64(below))
		}
	})
}

// openSalvaged salvages a file over references of below bytes.
func openSalvaged(file []byte, below int64, flags uint8) (*qcow2.Salvaged, error) {
	opts := &qcow2.SalvageOptions{Older: flags&1 != 0, NoBacking: flags&2 != 0, Link: flags&4 != 0, Memory: 1 << 24}
	opts.OpenRef = func(ref qcow2.Ref) (qcow2.Disk, error) {
		if flags&32 != 0 {
			return nil, nil
		}
		return pattern(below), nil
	}
	return qcow2.Salvage(context.Background(), bytes.NewReader(file), int64(len(file)), opts)
}

// judged walks the verdicts of a disk, or of its beginning and its end, and reads some of
// its bytes.
func judged(t *testing.T, s *qcow2.Salvaged) {
	n := min(s.Size(), maxWalk)
	judgedPart(t, s, 0, n)
	judgedPart(t, s, s.Size()-n, n)
	for e, err := range s.Extents(0, n) {
		if err != nil || e.Len <= 0 || e.Kind == qcow2.Data && e.Storage == nil {
			t.Fatalf("extent %+v: %v", e, err)
		}
		break
	}
}

func judgedPart(t *testing.T, s *qcow2.Salvaged, off, n int64) {
	at, count := off, 0
	p := make([]byte, 700)
	for v, err := range s.Verdicts(off, n) {
		if err != nil || v.Off != at || v.Len <= 0 || v.Len > off+n-at {
			t.Fatalf("verdict %+v at %d of [%d, +%d): %v", v, at, off, n, err)
		}
		if (v.Grade == qcow2.Sound) != (v.Reason == "") || v.Reason != "" && v.Reason.Text() == "" {
			t.Fatalf("verdict %+v: grade and reason do not fit", v)
		}
		part := p[:min(int64(len(p)), v.Len)]
		if got, err := s.ReadAt(part, v.Off); got != len(part) || err != nil && err != io.EOF {
			t.Fatalf("reading %+v: %d bytes, %v", v, got, err)
		}
		if v.Grade == qcow2.Lost && !all(part, 0) {
			t.Fatalf("%+v is lost and not zero", v)
		}
		at = v.End()
		if count++; count == maxExtents {
			return
		}
	}
	if at != off+n {
		t.Fatalf("the verdicts of [%d, +%d) end at %d", off, n, at)
	}
}

// likeReader compares with a reader, where a check finds no fault in the image.
func likeReader(t *testing.T, s *qcow2.Salvaged, file []byte, below int64) {
	img, err := openImage(file, below)
	if err != nil || img.Size() > maxWhole || img.Backing() != nil || s.Size() != img.Size() {
		return
	}
	res, ok := checkOnce(t, img, 0)
	if !ok || !res.Clean() {
		return
	}
	want, got := junk(img.Size()), junk(img.Size())
	if n, err := img.ReadAt(want, 0); int64(n) != img.Size() || err != nil && err != io.EOF {
		return
	}
	s.ReadAt(got, 0)
	if !bytes.Equal(want, got) {
		t.Fatal("other bytes than those of a reader")
	}
	for v := range s.Verdicts(0, s.Size()) {
		if v.Grade == qcow2.Lost {
			t.Fatalf("%+v: a reader can read it", v)
		}
	}
}
