package reconstruct

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// A runByte is what links, none of which is a full backup, say of one byte.
type runByte struct {
	held  bool
	value byte
}

// modelRun applies increments one after the other, byte by byte, to a disk of which
// nothing is known.
func modelRun(links []Link) []runByte {
	var disk []runByte
	for n, l := range links {
		d, copied := l.Disk.(*fake), copiedIn(l)
		next := make([]runByte, d.Size())
		for i := range next {
			switch k := viewOf(l, copied, int64(i)); {
			case k == qcow2.Data || k == qcow2.Compressed:
				next[i] = runByte{true, d.content[i]}
			case k == qcow2.Zero, n > 0 && i >= len(disk): // what was cut off is zero
				next[i] = runByte{held: true}
			case n > 0:
				next[i] = disk[i]
			}
		}
		disk = next
	}
	return disk
}

// squashed copies what is selected of a disk into a link.
func squashed(t testing.TB, r *rand.Rand, src qcow2.Disk, only Selection) Link {
	t.Helper()
	most, err := only.Granularity(context.Background(), src)
	if err != nil {
		t.Fatal(err)
	}
	m := newMemTarget(t, src.Size())
	m.traits.Block = min(most, 1<<r.IntN(17))
	if _, err := Copy(context.Background(), m, src, &CopyOptions{Only: only, Workers: 1 + r.IntN(3), KeepZeros: r.IntN(2) == 0}); err != nil {
		t.Fatal(err)
	}
	if slices.Max(append(m.times, 0)) > 1 {
		t.Fatal("a byte was written twice")
	}
	return Link{Name: "squashed", Disk: newFakeOf(r, m.disk, 1, func(i int) qcow2.Kind {
		if m.times[i] == 0 {
			return qcow2.Absent
		}
		return qcow2.Data
	})}
}

// wantRun wants a link to hold what the model holds, and nothing else.
func wantRun(t *testing.T, got Link, want []runByte) {
	t.Helper()
	d := got.Disk.(*fake)
	if d.Size() != int64(len(want)) {
		t.Fatalf("%d bytes, want %d", d.Size(), len(want))
	}
	for i, w := range want {
		if held := d.kinds[i] == qcow2.Data; held != w.held || held && d.content[i] != w.value {
			t.Fatalf("byte %d: held %t, %#x; want %t, %#x", i, held, d.content[i], w.held, w.value)
		}
	}
}

// join puts links in the place of others.
func join(parts ...[]Link) []Link { return slices.Concat(parts...) }

// Whatever the links: put together they say what they said one after the other, and
// a chain with them is the same disk.
func TestSquashAgainstModel(t *testing.T) {
	runs, absent := 0, 0
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 30))
		links := randomLinks(t, r)
		if len(links) < 2 {
			continue
		}
		from := 1 + r.IntN(len(links)-1)
		to := from + 1 + r.IntN(len(links)-from)
		run, want := links[from:to], modelRun(links[from:to])
		inc, err := NewIncrement(run)
		if err != nil {
			t.Fatal(err)
		}
		one := squashed(t, r, inc, Held)
		wantRun(t, one, want)
		chain := contentOf(model(links))
		if got := readAll(t, mustPoint(t, join(links[:from], []Link{one}, links[to:])...)); !bytes.Equal(got, chain) {
			t.Fatalf("seed %d: links %d to %d of %d as one give another disk", seed, from, to, len(links))
		}
		above := mustPoint(t, links[:to]...)
		wantRun(t, squashed(t, r, above, above.From(from)), want)
		if to-from > 1 {
			squashTwice(t, r, run, want)
		}
		runs++
		if slices.Contains(want, runByte{}) {
			absent++
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if runs < 50 || absent < 20 {
		t.Errorf("%d runs, %d with something absent: the test says little", runs, absent)
	}
}

// squashTwice squashes two parts of a run, and then the results.
func squashTwice(t *testing.T, r *rand.Rand, run []Link, want []runByte) {
	t.Helper()
	cut := 1 + r.IntN(len(run)-1)
	var halves []Link
	for _, part := range [][]Link{run[:cut], run[cut:]} {
		inc, err := NewIncrement(part)
		if err != nil {
			t.Fatal(err)
		}
		halves = append(halves, squashed(t, r, inc, Held))
	}
	inc, err := NewIncrement(halves)
	if err != nil {
		t.Fatal(err)
	}
	wantRun(t, squashed(t, r, inc, Held), want)
}

// What a disk that became smaller lost does not come back from below the increment.
func TestSquashShrinkAndRegrow(t *testing.T) {
	r := rand.New(rand.NewPCG(31, 31))
	full := Link{Disk: randomFake(r, 16<<10, qcow2.Data)}
	run := []Link{{Disk: randomFake(r, 8<<10, qcow2.Absent)}, {Disk: randomFake(r, 16<<10, qcow2.Absent)}}
	inc, err := NewIncrement(run)
	if err != nil {
		t.Fatal(err)
	}
	one := squashed(t, r, inc, Held)
	got := readAll(t, mustPoint(t, full, one))
	if !bytes.Equal(got[:8<<10], full.Disk.(*fake).content[:8<<10]) || !allZero(got[8<<10:]) {
		t.Error("want the full's bytes up to 8K and then zeros")
	}
	if g, err := Selection(Held).Granularity(context.Background(), inc); g != 8<<10 || err != nil {
		t.Errorf("granularity %d, %v", g, err)
	}
}

// In squashed blocks that are shared, or copied: the same bytes, and nothing else.
func TestSquashShares(t *testing.T) {
	var shared int64
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 32))
		d, files := sharedChain(t, r)
		if g, err := d.(*Chain).From(1).Granularity(context.Background(), d); err != nil || g < 512 || len(d.(*Chain).links) < 2 {
			continue
		}
		only := d.(*Chain).From(1)
		g, _ := only.Granularity(context.Background(), d)
		m := &shareMem{memTarget: newMemTarget(t, d.Size()), file: os.Stdin, rand: r}
		m.traits.Block = min(g, 4096)
		clone := randomClone(t, r, files)
		clone.put = func(_ *os.File, p []byte, off int64) error {
			copy(m.disk[off:], p)
			return nil
		}
		res, err := runShared(m, d, clone, CopyOptions{Only: only, KeepZeros: true})
		if err != nil {
			t.Fatal(err)
		}
		shared += res.Shared
		want := bytes.Repeat([]byte{0xaa}, int(d.Size()))
		content := readAll(t, d)
		for e := range d.Extents(0, d.Size()) {
			for s := range only(e) {
				copy(want[s.Off:s.Off+s.Len], content[s.Off:])
			}
		}
		if !bytes.Equal(m.disk, want) {
			t.Fatalf("seed %d: wrong bytes", seed)
		}
	}
	if shared == 0 {
		t.Error("nothing was shared: the test says nothing")
	}
}

// Only chunks in which something is stored are compared, and read.
func TestSquashExpect(t *testing.T) {
	r := rand.New(rand.NewPCG(33, 33))
	full := Link{Name: "full", Disk: newFake(r, 4*ChunkSize, ChunkSize, func(int) qcow2.Kind { return qcow2.Data })}
	inc := Link{Name: "inc", Disk: newFake(r, 4*ChunkSize, 64<<10, func(i int) qcow2.Kind {
		if i == 2*ChunkSize/(64<<10)+1 {
			return qcow2.Data
		}
		return qcow2.Absent
	})}
	c := mustPoint(t, full, inc)
	content := readAll(t, c)
	var asked []int64
	expect := func(wrong int64) func(int64) (uint64, bool) {
		return func(chunk int64) (uint64, bool) {
			asked = append(asked, chunk)
			sum := xxhash.Sum64(content[chunk*ChunkSize:][:ChunkSize])
			if chunk == wrong {
				sum++
			}
			return sum, true
		}
	}
	m := newMemTarget(t, c.Size())
	m.traits.Block = 64 << 10
	res, err := Copy(context.Background(), m, c, &CopyOptions{Only: c.From(1), Expect: expect(-1), Workers: 1})
	if err != nil || !slices.Equal(asked, []int64{2}) || res.Read != ChunkSize || res.Written != 64<<10 {
		t.Errorf("asked %d, read %d, wrote %d, %v", asked, res.Read, res.Written, err)
	}
	if sum := c.ByLink(res.Layers); sum[0] != (Tally{}) || sum[1].Data != 64<<10 {
		t.Errorf("counted %+v", sum)
	}
	var differs *ChunkError
	if _, err := Copy(context.Background(), newMemTarget(t, c.Size()), c, &CopyOptions{Only: c.From(1), Expect: expect(2)}); !errors.As(err, &differs) {
		t.Errorf("a chunk that is not what was expected: %v", err)
	}
	if _, err := Copy(context.Background(), newMemTarget(t, c.Size()), c, &CopyOptions{Only: c.From(1), Expect: expect(1)}); err != nil {
		t.Errorf("a chunk that nobody stores: %v", err)
	}
}

// A digest is that of the whole disk, whatever is stored of it.
func TestSquashDigest(t *testing.T) {
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 34))
		d := bigDisk(r, 3*ChunkSize+512)
		dirty, err := bitmap.New(d.Size(), 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		dirty.Set(r.Int64N(d.Size()), 300<<10)
		m := newMemTarget(t, d.Size())
		res, err := Copy(context.Background(), m, d, &CopyOptions{Only: Dirty(dirty), Digests: DigestNames()})
		if err != nil {
			t.Fatal(err)
		}
		checkDigests(t, res.Digests, d.guest())
		for i, n := range m.times {
			if want := dirty.Test(int64(i)); (n == 1) != want {
				t.Fatalf("byte %d was written %d times, dirty %t", i, n, want)
			}
		}
	}
}

func TestSelectionRefused(t *testing.T) {
	d := randomFake(rand.New(rand.NewPCG(1, 35)), 4096, qcow2.Data)
	m := newMemTarget(t, 4096)
	m.traits.Sequential = true
	if _, err := Copy(context.Background(), m, d, &CopyOptions{Only: Held}); err == nil {
		t.Error("a part of a disk went to a stream")
	}
}

func TestGranularity(t *testing.T) {
	for _, test := range []struct {
		kinds string // of 512 bytes each: d, z, or - for absent
		want  int64
	}{
		{"dddddddd", 1 << 62}, {"--------", 1 << 62}, {"", 1 << 62},
		{"dddd----", 2048}, {"zzdd----", 2048}, {"-ddddddd", 512}, {"--dd--dd", 1024}, {"dddd--dd-", 1024}, {"----dddd", 2048},
	} {
		d := newFake(rand.New(rand.NewPCG(1, 36)), int64(len(test.kinds))*512, 512, func(i int) qcow2.Kind {
			return map[byte]qcow2.Kind{'d': qcow2.Data, 'z': qcow2.Zero, '-': qcow2.Absent}[test.kinds[i]]
		})
		if got, err := Selection(Held).Granularity(context.Background(), d); got != test.want || err != nil {
			t.Errorf("%q: %d, %v; want %d", test.kinds, got, err, test.want)
		}
	}
}

// An increment does not pretend to know what no link holds.
func TestIncrementReads(t *testing.T) {
	r := rand.New(rand.NewPCG(37, 37))
	d := newFake(r, 2048, 512, func(i int) qcow2.Kind { return []qcow2.Kind{qcow2.Data, qcow2.Zero, qcow2.Absent, qcow2.Data}[i] })
	inc, err := NewIncrement([]Link{{Name: "one", Disk: d}})
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1024)
	if _, err := inc.ReadAt(p, 0); err != nil || !bytes.Equal(p[:512], d.content[:512]) || !allZero(p[512:]) {
		t.Errorf("what is held: %v", err)
	}
	var bad *RangeError
	if _, err := inc.ReadAt(p, 512); !errors.As(err, &bad) || bad.Link != "one" || bad.Off != 1024 {
		t.Errorf("what is absent: %v", err)
	}
	if _, err := Copy(context.Background(), newMemTarget(t, 2048), inc, nil); !errors.As(err, &bad) {
		t.Errorf("copying all of it: %v", err)
	}
}

func TestIncrementRefused(t *testing.T) {
	r := rand.New(rand.NewPCG(38, 38))
	d := randomFake(r, 4096, qcow2.Data)
	deep := &layered{fake: randomFake(r, 4096, qcow2.Data), below: d}
	for name, links := range map[string][]Link{
		"none": nil, "no disk": {{}}, "twice": {{Disk: d}, {Disk: d}}, "with its backing file": {{Disk: deep}},
		"bitmap": {{Disk: d, Changed: mustBitmap(t, 512, 512)}},
	} {
		var chain *ChainError
		if _, err := NewIncrement(links); !errors.As(err, &chain) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIncrementWarnings(t *testing.T) {
	r := rand.New(rand.NewPCG(39, 39))
	var links []Link
	for i, size := range []int64{16 << 10, 8 << 10, 16 << 10} {
		links = append(links, Link{Name: fmt.Sprint(i), Disk: randomFake(r, size, qcow2.Absent)})
	}
	links[0].Lossy = "a raw file"
	inc, err := NewIncrement(links)
	if err != nil {
		t.Fatal(err)
	}
	var got []WarningKind
	for _, w := range inc.Warnings() {
		got = append(got, w.Kind)
	}
	if !slices.Equal(got, []WarningKind{WarnLossy, WarnShrunk, WarnRegrown}) {
		t.Errorf("warned of %v", got)
	}
}
