package reconstruct

import (
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// A Delta is the way from one point of a disk's history to another: forwards or
// backwards in the tree of its backups, or over to another branch of it. A device
// that holds the one holds the other when what may differ is written.
//
// What may differ is what a link behind the last common one holds on either side, as
// data or as zero, and what lies beyond the end of the smallest disk on the way. It
// is too much where a link holds what did not change, and never too little, as far as
// the links can say what changed (see Warnings).
//
// It may be used from several goroutines.
type Delta struct {
	from, to *Chain
	held     *Chain // the links behind the last common one on both sides
	common   int    // links with which both begin
	end      int64  // of the last of them: beyond it all may differ
}

// NewDelta is the way from the disk as of the last of from to that of the last of to.
// The links that both have in common are those with which both begin, of one disk
// each. It reads nothing. A *ChainError says that one of them makes no Point, or that
// they have no link in common: then all may differ.
func NewDelta(from, to []Link) (*Delta, error) {
	source, err := Point(from)
	if err != nil {
		return nil, err
	}
	target, err := Point(to)
	if err != nil {
		return nil, err
	}
	common := commonLinks(from, to)
	d := &Delta{from: source.(*Chain), to: target.(*Chain), common: common}
	if common == 0 {
		return nil, &ChainError{Index: -1, Msg: "the two points have no backup in common, so all of the disk may differ"}
	}
	d.end = from[common-1].Disk.Size()
	d.held, err = holders(slices.Concat(from[common:], to[common:]))
	return d, err
}

// commonLinks is how many links both have at their beginning.
func commonLinks(a, b []Link) int {
	n := 0
	for n < len(a) && n < len(b) && sameValue(a[n].Disk, b[n].Disk) {
		n++
	}
	return n
}

// holders makes a chain of links of several branches, to be asked what they hold, for
// which their order does not matter. A link also holds all beyond its end.
func holders(links []Link) (*Chain, error) {
	c := &Chain{links: links}
	for i, l := range links {
		walk, err := linkExtents(l)
		if err != nil {
			return nil, &ChainError{Link: l.Name, Index: -1, Msg: err.Error()}
		}
		c.levels = append(c.levels, level{link: i, size: l.Disk.Size(), extents: walk, base: i, layers: 1})
	}
	c.walkers.New = func() any { return newWalker(c) }
	return c, nil
}

// From is the disk as it was.
func (d *Delta) From() *Chain { return d.from }

// To is the disk as it is to be.
func (d *Delta) To() *Chain { return d.to }

// mask marks what may differ.
func (d *Delta) mask(off, n int64) iter.Seq2[qcow2.Extent, error] { return d.held.mask(off, n, d.end) }

// mask yields the whole of [off, off+n): Data for what a link holds, and for all from
// limit on, and Absent for the rest.
func (c *Chain) mask(off, n, limit int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		m := merger{emit: func(e qcow2.Extent) bool { return yield(e, nil) }}
		w := c.walkers.Get().(*walker)
		defer c.walkers.Put(w)
		w.reset()
		for end := off + n; off < end; {
			e, err := w.mark(off, end, limit)
			if err != nil {
				if m.flush() {
					yield(qcow2.Extent{}, err)
				}
				return
			}
			if !m.add(e) {
				return
			}
			off = e.End()
		}
		m.flush()
	}
}

// mark is the part of a mask that begins at off and ends no later than end.
func (w *walker) mark(off, end, limit int64) (qcow2.Extent, error) {
	e := qcow2.Extent{Off: off, Len: min(end, limit) - off}
	switch {
	case off >= limit:
		return qcow2.Extent{Off: off, Len: end - off, Kind: qcow2.Data}, nil
	case len(w.cursors) == 0:
		return e, nil
	}
	s, err := w.step(off, e.End())
	if err != nil {
		return e, err
	}
	e.Len = s.Len
	if s.Kind != qcow2.Absent {
		e.Kind = qcow2.Data
	}
	return e, nil
}

// Ranges yields what may differ of the disk as it is to be, ascending. An error,
// which ends the walk, comes with a zero Range.
func (d *Delta) Ranges(ctx context.Context) iter.Seq2[bitmap.Range, error] {
	return rangesOf(ctx, d.mask, d.to.Size())
}

// rangesOf yields what a mask marks of the first size bytes.
func rangesOf(ctx context.Context, mask extentsFunc, size int64) iter.Seq2[bitmap.Range, error] {
	return func(yield func(bitmap.Range, error) bool) {
		for e, err := range walkRange(ctx, mask, 0, size) {
			if err != nil {
				yield(bitmap.Range{}, err)
				return
			}
			if e.Kind != qcow2.Absent && !yield(bitmap.Range{Off: e.Off, Len: e.Len}, nil) {
				return
			}
		}
	}
}

// Bitmap is what may differ of the disk as it is to be, rounded out to granules. It is
// a dirty bitmap since the first point, for a disk that was restored as of the
// second.
func (d *Delta) Bitmap(ctx context.Context, granularity int64) (*bitmap.Bitmap, error) {
	b, err := bitmap.New(d.to.Size(), granularity)
	if err != nil {
		return nil, err
	}
	for r, err := range d.Ranges(ctx) {
		if err != nil {
			return nil, err
		}
		b.Set(r.Off, r.Len)
	}
	return b, nil
}

// Copy writes what may differ, as it is to be, to dst, which holds the disk as it was;
// it neither commits nor aborts. After an error dst holds a mix of both, and the same
// Copy makes it whole. It is Copy with these differences: Only of opts is not used;
// Expect is asked of chunks in which something may differ, for which those are read
// whole; Digests have all of the disk read from the links, and are not those of what
// dst holds elsewhere. Done and Total of the Progress are of the whole disk.
func (d *Delta) Copy(ctx context.Context, dst Target, opts *CopyOptions) (*Result, error) {
	o := CopyOptions{}
	if opts != nil {
		o = *opts
	}
	view := &deltaDisk{Delta: d, unchanged: d.to.Layers(), whole: o.Expect != nil || len(o.Digests) > 0}
	o.Only = func(e qcow2.Extent) iter.Seq[bitmap.Range] { return all(e, e.Depth != view.unchanged) }
	result, err := Copy(ctx, dst, view, &o)
	return result, d.nameLink(err)
}

// nameLink says in which link an error of reading happened.
func (d *Delta) nameLink(err error) error {
	var r *RangeError
	if !errors.As(err, &r) || r.Link != "" || r.Op != "read" && r.Op != "map" {
		return err
	}
	for e, err := range d.to.Extents(r.Off, 1) {
		if err == nil {
			r.Link = d.to.linkName(e.Depth)
		}
	}
	return err
}
