package qcow2

import (
	"errors"
	"fmt"
)

// bitmapKinds are the findings for which a single bitmap goes.
var bitmapKinds = map[FindingKind]bool{
	FindBitmapFlags: true, FindBitmapType: true, FindBitmapExtra: true, FindBitmapName: true,
	FindBitmapTable: true, FindBitmapEntry: true,
}

// brokenBitmaps reports bitmaps that can only be dropped together: their directory
// cannot be read, or they are stale, or they share a cluster with something.
func (p *planner) brokenBitmaps() bool {
	if p.kind[FindBitmapsStale]+p.kind[FindBitmapsExt]+p.kind[FindBitmapDirectory] > 0 {
		return true
	}
	return p.kind[FindOverlap] > 0 && p.bitmapsOverlap()
}

func (p *planner) bitmapsOverlap() bool {
	overlap := false
	c := newChecker(p.ctx, p.img, nil, func(Finding) error { return nil })
	c.onOverlap = func(_ int64, a, b use) { overlap = overlap || a >= useBitmapDirectory || b >= useBitmapDirectory }
	return c.run() == nil && overlap
}

// onlyBitmaps reports that all that is wrong is in bitmaps.
func (p *planner) onlyBitmaps() bool {
	other := false
	_, err := p.img.Check(p.ctx, nil, func(f Finding) error {
		other = other || f.Severity == SeverityCorruption && !bitmapKinds[f.Kind]
		return nil
	})
	return err == nil && !other
}

// repairBitmaps mends bitmaps alone.
func (p *planner) repairBitmaps() error {
	if !p.brokenBitmaps() {
		return p.mendBitmaps()
	}
	if err := p.dropBitmaps(); err != nil {
		return err
	}
	return p.giveBack()
}

// dropBitmaps takes all bitmaps out of the header; a link as any other.
func (p *planner) dropBitmaps() error {
	first := make([]byte, p.img.geometry.ClusterSize())
	if err := readFull(p.o, first[:min(int64(len(first)), p.o.size)], 0); err != nil {
		return err
	}
	plan, err := planHeader(p.img, first, nil)
	if err != nil {
		return err
	}
	p.say("drops all bitmaps: they cannot be read or trusted; the next backup must be a full one")
	if err := plan.apply(p.o, first[:atomicUnit]); err != nil {
		return err
	}
	return p.reopen()
}

// giveBack gives back the clusters that nothing refers to any more, those of the
// dropped bitmaps among them, where all references are known.
func (p *planner) giveBack() error {
	if err := p.reopen(); err != nil {
		return err
	}
	c, err := p.counter(p.img)
	if err != nil {
		return err
	}
	if err := c.run(); err != nil || c.res.Incomplete || c.res.brokenRefcounts || p.kind[FindOverlap] > 0 {
		return err
	}
	r, err := loadRefcounts(p.o, p.img)
	if err != nil {
		return err
	}
	n, err := p.setCounts(r, c.win.hi, func(cluster int64, now uint64) uint64 {
		if c.win.references(cluster) == 0 {
			return 0
		}
		return now
	})
	if err != nil || n == 0 {
		return err
	}
	p.say("gives back %d clusters that nothing refers to", n)
	if err := r.flushBlocks(); err != nil {
		return err
	}
	return p.o.Sync()
}

// mendBitmaps drops bitmaps that are broken and rewrites those with bits behind the end
// of the disk, by a transaction as the Editor makes them.
func (p *planner) mendBitmaps() error {
	if err := p.reopen(); err != nil {
		return err
	}
	drop, rewrite, err := p.brokenEntries()
	if err != nil || len(drop)+len(rewrite) == 0 {
		return err
	}
	e, err := Edit(p.o, p.o.size, &p.open)
	if errors.Is(err, ErrDirty) || errors.Is(err, ErrCorrupt) {
		return fmt.Errorf("%w; mend everything at once", err)
	}
	if err != nil {
		return err
	}
	if err := e.Update(func(tx *Tx) error { return p.mendInTx(tx, drop, rewrite) }); err != nil {
		return err
	}
	return p.giveBack()
}

// brokenEntries are the entries of the directory that have to go, and those that have
// to be written anew.
func (p *planner) brokenEntries() (drop, rewrite map[uint32]bool, err error) {
	drop, rewrite = map[uint32]bool{}, map[uint32]bool{}
	names := map[string][]uint32{}
	for b, err := range p.img.EachBitmap() {
		if err != nil {
			return nil, nil, err
		}
		names[b.Name] = append(names[b.Name], b.index)
		kinds, err := p.bitmapKinds(&b)
		if err != nil {
			return nil, nil, err
		}
		for kind := range kinds {
			switch {
			case bitmapKinds[kind]:
				drop[b.index] = true
			case kind == FindBitmapTail && !b.InUse:
				rewrite[b.index] = true
			}
		}
	}
	for _, indexes := range names {
		for _, i := range indexes {
			if len(indexes) > 1 {
				drop[i] = true // nobody can tell which of them is meant
			}
		}
	}
	for i := range drop {
		delete(rewrite, i)
	}
	return drop, rewrite, nil
}

// bitmapKinds are the kinds of findings about one bitmap.
func (p *planner) bitmapKinds(b *BitmapInfo) (map[FindingKind]bool, error) {
	kinds := map[FindingKind]bool{}
	c, err := p.counter(p.img)
	if err != nil {
		return nil, err
	}
	c.found = func(f Finding) error {
		kinds[f.Kind] = true
		return nil
	}
	c.win.reset(0, 0, 0) // no cluster is of interest
	return kinds, c.bitmap(b, map[uint64]bool{})
}

func (p *planner) mendInTx(tx *Tx, drop, rewrite map[uint32]bool) error {
	for _, b := range tx.old {
		if !rewrite[b.index] {
			continue
		}
		bits, err := p.img.ReadBitmap(b)
		if err != nil {
			return err
		}
		if err := tx.ReplaceBitmap(b.Name, bits); err != nil {
			return err
		}
		p.say("clears the bits behind the end of the disk of bitmap %q", b.Name)
	}
	for _, b := range tx.old {
		if drop[b.index] {
			tx.removeEntry(b.index)
			p.say("drops bitmap %q, which is broken; the next backup must be a full one", b.Name)
		}
	}
	return nil
}

// removeEntry removes the bitmap with that index in the old directory.
func (tx *Tx) removeEntry(index uint32) {
	for i := range tx.bitmaps {
		if b := &tx.bitmaps[i]; b.info.index == index && b.info.host != 0 {
			tx.bitmaps = append(tx.bitmaps[:i:i], tx.bitmaps[i+1:]...)
			tx.changed = true
			return
		}
	}
}
