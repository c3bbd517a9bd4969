package build

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// A bitmapPlace is a bitmap that is being laid out.
type bitmapPlace struct {
	bm      Bitmap
	table   uint64
	entries uint64
}

func (bm *Bitmap) bits() int {
	if bm.GranularityBits == 0 && !bm.NoGranularity {
		return 9
	}
	return bm.GranularityBits
}

func (bm *Bitmap) kind() uint8 {
	if bm.Type == 0 && !bm.OddType {
		return 1
	}
	return bm.Type
}

// truth rounds the dirty ranges out, sorts and joins them.
func (bm Bitmap) truth(size int64) BitmapTruth {
	g := int64(1) << bm.bits()
	t := BitmapTruth{Bitmap: bm, Granularity: g}
	for _, r := range slices.SortedFunc(slices.Values(bm.Dirty), func(a, b Range) int { return int(min(1, max(-1, a.Off-b.Off))) }) {
		lo, hi := r.Off/g*g, min((r.Off+r.Len+g-1)/g*g, size)
		if n := len(t.Dirty); n > 0 && lo <= t.Dirty[n-1].Off+t.Dirty[n-1].Len {
			last := &t.Dirty[n-1]
			last.Len = max(last.Off+last.Len, hi) - last.Off
		} else if lo < hi {
			t.Dirty = append(t.Dirty, Range{lo, hi - lo})
		}
	}
	for _, r := range t.Dirty {
		t.DirtyBytes += r.Len
	}
	return t
}

// clusterBits are the bits that cluster i of the bitmap's data holds. Bits
// beyond the disk are zero.
func (t *BitmapTruth) clusterBits(i, clusterSize uint64) []byte {
	b := make([]byte, clusterSize)
	first, last := int64(i*clusterSize*8), int64((i+1)*clusterSize*8)
	for _, r := range t.Dirty {
		lo, hi := r.Off/t.Granularity, (r.Off+r.Len-1)/t.Granularity+1
		for bit := max(lo, first); bit < min(hi, last); bit++ {
			b[(bit-first)/8] |= 1 << ((bit - first) % 8)
		}
	}
	return b
}

// placeBitmaps reserves the directory and writes all tables and data.
func (b *builder) placeBitmaps() {
	if len(b.s.Bitmaps) == 0 {
		return
	}
	for i, bm := range b.s.Bitmaps {
		t := bm.truth(int64(b.s.Size))
		b.bits = append(b.bits, t)
		b.maps = append(b.maps, b.placeBitmap(i, &t))
	}
	var dir []byte
	var starts []int64
	for i := range b.maps {
		starts = append(starts, int64(len(dir)))
		dir = append(dir, b.maps[i].entry()...)
	}
	off := b.alloc(ceilDiv(uint64(len(dir)), b.cs))
	copy(b.buf[off:], dir)
	b.dir = Place{int64(off), int64(len(dir))}
	b.lay.note(b.dir.Off, b.dir.Len, "bitmap_directory")
	for i, s := range starts {
		b.noteBitmap(i, b.dir.Off+s)
	}
}

func (b *builder) placeBitmap(i int, t *BitmapTruth) bitmapPlace {
	p := bitmapPlace{bm: t.Bitmap}
	bytes := ceilDiv(ceilDiv(b.s.Size, uint64(t.Granularity)), 8)
	p.entries = ceilDiv(bytes, b.cs)
	if t.Entries != nil {
		p.entries = uint64(*t.Entries)
	}
	if p.entries == 0 {
		return p
	}
	p.table = b.alloc(ceilDiv(p.entries*8, b.cs))
	b.lay.note(int64(p.table), int64(p.entries*8), "bitmap[%d].table", i)
	for j := range p.entries {
		b.put(p.table+8*j, 8, b.bitmapData(i, t, j, bytes), "bitmap[%d].table[%d]", i, j)
	}
	return p
}

// bitmapData stores cluster j of a bitmap and returns its table entry. bytes
// is how much data the bitmap has.
func (b *builder) bitmapData(i int, t *BitmapTruth, j, bytes uint64) uint64 {
	data := t.clusterBits(j, b.cs)
	part := data[:max(0, min(int64(b.cs), int64(bytes)-int64(j*b.cs)))]
	if !t.Literal {
		switch {
		case allAre(part, 0):
			return 0
		case allAre(part, 0xff):
			return 1
		}
	}
	off := b.alloc(1)
	copy(b.buf[off:], data)
	b.lay.note(int64(off), int64(b.cs), "bitmap[%d].data[%d]", i, j)
	return off
}

func allAre(b []byte, v byte) bool {
	return !slices.ContainsFunc(b, func(x byte) bool { return x != v })
}

// entry is the bitmap directory entry with its padding.
func (p *bitmapPlace) entry() []byte {
	be := binary.BigEndian
	e := be.AppendUint64(nil, p.table)
	e = be.AppendUint32(e, uint32(p.entries))
	e = be.AppendUint32(e, p.bm.Flags)
	e = append(e, p.bm.kind(), byte(p.bm.bits()))
	e = be.AppendUint16(e, uint16(len(p.bm.Name)))
	e = be.AppendUint32(e, uint32(len(p.bm.Extra)))
	e = append(e, p.bm.Extra...)
	e = append(e, p.bm.Name...)
	return append(e, make([]byte, -len(e)&7)...)
}

func (b *builder) noteBitmap(i int, pos int64) {
	bm := b.s.Bitmaps[i]
	prefix := fmt.Sprintf("bitmap[%d]", i)
	f := func(off, n int64, name string) { b.lay.note(pos+off, n, "%s.%s", prefix, name) }
	f(0, 8, "bitmap_table_offset")
	f(8, 4, "bitmap_table_size")
	f(12, 4, "flags")
	f(16, 1, "type")
	f(17, 1, "granularity_bits")
	f(18, 2, "name_size")
	f(20, 4, "extra_data_size")
	extra, name := int64(len(bm.Extra)), int64(len(bm.Name))
	f(24, extra, "extra_data")
	f(24+extra, name, "name")
	used := 24 + extra + name
	f(used, -used&7, "padding")
	b.lay.note(pos, used+(-used&7), "%s", prefix)
}

func (b *builder) bitmapsExtension() []byte {
	be := binary.BigEndian
	e := be.AppendUint32(nil, uint32(len(b.s.Bitmaps)))
	e = be.AppendUint32(e, 0)
	e = be.AppendUint64(e, uint64(b.dir.Len))
	return be.AppendUint64(e, uint64(b.dir.Off))
}
