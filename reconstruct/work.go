package reconstruct

import (
	"context"

	"github.com/qbitkit/qbit/qcow2"
)

// pieceSize is how much of a chunk is read, hashed and written at a time: so
// little that it is still in the processor's cache at the second and third step.
const pieceSize = 512 << 10

// largestCluster is the size in bytes of the largest clusters that there are.
const largestCluster = 2 << 20

// A desk is what one worker needs for a chunk.
type desk struct {
	piece  unit
	rest   unit       // of a piece
	shared []span     // what the target shares of the chunk
	chunk  *chunkHash // of the chunk, for unit.sum
}

func (c *copier) desk() *desk {
	if d, ok := c.desks.Get().(*desk); ok {
		d.chunk.Reset()
		return d
	}
	return &desk{chunk: newChunkHash()}
}

// work reads, hashes and writes a unit.
func (c *copier) work(ctx context.Context, u *unit) error {
	if !c.wanted(u) {
		return nil
	}
	if u.zero {
		return c.workZeros(ctx, u)
	}
	d := c.desk()
	defer c.desks.Put(d)
	if kept, err := c.keep(ctx, d, u); kept || err != nil {
		return err
	}
	if err := c.share(ctx, d, u); err != nil {
		return err
	}
	for from, to := range c.toRead(d, u) {
		if err := c.workRange(ctx, d, u, from, to); err != nil {
			return err
		}
	}
	u.sum = d.chunk.Sum64()
	if err := c.expect(u); err != nil {
		return err
	}
	return c.record(d, u)
}

// workZeros zeroes a unit that is zero.
func (c *copier) workZeros(ctx context.Context, u *unit) error {
	if err := c.expectZeros(u); err != nil || c.dst == nil || c.streams() {
		return err
	}
	if c.opts.Only != nil {
		return c.storeSelectedZeros(ctx, u)
	}
	return c.storeZeros(ctx, u.off, u.len)
}

// workRange works on the part [from, to) of a unit, piece by piece.
func (c *copier) workRange(ctx context.Context, d *desk, u *unit, from, to int64) error {
	n := c.pieceLen(u)
	for off := from; off < to; off = d.piece.end() {
		zeros, end := c.nextZeros(u, off, to)
		if zeros == off {
			d.piece.cutZeros(u, off, end)
		} else {
			d.piece.cut(u, off, min(off-off%n+n, zeros))
		}
		if err := c.workPiece(ctx, d); err != nil {
			return err
		}
		u.broken = append(u.broken, d.piece.broken...)
	}
	return nil
}

// zeroPiece is how long a run of zeros has to be to be a piece of its own.
const zeroPiece = 64 << 10

// nextZeros is the next run of whole blocks in [off, to) of which nothing is stored, and
// that is worth a piece of its own; where there is none, it begins at to.
func (c *copier) nextZeros(u *unit, off, to int64) (from, end int64) {
	begin := off // no byte from here up to the extent that is looked at is stored
	for _, e := range u.extents {
		if e.End() <= off || zeroish(e) {
			continue
		}
		if from, end = c.wholeBlocks(begin, min(e.Off, to), to); end-from >= zeroPiece {
			return from, end
		}
		if begin = e.End(); begin >= to {
			return to, to
		}
	}
	if from, end = c.wholeBlocks(begin, to, to); end-from >= zeroPiece {
		return from, end
	}
	return to, to
}

// wholeBlocks are those in [from, end); the one at to may be short.
func (c *copier) wholeBlocks(from, end, to int64) (int64, int64) {
	block := c.traits.Block
	if end < to {
		end &^= block - 1
	}
	return (from + block - 1) &^ (block - 1), end
}

// pieceLen is the length of the pieces of a chunk, of which the disk is a sequence: whole
// blocks of the target, and with compressed clusters whole ones of those too, for a
// cluster that was cut would be decoded twice.
func (c *copier) pieceLen(u *unit) int64 {
	for _, e := range u.extents {
		if e.Kind == qcow2.Compressed {
			return max(largestCluster, c.traits.Block)
		}
	}
	return max(pieceSize, c.traits.Block)
}

func (c *copier) workPiece(ctx context.Context, d *desk) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := c.fill(&d.piece); err != nil {
		return err
	}
	switch {
	case !c.hashesOf(d):
	case d.piece.zero:
		d.chunk.zeros(d.piece.len)
	default:
		d.chunk.Write(d.piece.buf)
	}
	if c.dst == nil || c.streams() {
		return nil
	}
	return c.storeRest(ctx, d)
}

// fill reads the content of a piece.
func (c *copier) fill(u *unit) error {
	if u.zero {
		clear(u.buf) // only where somebody wants the chunk as a whole
		return nil
	}
	for _, e := range u.extents {
		p := u.buf[e.Off-u.off:][:e.Len]
		if zeroish(e) {
			clear(p)
			continue
		}
		if err := readExtent(c.src, e, p); err != nil {
			if err := c.passOver(u, rangeError("read", c.src, e, err)); err != nil {
				return err
			}
		}
		c.read.Add(e.Len)
	}
	return nil
}

// passOver keeps an error of reading, for who wants to know all of them.
func (c *copier) passOver(u *unit, err error) error {
	bad, ok := err.(*RangeError)
	if !ok || c.broken == nil {
		return err
	}
	u.broken = append(u.broken, bad)
	return nil
}
