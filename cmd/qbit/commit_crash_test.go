package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// emptied are images that are to be emptied: most with an L1 table of two sectors.
func emptied() map[string]build.Spec {
	clusters := map[uint64]build.Cluster{1: {Form: build.Normal}, 2: {Form: build.ZeroPlain}, 3: {Form: build.ZeroPrealloc},
		5: {Form: build.Packed}, 6: {Form: build.Packed}, 30: {Form: build.Normal, Share: "s"}, 4479: {Form: build.Normal}}
	for i := range uint64(300) {
		clusters[100+i*9] = build.Cluster{Form: build.Normal}
	}
	common := build.Spec{Size: 70 * 64 << 9, Clusters: clusters, Backing: "base", BackingFormat: "raw", Seed: 1, Shuffle: true}
	all := map[string]build.Spec{"512": common}
	s := common
	s.RefcountBits = 1
	s.Clusters = map[uint64]build.Cluster{1: {Form: build.Normal}, 4400: {Form: build.Normal}, 21: {Form: build.ZeroPlain}}
	all["refcounts of a bit"] = s
	s = common
	s.Snapshots = []build.Snapshot{{ID: "1", Name: "snap", Clusters: map[uint64]build.Cluster{
		30: {Form: build.Normal, Share: "s"}, 7: {Form: build.Normal}}}}
	s.Bitmaps = []build.Bitmap{{Name: "b", GranularityBits: 9, Flags: 2, Dirty: []build.Range{{Off: 512, Len: 4096}}}}
	all["snapshot and bitmap"] = s
	s = common
	s.Version, s.ClusterBits, s.Size = 2, 12, 40<<12
	s.Clusters = map[uint64]build.Cluster{1: {Form: build.Normal}, 9: {Form: build.Packed}}
	all["version 2"] = s
	s = common
	s.ClusterBits, s.Size, s.ExtendedL2 = 14, 40<<14, true
	s.Clusters = map[uint64]build.Cluster{1: {Form: build.Sub, Alloc: 0xff, Zero: 0xff00}, 9: {Form: build.Packed}}
	all["subclusters"] = s
	return all
}

// TestEmptyCrash: in every state that a crash can leave of an image that is being
// emptied, it reads the same, what snapshots hold and the bitmaps are there, and
// nothing is worse than a leak.
func TestEmptyCrash(t *testing.T) {
	for name, spec := range emptied() {
		t.Run(name, func(t *testing.T) {
			img := build.Must(spec)
			content := make([]byte, spec.Size)
			rng := rand.New(rand.NewPCG(1, 1))
			for i := range content {
				content[i] = byte(rng.Uint32())
			}
			fill(t, img.Bytes, content)
			before := describe(t, img.Bytes, int64(len(img.Bytes)), content)
			f := crash.New(img.Bytes)
			e, err := qcow2.Edit(f, f.Size(), openOn(content))
			if err == nil {
				err = e.Empty(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			f.Mark()
			if f.Size() >= int64(len(img.Bytes)) {
				t.Errorf("the file has %d bytes, and had %d", f.Size(), len(img.Bytes))
			}
			count := f.States(nil, func(s *crash.State) bool {
				if err := expectSame(s, s.Size(), content, before, s.Marks > 0); err != nil {
					t.Errorf("%v: %v", s, err)
				}
				return !t.Failed()
			})
			t.Logf("%+v", count)
		})
	}
}

// openOn opens an image on a base with that content.
func openOn(content []byte) *qcow2.Options {
	return &qcow2.Options{OpenRef: func(qcow2.Ref) (qcow2.Disk, error) {
		return reconstruct.NewRaw(bytes.NewReader(content), int64(len(content)), nil), nil
	}}
}

// fill puts into content what the image holds: a commit did.
func fill(t *testing.T, image, content []byte) {
	img, err := qcow2.Open(bytes.NewReader(image), int64(len(image)), openOn(content))
	if err != nil {
		t.Fatal(err)
	}
	whole := make([]byte, len(content))
	if _, err := img.ReadAt(whole, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	copy(content, whole)
}

// describe is what an image says of its snapshots and bitmaps.
func describe(t *testing.T, image []byte, size int64, content []byte) string {
	img, err := qcow2.Open(bytes.NewReader(image), size, openOn(content))
	if err != nil {
		t.Fatal(err)
	}
	return beside(img)
}

func beside(img *qcow2.Image) string {
	text := ""
	for s, err := range img.EachSnapshot() {
		text += fmt.Sprintf("%v %v:", s.Name, err)
		disk, err := img.OpenSnapshot(s)
		if err != nil {
			return err.Error()
		}
		p := make([]byte, disk.Size())
		_, err = disk.ReadAt(p, 0)
		text += fmt.Sprintf(" %x %v", p, err)
	}
	list, err := img.Bitmaps()
	text += fmt.Sprint(err)
	for _, b := range list {
		bits, err := img.LoadBitmap(b.Name)
		if err != nil {
			return err.Error()
		}
		text += fmt.Sprintf("%v %v %v", b.Name, b.Auto, slices.Collect(bits.Ranges()))
	}
	return text
}

func expectSame(r io.ReaderAt, size int64, content []byte, before string, done bool) error {
	img, err := qcow2.Open(r, size, openOn(content))
	if err != nil {
		return err
	}
	got := make([]byte, img.Size())
	if _, err := img.ReadAt(got, 0); err != nil {
		return err
	}
	if !bytes.Equal(got, content) {
		return fmt.Errorf("the disk reads otherwise")
	}
	if now := beside(img); now != before {
		return fmt.Errorf("snapshots and bitmaps are %s, not %s", now, before)
	}
	alone, err := qcow2.Open(r, size, nil)
	if err != nil {
		return err
	}
	for e, err := range alone.Extents(0, alone.Size()) {
		if err != nil || done && e.Kind != qcow2.Absent {
			return fmt.Errorf("at the end there is %+v, %v", e, err)
		}
	}
	return noWorseThanLeaks(img, done)
}

func noWorseThanLeaks(img *qcow2.Image, done bool) error {
	var worst error
	result, err := img.Check(context.Background(), nil, func(f qcow2.Finding) error {
		if f.Kind != qcow2.FindRefcountHigh || done {
			worst = fmt.Errorf("%v", f)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if result.Corruptions > 0 || done && result.Leaks > 0 {
		return worst
	}
	return nil
}
