package qcow2

import (
	"encoding/binary"
	"fmt"

	"github.com/qbitkit/qbit/bitmap"
)

// A resized is a bitmap with the size that the disk is to have.
type resized struct {
	index uint32 // in the directory
	bits  *bitmap.Bitmap
}

// resizeBitmaps makes the bitmaps of the new disk, in memory. Those in use, and stale
// ones, keep the size that they have: nobody may trust them.
func (r *resizer) resizeBitmaps() error {
	img := r.e.img
	if img.BitmapsStale() || r.size == r.old {
		return nil
	}
	list, err := img.Bitmaps()
	if err != nil {
		return err
	}
	for _, info := range list {
		if info.InUse {
			continue
		}
		bits, err := img.ReadBitmap(info)
		if err != nil {
			return fmt.Errorf("bitmap %.100q has to change its size: %w", info.Name, err)
		}
		if n := (r.size + info.Granularity - 1) / info.Granularity; n > maxBitmapBits {
			return fmt.Errorf("bitmap %.100q would have %d bits, QEMU reads %d at the most: remove it, or give it a larger granularity than %d bytes",
				info.Name, n, maxBitmapBits, info.Granularity)
		}
		if err := bits.Resize(r.size, false); err != nil {
			return err
		}
		if info.Auto && r.size > r.old {
			bits.Set(r.old, r.size-r.old)
		}
		r.bitmaps = append(r.bitmaps, resized{info.index, bits})
	}
	return nil
}

// link writes the new size, and the bitmaps of that size, in one.
func (r *resizer) link() error {
	edit := func(sector []byte) {
		binary.BigEndian.PutUint64(sector[24:], uint64(r.size))
		clearUnknownAutoclear(sector)
	}
	if len(r.bitmaps) > 0 {
		return r.linkBitmaps(edit)
	}
	s := r.g.s
	if r.e.failed = s.writeSector(edit); r.e.failed == nil {
		r.e.failed = s.f.Sync()
	}
	if r.e.failed != nil {
		return fmt.Errorf("writing the new size: %w", r.e.failed)
	}
	return r.g.renew()
}

func (r *resizer) linkBitmaps(edit func([]byte)) error {
	tx, err := newTx(r.e.img)
	if err != nil {
		return err
	}
	for i := range tx.bitmaps {
		for _, b := range r.bitmaps {
			if tx.bitmaps[i].info.index == b.index {
				tx.bitmaps[i].bits = b.bits
			}
		}
	}
	tx.changed = true
	if err := r.g.commit(&commit{session: r.g.s, tx: tx, edit: edit}); err != nil {
		return fmt.Errorf("writing the new size with its bitmaps: %w", err)
	}
	return nil
}
