package reconstruct

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
)

// A runDisk is a disk of any size that is absent but for some runs, and counts
// what it is asked for. It is not for concurrent use.
type runDisk struct {
	sparseDisk
	runs          []qcow2.Extent
	calls, yields int
}

func (d *runDisk) Extents(off, n int64) seq {
	d.calls++
	return func(yield func(qcow2.Extent, error) bool) {
		i := sort.Search(len(d.runs), func(i int) bool { return d.runs[i].End() > off })
		for end := off + n; off < end; {
			e := qcow2.Extent{Off: off, Len: end - off}
			if i < len(d.runs) && d.runs[i].Off <= off {
				e = d.runs[i].Slice(off, end)
				i++
			} else if i < len(d.runs) {
				e.Len = min(end, d.runs[i].Off) - off
			}
			d.yields++
			if !yield(e, nil) {
				return
			}
			off = e.End()
		}
	}
}

// chainOf makes a chain of increments with runs of a cluster each.
func chainOf(t testing.TB, links, runs int, size int64) (*Chain, []*runDisk) {
	r := rand.New(rand.NewPCG(uint64(links), uint64(runs)))
	const cluster = 64 << 10
	var disks []*runDisk
	var all []Link
	for i := range links {
		d := &runDisk{sparseDisk: sparseDisk{size: size}}
		step := size / cluster / int64(runs)
		for k := range int64(runs) {
			at := k*step + r.Int64N(step-1)
			d.runs = append(d.runs, qcow2.Extent{Off: at * cluster, Len: cluster, Kind: qcow2.Zero})
		}
		disks = append(disks, d)
		all = append(all, Link{Name: fmt.Sprint(i), Disk: d})
	}
	return mustPoint(t, all...), disks
}

// A walk over a whole chain asks each link about as much as it holds, however
// much of it newer links have in pieces.
func TestWalkIsCheap(t *testing.T) {
	const links, runs = 50, 200
	c, disks := chainOf(t, links, runs, 64<<40)
	n := 0
	for _, err := range c.Extents(0, c.Size()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n < links*runs {
		t.Errorf("%d extents", n)
	}
	for i, d := range disks {
		if d.yields > 3*runs || d.calls > runs/10 {
			t.Errorf("link %d: asked %d times, for %d extents of %d", i, d.calls, d.yields, 2*runs)
		}
	}
	p := make([]byte, 4096)
	for _, d := range disks {
		d.yields = 0
	}
	if _, err := c.ReadAt(p, disks[links-1].runs[7].Off); err != nil {
		t.Fatal(err)
	}
	for i, d := range disks[:links-1] {
		if d.yields > 0 {
			t.Errorf("link %d is asked for what the newest holds", i)
		}
	}
}

func BenchmarkExtents(b *testing.B) {
	for _, links := range []int{2, 50, 200} {
		c, _ := chainOf(b, links, 1000, 64<<40)
		b.Run(fmt.Sprint(links, "links"), func(b *testing.B) {
			n := 0
			for b.Loop() {
				for range c.Extents(0, c.Size()) {
					n++
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/extent")
		})
	}
}

func BenchmarkReadAt(b *testing.B) {
	c, _ := chainOf(b, 200, 1000, 64<<40)
	p := make([]byte, 4096)
	off := int64(0)
	for b.Loop() {
		off = (off + 12345<<12) % (c.Size() - 4096)
		if _, err := c.ReadAt(p, off); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCopy(b *testing.B) {
	d := newFake(rand.New(rand.NewPCG(1, 1)), 256<<20, 1<<20, func(int) qcow2.Kind { return qcow2.Data })
	for _, digest := range [][]string{nil, {Tree}, {SHA256}} {
		b.Run(fmt.Sprint(digest), func(b *testing.B) {
			b.SetBytes(d.Size())
			for b.Loop() {
				if _, err := Copy(b.Context(), nil, d, &CopyOptions{Digests: digest}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
