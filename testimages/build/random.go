package build

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// Sound is a random image that breaks no rule.
type Sound struct {
	*Image
	// Seed made it: Random(Seed) makes it again.
	Seed uint64
	// Backing is what the backing file holds, raw; shorter than the disk, as
	// long, or longer. nil where the image names none.
	Backing []byte
}

// Guest is what a reader must read of the active disk, with the backing file.
func (s *Sound) Guest() []byte { return s.Disk.Over(s.Backing) }

// a maker draws the random choices of one image.
type maker struct {
	*rand.Rand
	s Spec
}

// Random returns the image of a seed: any version, cluster size, refcount
// width and form of cluster, several snapshots and bitmaps, a disk of 1 MiB at
// most (that of one 2 MiB cluster included).
func Random(seed uint64) Sound {
	m := &maker{Rand: rand.New(rand.NewPCG(seed, 0x51464900))}
	m.s.Seed = seed
	m.geometry()
	m.outside()
	m.s.Clusters = m.clusters(m.s.Size)
	m.snapshots()
	m.bitmaps()
	m.header()
	img := Must(m.s)
	out := Sound{Image: img, Seed: seed}
	if m.s.Backing != "" {
		out.Backing = madeUp(seed, "backing", m.IntN(int(m.s.Size)*3/2+2), false)
	}
	return out
}

// chance is true once in n times.
func (m *maker) chance(n int) bool { return m.IntN(n) == 0 }

func pick[T any](m *maker, from ...T) T { return from[m.IntN(len(from))] }

func (m *maker) geometry() {
	m.s.Version = pick(m, 2, 3, 3, 3, 3)
	m.s.ClusterBits = pick(m, 9, 9, 9, 10, 11, 12, 12, 13, 14, 15, 16, 16)
	if m.chance(40) {
		m.s.ClusterBits = 17 + m.IntN(5)
	}
	m.s.RefcountBits = 16
	if m.s.Version == 3 {
		m.s.RefcountBits = 1 << m.IntN(7)
		m.s.Zstd = m.chance(3)
		if m.s.ExtendedL2 = m.chance(3); m.s.ExtendedL2 {
			m.s.ClusterBits = 14 + m.IntN(3)
		}
	}
	limit := min(1<<20, 300<<m.s.ClusterBits)
	m.s.Size = uint64(m.IntN(limit + 1))
	if !m.chance(3) {
		m.s.Size &^= 511
	}
	m.s.Shuffle = m.chance(2)
	m.s.End = pick(m, EndCluster, EndCluster, EndSector, EndByte)
}

// outside chooses the files that the image names.
func (m *maker) outside() {
	switch {
	case m.chance(3):
		m.s.Backing = "backing.raw"
		m.s.BackingFormat = pick(m, "raw", "raw", "")
	case m.s.Version == 3 && m.chance(6):
		m.s.DataFile = &DataFile{Name: pick(m, "data.raw", ""), Raw: m.chance(2)}
	}
}

// forms that the image may hold.
func (m *maker) forms() []Form {
	f := []Form{Unallocated, Normal}
	if m.s.DataFile == nil {
		f = append(f, Packed)
	}
	if m.s.Version == 3 {
		f = append(f, ZeroPlain, ZeroPrealloc)
	}
	if m.s.ExtendedL2 {
		f = append(f, Sub, Sub, Sub)
	}
	return f
}

// clusters fills a disk with stretches of one form each.
func (m *maker) clusters(size uint64) map[uint64]Cluster {
	n := ceilDiv(size, 1<<m.s.ClusterBits)
	forms := m.forms()
	all := map[uint64]Cluster{}
	for k := uint64(0); k < n; {
		form := pick(m, forms...)
		for stretch := 1 + m.IntN(6); stretch > 0 && k < n; stretch-- {
			if form != Unallocated {
				all[k] = m.cluster(form)
			}
			k++
		}
	}
	return all
}

func (m *maker) cluster(form Form) Cluster {
	c := Cluster{Form: form}
	switch form {
	case Normal:
		if m.chance(8) {
			c.Content = make([]byte, 1<<m.s.ClusterBits)
		}
	case Sub:
		c.Alloc = m.Uint32() & m.Uint32()
		c.Zero = m.Uint32() &^ c.Alloc
		c.Prealloc = m.chance(2)
	case Packed:
		m.packed(&c)
	}
	return c
}

// packed chooses content that compresses well or not at all, and the writer's
// habits.
func (m *maker) packed(c *Cluster) {
	if m.chance(4) {
		c.Gap = m.IntN(700)
	}
	n := 1 << m.s.ClusterBits
	switch m.IntN(4) {
	case 0:
		c.Content = make([]byte, n)
	case 1:
		c.Content = madeUp(m.Uint64(), "content", n, m.chance(2))
	}
	if m.s.Zstd && c.Content != nil {
		c.Stream = m.zstdStream(c.Content)
	}
}

// zstdStream makes one or two frames, with or without checksum.
func (m *maker) zstdStream(content []byte) []byte {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(m.chance(2)), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(128<<10), zstd.WithLowerEncoderMem(true),
		zstd.WithSingleSegment(m.chance(2)), zstd.WithEncoderLevel(zstd.EncoderLevel(1+m.IntN(2))))
	if err != nil {
		panic(err)
	}
	defer enc.Close()
	cut := 0
	if m.chance(2) {
		cut = 1 + m.IntN(len(content)-1)
		return enc.EncodeAll(content[cut:], enc.EncodeAll(content[:cut], nil))
	}
	return enc.EncodeAll(content, nil)
}

func (m *maker) snapshots() {
	if m.s.DataFile != nil || !m.chance(2) {
		return
	}
	for i := range 1 + m.IntN(3) {
		sn := Snapshot{
			ID: fmt.Sprint(i + 1), Name: fmt.Sprintf("snapshot %d", i), Seconds: m.Uint32() >> 1, Nanosecond: m.Uint32N(1e9),
			VMClock: m.Uint64() >> 8, Bare: m.s.Version == 2 && m.chance(2), Copy: m.chance(2),
		}
		if m.s.RefcountBits <= 2 { // too narrow for clusters that three snapshots share
			sn.Copy = false
		}
		if !sn.Bare && m.chance(2) {
			sn.Extra = madeUp(m.Uint64(), "extra", 8+m.IntN(30), false)
		}
		if !sn.Copy {
			m.ownDisk(&sn)
		}
		if m.chance(4) {
			sn.VMState = madeUp(m.Uint64(), "state", m.IntN(3<<m.s.ClusterBits), false)
		}
		m.s.Snapshots = append(m.s.Snapshots, sn)
	}
}

// ownDisk gives a snapshot a disk of its own, some clusters of which it shares
// with the active one.
func (m *maker) ownDisk(sn *Snapshot) {
	sn.DiskSize = m.s.Size
	if !sn.Bare && m.chance(3) {
		sn.DiskSize = 1 + uint64(m.IntN(int(m.s.Size)*3/2+1))
	}
	sn.Clusters = m.clusters(sn.DiskSize)
	if m.s.RefcountBits <= 2 {
		return
	}
	for _, k := range sortedKeys(m.s.Clusters) {
		c := m.s.Clusters[k]
		if stores(c) && m.chance(3) && k*(1<<m.s.ClusterBits) < sn.DiskSize {
			c.Share = fmt.Sprint("active ", k)
			m.s.Clusters[k], sn.Clusters[k] = c, c
		}
	}
}

func (m *maker) bitmaps() {
	if m.s.Version == 2 || !m.chance(2) {
		return
	}
	for i := range 1 + m.IntN(4) {
		bm := Bitmap{
			Name: fmt.Sprintf("bitmap %d", i), GranularityBits: 9 + m.IntN(12), Flags: m.Uint32N(4) &^ InUse, Literal: m.chance(4),
		}
		if m.chance(4) {
			bm.Flags |= InUse
		}
		for range m.IntN(6) {
			off := m.Int64N(int64(m.s.Size) + 1)
			bm.Dirty = append(bm.Dirty, Range{off, m.Int64N(int64(m.s.Size) - off + 1)})
		}
		m.s.Bitmaps = append(m.s.Bitmaps, bm)
	}
	slices.Reverse(m.s.Bitmaps)
	m.s.StaleBitmaps = m.chance(8)
}

// header adds what must not change what is read.
func (m *maker) header() {
	m.s.ExtraL1 = pick(m, 0, 0, 1, 70)
	room := m.s.ClusterBits > 9
	if room && m.chance(3) {
		m.s.Extensions = append(m.s.Extensions, Extension{0x77777777, madeUp(m.Uint64(), "extension", m.IntN(40), false)})
	}
	m.s.PadByte = byte(m.Uint32())
	if m.s.Version == 2 {
		return
	}
	if room && m.chance(3) {
		m.s.FeatureNames = []Feature{{0, 0, "dirty bit"}, {0, 1, "corrupt bit"}, {1, 0, "lazy refcounts"}}
	}
	m.s.HeaderLength = pick(m, 0, 112)
	if room && m.chance(4) {
		m.s.HeaderLength, m.s.HeaderTail = 0, madeUp(m.Uint64(), "tail", 8*(1+m.IntN(4)), false)
	}
	m.s.Compatible = pick[uint64](m, 0, LazyRefcounts, 1<<m.Uint64N(63))
	m.s.Autoclear = pick[uint64](m, 0, 0, 4<<m.Uint64N(60))
	m.s.Incompatible = pick[uint64](m, 0, 0, 0, 0, 0, 0, Dirty, Corrupt)
}
