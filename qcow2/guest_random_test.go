package qcow2_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// A guestWalk does random sessions beside a model of the guest.
type guestWalk struct {
	*rand.Rand
	t     *testing.T
	c     *guestTrial
	f     *crash.File
	guest []byte
	past  [][]byte // the guest at each mark of f
}

// session is an Editor's life.
func (w *guestWalk) session() {
	e, opts, err := w.c.edit(w.f)
	if err != nil {
		w.t.Fatal(err)
	}
	opts.NeverInPlace = w.IntN(3) == 0
	var ops []guestOp
	for range w.IntN(12) {
		ops = append(ops, w.op())
	}
	if w.IntN(3) == 0 {
		opts.Changes = newBits(int64(len(w.guest)), 4096)
		for _, o := range ops[:len(ops)/2] {
			opts.Changes.Set(o.off, o.n)
		}
	}
	g, err := e.Guest(&opts)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, o := range ops {
		if err := o.do(g); err != nil {
			w.t.Fatalf("%v: %v", o, err)
		}
		w.guest = w.c.apply(w.guest, []guestOp{o})
		if w.IntN(4) == 0 {
			if err := g.Flush(); err != nil {
				w.t.Fatal(err)
			}
			w.mark()
		}
	}
	if err := g.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.mark()
	if got, err := readAll(e.Image()); w.c.data == nil && (err != nil || !bytes.Equal(got, w.guest)) {
		w.t.Fatalf("the Editor's image reads otherwise, %v", err)
	}
}

func (w *guestWalk) mark() {
	w.f.Mark()
	w.past = append(w.past, slices.Clone(w.guest))
}

func (w *guestWalk) op() guestOp {
	off := w.Int64N(int64(len(w.guest)))
	n := w.Int64N(min(int64(len(w.guest))-off, 1+w.Int64N(6*w.c.cluster)) + 1)
	switch w.IntN(5) {
	case 0:
		return guestOp{kind: 'z', off: off, n: n}
	case 1:
		return guestOp{kind: 'd', off: off, n: n}
	}
	return write(w.Rand, off, n)
}

// check judges the file as it is, and as crashes can leave it.
func (w *guestWalk) check(start *build.Audit) {
	n := len(w.c.padded())
	a, err := auditBytes(w.f.Bytes()[n:])
	if err != nil || len(a.Problems) > 0 || a.Leaks > start.Leaks {
		w.t.Fatalf("%v, %d leaks, %q", err, a.Leaks, a.Problems)
	}
	used := 0
	for _, cl := range a.Clusters {
		used += int(min(cl.Refs, 1))
	}
	if limit := 3*used + 3*int(w.c.size/w.c.cluster) + 64; len(a.Clusters) > limit {
		w.t.Fatalf("the file has %d clusters, %d are used", len(a.Clusters), used)
	}
	w.f.States(&crash.Options{Max: 60, Random: 1}, func(s *crash.State) bool {
		if err := w.state(s, n); err != nil {
			w.t.Errorf("%v: %v", s, err)
		}
		return !w.t.Failed()
	})
}

// state wants each sector as it was at the last mark, or as it was at a moment before
// the next one: as the walk has no more marks than flushes, as at the next one.
func (w *guestWalk) state(s *crash.State, n int) error {
	b := s.Bytes()
	a, err := auditBytes(b[n:])
	if err != nil || len(a.Problems) > 0 {
		return fmt.Errorf("%w, %q", err, a.Problems)
	}
	img, err := qcow2.Open(bytes.NewReader(b[n:]), int64(len(b)-n), w.c.editOpts(b[:n]))
	if err != nil {
		return err
	}
	guest, err := readAll(img)
	if err != nil {
		return err
	}
	before, after := w.past[s.Marks], w.past[min(s.Marks+1, len(w.past)-1)]
	for off := 0; off < len(guest); off += 512 {
		end := min(off+512, len(guest))
		if !bytes.Equal(guest[off:end], before[off:end]) && !bytes.Equal(guest[off:end], after[off:end]) {
			return fmt.Errorf("the sector at %d is neither of the last mark nor of the next", off)
		}
	}
	for _, info := range must(img.Bitmaps()) {
		if !info.Auto || info.InUse || img.BitmapsStale() {
			continue
		}
		bits, err := img.LoadBitmap(info.Name)
		if err != nil {
			return err
		}
		for off := range guest {
			if guest[off] != w.past[0][off] && !bits.Test(int64(off)) {
				return fmt.Errorf("bitmap %q says that %d is clean", info.Name, off)
			}
		}
	}
	return nil
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Random sessions on random images, beside a model, and the crash states of whole runs.
func TestGuestRandom(t *testing.T) {
	seeds, sessions := uint64(16), 3
	if full() {
		seeds, sessions = 600, 10
	}
	done := 0
	for seed := range seeds + 1 {
		if seed == seeds {
			seed = 239 // a file that ends within a cluster, and refcount blocks behind it
		}
		img := build.Random(seed)
		s := &img.Spec
		if s.Incompatible&(build.Dirty|build.Corrupt) != 0 || s.CryptMethod != 0 || s.Size == 0 || s.ClusterBits > 16 {
			continue
		}
		c := newGuestTrial("random", *s)
		c.backing = img.Backing
		c.disks[0] = newTrialDisk("", img.Guest())
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := &guestWalk{Rand: rand.New(rand.NewPCG(seed, 9)), t: t, c: c, f: c.both(), guest: c.disks[0].guest}
			w.past = [][]byte{w.guest}
			start, err := auditBytes(c.file)
			if err != nil {
				t.Fatal(err)
			}
			if start.Leaks += sharedClusters(s); c.bitmapsRefused() {
				return
			}
			done++
			for range sessions {
				w.session()
			}
			w.check(start)
		})
	}
	t.Logf("%d images", done)
}

// sharedClusters is how many clusters may leak because the disk refers to them twice.
func sharedClusters(s *build.Spec) int {
	n := 0
	for _, cl := range s.Clusters {
		if cl.Share != "" {
			n++
		}
	}
	return n
}

// bitmapsRefused reports bitmaps that record and that nobody understands: a Guest is
// refused then.
func (c *guestTrial) bitmapsRefused() bool {
	e, opts, err := c.edit(c.both())
	if err != nil {
		return true
	}
	_, err = e.Guest(&opts)
	for _, b := range c.trial.bitmaps {
		if b.flags&qcow2.BitmapAuto != 0 && b.flags&qcow2.BitmapInUse == 0 && !b.usable() {
			return err != nil
		}
	}
	return false
}
