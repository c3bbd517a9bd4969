package fuzz

import (
	"bytes"
	"embed"
	"io"
	"iter"
	"path"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// qemuImages were made by qemu-img and qemu-io 7.2 with the smallest clusters
// that they take, so that mutations reach every structure.
//
//go:embed testdata/qemu/*.qcow2
var qemuImages embed.FS

// maxSeed keeps seeds small: larger ones make every step of the fuzzer slow.
const maxSeed = 24 << 10

// seedFiles are small images of every kind, sound ones first.
func seedFiles(f *testing.F) [][]byte {
	files := qemuFiles(f)
	for _, s := range specs() {
		files = append(files, build.Must(s).Bytes)
	}
	for seed := range uint64(40) {
		if img := build.Random(seed); len(img.Bytes) <= maxSeed {
			files = append(files, img.Bytes)
		}
	}
	for _, r := range build.Recipes() {
		if len(r.Image) <= maxSeed {
			files = append(files, r.Image)
		}
	}
	return files
}

func qemuFiles(f *testing.F) [][]byte {
	const dir = "testdata/qemu"
	list, err := qemuImages.ReadDir(dir)
	if err != nil {
		f.Fatal(err)
	}
	var files [][]byte
	for _, e := range list {
		b, err := qemuImages.ReadFile(path.Join(dir, e.Name()))
		if err != nil {
			f.Fatal(err)
		}
		files = append(files, b)
	}
	return files
}

// specs are sound images that hold every form of cluster and every structure.
func specs() []build.Spec {
	forms := map[uint64]build.Cluster{
		0: {Form: build.Normal}, 1: {Form: build.Normal}, 2: {Form: build.ZeroPlain}, 3: {Form: build.ZeroPrealloc},
		5: {Form: build.Packed}, 6: {Form: build.Packed, Content: bytes.Repeat([]byte{6}, 512)},
		7: {Form: build.Packed, Content: make([]byte, 512)}, 70: {Form: build.Normal},
	}
	old := map[uint64]build.Cluster{0: {Form: build.Packed}, 2: {Form: build.Normal}}
	snapshots := []build.Snapshot{{ID: "1", Name: "a", Copy: true}, {ID: "2", Name: "b", DiskSize: 2000, Clusters: old}}
	return []build.Spec{
		{Size: 36000, Clusters: forms, Snapshots: snapshots, Bitmaps: someBitmaps()},
		{Size: 36000, Clusters: forms, Zstd: true, End: build.EndByte},
		{Size: 36000, Clusters: forms, Backing: "base", BackingFormat: "raw", Shuffle: true},
		{Size: 5000, Version: 2, Clusters: old, Backing: "base", Snapshots: []build.Snapshot{{ID: "1", Bare: true, Clusters: old}}},
		{Size: 3000, Clusters: map[uint64]build.Cluster{0: {Form: build.Normal}, 2: {Form: build.ZeroPrealloc}}, DataFile: &build.DataFile{Name: "d"}},
		{Size: 40000, ClusterBits: 14, ExtendedL2: true, End: build.EndByte, Clusters: map[uint64]build.Cluster{
			0: {Form: build.Sub, Alloc: 0x0f, Zero: 0xf0}, 1: {Form: build.ZeroPlain}, 2: {Form: build.Packed, Content: make([]byte, 1<<14)}}},
		{Size: 1, RefcountBits: 64, FeatureNames: []build.Feature{{Kind: 0, Bit: 7, Name: "a feature"}}},
		{},
	}
}

func someBitmaps() []build.Bitmap {
	return []build.Bitmap{
		{Name: "recording", Flags: build.Auto, Dirty: []build.Range{{Off: 0, Len: 1000}, {Off: 20000, Len: 9000}}},
		{Name: "dirty", Dirty: []build.Range{{Off: 0, Len: 36000}}},
		{Name: "in use", Flags: build.InUse, GranularityBits: 12, Literal: true},
	}
}

// openImage opens a file whose references are a disk of below bytes.
func openImage(file []byte, below int64) (*qcow2.Image, error) {
	return qcow2.Open(bytes.NewReader(file), int64(len(file)), &qcow2.Options{
		OpenRef: func(qcow2.Ref) (qcow2.Disk, error) { return pattern(below), nil },
	})
}

// A pattern is a raw disk of that size whose bytes follow from their offset.
// None of them is zero.
type pattern int64

func patternByte(off int64) byte { return byte(off%251) + 1 }

func (p pattern) ReadAt(b []byte, off int64) (int, error) {
	n := max(0, min(int64(len(b)), int64(p)-off))
	for i := range n {
		b[i] = patternByte(off + i)
	}
	if n < int64(len(b)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (p pattern) Size() int64 { return int64(p) }

func (p pattern) Extents(off, n int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		if n > 0 {
			yield(qcow2.Extent{Off: off, Len: n, Kind: qcow2.Data, Storage: p, Host: qcow2.HostOffset(off), HasHost: true}, nil)
		}
	}
}
