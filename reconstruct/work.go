package reconstruct

import (
	"context"

	"github.com/cespare/xxhash/v2"

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
	rest   unit           // of a piece
	shared []span         // what the target shares of the chunk
	chunk  *xxhash.Digest // of the chunk, for unit.sum
}

func (c *copier) desk() *desk {
	if d, ok := c.desks.Get().(*desk); ok {
		d.chunk.Reset()
		return d
	}
	return &desk{chunk: xxhash.New()}
}

// work reads, hashes and writes a unit.
func (c *copier) work(ctx context.Context, u *unit) error {
	if u.zero {
		if err := c.expectZeros(u); err != nil || c.dst == nil || c.streams() {
			return err
		}
		return c.storeZeros(ctx, u.off, u.len)
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

// workRange works on the part [from, to) of a unit, piece by piece.
func (c *copier) workRange(ctx context.Context, d *desk, u *unit, from, to int64) error {
	n := c.pieceLen(u)
	for off := from; off < to; off = d.piece.end() {
		d.piece.cut(u, off, min(off-off%n+n, to))
		if err := c.workPiece(ctx, d); err != nil {
			return err
		}
		u.broken = append(u.broken, d.piece.broken...)
	}
	return nil
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
	if c.hashesOf(d) {
		d.chunk.Write(d.piece.buf)
	}
	if c.dst == nil || c.streams() {
		return nil
	}
	return c.storeRest(ctx, d)
}

// fill reads the content of a piece.
func (c *copier) fill(u *unit) error {
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
