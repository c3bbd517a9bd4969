package bitmap

import (
	"bytes"
	"math"
	"testing"
)

// TestWireOrder states which byte and bit a granule is.
func TestWireOrder(t *testing.T) {
	b := mustNew(t, 20*512, 512)
	for _, bit := range []int64{0, 9, 10, 19} {
		b.Set(bit*512, 1)
	}
	if got, want := b.AppendWire(nil, 0, 4), []byte{0x01, 0x06, 0x08, 0x00}; !bytes.Equal(got, want) {
		t.Errorf("wire form %x, want %x", got, want)
	}
	if b.WireSize() != 3 {
		t.Errorf("wire size %d, want 3", b.WireSize())
	}
}

func TestTailBits(t *testing.T) {
	for _, c := range []struct {
		granules int64
		off      int64
		p        []byte
		tail     bool
		count    int64 // granules
	}{
		{20, 0, []byte{0xff, 0xff, 0x0f}, false, 20},
		{20, 0, []byte{0xff, 0xff, 0x1f}, true, 20},
		{20, 0, []byte{0xff, 0xff, 0x0f, 0x00}, false, 20},
		{20, 0, []byte{0xff, 0xff, 0x0f, 0x80}, true, 20},
		{20, 2, []byte{0xf0}, true, 0},
		{20, 3, []byte{0x01}, true, 0},
		{20, 3, []byte{0x00}, false, 0},
		{20, 0, []byte{0xff, 0xff}, false, 16},
		{16, 0, []byte{0xff, 0xff}, false, 16},
		{16, 0, []byte{0xff, 0xff, 0x01}, true, 16},
		{16, 2, nil, false, 0},
	} {
		b := mustNew(t, c.granules*512, 512)
		tail, err := b.LoadWire(c.off, c.p)
		sound(t, b)
		if err != nil || tail != c.tail || b.Count() != c.count*512 {
			t.Errorf("%d granules, load %x at %d: tail %v, %d bytes, %v", c.granules, c.p, c.off, tail, b.Count(), err)
		}
	}
}

// TestWireClusters sends a bitmap through the form that an image holds: clusters
// in some order, each all zero, all one, or data.
func TestWireClusters(t *testing.T) {
	const bits = 3*chunkBits + 4099
	src := mustNew(t, bits*512-100, 512)
	src.Set(4096*512, 4096*512)             // one 512-byte cluster
	src.Set(chunkBits*512-3, chunkBits*512) // more than a chunk
	src.Set((bits-1)*512, 1)
	for _, cluster := range []int64{512, 4096, 65536, 2 << 20} {
		dst := mustNew(t, src.Size(), 512)
		dst.Set(5000*512, 1<<40) // to be replaced
		kinds := map[string]int{}
		for off := (src.WireSize() - 1) / cluster * cluster; off >= 0; off -= cluster {
			kinds[sendCluster(t, dst, src, off, cluster)]++
		}
		sound(t, dst)
		if !dst.Equal(src) {
			t.Errorf("clusters of %d bytes: not the same after a round trip (%v)", cluster, kinds)
		}
		if cluster == 512 && (kinds["one"] == 0 || kinds["zero"] == 0 || kinds["data"] == 0) {
			t.Errorf("clusters of %d bytes: %v, want some of each kind", cluster, kinds)
		}
	}
}

func sendCluster(t *testing.T, dst, src *Bitmap, off, n int64) string {
	zero, one := src.WireState(off, n)
	if zero || one {
		dst.SetWireRun(off, n, one)
		return map[bool]string{true: "one", false: "zero"}[one]
	}
	if tail, err := dst.LoadWire(off, src.AppendWire(nil, off, int(n))); tail || err != nil {
		t.Errorf("load at %d: tail %v, %v", off, tail, err)
	}
	return "data"
}

// TestWireStateIsStrict: an entry that says "all one" would set bits past the
// end of the disk, which have to be zero.
func TestWireStateIsStrict(t *testing.T) {
	b := mustNew(t, 512*8*512-1, 512)
	b.SetAll()
	for _, c := range []struct {
		off, n    int64
		zero, one bool
	}{
		{0, 512, false, true},
		{0, 513, false, false},
		{-1, 2, false, false},
		{511, 1, false, true},
		{512, 1, true, false},
		{0, 0, true, true},
		{0, -1, true, true},
		{math.MinInt64, math.MaxInt64, true, false},
		{0, math.MaxInt64, false, false},
	} {
		if zero, one := b.WireState(c.off, c.n); zero != c.zero || one != c.one {
			t.Errorf("state of [%d, +%d): %v %v", c.off, c.n, zero, one)
		}
	}
	if err := b.Resize(b.Size()-512, false); err != nil {
		t.Fatal(err)
	}
	if zero, one := b.WireState(0, 512); zero || one {
		t.Errorf("state with one bit past the end: %v %v", zero, one)
	}
	b.SetWireRun(0, 512, true)
	sound(t, b)
}

func TestAppendWireOutside(t *testing.T) {
	b := mustNew(t, 512, 512)
	b.SetAll()
	for _, c := range []struct {
		off  int64
		n    int
		want string
	}{
		{-2, 4, "\x00\x00\x01\x00"},
		{math.MinInt64, 2, "\x00\x00"},
		{math.MaxInt64, 2, "\x00\x00"},
		{0, -1, ""},
		{0, 0, ""},
	} {
		if got := b.AppendWire([]byte("x"), c.off, c.n); string(got) != "x"+c.want {
			t.Errorf("%d bytes at %d: %x, want %x", c.n, c.off, got[1:], c.want)
		}
	}
}
