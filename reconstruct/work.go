package reconstruct

import (
	"context"

	"github.com/cespare/xxhash/v2"

	"github.com/qbitkit/qbit/qcow2"
)

// pieceSize is how much of a chunk is read, hashed and written at a time: so
// little that it is still in the processor's cache at the second and third step.
const pieceSize = 512 << 10

// A desk is what one worker needs for a chunk.
type desk struct {
	piece unit
	chunk *xxhash.Digest // of the chunk, for Tree
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
		if c.dst == nil || c.streams() {
			return nil
		}
		return c.storeZeros(ctx, u.off, u.len)
	}
	d := c.desk()
	defer c.desks.Put(d)
	for off, n := u.off, c.pieceLen(u); off < u.end(); off += n {
		d.piece.cut(u, off, min(off+n, u.end()))
		if err := c.workPiece(ctx, d); err != nil {
			return err
		}
	}
	u.sum = d.chunk.Sum64()
	return nil
}

// pieceLen is the length of the pieces of a chunk: whole blocks of the target. A
// chunk with compressed clusters is one piece, for a cluster that was cut would be
// decoded twice.
func (c *copier) pieceLen(u *unit) int64 {
	for _, e := range u.extents {
		if e.Kind == qcow2.Compressed {
			return ChunkSize
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
	if c.digests.tree != nil {
		d.chunk.Write(d.piece.buf)
	}
	if c.dst == nil || c.streams() {
		return nil
	}
	return c.store(ctx, &d.piece)
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
			return rangeError("read", c.src, e, err)
		}
		c.read.Add(e.Len)
	}
	return nil
}
