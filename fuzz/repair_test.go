package fuzz

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
)

// maxRepaired is the largest disk whose bytes FuzzRepair compares.
const maxRepaired = 256 << 10

// FuzzRepair repairs images in memory. Properties: what could be read of the active
// disk before is the same after it; a repair that leaves nothing wrong needs no second
// one; the journal gives the old bytes back.
func FuzzRepair(f *testing.F) {
	for i, b := range seedFiles(f) {
		f.Add(b, uint8(i))
	}
	modes := []qcow2.RepairMode{qcow2.RepairAll, qcow2.RepairAll, qcow2.RepairLeaks, qcow2.RepairBitmaps}
	f.Fuzz(func(t *testing.T, file []byte, mode uint8) {
		opts := qcow2.RepairOptions{Mode: modes[int(mode)%len(modes)], Memory: 8 << 20}
		p, err := qcow2.PlanRepair(context.Background(), bytes.NewReader(file), int64(len(file)), nil, opts)
		if err != nil {
			return
		}
		m := &memFile{bytes.Clone(file)}
		if err := p.Apply(m); err != nil {
			t.Fatal(err)
		}
		sameDisk(t, file, m.b)
		if p.After.Clean() && !p.After.Incomplete {
			again, err := qcow2.PlanRepair(context.Background(), bytes.NewReader(m.b), int64(len(m.b)), nil, opts)
			if err != nil || !again.After.Clean() {
				t.Fatalf("a second repair: %v", err)
			}
		}
		var text bytes.Buffer
		if err := p.WriteJournal(&text, "image"); err != nil {
			t.Fatal(err)
		}
		j, err := qcow2.ReadJournal(&text)
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Undo(m, int64(len(m.b))); err != nil || !bytes.Equal(m.b, file) {
			t.Fatalf("undo: %v", err)
		}
	})
}

// sameDisk wants each sector of the active disk to read as before, or not to have been
// readable.
func sameDisk(t *testing.T, before, after []byte) {
	old, err := openImage(before, 0)
	if err != nil || old.Size() > maxRepaired {
		return
	}
	now, err := openImage(after, 0)
	if err != nil {
		t.Fatalf("the image does not open any more: %v", err)
	}
	for off := int64(0); off < old.Size(); off += 512 {
		a := make([]byte, min(512, old.Size()-off))
		if _, err := old.ReadAt(a, off); err != nil && err != io.EOF {
			continue
		}
		b := make([]byte, len(a))
		if _, err := now.ReadAt(b, off); err != nil && err != io.EOF || !bytes.Equal(a, b) {
			t.Fatalf("guest bytes at %d are not what they were: %v", off, err)
		}
	}
}

// A memFile is a file in memory.
type memFile struct{ b []byte }

func (m *memFile) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.b).ReadAt(p, off)
}

func (m *memFile) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(m.b)) {
		m.b = append(m.b, make([]byte, end-int64(len(m.b)))...)
	}
	return copy(m.b[off:], p), nil
}

func (m *memFile) Truncate(size int64) error {
	if size > int64(len(m.b)) {
		m.b = append(m.b, make([]byte, size-int64(len(m.b)))...)
	}
	m.b = m.b[:size]
	return nil
}

func (m *memFile) Sync() error { return nil }
