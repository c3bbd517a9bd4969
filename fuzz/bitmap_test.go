package fuzz

import (
	"bytes"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
)

// FuzzBitmapWire loads bytes as the wire form of a bitmap, piece by piece from
// the last to the first. Properties: the bitmap says of each granule what a
// plain look at the bits says; tail bits are reported and dropped; decode,
// append, decode is the same, also through the runs that stand for a piece.
func FuzzBitmapWire(f *testing.F) {
	f.Add(uint32(20), uint8(0), uint16(1), []byte{0xff, 0x01, 0xf3})
	f.Add(uint32(8*4096), uint8(7), uint16(512), bytes.Repeat([]byte{0xff}, 4096))
	f.Add(uint32(8*4096+1), uint8(22), uint16(4096), bytes.Repeat([]byte{0, 0xff}, 2049))
	f.Add(uint32(0), uint8(3), uint16(9), []byte{1})
	f.Add(uint32(70001), uint8(1), uint16(1000), append(bytes.Repeat([]byte{0xff}, 5000), make([]byte, 4000)...))
	f.Fuzz(func(t *testing.T, granules uint32, shift uint8, piece uint16, p []byte) {
		granules, shift = granules%(1<<18), shift%23
		gran := int64(512) << shift
		size := max(int64(granules)*gran-int64(piece)%gran, 0) // the disk may end inside of its last granule
		granules = uint32((size + gran - 1) / gran)
		b := newBitmap(t, size, gran)
		if len(p) > int(b.WireSize())+64 {
			p = p[:b.WireSize()+64]
		}
		tail := loadPieces(t, b, p, int(piece)+1)
		if want := tailSet(p, int(granules)); tail != want {
			t.Fatalf("tail bits set: %v, want %v", tail, want)
		}
		bitmapIs(t, b, p, int(granules))
		wireRoundTrip(t, b, p, int64(piece)+1)
	})
}

func newBitmap(t *testing.T, size, granularity int64) *bitmap.Bitmap {
	b, err := bitmap.New(size, granularity)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func loadPieces(t *testing.T, b *bitmap.Bitmap, p []byte, piece int) (tail bool) {
	for off := len(p) / piece * piece; off >= 0; off -= piece {
		if int64(off) > b.WireSize() {
			if _, err := b.LoadWire(int64(off), nil); err == nil {
				t.Fatalf("load at %d of %d: no error", off, b.WireSize())
			}
			tail = tail || !all(p[off:min(off+piece, len(p))], 0)
			continue
		}
		set, err := b.LoadWire(int64(off), p[off:min(off+piece, len(p))])
		if err != nil {
			t.Fatal(err)
		}
		tail = tail || set
	}
	return tail
}

// all tells whether every byte of p is v.
func all(p []byte, v byte) bool { return bytes.Count(p, []byte{v}) == len(p) }

func bit(p []byte, i int) bool { return i/8 < len(p) && p[i/8]>>(i%8)&1 != 0 }

func tailSet(p []byte, granules int) bool {
	for i := granules; i < len(p)*8; i++ {
		if bit(p, i) {
			return true
		}
	}
	return false
}

// bitmapIs compares the dirty ranges with the bits of p.
func bitmapIs(t *testing.T, b *bitmap.Bitmap, p []byte, granules int) {
	gran, next, count := b.Granularity(), 0, int64(0)
	for r := range b.Ranges() {
		first, end := int(r.Off/gran), int((r.Off+r.Len+gran-1)/gran)
		for ; next < end; next++ {
			if bit(p, next) != (next >= first) {
				t.Fatalf("granule %d: wire bit %v, range %v", next, bit(p, next), r)
			}
		}
		count += r.Len
	}
	for ; next < granules; next++ {
		if bit(p, next) {
			t.Fatalf("granule %d is set in the wire form and in no range", next)
		}
	}
	if b.Count() != count {
		t.Fatalf("count %d, ranges hold %d bytes", b.Count(), count)
	}
}

func wireRoundTrip(t *testing.T, b *bitmap.Bitmap, p []byte, piece int64) {
	c := newBitmap(t, b.Size(), b.Granularity())
	c.SetAll()
	for off := int64(0); off < b.WireSize(); off += piece {
		got := b.AppendWire(nil, off, int(piece))
		zero, one := b.WireState(off, piece)
		if zero != all(got, 0) || one != all(got, 0xff) {
			t.Fatalf("state of %d bytes at %d: zero %v one %v, wire form %x", piece, off, zero, one, got)
		}
		if zero || one {
			c.SetWireRun(off, piece, one)
		} else if tail, err := c.LoadWire(off, got); tail || err != nil {
			t.Fatalf("load at %d: tail %v, %v", off, tail, err)
		}
	}
	if !c.Equal(b) {
		t.Fatalf("not the same after append and decode")
	}
}
