package reconstruct

import (
	"context"
	"iter"

	"github.com/qbitkit/qbit/qcow2"
)

// initShare finds out whether the target can share blocks with what is read.
func (c *copier) initShare() {
	if c.sharer == nil && c.opts.Share && c.dst != nil && !c.streams() && c.broken == nil {
		c.sharer = newSharer(c.dst, c.traits.Block)
	}
	c.spare = c.opts.DigestsIfRead && c.opts.Expect == nil && c.each == nil && len(c.digests.plain) == 0
}

// hashes reports that the hashes of chunks are wanted, still.
func (c *copier) hashes() bool { return c.sums && !c.spared.Load() }

// whole reports an extent of which many chunks at once are to be shared.
func (c *copier) whole(e qcow2.Extent) bool {
	return c.sharer != nil && c.resume == nil && c.opts.Only == nil && !c.inOrder() && !c.hashes() && c.sharer.likely(e)
}

// share has the target share what it can of a chunk, and notes that on the desk.
func (c *copier) share(ctx context.Context, d *desk, u *unit) error {
	if c.opts.Only != nil {
		return c.settle(ctx, d, u)
	}
	d.shared = d.shared[:0]
	if c.sharer == nil {
		return nil
	}
	for _, e := range u.extents {
		if err := c.shareOne(ctx, d, e); err != nil {
			return err
		}
	}
	return nil
}

// shareOne has the target share what it can of an extent.
func (c *copier) shareOne(ctx context.Context, d *desk, e qcow2.Extent) error {
	if c.sharer == nil {
		return nil
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	s := c.sharer.share(e)
	if s.off >= s.end {
		return nil
	}
	d.shared = append(d.shared, s)
	c.shared.Add(s.end - s.off)
	if c.spare {
		c.spared.Store(true)
	}
	return nil
}

// toRead yields the parts of a chunk that have to be read: all of it where its hash
// is wanted, and otherwise what is not shared.
func (c *copier) toRead(d *desk, u *unit) iter.Seq2[int64, int64] {
	if u.buf != nil || c.hashes() {
		return gaps(nil, u.off, u.end())
	}
	return gaps(d.shared, u.off, u.end())
}

// storeRest stores what the target does not share of a piece.
func (c *copier) storeRest(ctx context.Context, d *desk) error {
	if len(d.shared) == 0 {
		return c.store(ctx, &d.piece)
	}
	for off, end := range gaps(d.shared, d.piece.off, d.piece.end()) {
		if d.piece.zero {
			d.rest.cutZeros(&d.piece, off, end)
		} else {
			d.rest.cut(&d.piece, off, end)
		}
		if err := c.store(ctx, &d.rest); err != nil {
			return err
		}
	}
	return nil
}

// gaps yields the parts of [off, end) that are in none of spans, which are in order.
func gaps(spans []span, off, end int64) iter.Seq2[int64, int64] {
	return func(yield func(off, end int64) bool) {
		for _, s := range spans {
			if s.off > off && off < end && !yield(off, min(s.off, end)) {
				return
			}
			off = max(off, s.end)
		}
		if off < end {
			yield(off, end)
		}
	}
}

// addShared makes a unit of the whole chunks with which e begins, where they are to
// be shared at once, and returns how many bytes that is.
func (c *cutter) addShared(e qcow2.Extent) (int64, error) {
	n := min(e.Len, shareMost)
	if n -= n % ChunkSize; c.open != nil || n < 2*ChunkSize || c.whole == nil || !c.whole(e) {
		return 0, nil
	}
	j, err := c.feed.get()
	if err != nil {
		return 0, err
	}
	j.unit.begin(e.Off)
	j.unit.add(e.Slice(e.Off, e.Off+n))
	c.submit(j)
	return n, nil
}
