package reconstruct

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
)

// randomLinks is a chain of links of random sizes, kinds and bitmaps.
func randomLinks(t *testing.T, r *rand.Rand) []Link {
	links := make([]Link, 1+r.IntN(8))
	size := 1 + r.Int64N(200<<10)
	for i := range links {
		if r.IntN(3) == 0 {
			size = r.Int64N(200 << 10)
		}
		d := randomFake(r, size, allKinds...)
		l := Link{Name: fmt.Sprint("link", i), Disk: d, Raw: r.IntN(3) == 0}
		if l.Raw {
			d.kindsWithout(qcow2.Compressed)
		}
		if r.IntN(2) == 0 {
			l.Changed = mustBitmap(t, size, 512<<r.IntN(10))
			for range r.IntN(6) {
				l.Changed.Set(r.Int64N(size+1), r.Int64N(20<<10))
			}
		}
		links[i] = l
	}
	return links
}

func (d *fake) kindsWithout(k qcow2.Kind) {
	for i := range d.kinds {
		if d.kinds[i] == k {
			d.kinds[i] = qcow2.Data
		}
	}
}

func TestPointAgainstModel(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		links := randomLinks(t, r)
		c, want := mustPoint(t, links...), model(links)
		if c.Size() != int64(len(want)) {
			t.Fatalf("seed %d: size %d, want %d", seed, c.Size(), len(want))
		}
		checkExtents(t, c, want, 0, c.Size())
		if got := readAll(t, c); !bytes.Equal(got, contentOf(want)) {
			t.Fatalf("seed %d: content differs", seed)
		}
		for range 30 {
			off := r.Int64N(c.Size() + 1)
			n := r.Int64N(c.Size() - off + 1)
			checkExtents(t, c, want, off, n)
			checkRead(t, c, want, off, n)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// checkExtents checks every promise of Extents.
func checkExtents(t *testing.T, c *Chain, want []modelByte, off, n int64) {
	t.Helper()
	next, end := off, off+n
	var last qcow2.Extent
	for _, e := range collect(t, c, off, n) {
		if e.Off != next || e.Len <= 0 || e.End() > end {
			t.Fatalf("extent %+v at %d of [%d, %d)", e, next, off, end)
		}
		if last.Len > 0 && follows(last, e) {
			t.Errorf("neighbours are not merged: %+v, %+v", last, e)
		}
		checkExtent(t, c, e, want[e.Off:e.End()])
		last, next = e, e.End()
	}
	if next != end {
		t.Fatalf("extents of [%d, %d) end at %d", off, end, next)
	}
}

func checkExtent(t *testing.T, c *Chain, e qcow2.Extent, want []modelByte) {
	t.Helper()
	var p []byte
	if e.Kind == qcow2.Data {
		p = make([]byte, e.Len)
		if err := readFull(e.Storage, p, int64(e.Host)); err != nil {
			t.Fatal(err)
		}
	}
	link, inner := c.LinkOf(e.Depth)
	for i, w := range want {
		if w.kind != e.Kind || w.link != link || inner != 0 {
			t.Fatalf("byte %d: %s of link %d+%d, want %s of link %d", e.Off+int64(i), e.Kind, link, inner, w.kind, w.link)
		}
		if p != nil && p[i] != w.value {
			t.Fatalf("byte %d: storage gives %#x, want %#x", e.Off+int64(i), p[i], w.value)
		}
	}
}

func checkRead(t *testing.T, c *Chain, want []modelByte, off, n int64) {
	t.Helper()
	p := bytes.Repeat([]byte{0xee}, int(n))
	got, err := c.ReadAt(p, off)
	if off == c.Size() {
		if got != 0 || err != io.EOF {
			t.Fatalf("reading at the end: %d, %v", got, err)
		}
		return
	}
	if err != nil || !bytes.Equal(p, contentOf(want[off:off+n])) {
		t.Fatalf("reading [%d, +%d): %v, or wrong bytes", off, n, err)
	}
}

func TestReadAtEdges(t *testing.T) {
	c := mustPoint(t, Link{Disk: randomFake(rand.New(rand.NewPCG(1, 1)), 1000, qcow2.Data)})
	p := make([]byte, 100)
	if n, err := c.ReadAt(p, 950); n != 50 || err != io.EOF {
		t.Errorf("over the end: %d, %v", n, err)
	}
	if n, err := c.ReadAt(p, 1000); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if n, err := c.ReadAt(p, -1); n != 0 || err == nil {
		t.Errorf("before the beginning: %d, %v", n, err)
	}
	for _, bad := range [][2]int64{{-1, 1}, {0, -1}, {0, 1001}, {1001, 0}, {1, 1 << 62}} {
		for _, err := range c.Extents(bad[0], bad[1]) {
			if err == nil {
				t.Errorf("Extents(%d, %d) is no error", bad[0], bad[1])
			}
		}
	}
}

// What FIELD calls shrink and regrow, by hand: beyond the smallest size in
// between, the old bytes are gone.
func TestShrinkAndRegrow(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	full := randomFake(r, 16<<10, qcow2.Data)
	absent := func(size int64) *fake { return randomFake(r, size, qcow2.Absent) }
	for _, sizes := range [][]int64{{8, 16}, {8, 16, 4, 16}, {4, 8, 16}, {12, 8, 24}, {32, 8, 32}} {
		links, low := []Link{{Disk: full}}, int64(16)
		for _, s := range sizes {
			links, low = append(links, Link{Disk: absent(s << 10)}), min(low, s)
		}
		got := readAll(t, mustPoint(t, links...))
		if !bytes.Equal(got[:low<<10], full.content[:low<<10]) || !allZero(got[low<<10:]) {
			t.Errorf("sizes 16 %d: want the full's bytes up to %dK and then zeros", sizes, low)
		}
	}
}

func TestConcurrentReads(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	links := randomLinks(t, r)
	links[len(links)-1].Disk = randomFake(r, 100<<10, allKinds...)
	links[len(links)-1].Changed = nil
	for i := range links {
		links[i].Disk = silent{links[i].Disk.(*fake)}
	}
	c := mustPoint(t, links...)
	want := readAll(t, c)
	var wg sync.WaitGroup
	for seed := range uint64(8) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, 4))
			for range 200 {
				off := r.Int64N(c.Size())
				p := make([]byte, r.Int64N(c.Size()-off)+1)
				if _, err := c.ReadAt(p, off); err != nil || !bytes.Equal(p, want[off:][:len(p)]) {
					t.Errorf("reading [%d, +%d): %v, or wrong bytes", off, len(p), err)
				}
			}
		})
	}
	wg.Wait()
}

// silent is a fake that does not count its calls.
type silent struct{ *fake }

func (s silent) Extents(off, n int64) seq { c := *s.fake; return c.Extents(off, n) }

type layered struct {
	*fake
	below qcow2.Disk
	ref   *qcow2.Ref
}

func (l *layered) BackingDisk() qcow2.Disk { return l.below }
func (l *layered) Unopened() *qcow2.Ref    { return l.ref }

func TestDepth(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	base := &layered{fake: randomFake(r, 4096, qcow2.Data)}
	full := &layered{fake: newFake(r, 4096, 512, func(i int) qcow2.Kind { return []qcow2.Kind{qcow2.Data, qcow2.Absent}[i%2] }), below: base}
	for i := range full.depths {
		full.depths[i] = i % 3 // 2 is one more than there are
	}
	inc := newFake(r, 4096, 512, func(i int) qcow2.Kind { return []qcow2.Kind{qcow2.Absent, qcow2.Data}[i/4] })
	c := mustPoint(t, Link{Name: "full", Disk: full}, Link{Name: "inc", Disk: inc})
	if c.Layers() != 3 {
		t.Errorf("%d layers, want 3", c.Layers())
	}
	var depths []int
	for _, e := range collect(t, c, 0, 4096) {
		depths = append(depths, e.Depth)
	}
	if fmt.Sprint(depths) != "[1 2 2 1 0]" {
		t.Errorf("depths %v", depths)
	}
	sums := c.ByLink([]Tally{{Data: 1}, {Data: 10, Zero: 5}, {Data: 100}})
	if sums[0] != (Tally{Data: 110, Zero: 5}) || sums[1] != (Tally{Data: 1}) {
		t.Errorf("by link: %+v", sums)
	}
	outer := mustPoint(t, Link{Disk: c}, Link{Disk: randomFake(r, 4096, qcow2.Absent)})
	if outer.Layers() != 4 {
		t.Errorf("a chain on a chain has %d layers, want 4", outer.Layers())
	}
}

func TestChainErrors(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	d := func() *fake { return randomFake(r, 4096, qcow2.Data) }
	one := d()
	open := func() *layered { return &layered{fake: d()} }
	wants := &layered{fake: d(), ref: &qcow2.Ref{Name: "live.qcow2\x1b"}}
	for name, c := range map[string]struct {
		links []Link
		index int
		say   string
	}{
		"empty":         {nil, -1, "there is no link"},
		"no disk":       {[]Link{{Disk: d()}, {Name: "b"}}, 1, "has no disk"},
		"twice":         {[]Link{{Name: "a", Disk: one}, {Disk: d()}, {Name: "b", Disk: one}}, 2, `found: "a" before`},
		"bitmap":        {[]Link{{Disk: d()}, {Disk: d(), Changed: mustBitmap(t, 4097, 512)}}, 1, "missing: a bitmap of 4096 bytes; found: one of 4097"},
		"oldest bitmap": {[]Link{{Disk: d(), Changed: mustBitmap(t, 1, 512)}}, 0, "another size"},
		"unopened":      {[]Link{{Name: "inc1", Disk: wants}, {Disk: d()}}, 0, `the oldest link names a backing file "live.qcow2\x1b": it holds only what changed, not a full disk`},
		"unopened deep": {[]Link{{Disk: &layered{fake: d(), below: wants}}}, 0, "names a backing file"},
		"backing":       {[]Link{{Disk: d()}, {Disk: &layered{fake: d(), below: open()}}}, 1, "opened together with its backing file"},
	} {
		_, err := Point(c.links)
		var ce *ChainError
		if !errors.As(err, &ce) || ce.Index != c.index || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Point([]Link{{Disk: d()}, {Disk: &layered{fake: d(), ref: &qcow2.Ref{Name: "live"}}}}); err != nil {
		t.Errorf("an increment that names the live disk is refused: %v", err)
	}
	uncomparable := struct {
		*fake
		_ []int
	}{fake: d()}
	if _, err := Point([]Link{{Disk: uncomparable}, {Disk: uncomparable}}); err != nil {
		t.Errorf("disks that cannot be compared: %v", err)
	}
}

// An oldest link that refuses is never taken for zeros, also where Unopened does
// not tell.
func TestAbsentIsAsked(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	full := newFake(r, 8192, 4096, func(i int) qcow2.Kind { return []qcow2.Kind{qcow2.Data, qcow2.Absent}[i] })
	full.absent = &qcow2.RefError{Ref: qcow2.Ref{Name: "base"}}
	c := mustPoint(t, Link{Name: "full", Disk: full}, Link{Disk: randomFake(r, 8192, qcow2.Absent)})
	p := make([]byte, 8192)
	n, err := c.ReadAt(p, 0)
	var ref *qcow2.RefError
	var where *RangeError
	if n != 4096 || !errors.As(err, &ref) || !errors.As(err, &where) || where.Link != "full" || where.Off != 4096 {
		t.Errorf("ReadAt: %d, %v", n, err)
	}
	if err := c.checkAbsent(qcow2.Extent{Off: 4096, Len: 4096, Depth: 1}); !errors.As(err, &ref) {
		t.Errorf("checkAbsent: %v", err)
	}
}

func TestShortStorage(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	d := newFake(r, 8192, 512, func(int) qcow2.Kind { return qcow2.Data })
	d.storage = io.NewSectionReader(d.storage, 0, d.shift+5000)
	c := mustPoint(t, Link{Name: "cut", Disk: d})
	_, err := c.ReadAt(make([]byte, 8192), 0)
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), `guest bytes 0 to 8192 of link "cut" at host offset`) {
		t.Errorf("reading a storage that was cut: %v", err)
	}
}

// badDisk yields extents that no disk may yield.
type badDisk struct {
	*fake
	extents []qcow2.Extent
}

func (d badDisk) Extents(int64, int64) seq {
	return func(yield func(qcow2.Extent, error) bool) {
		for _, e := range d.extents {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func TestBadDisk(t *testing.T) {
	f := randomFake(rand.New(rand.NewPCG(8, 8)), 8192, qcow2.Data)
	for name, extents := range map[string][]qcow2.Extent{
		"none":     nil,
		"short":    {{Len: 4096, Kind: qcow2.Zero}},
		"gap":      {{Len: 4096, Kind: qcow2.Zero}, {Off: 5000, Len: 3192, Kind: qcow2.Zero}},
		"empty":    {{}},
		"negative": {{Len: -1}},
		"long":     {{Len: 8193}},
		"depth":    {{Len: 8192, Depth: -1}},
	} {
		c := mustPoint(t, Link{Name: "bad", Disk: badDisk{f, extents}})
		_, err := c.ReadAt(make([]byte, 8192), 0)
		if err == nil || !strings.Contains(err.Error(), `of link "bad": the disk breaks its contract`) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Copy(t.Context(), nil, badDisk{f, extents}, nil); err == nil {
			t.Errorf("%s: Copy accepts it", name)
		}
	}
}

func TestWalkStopsEarly(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	c := mustPoint(t, randomLinks(t, r)...)
	for range 3 { // the walker goes back to its pool and is used again
		for range c.Extents(0, c.Size()) {
			break
		}
	}
}
