package qcow2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// A guestTrial is an image whose guest is changed.
type guestTrial struct {
	*trial
	cluster int64
	version int
	backing []byte // nil: none
	data    []byte // the external data file; nil: none
	raw     bool
	image   *build.Image
	leaky   bool // what the disk refers to twice is leaked
	opts    qcow2.GuestOptions
}

// guestSpec has a cluster of each kind, in three L2 tables of 64 entries, and a disk
// that ends within a cluster and a sector.
func guestSpec(change func(*build.Spec)) build.Spec {
	s := build.Spec{Seed: 5, Clusters: guestClusters()}
	s.Clusters[64] = build.Cluster{Form: build.Packed}
	s.Clusters[66] = build.Cluster{Form: build.ZeroPlain}
	s.Clusters[130] = build.Cluster{Form: build.Normal}
	if change != nil {
		change(&s)
	}
	if s.ClusterBits == 0 {
		s.ClusterBits = 9
	}
	if s.Size == 0 {
		s.Size = 130<<s.ClusterBits + 300
	}
	if s.Version != 2 && s.Bitmaps == nil {
		s.Bitmaps = []build.Bitmap{
			{Name: "rec", Flags: build.Auto, Dirty: []build.Range{{Off: 512, Len: 100}}},
			{Name: "off", Dirty: []build.Range{{Off: 1024, Len: 2000}}},
			{Name: "in use", Flags: build.Auto | build.InUse, Dirty: []build.Range{{Off: 0, Len: 1}}},
			{Name: "coarse", GranularityBits: 12, Flags: build.Auto, Literal: true},
		}
	}
	return s
}

func newGuestTrial(name string, s build.Spec) *guestTrial {
	img := build.Must(s)
	g := &guestTrial{trial: newTrial(name, img), cluster: 1 << s.ClusterBits, version: 3, data: img.Data, image: img}
	if s.Version == 2 {
		g.version = 2
	}
	if s.Backing != "" {
		g.backing = bytes.Repeat([]byte("backing "), 1000)
	}
	g.raw = s.DataFile != nil && s.DataFile.Raw
	return g
}

// guestTrials are images of every kind.
func guestTrials() []*guestTrial {
	specs := []struct {
		name   string
		change func(*build.Spec)
	}{
		{"512 B", nil},
		{"no bitmaps", func(s *build.Spec) { s.Bitmaps = []build.Bitmap{} }},
		{"snapshots", withSnapshots},
		{"4 KiB", func(s *build.Spec) { s.ClusterBits = 12; withSnapshots(s) }},
		{"backing file", func(s *build.Spec) { s.Backing, s.BackingFormat = "base.raw", "raw" }},
		{"lazy refcounts", func(s *build.Spec) { s.Compatible = build.LazyRefcounts }},
		{"version 2", func(s *build.Spec) { version2Guest(s) }},
		{"version 2, backing file", func(s *build.Spec) { version2Guest(s); s.Backing, s.BackingFormat = "base.raw", "raw" }},
		{"version 2, snapshots", func(s *build.Spec) { version2Guest(s); withSnapshots(s) }},
		{"extended L2", guestExtended},
		{"extended L2, backing file, snapshot", func(s *build.Spec) {
			guestExtended(s)
			s.Backing, s.BackingFormat = "base.raw", "raw"
			s.Snapshots = []build.Snapshot{{ID: "1", Copy: true}}
		}},
		{"1 refcount bit", func(s *build.Spec) { s.RefcountBits = 1; delete(s.Clusters, 4) }},
		{"64 refcount bits", func(s *build.Spec) { s.RefcountBits = 64 }},
		{"stock layout", func(s *build.Spec) { s.ClusterBits, s.HeaderLength, s.FeatureNames = 12, 112, stockFeatures() }},
		{"shared clusters", func(s *build.Spec) {
			for _, k := range []uint64{20, 21, 22} {
				s.Clusters[k] = build.Cluster{Form: build.Normal, Share: "same", Content: bytes.Repeat([]byte("same"), 128)}
			}
		}},
		{"unknown autoclear bits", func(s *build.Spec) { s.Autoclear = 1 << 40 }},
		{"unknown extension", func(s *build.Spec) { s.Extensions = []build.Extension{{Type: 0x11112222, Data: []byte("eleven byte")}} }},
		{"ends in a cluster", func(s *build.Spec) { s.End, s.Bitmaps, s.ClusterBits = build.EndByte, []build.Bitmap{}, 12 }},
		{"shuffled", func(s *build.Spec) { s.Shuffle, s.Seed = true, 7 }},
		{"zstd", func(s *build.Spec) { s.Zstd, s.HeaderLength = true, 112 }},
		{"data file", func(s *build.Spec) { guestDataFile(s, false) }},
		{"raw data file", func(s *build.Spec) { guestDataFile(s, true) }},
	}
	var all []*guestTrial
	for _, s := range specs {
		all = append(all, newGuestTrial(s.name, guestSpec(s.change)))
		all[len(all)-1].leaky = s.name == "shared clusters"
		if s.name == "512 B" || s.name == "snapshots" || s.name == "extended L2" {
			c := newGuestTrial(s.name+", never in place", guestSpec(s.change))
			c.opts.NeverInPlace = true
			all = append(all, c)
		}
	}
	for free := range 4 {
		s := guestSpec(nil)
		s.Size = 2 << 20
		all = append(all, newGuestTrial(fmt.Sprintf("%d free in the last block", free), filled(s, 1024-free).Spec))
	}
	for free := range 3 {
		s := guestSpec(func(s *build.Spec) { s.RefcountBits = 64; s.Bitmaps = []build.Bitmap{} })
		s.Size = 3 << 20
		all = append(all, newGuestTrial(fmt.Sprintf("%d free in the table", free), filled(s, 64*64-free).Spec))
	}
	all = append(all, newGuestTrial("64 KiB", guestSpec(func(s *build.Spec) {
		s.ClusterBits, s.Size = 16, 12<<16+300
		for k := range s.Clusters {
			if k > 12 {
				delete(s.Clusters, k)
			}
		}
	})))
	return all
}

func version2Guest(s *build.Spec) {
	s.Version = 2
	for k, c := range s.Clusters {
		if c.Form == build.ZeroPlain || c.Form == build.ZeroPrealloc {
			delete(s.Clusters, k)
		}
	}
}

func guestExtended(s *build.Spec) {
	s.ClusterBits, s.ExtendedL2, s.Size = 14, true, 12<<14+300
	for k := range s.Clusters {
		if k > 12 {
			delete(s.Clusters, k)
		}
	}
	s.Clusters[7] = build.Cluster{Form: build.Sub, Alloc: 0xf0, Zero: 0xf}
	s.Clusters[10] = build.Cluster{Form: build.Sub, Zero: 0xff, Prealloc: true}
	s.Clusters[11] = build.Cluster{Form: build.Sub, Alloc: 1, Zero: 0xfffffffe}
}

func guestDataFile(s *build.Spec, raw bool) {
	s.DataFile = &build.DataFile{Name: "data", Raw: raw}
	for k, c := range s.Clusters {
		if c.Form == build.Packed {
			delete(s.Clusters, k)
		}
	}
}

// A guestOp is one change of the guest.
type guestOp struct {
	kind   byte // 'w', 'z', 'd'
	off, n int64
	data   []byte
}

func (o guestOp) String() string { return fmt.Sprintf("%c %d+%d", o.kind, o.off, o.n) }

func (o guestOp) do(g *qcow2.Guest) error {
	switch o.kind {
	case 'w':
		_, err := g.WriteAt(o.data, o.off)
		return err
	case 'z':
		return g.Zero(o.off, o.n)
	}
	return g.Discard(o.off, o.n)
}

// apply is what the guest reads afterwards.
func (c *guestTrial) apply(guest []byte, ops []guestOp) []byte {
	guest = slices.Clone(guest)
	for _, o := range ops {
		switch {
		case o.kind == 'w':
			copy(guest[o.off:], o.data)
		case o.kind == 'z':
			clear(guest[o.off : o.off+o.n])
		case c.version == 2 && c.backing != nil:
		default:
			from, to := (o.off+c.cluster-1)/c.cluster*c.cluster, (o.off+o.n)/c.cluster*c.cluster
			if o.off+o.n == int64(len(guest)) {
				to = o.off + o.n
			}
			if from < to {
				clear(guest[from:to])
			}
		}
	}
	return guest
}

// written marks what the operations change.
func (c *guestTrial) written(ops []guestOp) []bitmap.Range {
	var list []bitmap.Range
	for _, o := range ops {
		list = append(list, bitmap.Range{Off: o.off, Len: o.n})
	}
	return list
}

// write is a write of random bytes.
func write(rng *rand.Rand, off, n int64) guestOp {
	o := guestOp{kind: 'w', off: off, n: n, data: make([]byte, n)}
	for i := range o.data {
		o.data[i] = byte(rng.Uint32()) | 1
	}
	return o
}

// guestOperations are what is done to a trial, by name.
func (c *guestTrial) guestOperations() map[string][]guestOp {
	rng := rand.New(rand.NewPCG(1, 2))
	k := c.cluster
	m := map[string][]guestOp{
		"overwrite":     {write(rng, 0, 2*k)},
		"in a sector":   {write(rng, 100, 50), write(rng, k+200, 1)},
		"many kinds":    {write(rng, 0, 10*k)},
		"parts":         {write(rng, 2*k+10, 100), write(rng, 3*k+10, 100), write(rng, 5*k+9, 3), write(rng, 6*k, 200), write(rng, 7*k+77, k/2)},
		"zero clusters": {{kind: 'z', off: 0, n: 10 * k}},
		"zero parts":    {{kind: 'z', off: 100, n: k}, {kind: 'z', off: 3*k + 40, n: 2*k + 40}, {kind: 'z', off: 7*k + k/4, n: k / 2}},
		"discard":       {{kind: 'd', off: k / 2, n: 9 * k}},
		"the end":       {write(rng, c.size-400, 400)},
		"zero the end":  {{kind: 'z', off: c.size - 2*k, n: 2 * k}},
		"nothing":       {write(rng, 0, 0), {kind: 'z', off: c.size}, {kind: 'd', off: 5}},
		"one over another": {write(rng, 0, 3*k), {kind: 'z', off: 50, n: 2 * k}, write(rng, 60, 100), {kind: 'd', off: 0, n: k},
			write(rng, k+5, 10), write(rng, 20, 5), write(rng, 25, 5)},
	}
	if c.size > 100*k {
		m["other tables"] = []guestOp{write(rng, 64*k+k/2, 2*k), write(rng, 100*k, k), {kind: 'z', off: 80*k + 1, n: 2 * k}}
	}
	var random []guestOp
	for range 20 {
		off := rng.Int64N(c.size)
		n := rng.Int64N(min(c.size-off, 3*k) + 1)
		switch rng.IntN(4) {
		case 0:
			random = append(random, guestOp{kind: 'z', off: off, n: n})
		case 1:
			random = append(random, guestOp{kind: 'd', off: off, n: n})
		default:
			random = append(random, write(rng, off, n))
		}
	}
	m["random"] = random
	return m
}

// A filePart is a part of a recorded file, from off on: the data file of an image comes
// first, padded to sectors, and then the image.
type filePart struct {
	f   *crash.File
	off int64
	end int64 // 0: that of the file
}

func (p filePart) ReadAt(b []byte, off int64) (int, error) {
	if p.end > 0 && off+int64(len(b)) > p.end {
		return 0, io.ErrUnexpectedEOF
	}
	return p.f.ReadAt(b, p.off+off)
}

func (p filePart) WriteAt(b []byte, off int64) (int, error) {
	if p.end > 0 && off+int64(len(b)) > p.end {
		return 0, fmt.Errorf("writing %d bytes at %d of a data file of %d", len(b), off, p.end)
	}
	return p.f.WriteAt(b, p.off+off)
}

func (p filePart) Sync() error { return p.f.Sync() }

func (p filePart) Truncate(size int64) error {
	if p.end > 0 {
		return errors.New("the data file is cut")
	}
	return p.f.Truncate(p.off + size)
}

// both is the trial's files in one.
func (c *guestTrial) both() *crash.File { return crash.New(slices.Concat(c.padded(), c.file)) }

// padded is the data file, as long as the disk at least; nil without one.
func (c *guestTrial) padded() []byte {
	if c.data == nil {
		return nil
	}
	b := make([]byte, (max(int64(len(c.data)), c.size)+511)/512*512)
	copy(b, c.data)
	return b
}

func (c *guestTrial) parts(f *crash.File) (image, data filePart) {
	n := int64(len(c.padded()))
	return filePart{f: f, off: n}, filePart{f: f, end: n}
}

// editOpts are those of the Editor.
func (c *guestTrial) editOpts(data []byte) *qcow2.Options {
	return &qcow2.Options{OpenRef: func(ref qcow2.Ref) (qcow2.Disk, error) {
		if ref.Kind == qcow2.RefData {
			return memDisk(data), nil
		}
		return memDisk(c.backing), nil
	}}
}

// edit opens an image of f for changing.
func (c *guestTrial) edit(f *crash.File) (*qcow2.Editor, qcow2.GuestOptions, error) {
	image, data := c.parts(f)
	e, err := qcow2.Edit(image, f.Size()-image.off, c.editOpts(c.padded()))
	opts := c.opts
	if c.data != nil {
		opts.DataFile, opts.DataSize = data, data.end
	}
	return e, opts, err
}
