package build

import (
	"bytes"
	"compress/flate"
	"fmt"
	"math/bits"
	"math/rand/v2"

	"github.com/klauspost/compress/zstd"
)

// A host is a host cluster or a compressed stream, with all that use it.
type host struct {
	form    Form
	c       Cluster
	content []byte // what the guest sees
	stream  []byte // what a compressed cluster stores
	off     uint64 // in the image, or in the external data file
	uses    uint64
	names   []string // in the Layout
}

// placeClusters gives every stored guest cluster its host cluster. Compressed
// streams come last, packed one behind the other.
func (b *builder) placeClusters() error {
	for _, d := range b.views {
		for _, k := range sortedKeys(d.clusters) {
			if err := b.use(d, k); err != nil {
				return err
			}
		}
	}
	if b.s.Shuffle {
		r := rand.New(rand.NewPCG(b.s.Seed, 1))
		r.Shuffle(len(b.order), func(i, j int) { b.order[i], b.order[j] = b.order[j], b.order[i] })
	}
	for _, h := range b.order {
		if h.form != Packed && b.s.DataFile == nil {
			b.placeStandard(h)
		}
	}
	return b.placePacked()
}

// stores reports whether c owns a host cluster.
func stores(c Cluster) bool {
	switch c.Form {
	case Normal, ZeroPrealloc, Packed:
		return true
	case Sub:
		return c.Alloc != 0 || c.Prealloc
	}
	return false
}

// use finds or makes the host of guest cluster k and counts the use.
func (b *builder) use(d *disk, k uint64) error {
	c := d.clusters[k]
	if !stores(c) {
		return nil
	}
	h, err := b.hostFor(b.key(d, k), c)
	if err != nil {
		return err
	}
	h.uses++
	d.hosts[k] = h
	kind := "data"
	if c.Form == Packed {
		kind = "packed"
	}
	h.names = append(h.names, fmt.Sprintf("%s%s[%d]", d.prefix, kind, k))
	if b.s.DataFile != nil {
		h.off = k * b.cs
	}
	return nil
}

// key names a host: clusters with one key share it.
func (b *builder) key(d *disk, k uint64) string {
	if s := d.clusters[k].Share; s != "" {
		return "shared " + s
	}
	if a := d.copyOf; a != nil && a.hosts[k] != nil {
		return b.key(a, k)
	}
	return fmt.Sprintf("%s%d", d.prefix, k)
}

func (b *builder) hostFor(key string, c Cluster) (*host, error) {
	if h := b.hosts[key]; h != nil {
		return h, nil
	}
	h := &host{form: c.Form, c: c, content: c.Content}
	if h.content == nil {
		h.content = madeUp(b.s.Seed, key, int(b.cs), c.Form == Packed)
	}
	if c.Form == Packed {
		if h.stream = c.Stream; h.stream == nil {
			var err error
			if h.stream, err = Compress(h.content, b.s.Zstd); err != nil {
				return nil, err
			}
		}
	}
	b.hosts[key] = h
	b.order = append(b.order, h)
	return h, nil
}

func (b *builder) placeStandard(h *host) {
	before := b.needed
	h.off = b.alloc(1)
	copy(b.buf[h.off:], h.content)
	b.refs[h.off/b.cs] = h.uses
	b.needed = before
	switch h.form {
	case Normal:
		b.need(h.off + b.cs)
	case Sub:
		b.need(h.off + b.cs/32*uint64(bits.Len32(h.c.Alloc)))
	}
	for _, n := range h.names {
		b.lay.note(int64(h.off), int64(b.cs), "%s", n)
	}
}

// Compress makes the stream of a compressed cluster: raw deflate, or one zstd
// frame.
func Compress(content []byte, useZstd bool) ([]byte, error) {
	if useZstd {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(128<<10), zstd.WithLowerEncoderMem(true),
			zstd.WithEncoderLevel(zstd.SpeedFastest))
		if err != nil {
			return nil, err
		}
		defer enc.Close()
		return enc.EncodeAll(content, nil), nil
	}
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.DefaultCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}

func (b *builder) placePacked() error {
	pos := uint64(len(b.buf))
	for _, h := range b.order {
		if h.form != Packed {
			continue
		}
		var err error
		if pos, err = b.placeStream(h, pos); err != nil {
			return err
		}
	}
	return nil
}

// placeStream stores h at pos or, where a refcount would overflow, in the
// next cluster; it returns where the stream ends.
func (b *builder) placeStream(h *host, pos uint64) (uint64, error) {
	copyFrom := madeUp(b.s.Seed, "gap", h.c.Gap, false)
	b.grow(pos + uint64(h.c.Gap))
	copy(b.buf[pos:], copyFrom)
	pos += uint64(h.c.Gap)
	for !b.fits(h, pos) {
		pos = (pos/b.cs + 1) * b.cs
	}
	n := uint64(len(h.stream))
	h.off = pos
	if h.sectorsAt(pos) >= b.maxSectors() {
		return 0, fmt.Errorf("a stream of %d bytes is too long for an L2 entry", n)
	}
	first, last := b.touched(h, pos)
	b.grow((last + 1) * b.cs)
	for i := first; i <= last; i++ {
		b.refs[i] += h.uses
	}
	copy(b.buf[pos:], h.stream)
	b.need(pos + n)
	for _, name := range h.names {
		b.lay.note(int64(pos), int64(n), "%s", name)
	}
	return pos + n, nil
}

// touched are the first and last host cluster that a stream at pos counts in:
// all its sectors belong to it, the last one to the end.
func (b *builder) touched(h *host, pos uint64) (first, last uint64) {
	end := ceilDiv(pos+uint64(max(1, len(h.stream))), 512) * 512
	return pos / b.cs, (end - 1) / b.cs
}

// fits reports whether a stream can stand at pos: the refcounts can count it
// and the L2 entry its sectors. A fresh cluster always takes it; what does not
// fit there is reported later.
func (b *builder) fits(h *host, pos uint64) bool {
	first, last := b.touched(h, pos)
	if pos%b.cs != 0 && h.sectorsAt(pos) >= b.maxSectors() {
		return false
	}
	for i := first; i <= last && i < uint64(len(b.refs)); i++ {
		if b.refs[i] > 0 && b.refs[i]+h.uses > b.maxRefcount() {
			return false
		}
	}
	return true
}

// sectorsAt is the count of sectors after the first one.
func (h *host) sectorsAt(pos uint64) uint64 {
	end := pos + uint64(max(1, len(h.stream)))
	return (end-1)/512 - pos/512
}

func (b *builder) maxSectors() uint64 { return 1 << (b.s.ClusterBits - 8) }

// descriptor is the compressed cluster descriptor with bit 62 set.
func (h *host) descriptor(b *builder) uint64 {
	n := h.sectorsAt(h.off)
	if h.c.Sectors != nil {
		n = *h.c.Sectors
	}
	x := 62 - (b.s.ClusterBits - 8)
	return 1<<62 | n<<x | h.off
}

// content is what every stored cluster of d holds.
func (d *disk) content() map[uint64][]byte {
	m := make(map[uint64][]byte, len(d.hosts))
	for k, h := range d.hosts {
		m[k] = h.content
	}
	return m
}

// dataFile is the external data file. A raw one reads like the disk; the other
// holds junk wherever the image does not point at it.
func (b *builder) dataFile(v *View) []byte {
	if b.s.DataFile.Raw {
		return v.Bytes()
	}
	data := bytes.Repeat([]byte{0xee}, int(b.s.Size))
	for _, h := range b.order {
		copy(data[h.off:], h.content)
	}
	return data
}
