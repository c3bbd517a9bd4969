package reconstruct

import "context"

// keep takes over a chunk that an earlier run wrote, if the target holds it still.
func (c *copier) keep(ctx context.Context, d *desk, u *unit) (bool, error) {
	if c.resume == nil {
		return false, nil
	}
	want, recorded := c.resume.recorded(u.off / ChunkSize)
	if !recorded {
		return false, nil
	}
	err := c.readBack(ctx, d, u)
	u.sum = d.chunk.Sum64()
	switch {
	case context.Cause(ctx) != nil:
		return false, context.Cause(ctx)
	case err == nil && u.sum == want && c.mayBe(u):
		c.resume.kept.Add(u.len)
		return true, nil
	}
	d.chunk.Reset()
	return false, c.resume.spoil(ctx, u.off, u.len)
}

// readBack reads and hashes a chunk of the target.
func (c *copier) readBack(ctx context.Context, d *desk, u *unit) error {
	for off := u.off; off < u.end(); off += pieceSize {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		d.piece.cut(u, off, min(off+pieceSize, u.end()))
		if err := readFull(c.resume.data, d.piece.buf, off); err != nil {
			return err
		}
		d.chunk.Write(d.piece.buf)
	}
	return nil
}

// mayBe reports that the hash of a chunk is not other than expected.
func (c *copier) mayBe(u *unit) bool {
	if c.opts.Expect == nil {
		return true
	}
	want, known := c.opts.Expect(u.off / ChunkSize)
	return !known || want == u.sum
}

// hashesOf reports that the hash of the chunk on a desk is wanted. What is shared
// with a storage is not read for the journal alone: to share it again costs less.
func (c *copier) hashesOf(d *desk) bool {
	return c.hashes() || c.resume != nil && len(d.shared) == 0
}

// record notes that a chunk is in the target, if all of it was hashed (it was, if
// hashes are wanted now: that never begins anew) and is right.
func (c *copier) record(d *desk, u *unit) error {
	if c.resume == nil || !c.hashesOf(d) || len(u.differ) > 0 || len(u.broken) > 0 {
		return nil
	}
	return c.resume.wrote(u.off, u.len, u.sum)
}
