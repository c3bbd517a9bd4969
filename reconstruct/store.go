package reconstruct

import (
	"context"

	"github.com/qbitkit/qbit/qcow2"
)

// store writes a chunk or piece to the target, and zeroes its holes.
func (c *copier) store(ctx context.Context, u *unit) error {
	c.findHoles(u)
	block := c.traits.Block
	for i := 0; i < len(u.holes); {
		first := i
		for i < len(u.holes) && u.holes[i] == u.holes[first] {
			i++
		}
		from, to := int64(first)*block, min(int64(i)*block, u.len)
		if err := c.storeRun(ctx, u, from, to, u.holes[first]); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) storeRun(ctx context.Context, u *unit, from, to int64, hole bool) error {
	if hole {
		return c.storeZeros(ctx, u.off+from, to-from)
	}
	if err := writeFull(c.dst, u.buf[from:to], u.off+from); err != nil {
		return rangeError("write", nil, qcow2.Extent{Off: u.off + from, Len: to - from}, err)
	}
	c.written.Add(to - from)
	return nil
}

func (c *copier) storeZeros(ctx context.Context, off, n int64) error {
	if err := zero(ctx, c.dst, off, n); err != nil {
		return rangeError("zero", nil, qcow2.Extent{Off: off, Len: n}, err)
	}
	c.zeroed.Add(n)
	return nil
}

// storeInOrder stores a unit in pieces between which the copy can be stopped.
func (c *copier) storeInOrder(ctx context.Context, u *unit) error {
	if !u.zero {
		return c.store(ctx, u)
	}
	for off := u.off; off < u.end(); off += ChunkSize {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := c.storeZeros(ctx, off, min(ChunkSize, u.end()-off)); err != nil {
			return err
		}
	}
	return nil
}

// findHoles finds the blocks of a chunk that need not be written: those that no
// stored extent touches, and, unless zeros are kept, those that hold only zeros.
func (c *copier) findHoles(u *unit) {
	block := c.traits.Block
	n := int((u.len + block - 1) / block)
	u.holes = u.holes[:0]
	for range n {
		u.holes = append(u.holes, true)
	}
	for _, e := range u.extents {
		if zeroish(e) {
			continue
		}
		for i := (e.Off - u.off) / block; i*block < e.End()-u.off; i++ {
			u.holes[i] = false
		}
	}
	if c.opts.KeepZeros {
		return
	}
	for i, hole := range u.holes {
		if !hole {
			from := int64(i) * block
			u.holes[i] = allZero(u.buf[from:min(from+block, u.len)])
		}
	}
}
