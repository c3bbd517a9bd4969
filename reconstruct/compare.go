package reconstruct

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// CompareOptions are the options of Compare.
type CompareOptions struct {
	// Strict makes different sizes a *SizeError. Otherwise the shorter disk is
	// taken to go on with zeros.
	Strict bool
	// Workers and Memory are those of CopyOptions; at least 4 MiB are used.
	Workers int
	Memory  int64
	// Progress is called in the goroutine that walks, often.
	Progress func(Progress)
}

const (
	sector = 512
	// compareUnit is what a worker compares; it has two buffers of it.
	compareUnit = 1 << 20
	// comparePiece is how much of it is read at a time, of both disks: so little that
	// it is still in the processor's cache when it is compared.
	comparePiece = 256 << 10
)

// Compare yields the guest ranges, ascending, where the contents of a and b
// differ, as exact to the byte at both ends; differing sectors of 512 bytes that
// are neighbours make one range. How the contents are stored does not matter:
// absent, zero and stored zeros are the same. Nothing is read where both are zero
// or both are stored at the same place.
//
// An error, which ends the walk, comes with a zero Range: what cannot be read is
// not taken for zeros. opts may be nil. The goroutines that Compare uses have
// ended when the walk has.
func Compare(ctx context.Context, a, b qcow2.Disk, opts *CompareOptions) iter.Seq2[bitmap.Range, error] {
	return func(yield func(bitmap.Range, error) bool) {
		c := comparer{a: a, b: b, size: max(a.Size(), b.Size()), yield: yield}
		if opts != nil {
			c.opts = *opts
		}
		if c.opts.Strict && a.Size() != b.Size() {
			yield(bitmap.Range{}, &SizeError{A: a.Size(), B: b.Size()})
			return
		}
		slots := slotsFor(c.opts.Memory, 2*compareUnit) // as many as there can be workers
		p := pipeline[pair]{slots: slots, workers: workersFor(c.opts.Workers, slots),
			plan: c.plan, work: c.work, take: c.take}
		err := p.run(ctx)
		if err == nil {
			c.progress(c.size) // the end may have needed no work
		}
		if errors.Is(err, errEnough) || !c.flush() || err == nil {
			return
		}
		yield(bitmap.Range{}, err)
	}
}

// errEnough ends a comparison whose caller has seen enough. It stays in here.
var errEnough = errors.New("enough")

type comparer struct {
	a, b  qcow2.Disk
	size  int64
	opts  CompareOptions
	yield func(bitmap.Range, error) bool
	last  bitmap.Range // found, and may still grow
	bytes atomic.Int64 // read

	buffers sync.Pool // of *[2][]byte, one for each worker
}

// A pair is a part of both disks, at most compareUnit long and aligned to it.
type pair struct {
	off, len int64
	parts    []part // the ranges that have to be read
	differ   []bitmap.Range
}

// A part is a range for which each disk has one extent.
type part struct{ a, b qcow2.Extent }

// begin makes u empty, for the unit that holds off.
func (u *pair) begin(off, size int64) {
	clear(u.parts) // they hold on to storages
	u.parts, u.off = u.parts[:0], off/compareUnit*compareUnit
	u.len = min(compareUnit, size-u.off)
}

func (u *pair) end() int64 { return u.off + u.len }

// add takes of p what lies from off on in u, and returns where that ends.
func (u *pair) add(p part, off int64) int64 {
	stop := min(p.a.End(), u.end())
	u.parts = append(u.parts, part{p.a.Slice(off, stop), p.b.Slice(off, stop)})
	return stop
}

// plan walks both disks and submits what is not known to be the same.
func (c *comparer) plan(ctx context.Context, f *feed[pair]) error {
	const most = 4096 // beginning anew costs a chain a step in each link
	a, b := cursor{walk: c.a.Extents, most: most}, cursor{walk: c.b.Extents, most: most}
	var open *job[pair]
	for off := int64(0); off < c.size; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		p, err := c.next(&a, &b, off)
		if err != nil {
			return err
		}
		if open, err = c.cut(f, open, p); err != nil {
			return err
		}
		off = p.a.End()
	}
	return nil
}

// cut puts a part into units, and submits those that it completes or goes beyond.
// It returns the unit that is still open; none is at the end of the disk.
func (c *comparer) cut(f *feed[pair], open *job[pair], p part) (*job[pair], error) {
	for off, end := p.a.Off, p.a.End(); off < end; {
		if p.same() {
			off = end
		} else {
			if open == nil {
				var err error
				if open, err = f.get(); err != nil {
					return nil, err
				}
				open.unit.begin(off, c.size)
			}
			off = open.unit.add(p, off)
		}
		if open != nil && off >= open.unit.end() {
			f.submit(open)
			open = nil
		}
	}
	return open, nil
}

// next is the range from off on for which each disk has one extent. What lies
// beyond the end of a disk is zero.
func (c *comparer) next(a, b *cursor, off int64) (part, error) {
	end := min(off/window*window+window, c.size)
	x, err := c.side(c.a, a, off, end)
	if err != nil {
		return part{}, err
	}
	y, err := c.side(c.b, b, off, end)
	if err != nil {
		return part{}, err
	}
	stop := min(x.End(), y.End())
	return part{x.Slice(off, stop), y.Slice(off, stop)}, nil
}

func (c *comparer) side(d qcow2.Disk, walk *cursor, off, end int64) (qcow2.Extent, error) {
	if off >= d.Size() {
		return qcow2.Extent{Off: off, Len: end - off, Kind: qcow2.Zero}, nil
	}
	end = min(end, d.Size())
	e, err := walk.extent(off, end)
	if err != nil {
		return e, rangeError("map", nil, qcow2.Extent{Off: off, Len: end - off}, err)
	}
	if e.Kind == qcow2.Absent {
		err = checkAbsent(d, e)
	}
	return e, rangeError("read", d, e, err)
}

// same reports a part that need not be read.
func (p part) same() bool {
	if zeroish(p.a) && zeroish(p.b) {
		return true
	}
	return p.a.Kind == qcow2.Data && p.b.Kind == qcow2.Data && p.a.Storage != nil &&
		p.a.Host == p.b.Host && sameValue(p.a.Storage, p.b.Storage)
}

// work reads and compares a pair.
func (c *comparer) work(u *pair) error {
	buf, ok := c.buffers.Get().(*[2][]byte)
	if !ok {
		buf = &[2][]byte{make([]byte, compareUnit), make([]byte, compareUnit)}
	}
	defer c.buffers.Put(buf)
	u.differ = u.differ[:0]
	step := u.step()
	for off := u.off; off < u.end(); off += step {
		n := min(step, u.end()-off)
		if err := c.comparePiece(u, off, buf[0][:n], buf[1][:n]); err != nil {
			return err
		}
	}
	return nil
}

// step is the length of the pieces of a pair. One with compressed clusters is a piece: a
// cluster that is cut is decoded twice.
func (u *pair) step() int64 {
	for _, p := range u.parts {
		if p.a.Kind == qcow2.Compressed || p.b.Kind == qcow2.Compressed {
			return compareUnit
		}
	}
	return comparePiece
}

// comparePiece compares what a pair has from off on, in buffers of the length of the
// piece. What is in none of its parts is the same.
func (c *comparer) comparePiece(u *pair, off int64, a, b []byte) error {
	end, at := off+int64(len(a)), off
	for _, p := range u.parts {
		if p.a.End() <= off || p.a.Off >= end {
			continue
		}
		from, to := max(off, p.a.Off), min(end, p.a.End())
		clear(a[at-off : from-off])
		clear(b[at-off : from-off])
		if err := c.read(c.a, p.a.Slice(from, to), a[from-off:to-off]); err != nil {
			return err
		}
		if err := c.read(c.b, p.b.Slice(from, to), b[from-off:to-off]); err != nil {
			return err
		}
		at = to
	}
	if at == off {
		return nil
	}
	u.differ = appendDiffering(u.differ, off, a[:at-off], b[:at-off])
	return nil
}

func (c *comparer) read(d qcow2.Disk, e qcow2.Extent, p []byte) error {
	if zeroish(e) {
		clear(p)
		return nil
	}
	c.bytes.Add(e.Len)
	return rangeError("read", d, e, readExtent(d, e, p))
}

// appendDiffering appends the ranges where a and b differ; off is where they
// begin in the disk, at a sector.
func appendDiffering(differ []bitmap.Range, off int64, a, b []byte) []bitmap.Range {
	if bytes.Equal(a, b) {
		return differ
	}
	for at := 0; at < len(a); at += sector {
		end := min(at+sector, len(a))
		if r := differing(a[at:end], b[at:end]); r.Len > 0 {
			r.Off += off + int64(at)
			differ = appendRange(differ, r)
		}
	}
	return differ
}

// differing is the range from the first byte that differs to the last.
func differing(a, b []byte) bitmap.Range {
	if bytes.Equal(a, b) {
		return bitmap.Range{}
	}
	first, last := 0, len(a)-1
	for a[first] == b[first] {
		first++
	}
	for a[last] == b[last] {
		last--
	}
	return bitmap.Range{Off: int64(first), Len: int64(last - first + 1)}
}

func appendRange(all []bitmap.Range, r bitmap.Range) []bitmap.Range {
	if n := len(all); n > 0 && touches(all[n-1], r) {
		all[n-1].Len = r.Off + r.Len - all[n-1].Off
		return all
	}
	return append(all, r)
}

// touches reports that r begins in the sector in which l ends, or the next.
func touches(l, r bitmap.Range) bool {
	return l.Len > 0 && r.Off/sector-(l.Off+l.Len-1)/sector <= 1
}

// take yields what was found before the last range, which may still grow.
func (c *comparer) take(u *pair) error {
	for _, r := range u.differ {
		if touches(c.last, r) {
			c.last.Len = r.Off + r.Len - c.last.Off
			continue
		}
		if !c.flush() {
			return errEnough
		}
		c.last = r
	}
	c.progress(u.end())
	return nil
}

func (c *comparer) progress(done int64) {
	if c.opts.Progress != nil {
		c.opts.Progress(Progress{Done: done, Total: c.size, Read: c.bytes.Load()})
	}
}

func (c *comparer) flush() bool {
	r := c.last
	c.last = bitmap.Range{}
	return r.Len == 0 || c.yield(r, nil)
}
