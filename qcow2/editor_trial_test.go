package qcow2_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// A trial is an image that an Editor changes, and the truth about it.
type trial struct {
	name      string
	file      []byte
	opts      *qcow2.Options // for reading the guest
	disks     []trialDisk
	bitmaps   trialBitmaps
	size      int64 // of the disk
	encrypted bool  // the guest cannot be read
	full      bool  // nothing can be added
	leaks     int   // clusters that have a refcount, and no owner
	stays     bool  // the extension stays when all bitmaps go, marked stale
}

// A trialDisk is a view of a trial: the active disk, or a snapshot's.
type trialDisk struct {
	snapshot string // its ID; empty: the active disk
	guest    []byte
	sectors  []int64 // those that are not zero, ascending
}

func newTrialDisk(snapshot string, guest []byte) trialDisk {
	d := trialDisk{snapshot: snapshot, guest: guest}
	for off := 0; off < len(guest); off += 512 {
		if !zeros(guest[off:min(off+512, len(guest))]) {
			d.sectors = append(d.sectors, int64(off/512))
		}
	}
	return d
}

func zeros(b []byte) bool { return !slices.ContainsFunc(b, func(x byte) bool { return x != 0 }) }

// trialSize is the disk of most trials: at 512 bytes a bit its bitmaps take more
// than two clusters of 512 bytes.
const trialSize = 5<<20 + 3*512

// newTrial takes over an image made by hand.
func newTrial(name string, img *build.Image) *trial {
	t := &trial{name: name, file: img.Bytes, size: int64(img.Spec.Size), encrypted: img.Spec.CryptMethod != 0}
	backing := []byte(nil)
	if img.Spec.Backing != "" {
		backing = bytes.Repeat([]byte("backing "), 1000)
	}
	t.opts = &qcow2.Options{OpenRef: func(ref qcow2.Ref) (qcow2.Disk, error) {
		if ref.Kind == qcow2.RefData {
			return memDisk(img.Data), nil
		}
		return memDisk(backing), nil
	}}
	t.disks = append(t.disks, newTrialDisk("", img.Disk.Over(backing)))
	for _, s := range img.Snapshots {
		t.disks = append(t.disks, newTrialDisk(s.ID, s.Disk.Over(backing)))
	}
	a, err := build.AuditFile(bytes.NewReader(t.file), int64(len(t.file)))
	if err != nil {
		panic(err)
	}
	for i := range a.Bitmaps {
		b := builtBitmap(&img.Bitmaps[i], t.size)
		b.content = a.Bitmaps[i].Content
		t.bitmaps = append(t.bitmaps, b)
	}
	return t
}

func (c *trial) open(f *crash.File) (*qcow2.Editor, error) { return qcow2.Edit(f, f.Size(), nil) }

// guestClusters are a few of each kind.
func guestClusters() map[uint64]build.Cluster {
	return map[uint64]build.Cluster{
		0: {Form: build.Normal}, 1: {Form: build.Normal}, 3: {Form: build.Packed}, 4: {Form: build.Packed},
		5: {Form: build.ZeroPlain}, 6: {Form: build.ZeroPrealloc}, 9: {Form: build.Normal}, 70: {Form: build.Normal},
	}
}

// guestBitmaps are one of each kind that an image can hold.
func guestBitmaps() []build.Bitmap {
	return []build.Bitmap{
		{Name: "first", Flags: build.Auto, Dirty: []build.Range{{Off: 512, Len: 9000}, {Off: 3 << 20, Len: 70000}}},
		{Name: "in use", Flags: build.InUse, Dirty: []build.Range{{Off: 1 << 20, Len: 5000}}},
		{Name: "middle", GranularityBits: 12, Literal: true, Dirty: []build.Range{{Off: 0, Len: 1 << 20}}},
		{Name: "full", GranularityBits: 9, Dirty: []build.Range{{Off: 0, Len: trialSize}}},
		{Name: "last", GranularityBits: 16, Dirty: []build.Range{{Off: 100000, Len: 1}}},
	}
}

// spec is a sound image with bitmaps in clusters of 512 bytes.
func spec(change func(*build.Spec)) build.Spec {
	s := build.Spec{Size: trialSize, Clusters: guestClusters(), Bitmaps: guestBitmaps()}
	if change != nil {
		change(&s)
	}
	return s
}

// stockFeatures are as many feature names as QEMU 7.2 writes: its bitmaps
// extension then stands across the border of the first two sectors.
func stockFeatures() []build.Feature {
	return []build.Feature{{Kind: 0, Bit: 0, Name: "dirty bit"}, {Kind: 0, Bit: 1, Name: "corrupt bit"},
		{Kind: 0, Bit: 2, Name: "external data file"}, {Kind: 0, Bit: 3, Name: "compression type"},
		{Kind: 0, Bit: 4, Name: "extended L2 entries"}, {Kind: 1, Bit: 0, Name: "lazy refcounts"},
		{Kind: 2, Bit: 0, Name: "bitmaps"}, {Kind: 2, Bit: 1, Name: "raw external data"}}
}

func stock(s *build.Spec) {
	s.ClusterBits, s.HeaderLength, s.FeatureNames = 12, 112, stockFeatures()
}

// withSnapshots adds a snapshot that shares all with the active disk, one of a
// disk of its own with a state of the machine, and an empty one.
func withSnapshots(s *build.Spec) {
	s.Snapshots = []build.Snapshot{
		{ID: "1", Name: "copy", Copy: true},
		{ID: "2", Name: "own", DiskSize: 300000, Clusters: map[uint64]build.Cluster{2: {Form: build.Normal}, 8: {Form: build.Packed}},
			VMState: []byte(strings.Repeat("state", 300))},
		{ID: "3", Name: "empty", Extra: make([]byte, 8)},
	}
}

// noBitmaps leaves out the extension.
func noBitmaps(s *build.Spec) { s.Bitmaps = nil }

// smallTrials are images of some KiB.
func smallTrials() []*trial {
	specs := []struct {
		name   string
		change func(*build.Spec)
	}{
		{"512 B", nil},
		{"512 B, no bitmaps", noBitmaps},
		{"snapshots", withSnapshots},
		{"snapshots, no bitmaps", func(s *build.Spec) { withSnapshots(s); noBitmaps(s) }},
		{"data file", func(s *build.Spec) { s.DataFile = &build.DataFile{Name: "data"}; s.Clusters = dataClusters() }},
		{"raw data file", func(s *build.Spec) {
			s.DataFile = &build.DataFile{Name: "data", Raw: true}
			s.Clusters = dataClusters()
		}},
		{"backing file", func(s *build.Spec) { s.Backing, s.BackingFormat = "base.raw", "raw" }},
		{"backing file, no bitmaps", func(s *build.Spec) { s.Backing, s.Bitmaps = "base.raw", nil }},
		{"lazy refcounts", func(s *build.Spec) { s.Compatible = build.LazyRefcounts }},
		{"disk of no byte", func(s *build.Spec) { s.Size, s.Clusters = 0, nil }},
		{"disk of one byte", func(s *build.Spec) { s.Size, s.Clusters = 1, map[uint64]build.Cluster{0: {Form: build.Normal}} }},
		{"ends in a cluster", func(s *build.Spec) { s.End, s.Bitmaps, s.ClusterBits = build.EndByte, nil, 12 }},
		{"shuffled", func(s *build.Spec) { s.Shuffle, s.Seed = true, 7 }},
		{"encrypted", func(s *build.Spec) { s.CryptMethod = 2 }},
		{"unknown extensions", unknownExtensions},
		{"4 KiB", func(s *build.Spec) { s.ClusterBits = 12; withSnapshots(s) }},
		{"stock layout", stock},
		{"stock layout, no bitmaps", func(s *build.Spec) { stock(s); noBitmaps(s) }},
		{"stock layout, backing file", func(s *build.Spec) { stock(s); s.Backing, s.BackingFormat = "base.raw", "raw" }},
		{"stock layout, backing file, no bitmaps", func(s *build.Spec) { stock(s); noBitmaps(s); s.Backing = "base.raw" }},
		{"long backing name, no bitmaps", func(s *build.Spec) { stock(s); noBitmaps(s); s.Backing = strings.Repeat("b", 1023) }},
		{"long backing name", func(s *build.Spec) { stock(s); s.Backing = strings.Repeat("b", 1023) }},
		{"long header", func(s *build.Spec) { s.ClusterBits, s.HeaderTail = 12, make([]byte, 400) }},
		{"extended L2", extendedL2},
		{"kept kinds", keptKinds},
	}
	var all []*trial
	for _, s := range specs {
		all = append(all, newTrial(s.name, build.Must(spec(s.change))))
		all[len(all)-1].stays = s.name == "unknown extensions"
	}
	for width := 1; width <= 64; width *= 2 {
		all = append(all, newTrial(fmt.Sprintf("%d refcount bits", width), build.Must(spec(func(s *build.Spec) { s.RefcountBits = width }))))
	}
	return append(all, fullFirstCluster(), roomForOne(), holes())
}

// dataClusters are those that an image with a data file can hold.
func dataClusters() map[uint64]build.Cluster {
	m := guestClusters()
	delete(m, 3)
	delete(m, 4)
	return m
}

func unknownExtensions(s *build.Spec) {
	s.ClusterBits, s.HeaderTail, s.PadByte = 12, []byte("to come!"), 0xaa
	s.Autoclear = 1 << 40
	s.Extensions = []build.Extension{{Type: 0x11112222, Data: []byte("eleven byte")}, {Type: 0x33334444, Data: make([]byte, 600)}}
}

func extendedL2(s *build.Spec) {
	s.ClusterBits, s.ExtendedL2 = 14, true
	s.Clusters[7] = build.Cluster{Form: build.Sub, Alloc: 0xf0, Zero: 0xf}
}

// keptKinds are bitmaps that are kept, and never used: of an unknown type, with
// extra data that is compatible, and with some that is not.
func keptKinds(s *build.Spec) {
	s.Bitmaps = append(s.Bitmaps,
		build.Bitmap{Name: "type 9", Type: 9, Dirty: []build.Range{{Off: 512, Len: 512}}},
		build.Bitmap{Name: "extra", Extra: []byte("must be understood"), Dirty: []build.Range{{Off: 1024, Len: 512}}},
		build.Bitmap{Name: "compatible", Extra: []byte("need not be"), Flags: build.ExtraDataCompatible, Dirty: []build.Range{{Off: 0, Len: 512}}})
}

// fullFirstCluster has 31 bytes between the extensions and the end of the first cluster.
func fullFirstCluster() *trial {
	t := newTrial("no room", build.Must(spec(func(s *build.Spec) {
		s.Bitmaps, s.Backing = nil, strings.Repeat("b", 512-104-8-24)
	})))
	t.full = true
	return t
}

// roomForOne has exactly the room for the extension.
func roomForOne() *trial {
	return newTrial("just enough room", build.Must(spec(func(s *build.Spec) {
		s.Bitmaps, s.Backing = nil, strings.Repeat("b", 512-104-8-32)
	})))
}

// holes is an image with free clusters in the middle, full of junk, and leaked
// clusters between them.
func holes() *trial {
	img := build.Must(spec(noBitmaps))
	first := len(img.Bytes) / 512
	for i := range 24 {
		img.Bytes = append(img.Bytes, bytes.Repeat([]byte{0xe5}, 512)...)
		img.SetRefcount(img.Bytes, uint64(first+i), uint64(i%3/2))
	}
	t := newTrial("holes and leaks", img)
	t.leaks = 8
	return t
}

// filled is a spec whose file has so many clusters: guest clusters of zeros make
// it up.
func filled(s build.Spec, clusters int) *build.Image {
	bits := s.ClusterBits
	if bits == 0 {
		bits = 9
	}
	zeros := make([]byte, 1<<bits)
	next := uint64(71)
	for {
		img := build.Must(s)
		missing := clusters - len(img.Bytes)>>bits
		if missing <= 0 {
			return img
		}
		for range max(1, missing*9/10) {
			s.Clusters[next] = build.Cluster{Form: build.Normal, Content: zeros}
			next++
		}
	}
}

// fullTrials are images whose last refcount block, or whole refcount table, has
// room for few clusters more, or none.
func fullTrials() []*trial {
	var all []*trial
	for free := range 6 {
		img := filled(spec(withSnapshots), 512-free)
		all = append(all, newTrial(fmt.Sprintf("%d free in the last block", free), img))
	}
	for free := range 5 {
		img := filled(spec(func(s *build.Spec) { s.RefcountBits = 64; s.Bitmaps = s.Bitmaps[:2] }), 64*64-free)
		all = append(all, newTrial(fmt.Sprintf("%d free in the table", free), img))
	}
	return append(all, newTrial("table full of 1-bit refcounts", filled(spec(func(s *build.Spec) { s.RefcountBits = 1 }), 4096-1)))
}

// largeTrials have clusters of 64 KiB and 2 MiB.
func largeTrials() []*trial {
	var all []*trial
	for _, bits := range []int{16, 21} {
		for _, k := range []struct {
			name   string
			change func(*build.Spec)
		}{
			{"", nil}, {", no bitmaps", noBitmaps}, {", stock layout, snapshots", func(s *build.Spec) {
				s.HeaderLength, s.FeatureNames = 112, stockFeatures()
				s.Snapshots = []build.Snapshot{{ID: "1", Copy: true}}
			}},
		} {
			all = append(all, newTrial(fmt.Sprintf("%d KiB%s", 1<<bits>>10, k.name), build.Must(spec(func(s *build.Spec) {
				s.ClusterBits = bits
				s.Clusters = map[uint64]build.Cluster{0: {Form: build.Normal}, 1: {Form: build.ZeroPrealloc}}
				s.Bitmaps = s.Bitmaps[:3]
				if k.change != nil {
					k.change(s)
				}
			}))))
		}
	}
	return all
}

// trials are made once.
var trials = sync.OnceValue(func() []*trial { return slices.Concat(smallTrials(), fullTrials(), largeTrials()) })

// randomTrials are sound images of every kind that an Editor takes.
func randomTrials(from, to uint64) []*trial {
	var all []*trial
	for seed := from; seed < to; seed++ {
		img := build.Random(seed)
		s := &img.Spec
		if s.Version != 3 || s.Incompatible&(build.Dirty|build.Corrupt) != 0 || s.StaleBitmaps && len(s.Bitmaps) > 0 || s.ClusterBits > 16 {
			continue
		}
		all = append(all, newTrial(fmt.Sprint("random ", seed), img.Image))
	}
	return all
}

// All trials are sound, and read as they should.
func TestEditorTrials(t *testing.T) {
	for _, c := range slices.Concat(trials(), randomTrials(0, 30)) {
		a, err := build.AuditFile(bytes.NewReader(c.file), int64(len(c.file)))
		if err != nil || len(a.Problems) > 0 || a.Leaks != c.leaks {
			t.Errorf("%s: %v, %d leaks, %q", c.name, err, a.Leaks, a.Problems)
			continue
		}
		img, err := qcow2.Open(bytes.NewReader(c.file), int64(len(c.file)), c.opts)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if err := c.expectGuest(img); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if err := c.bitmaps.expect(img, a); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
