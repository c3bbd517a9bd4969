package fuzz

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// maxGuestDisk is the largest disk that FuzzGuest reads whole.
const maxGuestDisk = 1 << 20

// FuzzGuest writes to the guest of any image, changes its size, or names another
// backing file. Properties: no panic; memory follows the size of the file; what was
// written reads as written, all else and the snapshots as before, also where the image
// is refused; the audit finds no problem in an image that had none, and no refcount
// that became lower and is too low; the same in what a crash leaves, where each sector
// is old or new.
func FuzzGuest(f *testing.F) {
	for i, b := range editSeeds(f) {
		for op := range uint8(guestOps) {
			if i < 7 || int(op) == i%guestOps {
				f.Add(b, op, uint32(i)*700)
			}
		}
	}
	f.Fuzz(func(t *testing.T, file []byte, op uint8, at uint32) {
		img, err := qcow2.Open(bytes.NewReader(file), int64(len(file)), nil)
		if err != nil || img.Size() > maxGuestDisk || img.Encryption() != "" {
			return
		}
		x := &guestFuzz{t: t, file: file, f: crash.New(file), old: sectorsOf(img), snapshots: snapshotsOf(img), size: img.Size()}
		x.audit, _ = build.AuditFile(bytes.NewReader(file), int64(len(file)))
		x.run(op, int64(at))
	})
}

// guestOps is how many kinds of changes there are.
const guestOps = 7

// A guestFuzz is one change of one image.
type guestFuzz struct {
	t         *testing.T
	file      []byte
	f         *crash.File
	old, new  [][]byte // a sector each; nil: it cannot be read
	snapshots uint64
	size      int64 // that the disk is to have
	audit     *build.Audit
	rebased   bool
}

// sectorsOf reads a disk by sectors.
func sectorsOf(d qcow2.Disk) [][]byte {
	var all [][]byte
	for off := int64(0); off < d.Size(); off += 512 {
		b := make([]byte, min(512, d.Size()-off))
		if n, _ := d.ReadAt(b, off); n < len(b) {
			b = nil
		}
		all = append(all, b)
	}
	return all
}

// snapshotsOf is a hash of what the snapshots read.
func snapshotsOf(img *qcow2.Image) uint64 {
	h := uint64(0)
	list, _ := img.Snapshots()
	for _, s := range list[:min(len(list), 8)] {
		d, err := img.SnapshotDisk(s.ID)
		if err != nil || d.Size() > maxGuestDisk {
			continue
		}
		for _, b := range sectorsOf(d) {
			for _, v := range b {
				h = h*1099511628211 + uint64(v) + 1
			}
			h = h*31 + uint64(len(b))
		}
	}
	return h
}

func (x *guestFuzz) run(op uint8, at int64) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := x.change(op, at)
	runtime.ReadMemStats(&after)
	if got, bound := after.TotalAlloc-before.TotalAlloc, 2*editAlloc+2*editAllocPerByte*uint64(len(x.file)); got > bound {
		x.t.Fatalf("%d bytes were allocated for a file of %d bytes, the bound is %d", got, len(x.file), bound)
	}
	if err == nil {
		x.f.Mark()
	}
	x.judge(x.f.Bytes(), err == nil)
	x.f.States(&crash.Options{Max: 6, Random: -1}, func(s *crash.State) bool {
		x.judge(s.Bytes(), s.Marks > 0)
		return true
	})
}

// change makes the change, and says in x.new what is to be read then.
func (x *guestFuzz) change(op uint8, at int64) error {
	x.new = x.old
	e, err := qcow2.Edit(x.f, x.f.Size(), nil)
	if err != nil {
		return err
	}
	switch op % guestOps {
	case 4:
		x.size += at
		return e.Resize(x.size, nil)
	case 5:
		x.size -= min(at, x.size)
		return e.Resize(x.size, &qcow2.ResizeOptions{Shrink: true})
	case 6: // snapshots lose what lies in the backing file too
		x.rebased = e.Image().Backing() != nil
		return e.SetBacking(nil)
	}
	g, err := e.Guest(&qcow2.GuestOptions{NeverInPlace: op&64 != 0})
	if err != nil {
		return err
	}
	if err := x.write(g, op, at); err != nil {
		_ = g.Close()
		return err
	}
	return g.Close()
}

func (x *guestFuzz) write(g *qcow2.Guest, op uint8, at int64) error {
	if x.size == 0 {
		return nil
	}
	off := at % x.size
	n := min(x.size-off, int64(op)*700+1)
	x.new = append([][]byte(nil), x.old...)
	for i := off / 512; i*512 < off+n; i++ {
		b := bytes.Clone(x.old[i])
		lo, hi := max(off-i*512, 0), min(off+n-i*512, 512)
		if b == nil && (lo > 0 || hi < min(512, x.size-i*512)) {
			continue // what was there is not known
		}
		if b == nil {
			b = make([]byte, hi)
		}
		for j := lo; j < hi; j++ {
			if b[j] = byte(i) | 1; op%guestOps == 2 {
				b[j] = 0
			}
		}
		x.new[i] = b
	}
	if op%guestOps == 2 {
		return g.Zero(off, n)
	}
	if op%guestOps == 3 { // what a discard leaves of a part of a cluster is tested elsewhere
		x.new = x.old
		return g.Discard(off, 0)
	}
	p := make([]byte, n)
	for j := range p {
		p[j] = byte((off+int64(j))/512) | 1
	}
	_, err := g.WriteAt(p, off)
	return err
}

// judge judges a file; done says that the change was made.
func (x *guestFuzz) judge(b []byte, done bool) {
	img, err := qcow2.Open(bytes.NewReader(b), int64(len(b)), nil)
	if err != nil {
		x.t.Fatalf("it does not open any more: %v", err)
	}
	if !x.rebased && snapshotsOf(img) != x.snapshots {
		x.t.Fatal("snapshots do not read as before")
	}
	unbacked := img.Backing() == nil
	for i, have := range sectorsOf(img) {
		var old, want []byte
		if i < len(x.old) {
			old, want = x.old[i], x.new[i]
		}
		n := len(have)
		same := func(b []byte) bool {
			return b == nil || bytes.Equal(have, b[:min(n, len(b))]) || n > len(b) && bytes.HasPrefix(have, b)
		}
		switch {
		case have == nil && (old == nil || want == nil):
		case have == nil && i < len(x.old):
			x.t.Fatalf("sector %d cannot be read any more", i)
		case unbacked && !same(want) && (done || !same(old)):
			x.t.Fatalf("sector %d reads otherwise (done: %t)", i, done)
		}
	}
	x.counts(b)
}

// counts compares the audits.
func (x *guestFuzz) counts(b []byte) {
	if x.audit == nil {
		return
	}
	now, err := build.AuditFile(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		x.t.Fatal(err)
	}
	if len(x.audit.Problems) == 0 && len(now.Problems) > 0 {
		x.t.Fatalf("the audit finds %q", now.Problems)
	}
	for i, cl := range x.audit.Clusters {
		if i >= len(now.Clusters) {
			break
		}
		if c := now.Clusters[i]; c.Count < c.Refs && c.Count < cl.Count {
			x.t.Fatalf("cluster %d (%v) has %d references, its refcount went from %d to %d", i, c.Use, c.Refs, cl.Count, c.Count)
		}
	}
}
