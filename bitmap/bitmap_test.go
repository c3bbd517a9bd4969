package bitmap

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func mustNew(t testing.TB, size, gran int64) *Bitmap {
	t.Helper()
	b, err := New(size, gran)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestNewLimits(t *testing.T) {
	for _, c := range []struct {
		size, gran int64
		want       string
	}{
		{0, 512, ""},
		{1, 2 << 30, ""},
		{MaxSize, 512, ""},
		{MaxSize, 65536, ""},
		{MaxSize + 1, 65536, "disk size must be 0 to 4611686018427387904 bytes, is 4611686018427387905"},
		{-1, 65536, "disk size must be 0 to 4611686018427387904 bytes, is -1"},
		{1, 256, "granularity must be a power of two between 512 and 2147483648 bytes, is 256"},
		{1, 4 << 30, "is 4294967296"},
		{1, 0, "is 0"},
		{1, -512, "is -512"},
		{1, 513, "is 513"},
		{1, math.MinInt64, "is -9223372036854775808"},
	} {
		b, err := New(c.size, c.gran)
		wantError(t, err, c.want)
		if c.want == "" && (b.Size() != c.size || b.Granularity() != c.gran || b.Count() != 0) {
			t.Errorf("new(%d, %d): %d %d %d", c.size, c.gran, b.Size(), b.Granularity(), b.Count())
		}
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestErrorsChangeNothing(t *testing.T) {
	b, o := mustNew(t, 1<<20, 4096), mustNew(t, 1<<20+1, 4096)
	b.Set(8192, 1)
	o.SetAll()
	want := b.Clone()
	wantError(t, b.Union(o), "union of bitmaps of disks of different sizes: 1048576 and 1048577 bytes")
	wantError(t, b.Intersect(o), "intersection of bitmaps of disks of different sizes: 1048576 and 1048577 bytes")
	wantError(t, b.Difference(o), "difference of bitmaps of disks of different sizes: 1048576 and 1048577 bytes")
	wantError(t, b.Resize(-1, true), "disk size must be")
	wantError(t, b.Resize(MaxSize+1, true), "disk size must be")
	_, err := b.WithGranularity(1000)
	wantError(t, err, "granularity must be")
	for _, off := range []int64{-1, math.MinInt64, 33, math.MaxInt64} {
		_, err = b.LoadWire(off, []byte{0xff})
		wantError(t, err, "of a wire form of 32 bytes")
	}
	if !b.Equal(want) {
		t.Error("a call that failed changed the bitmap")
	}
}

// TestRounding says the law of the package with numbers.
func TestRounding(t *testing.T) {
	b := mustNew(t, 10000, 4096) // granules [0, 4096) [4096, 8192) [8192, 10000)
	for _, c := range []struct {
		what string
		do   func()
		want []Range
	}{
		{"a touched granule is dirty", func() { b.Set(4095, 2) }, []Range{{0, 8192}}},
		{"a part does not make it clean", func() { b.Unset(1, 8191) }, []Range{{0, 4096}}},
		{"nor does all but the last byte", func() { b.Unset(0, 4095) }, []Range{{0, 4096}}},
		{"the whole does", func() { b.Unset(0, 4096) }, nil},
		{"the last granule counts as far as the disk goes", func() { b.Set(9999, 1) }, []Range{{8192, 1808}}},
		{"and is left when the range ends before", func() { b.Unset(8192, 1807) }, []Range{{8192, 1808}}},
		{"and is clean when the range ends there", func() { b.Unset(8192, 1808) }, nil},
		{"a range may go past the end", func() { b.Set(9000, math.MaxInt64) }, []Range{{8192, 1808}}},
		{"in both", func() { b.Unset(8192, math.MaxInt64) }, nil},
		{"a range may start before the disk", func() { b.Set(-5, 6) }, []Range{{0, 4096}}},
		{"in both", func() { b.Unset(math.MinInt64, math.MaxInt64) }, []Range{{0, 4096}}},
		{"in both", func() { b.Unset(-1, 4097) }, nil},
		{"one that ends before it is empty", func() { b.Set(-5, 5) }, nil},
		{"so is a negative length", func() { b.Set(5000, -4000); b.Set(0, math.MinInt64) }, nil},
		{"and one behind the end", func() { b.Set(10000, 1); b.Set(math.MaxInt64, math.MaxInt64) }, nil},
	} {
		c.do()
		if got := slices.Collect(b.Ranges()); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

// TestAlgebraRounding shows which way each operation rounds the other bitmap.
func TestAlgebraRounding(t *testing.T) {
	fine, coarse := mustNew(t, 10000, 512), mustNew(t, 10000, 4096)
	coarse.SetAll()
	fine.Set(512, 512)      // a part of the first granule
	fine.Set(8192, 1808)    // all of the last, which the disk cuts
	outer := coarse.Clone() // the same, rounded each way
	check := func(what string, err error, b *Bitmap, want ...Range) {
		t.Helper()
		if got := slices.Collect(b.Ranges()); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v %v, want %v", what, got, err, want)
		}
	}
	check("difference", outer.Difference(fine), outer, Range{0, 8192})
	outer.SetAll()
	check("intersection", outer.Intersect(fine), outer, Range{0, 4096}, Range{8192, 1808})
	outer.Clear()
	check("union", outer.Union(fine), outer, Range{0, 4096}, Range{8192, 1808})
	outer.Unset(0, 4096)
	check("difference of a coarser one", fine.Difference(outer), fine, Range{512, 512})
}

func TestResizeForgets(t *testing.T) {
	const gran = 4096
	for _, keep := range []int64{0, 1, gran, 3*gran + 17, chunkBits * gran, chunkBits*gran + 1} {
		b := mustNew(t, 3*chunkBits*gran-5, gran)
		b.SetAll()
		want := min((keep+gran-1)/gran*gran, b.Size()) // a granule that is cut stays dirty as a whole
		if err := b.Resize(keep, true); err != nil {
			t.Fatal(err)
		}
		if err := b.Resize(3*chunkBits*gran, false); err != nil {
			t.Fatal(err)
		}
		sound(t, b)
		if got := b.Count(); got != want {
			t.Errorf("all dirty, cut to %d and grown again: %d bytes dirty, want %d", keep, got, want)
		}
	}
}

func TestIterationStops(t *testing.T) {
	b := mustNew(t, 1<<20, 512)
	for off := int64(0); off < b.Size(); off += 1024 {
		b.Set(off, 1)
	}
	n := 0
	for range b.Ranges() {
		if n++; n == 3 {
			break
		}
	}
	for range b.Runs(0, b.Size()) {
		if n++; n == 6 {
			break
		}
	}
	if n != 6 {
		t.Errorf("%d steps, want 6", n)
	}
}

// TestEmptyDisk: no question to a disk of no bytes may be out of its range.
func TestEmptyDisk(t *testing.T) {
	b := mustNew(t, 0, 512)
	m := newModel(0, 512)
	b.Set(0, 1)
	b.Unset(0, 1)
	b.SetAll()
	b.Complement()
	b.SetWireRun(0, 1, true)
	same(t, b, m)
	c, err := b.WithGranularity(1 << 20)
	if err != nil || !c.Clone().Equal(c) || b.Equal(c) {
		t.Errorf("conversion: %v", err)
	}
	if err := b.Difference(c); err != nil {
		t.Error(err)
	}
	if _, ok := b.Next(0); ok || b.Test(0) || b.WireSize() != 0 {
		t.Error("an empty disk has a dirty byte")
	}
	if tail, err := b.LoadWire(0, []byte{0, 1}); !tail || err != nil {
		t.Errorf("load: tail %v, %v", tail, err)
	}
	if p := b.AppendWire(nil, 0, 3); string(p) != "\x00\x00\x00" {
		t.Errorf("wire form %x", p)
	}
	if err := b.Resize(513, true); err != nil || b.Count() != 513 {
		t.Errorf("resize: %v, count %d", err, b.Count())
	}
}

// TestLargestDisk does on 2^53 granules what needs no more than a few of them.
func TestLargestDisk(t *testing.T) {
	b := mustNew(t, MaxSize-1, 512)
	b.Set(MaxSize-2, 1)
	b.Set(1<<61, 1)
	want := []Range{{1 << 61, 512}, {MaxSize - 512, 511}}
	if got := slices.Collect(b.Ranges()); !slices.Equal(got, want) || b.Count() != 1023 {
		t.Errorf("ranges %v, count %d", got, b.Count())
	}
	b.Complement()
	if got := b.Count(); got != MaxSize-1-1023 {
		t.Errorf("count of the complement %d", got)
	}
	c, err := b.WithGranularity(MaxGranularity)
	if err != nil || c.Count() != MaxSize-1 {
		t.Errorf("coarse: %v, count %d", err, c.Count())
	}
	if err := c.Difference(b); err != nil || c.Count() != 2*MaxGranularity-1 {
		t.Errorf("difference: %v, count %d", err, c.Count())
	}
	if at, ok := b.NextClean(1<<61 + 512); !ok || at != MaxSize-512 {
		t.Errorf("next clean %d %v", at, ok)
	}
	if b.AppendWire(nil, b.WireSize()-1, 1)[0] != 0x7f {
		t.Error("last byte of the wire form")
	}
}

func TestEqualSeesEachDifference(t *testing.T) {
	base := mustNew(t, 3*chunkBits*512, 512)
	base.Set(chunkBits*512+512, 512)
	variants := map[string]*Bitmap{"size": mustNew(t, 3*chunkBits*512-1, 512), "granularity": mustNew(t, 3*chunkBits*512, 1024)}
	variants["size"].Set(chunkBits*512+512, 512)
	variants["granularity"].Set(chunkBits*512+512, 512)
	for what, off := range map[string]int64{"same chunk": chunkBits*512 + 1024, "other chunk": 512} {
		variants[what] = mustNew(t, base.Size(), 512)
		variants[what].Set(off, 512)
	}
	for what, v := range variants {
		if base.Equal(v) || v.Equal(base) {
			t.Errorf("equal to one of another %s", what)
		}
	}
	if !base.Equal(base.Clone()) {
		t.Error("not equal to its clone")
	}
}
