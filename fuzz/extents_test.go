package fuzz

import (
	"bytes"
	"io"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
)

// maxWhole is the largest disk that FuzzExtents reads whole.
const maxWhole = 1 << 20

// FuzzExtents walks and reads the disk of an image, and those of its first
// snapshots, over references of below bytes. Properties: extents cover exactly
// the range, ascending, no two neighbours of which could be one; the bytes of
// Data are those of Storage at Host, Zero and Absent read as zero; a walk of a
// part is the part of the walk; a walk may be left at any extent; reads at any
// place agree with the read of the whole; a disk whose walk fails cannot be
// read whole.
func FuzzExtents(f *testing.F) {
	for i, b := range seedFiles(f) {
		f.Add(b, uint16(3000*i), uint32(777*i), uint16(1300))
	}
	f.Fuzz(func(t *testing.T, file []byte, below uint16, off uint32, n uint16) {
		img, err := openImage(file, int64(below))
		if err != nil {
			return
		}
		checkDisk(t, img, int64(off), int64(n))
		list, _ := img.Snapshots()
		for _, s := range list[:min(len(list), maxListed)] {
			if d, err := img.SnapshotDisk(s.ID); err == nil {
				checkDisk(t, d, int64(off), int64(n))
			}
		}
	})
}

func checkDisk(t *testing.T, d qcow2.Disk, off, n int64) {
	size := d.Size()
	if size > maxWhole {
		return
	}
	extents, walkErr := collect(d, 0, size)
	contiguous(t, extents, size, walkErr)
	whole := junk(size)
	if _, err := d.ReadAt(whole, 0); err != nil {
		return
	}
	if walkErr != nil {
		t.Fatalf("the disk can be read, and not be walked: %v", walkErr)
	}
	contents(t, whole, extents)
	off %= size + 1
	n = min(n, size-off)
	partOfWalk(t, d, extents, off, n)
	partOfRead(t, d, whole, off, n)
	for _, after := range []int{0, int(n) % (len(extents) + 1), len(extents) - 2, len(extents) - 1} {
		leave(d, after)
	}
}

// junk is a buffer in which nothing reads as zero that was not read.
func junk(n int64) []byte { return bytes.Repeat([]byte{0xaa}, int(n)) }

func collect(d qcow2.Disk, off, n int64) (list []qcow2.Extent, err error) {
	for e, err := range d.Extents(off, n) {
		if err != nil {
			return list, err
		}
		list = append(list, e)
	}
	return list, nil
}

func contiguous(t *testing.T, list []qcow2.Extent, size int64, err error) {
	pos := int64(0)
	for i, e := range list {
		if e.Off != pos || e.Len <= 0 {
			t.Fatalf("extent %+v at %d", e, pos)
		}
		if e.Kind == qcow2.Data && !e.HasHost || e.HasHost && e.Storage == nil && e.Kind == qcow2.Data || !e.HasHost && e.Storage != nil {
			t.Fatalf("extent %+v: host offset and storage do not fit", e)
		}
		if i > 0 && couldBeOne(list[i-1], e) {
			t.Fatalf("extents %+v and %+v could be one", list[i-1], e)
		}
		pos = e.End()
	}
	if err == nil && pos != size {
		t.Fatalf("the extents end at %d of %d", pos, size)
	}
}

func couldBeOne(a, b qcow2.Extent) bool {
	same := a.Kind == b.Kind && a.Depth == b.Depth && a.HasHost == b.HasHost && a.Storage == b.Storage
	return same && (!a.HasHost || a.Host+qcow2.HostOffset(a.Len) == b.Host)
}

// contents compares what was read with what the extents say.
func contents(t *testing.T, whole []byte, list []qcow2.Extent) {
	for _, e := range list {
		want := make([]byte, e.Len)
		switch e.Kind {
		case qcow2.Compressed:
			continue
		case qcow2.Data:
			if n, err := e.Storage.ReadAt(want, int64(e.Host)); int64(n) < e.Len {
				t.Fatalf("extent %+v: its storage gives %d bytes: %v", e, n, err)
			}
		}
		if !bytes.Equal(whole[e.Off:e.End()], want) {
			t.Fatalf("extent %+v: other bytes were read", e)
		}
	}
}

func partOfWalk(t *testing.T, d qcow2.Disk, list []qcow2.Extent, off, n int64) {
	part, err := collect(d, off, n)
	if err != nil {
		t.Fatalf("walk of [%d, +%d): %v", off, n, err)
	}
	var want []qcow2.Extent
	for _, e := range list {
		if e.Off < off+n && e.End() > off {
			want = append(want, e.Slice(off, off+n))
		}
	}
	if len(part) != len(want) {
		t.Fatalf("walk of [%d, +%d): %+v, want %+v", off, n, part, want)
	}
	for i := range part {
		if part[i] != want[i] {
			t.Fatalf("walk of [%d, +%d): %+v, want %+v", off, n, part[i], want[i])
		}
	}
}

// partOfRead reads a part, and 9 bytes more than the disk has after off.
func partOfRead(t *testing.T, d qcow2.Disk, whole []byte, off, n int64) {
	p := junk(n)
	if got, err := d.ReadAt(p, off); n > 0 && (int64(got) != n || err != nil) {
		t.Fatalf("read of [%d, +%d): %d, %v", off, n, got, err)
	}
	if !bytes.Equal(p, whole[off:off+n]) {
		t.Fatalf("read of [%d, +%d): other bytes than in the read of the whole", off, n)
	}
	p = junk(int64(len(whole)) - off + 9)
	got, err := d.ReadAt(p, off)
	if int64(got) != int64(len(whole))-off || err != io.EOF {
		t.Fatalf("read past the end at %d: %d, %v", off, got, err)
	}
	if !bytes.Equal(p[:got], whole[off:]) || !all(p[got:], 0xaa) {
		t.Fatalf("read past the end at %d: other bytes than in the read of the whole", off)
	}
}

// leave ends a walk at the extent of that index; a walk that goes on all the same
// panics.
func leave(d qcow2.Disk, after int) {
	for range d.Extents(0, d.Size()) {
		if after--; after < 0 {
			break
		}
	}
}
