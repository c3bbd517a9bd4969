package reconstruct

import (
	"context"
	"iter"
	"math"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// A Selection says which parts of an extent count: ranges of it, ascending, that do
// not overlap. It may be asked from several goroutines.
type Selection func(e qcow2.Extent) iter.Seq[bitmap.Range]

// Held selects what a disk holds, as data or as zero: all that is not absent.
func Held(e qcow2.Extent) iter.Seq[bitmap.Range] { return all(e, e.Kind != qcow2.Absent) }

// From selects what the links from number first on hold of the point that a chain is:
// an increment on the links before them. From(0) selects everything.
func (c *Chain) From(first int) Selection {
	return func(e qcow2.Extent) iter.Seq[bitmap.Range] {
		link, _ := c.LinkOf(e.Depth)
		return all(e, link >= first)
	}
}

// Dirty selects what is dirty in a bitmap, which nobody may change meanwhile.
func Dirty(b *bitmap.Bitmap) Selection {
	return func(e qcow2.Extent) iter.Seq[bitmap.Range] { return b.RangesIn(e.Off, e.Len) }
}

// all selects the whole of an extent, or nothing.
func all(e qcow2.Extent, yes bool) iter.Seq[bitmap.Range] {
	return func(yield func(bitmap.Range) bool) {
		if yes {
			yield(bitmap.Range{Off: e.Off, Len: e.Len})
		}
	}
}

// Granularity is the largest power of two at multiples of which all that is selected
// of a disk begins and ends, the end of the disk aside: no cluster of that size is
// selected in part. It is math.MaxInt64/2+1 where no range has such an end. The disk
// is not read, but all of it is walked.
func (s Selection) Granularity(ctx context.Context, d qcow2.Disk) (int64, error) {
	var ends, open int64 // all ends, one or the other; where the last range ended
	size := d.Size()
	for e, err := range walkRange(ctx, d.Extents, 0, size) {
		if err != nil {
			return 0, err
		}
		for r := range s(e) {
			if r.Off != open {
				ends |= open | r.Off
			}
			open = r.Off + r.Len
		}
	}
	if open != size {
		ends |= open
	}
	if ends == 0 {
		return math.MaxInt64/2 + 1, nil
	}
	return ends & -ends, nil
}

// selected yields the spans of a unit that are to be stored; parts that follow each
// other are one.
func (c *copier) selected(u *unit) iter.Seq[span] {
	return func(yield func(span) bool) {
		var open span
		for _, e := range u.extents {
			for r := range c.opts.Only(e) {
				if r.Off != open.end && open.off < open.end && !yield(open) {
					return
				}
				if r.Off != open.end {
					open.off = r.Off
				}
				open.end = r.Off + r.Len
			}
		}
		if open.off < open.end {
			yield(open)
		}
	}
}

// wanted reports that a unit has to be worked on: something in it is to be stored, or
// its bytes are wanted anyway.
func (c *copier) wanted(u *unit) bool {
	if c.opts.Only == nil || c.digests.tree != nil || len(c.digests.plain) > 0 || c.each != nil {
		return true
	}
	for range c.selected(u) {
		return true
	}
	return false
}

// storeSelectedZeros zeroes what is to be stored of a unit that is zero.
func (c *copier) storeSelectedZeros(ctx context.Context, u *unit) error {
	for s := range c.selected(u) {
		if err := c.storeZeros(ctx, s.off, s.end-s.off); err != nil {
			return err
		}
	}
	return nil
}

// settle notes on the desk what need not be stored of a chunk: what is not selected,
// and what the target shares of the rest.
func (c *copier) settle(ctx context.Context, d *desk, u *unit) error {
	d.shared = d.shared[:0]
	for _, e := range u.extents {
		at := e.Off
		for r := range c.opts.Only(e) {
			d.leave(span{at, r.Off})
			if err := c.shareOne(ctx, d, e.Slice(r.Off, r.Off+r.Len)); err != nil {
				return err
			}
			at = r.Off + r.Len
		}
		d.leave(span{at, e.End()})
	}
	return nil
}

// leave adds a span to those that need not be stored.
func (d *desk) leave(s span) {
	if s.off < s.end {
		d.shared = append(d.shared, s)
	}
}

// tallySelected counts what is selected of an extent.
func (c *copier) tallySelected(e qcow2.Extent) {
	for r := range c.opts.Only(e) {
		c.tally(e.Slice(r.Off, r.Off+r.Len))
	}
}
