package build

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
)

// An Image is a finished qcow2 file and the truth about it.
type Image struct {
	Layout
	Spec Spec
	// Bytes of the file.
	Bytes []byte
	// Data is the external data file; nil without one.
	Data []byte
	// Disk is the active virtual disk.
	Disk      View
	Snapshots []SnapshotTruth
	Bitmaps   []BitmapTruth
}

// Must is Build for a Spec that is known to be possible.
func Must(s Spec) *Image {
	img, err := s.Build()
	if err != nil {
		panic(err)
	}
	return img
}

// Build makes the image. It fails on what the format cannot hold, never on
// values that are merely odd.
func (s Spec) Build() (*Image, error) {
	s.setDefaults()
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("build: %w", err)
	}
	tables, blocks := uint64(1), uint64(1)
	for {
		b := newBuilder(s)
		b.tables, b.blocks = tables, blocks
		if err := b.run(); err != nil {
			return nil, fmt.Errorf("build: %w", err)
		}
		blocks = ceilDiv(uint64(len(b.refs)), b.cs*8/uint64(s.RefcountBits))
		tables = ceilDiv(blocks*8, b.cs)
		if blocks <= b.blocks && tables <= b.tables {
			return b.finish()
		}
	}
}

// A builder lays out one image. Host clusters are handed out in order; what a
// structure says about another one is written once all have their place.
type builder struct {
	s              Spec
	cs             uint64 // cluster size
	l2n, width     uint64 // entries of an L2 table, bytes of an entry
	tables, blocks uint64 // clusters of the refcount table, refcount blocks

	buf    []byte   // the file so far, in whole clusters
	refs   []uint64 // by host cluster
	needed uint64   // end of the last byte that a reader needs
	lay    Layout
	views  []*disk // the active one first
	hosts  map[string]*host
	order  []*host // as they were first named
	maps   []bitmapPlace
	luks   uint64
	snaps  uint64 // offset of the snapshot table
	dir    Place  // bitmap directory
	bits   []BitmapTruth
}

func newBuilder(s Spec) *builder {
	b := &builder{s: s, cs: 1 << s.ClusterBits, width: 8, hosts: map[string]*host{}}
	if s.ExtendedL2 {
		b.width = 16
	}
	b.l2n = b.cs / b.width
	b.lay = Layout{places: map[string]Place{}, ClusterSize: b.cs, L2Entries: b.l2n}
	return b
}

// run gives everything its place and writes all but the refcounts.
func (b *builder) run() error {
	b.alloc(1) // the header
	b.alloc(b.tables)
	b.alloc(b.blocks)
	b.placeDisks()
	b.placeSnapshots()
	b.placeBitmaps()
	if b.s.CryptMethod == 2 {
		b.luks = b.alloc(1)
		b.lay.note(int64(b.luks), int64(b.cs), "luks")
		copy(b.buf[b.luks:], madeUp(b.s.Seed, "luks", int(b.cs), false))
	}
	if err := b.placeClusters(); err != nil {
		return err
	}
	for _, d := range b.views {
		b.writeTables(d)
	}
	b.writeSnapshots()
	return b.writeHeader()
}

func (b *builder) finish() (*Image, error) {
	if err := b.writeRefcounts(); err != nil {
		return nil, fmt.Errorf("build: %w", err)
	}
	img := &Image{Layout: b.lay, Spec: b.s, Bytes: b.cutEnd(), Bitmaps: b.bits}
	for i, d := range b.views {
		v := newView(d.size, b.cs, d.clusters, d.content())
		if i == 0 {
			img.Disk = v
			continue
		}
		img.Snapshots = append(img.Snapshots, SnapshotTruth{b.s.Snapshots[i-1], v})
	}
	if b.s.DataFile != nil {
		img.Data = b.dataFile(&img.Disk)
	}
	return img, nil
}

// alloc hands out n contiguous host clusters with refcount 1.
func (b *builder) alloc(n uint64) uint64 {
	off := uint64(len(b.buf))
	b.grow(off + n*b.cs)
	for i := off / b.cs; i < uint64(len(b.refs)); i++ {
		b.refs[i] = 1
	}
	b.need(off + n*b.cs)
	return off
}

// grow makes the file reach end at least; new clusters are free.
func (b *builder) grow(end uint64) {
	end = ceilDiv(end, b.cs) * b.cs
	if more := int64(end) - int64(len(b.buf)); more > 0 {
		b.buf = append(b.buf, make([]byte, more)...)
		b.refs = append(b.refs, make([]uint64, uint64(more)/b.cs)...)
	}
}

func (b *builder) need(end uint64) { b.needed = max(b.needed, end) }

// cutEnd ends the file as the Spec wants it, always inside the last cluster:
// a file that lacks a whole cluster which is in use is not sound.
func (b *builder) cutEnd() []byte {
	n := uint64(len(b.buf))
	switch b.s.End {
	case EndByte:
		n = max(b.needed, n-b.cs+1)
	case EndSector:
		n = ceilDiv(max(b.needed, n-b.cs+1), 512) * 512
	}
	return b.buf[:n]
}

// put writes a big-endian number of n bytes and notes where it stands.
func (b *builder) put(off uint64, n int64, v uint64, format string, args ...any) {
	p := Place{int64(off), n}
	putBE(b.buf, p, v)
	b.lay.note(p.Off, p.Len, format, args...)
}

// madeUp bytes depend on seed and name alone. Of compressible ones three
// quarters repeat themselves at a short distance.
func madeUp(seed uint64, name string, n int, compressible bool) []byte {
	h := seed
	for _, c := range []byte(name) {
		h = (h ^ uint64(c)) * 0x100000001b3
	}
	if compressible {
		word := string(madeUp(h, "word", 11, false))
		b := madeUp(h, "start", n/4, false)
		return append(b, strings.Repeat(word, n/len(word)+1)[:n-len(b)]...)
	}
	r := rand.New(rand.NewPCG(h, 0x9e3779b97f4a7c15))
	b := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b[:n:n]
}

func ceilDiv(a, b uint64) uint64 { return (a + b - 1) / b }
