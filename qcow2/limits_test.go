package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// richSpec is an image that has something of everything that a limit is about.
func richSpec() build.Spec {
	return build.Spec{
		ClusterBits: 12, Size: 4 << 20, Zstd: true,
		Clusters: map[uint64]build.Cluster{0: {Form: build.Normal}, 1: {Form: build.Packed, Content: make([]byte, 4096)}, 600: {Form: build.Normal}},
		Snapshots: []build.Snapshot{
			{ID: "1", Name: "one", Clusters: map[uint64]build.Cluster{0: {Form: build.Normal}}}, {ID: "2", Name: "two", Copy: true}},
		Bitmaps: []build.Bitmap{
			{Name: "b1", GranularityBits: 9, Dirty: []build.Range{{Off: 512, Len: 5000}}}, {Name: "b2", GranularityBits: 12, Literal: true}},
		FeatureNames: []build.Feature{{Kind: 0, Bit: 1, Name: "f1"}, {Kind: 0, Bit: 2, Name: "f2"}},
		Extensions:   []build.Extension{{Type: 1}, {Type: 2}},
	}
}

// everything does all that a limit of the package can stop.
func everything(image []byte, limits qcow2.Limits) error {
	img, err := qcow2.Open(bytes.NewReader(image), int64(len(image)), &qcow2.Options{Limits: limits})
	if err != nil {
		return err
	}
	if _, err := readAll(img); err != nil {
		return err
	}
	for s, err := range img.EachSnapshot() {
		if err != nil {
			return err
		}
		if _, err := img.OpenSnapshot(s); err != nil {
			return err
		}
	}
	counter := img.DirtyCounter()
	for b, err := range img.EachBitmap() {
		if err != nil {
			return err
		}
		if _, err := counter.Count(b); err != nil {
			return err
		}
	}
	return nil
}

// TestLimits wants every limit to be met where it is small, to say so, and to let
// the image pass where it is raised to what the image needs.
func TestLimits(t *testing.T) {
	image := build.Must(richSpec()).Bytes
	if err := everything(image, qcow2.Limits{}); err != nil {
		t.Fatalf("with the defaults: %v", err)
	}
	rows := map[string]struct{ enough, tooLittle int64 }{
		"l1-bytes":               {16, 8},
		"l2-bytes":               {2 << 12, 1 << 12},
		"refcount-table-bytes":   {4096, 4095},
		"snapshots":              {2, 1},
		"snapshot-table-bytes":   {200, 40},
		"snapshot-extra-bytes":   {16, 15},
		"bitmaps":                {2, 1},
		"bitmap-directory-bytes": {64, 63},
		"bitmap-table-bytes":     {8, 7},
		"bitmap-work":            {4 * 2048, 4*2048 - 1},
		"extensions":             {4, 3},
		"zstd-window":            {4096, 1024},
	}
	for _, name := range qcow2.LimitNames() {
		row, ok := rows[name]
		if !ok && (name == "depth" || name == "feature-names") {
			continue // not this package's; no error
		}
		var limits qcow2.Limits
		if err := errors.Join(limits.Set(name, row.enough), everything(image, limits)); err != nil {
			t.Errorf("%s=%d: %v", name, row.enough, err)
		}
		err := errors.Join(limits.Set(name, row.tooLittle), everything(image, limits))
		var met *qcow2.LimitError
		if !errors.As(err, &met) || met.Limit != name || met.Max != row.tooLittle {
			t.Errorf("%s=%d: %v", name, row.tooLittle, err)
		} else if !strings.Contains(err.Error(), fmt.Sprintf("the limit %s is %d", name, row.tooLittle)) || !errors.As(err, new(*qcow2.FormatError)) {
			t.Errorf("%s: the error does not name it, or is no *FormatError: %v", name, err)
		}
	}
}

func TestLimitFeatureNames(t *testing.T) {
	image := build.Must(richSpec()).Bytes
	for n, want := range map[int64]int{0: 2, 1: 1, 2: 2} {
		img, err := qcow2.Open(bytes.NewReader(image), int64(len(image)), &qcow2.Options{Limits: qcow2.Limits{FeatureNames: n}})
		if err != nil || len(img.FeatureNames()) != want {
			t.Errorf("limit %d: %d names, %v", n, len(img.FeatureNames()), err)
		}
	}
}

func TestLimitsSet(t *testing.T) {
	var l qcow2.Limits
	if err := l.Set("no-such", 1); err == nil || !strings.Contains(err.Error(), "zstd-window") {
		t.Errorf("a name that there is not: %v", err)
	}
	for _, n := range []int64{0, -1} {
		if l.Set("depth", n) == nil {
			t.Errorf("%d is taken", n)
		}
	}
	if l != (qcow2.Limits{}) {
		t.Errorf("an error changed the limits: %+v", l)
	}
	whole := qcow2.Limits{Depth: 3, L1Bytes: -1}.WithDefaults()
	if whole.Depth != 3 || whole.L1Bytes != 32<<20 || whole.Bitmaps != 65535 {
		t.Errorf("defaults: %+v", whole)
	}
}

// TestDirtyCounter compares the counter with the bitmaps themselves, on images that
// are sound and on images with a broken bitmap.
func TestDirtyCounter(t *testing.T) {
	counted := 0
	compare := func(name string, img *qcow2.Image) {
		infos, _ := img.Bitmaps()
		counter := img.DirtyCounter()
		for _, info := range infos {
			got, err := counter.Count(info)
			b, wantErr := img.ReadBitmap(info)
			switch {
			case (err == nil) != (wantErr == nil), err != nil && err.Error() != wantErr.Error():
				t.Errorf("%s: bitmap %q: counting: %v; loading: %v", name, info.Name, err, wantErr)
			case err == nil && got != b.Count():
				t.Errorf("%s: bitmap %q: %d bytes counted, %d loaded", name, info.Name, got, b.Count())
			case err == nil:
				counted++
			}
		}
	}
	for seed := range seeds() {
		s := build.Random(seed)
		if img, err := openBuilt(s.Bytes, s.Data, s.Backing); err == nil {
			compare(fmt.Sprint("seed ", seed), img)
		}
	}
	for _, r := range build.Recipes() {
		if img, err := openBuilt(r.Image, r.Data, nil); err == nil {
			compare(r.Name, img)
		}
	}
	if counted < 60 {
		t.Errorf("only %d bitmaps were counted", counted)
	}
}

// The last granule counts as far as the disk goes; bits behind it do not count.
func TestDirtyCounterTail(t *testing.T) {
	for _, size := range []uint64{512, 513, 4095, 4097, 1<<20 + 1, 2<<20 + 700} {
		img := build.Must(build.Spec{Size: size, Bitmaps: []build.Bitmap{
			{Name: "all", GranularityBits: 9, Literal: true, Dirty: []build.Range{{Len: int64(size)}}}, {Name: "none", GranularityBits: 9}}})
		place, _ := img.Find("bitmap[0].data[0]")
		for i := (size + 511) / 512; i < uint64(min(place.Len*8, 4096)); i++ {
			img.Bytes[place.Off+int64(i/8)] |= 1 << (i % 8)
		}
		open, err := openBuilt(img.Bytes, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]int64{"all": int64(size), "none": 0} {
			info, err := open.BitmapInfo(name)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := open.CountDirty(info); got != want || err != nil {
				t.Errorf("disk of %d bytes: %s: %d, %v", size, name, got, err)
			}
		}
	}
}

// Entries that name one cluster again and again stop when there are more than the
// file has clusters, as in loading.
func TestDirtyCounterReuse(t *testing.T) {
	img := build.Must(build.Spec{ClusterBits: 12, Size: 1 << 30, Bitmaps: []build.Bitmap{{Name: "b", GranularityBits: 9}}})
	for i := range 64 {
		place := img.At("bitmap[0].table[%d]", i)
		binary.BigEndian.PutUint64(img.Bytes[place.Off:], uint64(img.At("l1").Off))
	}
	open, err := openBuilt(img.Bytes, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	info, err := open.BitmapInfo("b")
	if err != nil {
		t.Fatal(err)
	}
	_, err = open.CountDirty(info)
	_, loading := open.ReadBitmap(info)
	if err == nil || loading == nil || err.Error() != loading.Error() || !strings.Contains(err.Error(), "used again") {
		t.Errorf("counting: %v; loading: %v", err, loading)
	}
}

// A countingReader counts what is read.
type countingReader struct {
	io.ReaderAt
	bytes, reads int64
}

func (r *countingReader) ReadAt(p []byte, off int64) (int, error) {
	r.bytes, r.reads = r.bytes+int64(len(p)), r.reads+1
	return r.ReaderAt.ReadAt(p, off)
}

// TestDirtyCounterWork has all entries of a table name one cluster, in a thousand
// bitmaps: whatever they claim, no more is read than is allowed.
func TestDirtyCounterWork(t *testing.T) {
	img := build.Must(build.Spec{ClusterBits: 12, Size: 1 << 30, Bitmaps: []build.Bitmap{{Name: "b", GranularityBits: 9, Literal: true}}})
	r := &countingReader{ReaderAt: bytes.NewReader(img.Bytes)}
	const work = 16 << 20
	open, err := qcow2.Open(r, int64(len(img.Bytes)), &qcow2.Options{Limits: qcow2.Limits{BitmapWork: work}})
	if err != nil {
		t.Fatal(err)
	}
	info, err := open.BitmapInfo("b")
	if err != nil {
		t.Fatal(err)
	}
	counter := open.DirtyCounter()
	var met *qcow2.LimitError
	r.bytes, r.reads = 0, 0
	for range 1000 {
		if _, err := counter.Count(info); err != nil && !errors.As(err, &met) {
			t.Fatal(err)
		}
	}
	if met == nil || met.Limit != "bitmap-work" || r.bytes > work || r.reads > work/2048 || r.bytes < work/2 {
		t.Errorf("%d bytes in %d reads: %v", r.bytes, r.reads, met)
	}
}

// TestEachStops wants the iterators to read no more than they are asked for.
func TestEachStops(t *testing.T) {
	image := build.Must(richSpec()).Bytes
	img, err := openBuilt(image, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	snapshots, bitmaps := 0, 0
	for s, err := range img.EachSnapshot() {
		if snapshots++; err != nil || s.ID != "1" {
			t.Errorf("snapshot %q: %v", s.ID, err)
		}
		break
	}
	for b, err := range img.EachBitmap() {
		if bitmaps++; err != nil || b.Name != "b1" {
			t.Errorf("bitmap %q: %v", b.Name, err)
		}
		break
	}
	if snapshots != 1 || bitmaps != 1 {
		t.Errorf("%d snapshots, %d bitmaps", snapshots, bitmaps)
	}
}

// TestSelfReference has tables that refer to themselves.
func TestSelfReference(t *testing.T) {
	img := build.Must(richSpec())
	l1, l2 := uint64(img.At("l1").Off), uint64(img.At("l2[0]").Off)
	for name, c := range map[string]struct {
		image []byte
		want  string
	}{
		"an L1 entry names the L1 table":  {img.Patch("l1[0]", l1|1<<63), "the L2 table is the L1 table itself"},
		"an L2 entry names its L2 table":  {img.Patch("l2[0][0]", l2|1<<63), "the data cluster is the L2 table itself"},
		"the last L2 entry names its own": {img.Patch("l2[0][511]", l2|1<<63), "the data cluster is the L2 table itself"},
	} {
		open, err := openBuilt(c.image, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = readAll(open)
		if _, walk := walkAll(open); err == nil || walk == nil || err.Error() != walk.Error() || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: reading: %v; walking: %v", name, err, walk)
		}
	}
}
