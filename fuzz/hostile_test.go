package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// What follows is too large for a seed, or needs more than bytes: images that
// claim much and hold little, and readers that are odd.

// hostileMemory is what reading a hostile image may allocate, freed or not.
const hostileMemory = 160 << 20

// allocated fails where f allocates more than hostileMemory.
func allocated(t *testing.T, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > hostileMemory {
		t.Errorf("%d MiB were allocated, the bound is %d MiB", got>>20, hostileMemory>>20)
	}
}

func mustOpen(t *testing.T, r io.ReaderAt, size int64) *qcow2.Image {
	t.Helper()
	img, err := qcow2.Open(r, size, nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func wantFormatError(t *testing.T, err error) {
	t.Helper()
	var format *qcow2.FormatError
	if !errors.As(err, &format) {
		t.Errorf("want a FormatError, have %v", err)
	}
}

// fill sets all entries of a table to one value.
func fill(file []byte, table build.Place, entry uint64) {
	for off := table.Off; off < table.End(); off += 8 {
		binary.BigEndian.PutUint64(file[off:], entry)
	}
}

// All entries of a bitmap table point to one cluster: a file of 600 KiB would
// become 512 MiB of bits.
func TestBitmapClusterUsedAgain(t *testing.T) {
	const entries, cluster = 8192, 64 << 10
	img := build.Must(build.Spec{ClusterBits: 16, Size: entries * cluster * 8 * 512,
		Bitmaps: []build.Bitmap{{Name: "b", Dirty: []build.Range{{Off: 512, Len: 512}}}}})
	data := img.At("bitmap[0].data[0]")
	fill(img.Bytes, img.At("bitmap[0].table"), uint64(data.Off))
	for i := data.Off; i < data.End(); i++ {
		img.Bytes[i] = byte(i*7) | 1
	}
	allocated(t, func() {
		_, err := mustOpen(t, bytes.NewReader(img.Bytes), int64(len(img.Bytes))).LoadBitmap("b")
		wantFormatError(t, err)
	})
}

// All entries of an L1 table point to one L2 table: a file of some hundred KiB
// would be walked for as long as a disk of 1 TiB, one of 32 MiB for hours,
// without an extent at which the caller could stop.
func TestL2TableUsedAgain(t *testing.T) {
	img := build.Must(build.Spec{ClusterBits: 16, Size: 1 << 40, Clusters: map[uint64]build.Cluster{0: {}}})
	fill(img.Bytes, img.At("l1"), img.Field("l1[0]"))
	_, err := collect(mustOpen(t, bytes.NewReader(img.Bytes), int64(len(img.Bytes))), 0, 1<<40)
	wantFormatError(t, err)
}

// A sparse file holds pieces and is zero elsewhere.
type sparse struct {
	size   int64
	pieces map[int64][]byte
}

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	n := max(0, min(int64(len(p)), s.size-off))
	clear(p[:n])
	for at, piece := range s.pieces {
		lo, hi := max(at, off), min(at+int64(len(piece)), off+n)
		if lo < hi {
			copy(p[lo-off:hi-off], piece[lo-at:hi-at])
		}
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// longSnapshots is a sparse image with a snapshot table of 64 MiB, nearly all
// of it names.
func longSnapshots() *sparse {
	const count = 511
	img := build.Must(build.Spec{Size: 512, Snapshots: []build.Snapshot{{ID: "1"}}})
	table := int64(len(img.Bytes))
	file := img.PatchAll(map[string]uint64{"header.nb_snapshots": count, "header.snapshots_offset": uint64(table)})
	s := &sparse{size: table + 66<<20, pieces: map[int64][]byte{0: file}}
	for i := range int64(count) {
		entry := make([]byte, 40)
		binary.BigEndian.PutUint32(entry[12:], 1<<32-1) // both lengths
		binary.BigEndian.PutUint32(entry[36:], 16)
		s.pieces[table+i*((40+16+2*65535+7)/8*8)] = entry
	}
	return s
}

func TestLongSnapshotNames(t *testing.T) {
	s := longSnapshots()
	img := mustOpen(t, s, s.size)
	allocated(t, func() {
		_, err := img.Snapshots()
		documented(t, "snapshots", err)
	})
	allocated(t, func() {
		_, err := img.SnapshotDisk("none")
		documented(t, "snapshot", err)
	})
}

// A sparse bitmap directory of 64 MiB is extra data of one bitmap.
func TestLongExtraData(t *testing.T) {
	img := build.Must(build.Spec{Size: 512, Bitmaps: []build.Bitmap{{Name: "b"}}})
	dir := int64(len(img.Bytes))
	file := img.PatchAll(map[string]uint64{
		"bitmaps_extension.bitmap_directory_size":   64 << 20,
		"bitmaps_extension.bitmap_directory_offset": uint64(dir),
	})
	entry := bytes.Clone(img.Bytes[img.At("bitmap_directory").Off:][:24])
	binary.BigEndian.PutUint32(entry[20:], 64<<20-32)
	s := &sparse{size: dir + 64<<20, pieces: map[int64][]byte{0: file, dir: entry}}
	allocated(t, func() {
		_, err := mustOpen(t, s, s.size).Bitmaps()
		documented(t, "bitmaps", err)
	})
}

// A sliceFile cannot be compared with ==.
type sliceFile []byte

func (s sliceFile) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(s).ReadAt(p, off) }

func TestReaderThatCannotBeCompared(t *testing.T) {
	img := build.Must(build.Spec{Size: 1024, Clusters: map[uint64]build.Cluster{0: {Form: build.Normal}, 1: {Form: build.Normal}}})
	d := mustOpen(t, sliceFile(img.Bytes), int64(len(img.Bytes)))
	if list, err := collect(d, 0, 1024); err != nil || len(list) != 1 {
		t.Errorf("extents %+v, %v", list, err)
	}
}

// A changing file is another one after some reads, as the image of a running
// guest is.
type changing struct {
	before, after []byte
	reads         int
}

func (c *changing) ReadAt(p []byte, off int64) (int, error) {
	if c.reads--; c.reads < 0 {
		return bytes.NewReader(c.after).ReadAt(p, off)
	}
	return bytes.NewReader(c.before).ReadAt(p, off)
}

// TestFileThatChanges reads compressed clusters while their L2 entries become
// other ones. Any error or bytes will do, but no panic.
func TestFileThatChanges(t *testing.T) {
	const clusters = 256
	m := map[uint64]build.Cluster{}
	for k := range uint64(clusters) {
		m[k] = build.Cluster{Form: build.Packed, Content: make([]byte, 512), Share: "one"}
	}
	img := build.Must(build.Spec{Size: clusters * 512, RefcountBits: 32, Clusters: m})
	for _, entry := range []uint64{0, 1, 1 << 40, 1<<62 | 1<<40, 1<<63 | 512} {
		after := bytes.Clone(img.Bytes)
		for k := range uint64(clusters) {
			binary.BigEndian.PutUint64(after[img.Entry(k).Off:], entry)
		}
		for reads := range 40 {
			file := &changing{before: img.Bytes, after: after, reads: reads}
			d, err := qcow2.Open(file, int64(len(after)), &qcow2.Options{TableCache: 1})
			if err == nil {
				_, _ = d.ReadAt(make([]byte, clusters*512), 0)
			}
		}
	}
}
