package reconstruct

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// A fake is a disk in memory, stored in blocks of random kinds.
type fake struct {
	content []byte // what the guest sees of data and compressed blocks
	block   int64
	kinds   []qcow2.Kind
	depths  []int
	shift   int64 // where its bytes stand in storage
	gap     int64 // of this many bytes after every fourth block
	storage io.ReaderAt
	absent  error // reading absent blocks gives it
}

func (d *fake) Size() int64 { return int64(len(d.content)) }

func (d *fake) ReadAt(p []byte, off int64) (int, error) {
	return diskReadAt(p, off, d.Size(), func(p []byte, off int64) (int, error) {
		for i := range p {
			switch b := (off + int64(i)) / d.block; d.kinds[b] {
			case qcow2.Data, qcow2.Compressed:
				p[i] = d.content[off+int64(i)]
			case qcow2.Absent:
				if d.absent != nil {
					return 0, d.absent
				}
				p[i] = 0
			default:
				p[i] = 0
			}
		}
		return len(p), nil
	})
}

func (d *fake) Extents(off, n int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		if off < 0 || n < 0 || off+n > d.Size() {
			yield(qcow2.Extent{}, fmt.Errorf("fake: [%d, +%d) of %d", off, n, d.Size()))
			return
		}
		m := merger{emit: func(e qcow2.Extent) bool { return yield(e, nil) }}
		for end := off + n; off < end; {
			b := off / d.block
			e := qcow2.Extent{Off: off, Len: min(end, (b+1)*d.block) - off, Kind: d.kinds[b], Depth: d.depths[b]}
			if e.Kind == qcow2.Data {
				e.Storage, e.Host, e.HasHost = d.storage, qcow2.HostOffset(d.host(off)), true
			}
			if !m.add(e) {
				return
			}
			off += e.Len
		}
		m.flush()
	}
}

// newFake makes a disk of random bytes whose blocks are of kinds that pick gives.
func newFake(r *rand.Rand, size, block int64, pick func(i int) qcow2.Kind) *fake {
	content, word := make([]byte, size), uint64(0)
	for i := range content {
		if i%8 == 0 {
			word = r.Uint64()
		}
		content[i] = byte(word>>(i%8*8)) | 1
	}
	return newFakeOf(r, content, block, pick)
}

func newFakeOf(r *rand.Rand, content []byte, block int64, pick func(i int) qcow2.Kind) *fake {
	n := (int64(len(content)) + block - 1) / block
	d := &fake{content: content, block: block, kinds: make([]qcow2.Kind, n), depths: make([]int, n), shift: r.Int64N(1 << 20)}
	for i := range d.kinds {
		d.kinds[i] = pick(i)
	}
	d.store(0)
	return d
}

// host is where a byte stands in storage.
func (d *fake) host(off int64) int64 { return d.shift + off + off/(4*d.block)*d.gap }

// store makes the storage anew, with gaps.
func (d *fake) store(gap int64) {
	d.gap = gap
	b := make([]byte, d.host(d.Size()))
	for off := int64(0); off < d.Size(); off += d.block {
		copy(b[d.host(off):], d.content[off:min(off+d.block, d.Size())])
	}
	d.storage = bytes.NewReader(b)
}

// randomFake is a disk with runs of the given kinds.
func randomFake(r *rand.Rand, size int64, kinds ...qcow2.Kind) *fake {
	var k qcow2.Kind
	left := 0
	d := newFake(r, size, 512<<r.IntN(4), func(int) qcow2.Kind {
		if left == 0 {
			k, left = kinds[r.IntN(len(kinds))], 1+r.IntN(8)
		}
		left--
		return k
	})
	d.store(512 * r.Int64N(2))
	return d
}

var allKinds = []qcow2.Kind{qcow2.Absent, qcow2.Absent, qcow2.Absent, qcow2.Zero, qcow2.Data, qcow2.Compressed}

// guest is the content of a fake, by the slowest way.
func (d *fake) guest() []byte {
	p := make([]byte, d.Size())
	for i := range p {
		if k := d.kinds[int64(i)/d.block]; k == qcow2.Data || k == qcow2.Compressed {
			p[i] = d.content[i]
		}
	}
	return p
}

// A modelByte is what a chain says of one byte.
type modelByte struct {
	kind  qcow2.Kind
	link  int
	value byte
}

// copiedIn tells of each 64 KiB of a link whether anything in it changed.
func copiedIn(l Link) []bool {
	var units []bool
	for i := int64(0); i < l.Disk.Size(); i += 512 {
		if i%copyUnit == 0 {
			units = append(units, false)
		}
		last := len(units) - 1
		units[last] = units[last] || l.Changed != nil && l.Changed.Test(i)
	}
	return units
}

// viewOf is what a link above the oldest says of a byte, taken literally from
// the rules of Link.
func viewOf(l Link, copied []bool, i int64) qcow2.Kind {
	d := l.Disk.(*fake)
	k := d.kinds[i/d.block]
	switch {
	case l.Changed == nil:
	case k == qcow2.Absent && l.Changed.Test(i):
		return qcow2.Zero
	case k == qcow2.Zero && l.Raw && !l.Changed.Test(i):
		return qcow2.Absent
	case l.Raw && !copied[i/copyUnit]:
		return qcow2.Absent
	}
	return k
}

// model applies one backup after the other, forwards, byte by byte.
func model(links []Link) []modelByte {
	var disk []modelByte
	for n, l := range links {
		d, copied := l.Disk.(*fake), copiedIn(l)
		next := make([]modelByte, d.Size())
		for i := range next {
			b := modelByte{kind: d.kinds[int64(i)/d.block], link: n}
			if n > 0 {
				b.kind = viewOf(l, copied, int64(i))
			}
			switch {
			case b.kind == qcow2.Data || b.kind == qcow2.Compressed:
				b.value = d.content[i]
			case b.kind == qcow2.Zero || n == 0:
			case i < len(disk):
				b = disk[i]
			default:
				b = modelByte{kind: qcow2.Zero, link: n - 1}
			}
			next[i] = b
		}
		disk = next
	}
	return disk
}

func contentOf(m []modelByte) []byte {
	p := make([]byte, len(m))
	for i, b := range m {
		p[i] = b.value
	}
	return p
}

func mustPoint(t testing.TB, links ...Link) *Chain {
	t.Helper()
	d, err := Point(links)
	if err != nil {
		t.Fatal(err)
	}
	return d.(*Chain)
}

func mustBitmap(t testing.TB, size, granularity int64) *bitmap.Bitmap {
	t.Helper()
	b, err := bitmap.New(size, granularity)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func collect(t testing.TB, d qcow2.Disk, off, n int64) []qcow2.Extent {
	t.Helper()
	var all []qcow2.Extent
	for e, err := range d.Extents(off, n) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func readAll(t testing.TB, d qcow2.Disk) []byte {
	t.Helper()
	p := make([]byte, d.Size())
	if n, err := d.ReadAt(p, 0); n != len(p) || (err != nil && err != io.EOF) {
		t.Fatalf("ReadAt: %d of %d bytes, %v", n, len(p), err)
	}
	return p
}

type seq = iter.Seq2[qcow2.Extent, error]
