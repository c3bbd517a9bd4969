package bitmap

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestMachine runs random operations on a bitmap and on its model.
func TestMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t)
		x := &machine{b: m.bitmap(t), m: m}
		t.Repeat(map[string]func(*rapid.T){
			"":           x.same,
			"set":        x.set,
			"unset":      x.unset,
			"all":        x.all,
			"complement": x.complement,
			"union":      x.union,
			"difference": x.difference,
			"intersect":  x.intersect,
			"self":       x.self,
			"resize":     x.resize,
			"convert":    x.convert,
			"load":       x.load,
			"wire run":   x.wireRun,
			"ask":        x.ask,
			"wire":       x.wire,
		})
	})
}

type machine struct {
	b *Bitmap
	m *model
}

func (x *machine) same(t *rapid.T) { same(t, x.b, x.m) }

func (x *machine) set(t *rapid.T) {
	off, n := drawRange(t, x.m)
	x.b.Set(off, n)
	x.m.set(cut(x.m, off, n))
}

func (x *machine) unset(t *rapid.T) {
	off, n := drawRange(t, x.m)
	x.b.Unset(off, n)
	if lo, hi := cut(x.m, off, n); lo < hi {
		x.m.unset(lo, hi)
	}
}

func (x *machine) all(t *rapid.T) {
	dirty := rapid.Bool().Draw(t, "dirty")
	if dirty {
		x.b.SetAll()
	} else {
		x.b.Clear()
	}
	for i := range x.m.dirty {
		x.m.dirty[i] = dirty
	}
}

func (x *machine) complement(*rapid.T) {
	x.b.Complement()
	for i, d := range x.m.dirty {
		x.m.dirty[i] = !d
	}
}

// other draws a bitmap of the same size, half of the time of another granularity.
func (x *machine) other(t *rapid.T) *model {
	gran := x.m.gran
	if rapid.Bool().Draw(t, "other granularity") {
		gran = x.granularity(t)
	}
	return drawModelOf(t, x.m.size, gran)
}

// granularity draws one that the model can bear.
func (x *machine) granularity(t *rapid.T) int64 {
	lo := 9
	for x.m.size>>lo > 5<<chunkShift {
		lo++
	}
	return 1 << rapid.IntRange(lo, 31).Draw(t, "granularity bits")
}

func (x *machine) union(t *rapid.T) {
	o := x.other(t)
	x.algebra(t, o, (*Bitmap).Union)
	for i, d := range o.outwards(x.m.gran).dirty {
		x.m.dirty[i] = x.m.dirty[i] || d
	}
}

func (x *machine) difference(t *rapid.T) {
	o := x.other(t)
	x.algebra(t, o, (*Bitmap).Difference)
	for i, d := range o.inwards(x.m.gran).dirty {
		x.m.dirty[i] = x.m.dirty[i] && !d
	}
}

func (x *machine) intersect(t *rapid.T) {
	o := x.other(t)
	x.algebra(t, o, (*Bitmap).Intersect)
	for i, d := range o.outwards(x.m.gran).dirty {
		x.m.dirty[i] = x.m.dirty[i] && d
	}
}

// algebra applies op, and sees that the other bitmap stays as it was even when
// the receiver changes afterwards.
func (x *machine) algebra(t *rapid.T, o *model, op func(b, o *Bitmap) error) {
	ob := o.bitmap(t)
	if err := op(x.b, ob); err != nil {
		t.Fatalf("algebra: %v", err)
	}
	after := x.b.Clone()
	x.b.Complement()
	same(t, ob, o)
	if x.b.Equal(after) && x.b.Size() > 0 {
		t.Fatalf("a clone changed with the bitmap, or Equal is wrong")
	}
	x.b.Complement()
	if !x.b.Equal(after) {
		t.Fatalf("a bitmap complemented twice is not equal to what it was")
	}
}

func (x *machine) self(t *rapid.T) {
	if x.b.Union(x.b) != nil || x.b.Intersect(x.b) != nil {
		t.Fatalf("a bitmap and itself: error")
	}
	same(t, x.b, x.m)
	if x.b.Difference(x.b) != nil {
		t.Fatalf("a bitmap and itself: error")
	}
	clear(x.m.dirty)
}

func (x *machine) resize(t *rapid.T) {
	size, dirty := drawSize(t, x.m.gran), rapid.Bool().Draw(t, "dirty")
	if err := x.b.Resize(size, dirty); err != nil {
		t.Fatalf("resize: %v", err)
	}
	x.m.resize(size, dirty)
}

func (x *machine) convert(t *rapid.T) {
	gran := x.granularity(t)
	c, err := x.b.WithGranularity(gran)
	if err != nil {
		t.Fatalf("granularity: %v", err)
	}
	cm := x.m.outwards(gran)
	same(t, c, cm)
	same(t, x.b, x.m)
	if len(cm.dirty) > 1<<chunkShift { // or the bitmap would end as one granule
		x.b, x.m = c, cm
	}
}

// drawBytes draws a piece of the wire form.
func (x *machine) drawBytes(t *rapid.T, from int64) (off, n int64) {
	size := x.b.WireSize()
	near := rapid.SampledFrom([]int64{0, chunkBytes, 2 * chunkBytes, size}).Draw(t, "near")
	off = min(max(near+rapid.Int64Range(-600, 600).Draw(t, "off"), from), size)
	return off, rapid.SampledFrom([]int64{0, 1, 7, 8, 9, 64, 512, chunkBytes, chunkBytes + 1, 2*chunkBytes + 3, 3 * chunkBytes}).Draw(t, "bytes")
}

func (x *machine) load(t *rapid.T) {
	off, n := x.drawBytes(t, 0)
	p := make([]byte, n)
	kind, seed := rapid.IntRange(0, 3).Draw(t, "kind"), rapid.Uint64().Draw(t, "seed")
	for i := range p {
		seed = seed*6364136223846793005 + 1442695040888963407
		p[i] = [...]byte{0, 0xff, byte(seed >> 56), byte(seed >> 63)}[kind]
	}
	given := bytes.Clone(p)
	tail, err := x.b.LoadWire(off, p)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	if !bytes.Equal(p, given) {
		t.Fatalf("load changed what it was given")
	}
	if want := x.m.load(off, p); tail != want {
		t.Fatalf("tail bits set: %v, want %v", tail, want)
	}
}

// load puts p at byte off and tells whether bits past the end were set.
func (m *model) load(off int64, p []byte) (tail bool) {
	for i := range len(p) * 8 {
		bit, v := off*8+int64(i), p[i/8]>>(i%8)&1 != 0
		if bit < int64(len(m.dirty)) {
			m.dirty[bit] = v
		} else {
			tail = tail || v
		}
	}
	return tail
}

func (x *machine) wireRun(t *rapid.T) {
	off, n := x.drawBytes(t, -700)
	ones := rapid.Bool().Draw(t, "ones")
	x.b.SetWireRun(off, n, ones)
	for bit := max(off*8, 0); bit < min((off+n)*8, int64(len(x.m.dirty))); bit++ {
		x.m.dirty[bit] = ones
	}
}

func (x *machine) wire(t *rapid.T) {
	off, n := x.drawBytes(t, -700)
	want := x.m.wire(off, n)
	got := x.b.AppendWire([]byte("before"), off, int(n))
	if !bytes.Equal(got, append([]byte("before"), want...)) {
		t.Fatalf("wire form [%d, +%d) is\n%x, want\n%x", off, n, got[6:], want)
	}
	allZero := !slices.ContainsFunc(want, func(v byte) bool { return v != 0 })
	allOne := !slices.ContainsFunc(want, func(v byte) bool { return v != 0xff })
	if z, o := x.b.WireState(off, n); z != allZero || o != allOne {
		t.Fatalf("wire state [%d, +%d): zero %v one %v, want %v %v", off, n, z, o, allZero, allOne)
	}
}

func (x *machine) ask(t *rapid.T) {
	off, n := drawRange(t, x.m)
	lo, hi := cut(x.m, off, n)
	want := x.m.runs(lo, hi)
	if got := slices.Collect(x.b.Runs(off, n)); !slices.Equal(got, want) {
		t.Fatalf("runs in [%d, +%d): %v, want %v", off, n, got, want)
	}
	if got := slices.Collect(x.b.RangesIn(off, n)); !slices.Equal(got, dirtyOf(want)) {
		t.Fatalf("ranges in [%d, +%d): %v, want %v", off, n, got, dirtyOf(want))
	}
	rest := x.m.runs(max(off, 0), x.m.size)
	if got, want := x.b.Test(off), off >= 0 && len(rest) > 0 && rest[0].Dirty; got != want {
		t.Fatalf("test %d: %v, want %v", off, got, want)
	}
	nextIs(t, x.b.Next, off, rest, true)
	nextIs(t, x.b.NextClean, off, rest, false)
}

func nextIs(t *rapid.T, next func(int64) (int64, bool), off int64, rest []Run, dirty bool) {
	i := slices.IndexFunc(rest, func(r Run) bool { return r.Dirty == dirty })
	pos, ok := next(off)
	if ok != (i >= 0) || ok && pos != rest[i].Off {
		t.Fatalf("next (dirty %v) of %d: %d %v, runs %v", dirty, off, pos, ok, rest)
	}
}
