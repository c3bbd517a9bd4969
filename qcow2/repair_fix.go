package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A fixer finds out how the entries of L1 and L2 tables have to be changed. It writes
// nothing. Structures that the header names stay where they are; an L2 table that shares
// a cluster with anything else, and data that shares one with a table or has more
// references than a refcount can count, is copied to a cluster of its own: the guest
// reads what it read before.
type fixer struct {
	*planner
	c     *checker    // what is in which cluster
	edits []entryEdit // of L2 tables
	links []entryEdit // of L1 tables, which are written after them
	moved []movedRun
	end   int64 // clusters of the file with what is copied
	limit uint64
	views []*checkView
	queue []*fixTable
	byAt  map[HostOffset]*fixTable
	mixed map[int64]bool // clusters that are an L2 table and something else
	bad   error          // what forbids the repair

	blank     HostOffset // a table of zero clusters; 0: there is none yet
	blankRefs uint64     // of L1 entries
}

// An entryEdit is an entry that changes: one word, or two.
type entryEdit struct {
	host  HostOffset
	words []uint64
}

// A movedRun is bytes that are written behind the end of the file.
type movedRun struct {
	from, to HostOffset
	n        int64
	blank    bool // a table of zero clusters, and no copy
}

// A fixTable is an L2 table to look at.
type fixTable struct {
	from, to HostOffset // where it is, and where it will be
	view     *checkView
	index    int64
	refs     uint32
}

// mendReferences mends the entries of all tables, and the refcounts.
func (p *planner) mendReferences() error {
	if err := p.reopen(); err != nil {
		return err
	}
	rebuild, mixed, err := p.overlaps()
	if err != nil {
		return err
	}
	before, err := p.count(p.img, !rebuild)
	if err != nil {
		return err
	}
	x, err := p.newFixer(rebuild)
	if err != nil {
		return err
	}
	x.mixed = mixed
	if err := x.find(); err != nil {
		return err
	}
	scratch := newOverlay(p.o, p.o.size, p.opts.Memory)
	if err := x.write(scratch); err != nil {
		return err
	}
	img, err := Open(scratch, scratch.size, &p.open)
	if err != nil {
		return err
	}
	after, err := p.count(img, !rebuild)
	if err != nil {
		return err
	}
	return x.commit(before, after, rebuild)
}

// overlaps says whether the refcount structures cannot be used in place, and which
// clusters are an L2 table and something else.
func (p *planner) overlaps() (rebuild bool, mixed map[int64]bool, err error) {
	mixed = map[int64]bool{}
	c := newChecker(p.ctx, p.img, nil, func(f Finding) error { return nil })
	c.onOverlap = func(cluster int64, a, b use) {
		rebuild = rebuild || a == useRefTable || a == useRefBlock || b == useRefTable || b == useRefBlock
		if a == useL2 || b == useL2 {
			mixed[cluster] = true
		}
	}
	err = c.run()
	return rebuild || c.res.brokenRefcounts, mixed, err
}

// commit writes: refcounts are raised first and lowered last, and between the two the
// copies are written before the entries that point at them.
func (x *fixer) commit(before, after *window, rebuild bool) error {
	p := x.planner
	if err := x.writeMoved(p.o); err != nil {
		return err
	}
	if err := p.reopen(); err != nil {
		return err
	}
	if !rebuild {
		room, err := p.raise(before, after)
		if err != nil {
			return err
		}
		if !room { // count again, without what is given up
			return x.commitRebuilt()
		}
	} else if err := p.rebuildRefcounts(before, after); err != nil {
		return err
	}
	if err := x.writeEdits(p.o); err != nil {
		return err
	}
	return p.lowerAll()
}

// commitRebuilt is commit where the refcount table has no room.
func (x *fixer) commitRebuilt() error {
	p := x.planner
	before, err := p.count(p.img, false)
	if err != nil {
		return err
	}
	scratch := newOverlay(p.o, p.o.size, p.opts.Memory)
	if err := x.writeEdits(scratch); err != nil {
		return err
	}
	img, err := Open(scratch, scratch.size, &p.open)
	if err != nil {
		return err
	}
	after, err := p.count(img, false)
	if err != nil {
		return err
	}
	if err := p.rebuildRefcounts(before, after); err != nil {
		return err
	}
	if err := x.writeEdits(p.o); err != nil {
		return err
	}
	return p.lowerAll()
}

// lowerAll lowers what counts more than the references that are left.
func (p *planner) lowerAll() error {
	if err := p.reopen(); err != nil {
		return err
	}
	refs, err := p.count(p.img, true)
	if err != nil {
		return err
	}
	return p.lower(refs)
}

// write writes all at once: for a look at the result.
func (x *fixer) write(o *overlay) error {
	if err := x.writeMoved(o); err != nil {
		return err
	}
	return x.writeEdits(o)
}

// writeMoved writes the copies, behind the end of the file.
func (x *fixer) writeMoved(o *overlay) error {
	if len(x.moved) == 0 {
		return nil
	}
	if err := o.Truncate(x.end << x.img.geometry.ClusterBits); err != nil {
		return err
	}
	for _, m := range x.moved {
		b, err := x.content(m, o)
		if err != nil {
			return err
		}
		if err := writeFull(o, b, m.to); err != nil {
			return err
		}
	}
	return o.Sync()
}

// content is what is written behind the end of the file.
func (x *fixer) content(m movedRun, o *overlay) ([]byte, error) {
	if m.blank {
		return x.img.geometry.blankTable(), nil
	}
	b := make([]byte, m.n)
	if _, err := o.ReadAt(b, int64(m.from)); err != nil {
		return nil, fmt.Errorf("copying a cluster at %s: %w", m.from, err)
	}
	return b, nil
}

// writeEdits writes the entries of L2 tables, and then those that link the copies.
func (x *fixer) writeEdits(o *overlay) error {
	for _, edits := range [][]entryEdit{x.edits, x.links} {
		for _, e := range edits {
			var b []byte
			for _, word := range e.words {
				b = binary.BigEndian.AppendUint64(b, word)
			}
			if err := writeFull(o, b, e.host); err != nil {
				return err
			}
		}
		if err := o.Sync(); err != nil {
			return err
		}
	}
	return nil
}

func (p *planner) newFixer(rebuild bool) (*fixer, error) {
	c, err := p.counter(p.img)
	if err != nil {
		return nil, err
	}
	c.noRefcounts = rebuild
	c.win.reset(0, c.plan.Window, c.plan.Clusters)
	return &fixer{planner: p, c: c, end: p.img.fileClusters(), limit: p.img.geometry.maxRefcount(),
		byAt: map[HostOffset]*fixTable{}}, nil
}

// find walks: first what stays where it is, then L2 tables, then data.
func (x *fixer) find() error {
	var shared error
	x.c.onOverlap = func(_ int64, a, b use) {
		shared = fmt.Errorf("%v shares a cluster with %v, and nobody can tell whose bytes are there: %w", a, b, ErrCannotRepair)
	}
	for _, step := range []func() error{x.c.headerBits, x.c.refcountStructures, x.c.encryption, x.c.snapshotTable, x.c.bitmaps, x.markL1Tables} {
		if err := step(); err != nil || shared != nil {
			return errors.Join(shared, err)
		}
	}
	if err := x.l1Tables(); err != nil {
		return err
	}
	for _, t := range x.queue {
		if err := x.table(t); err != nil {
			return err
		}
	}
	if x.bad != nil {
		return x.bad
	}
	return x.ctx.Err()
}

// markL1Tables marks the L1 tables of the active disk and of all snapshots.
func (x *fixer) markL1Tables() error {
	x.views = []*checkView{{view: x.img.active, active: true}}
	for s, err := range x.img.EachSnapshot() {
		if err != nil {
			return err
		}
		d, err := x.img.snapshotView(&s)
		if err != nil {
			return err
		}
		x.views = append(x.views, &checkView{view: d.view, snapshot: s.ID})
	}
	for _, v := range x.views {
		if err := x.c.add(v.l1, v.l1Size*8, useL1, place{}); err != nil {
			return err
		}
	}
	return nil
}

// l1Tables looks at the entries of all L1 tables.
func (x *fixer) l1Tables() error {
	for _, v := range x.views {
		if v.l1Size == 0 {
			continue
		}
		if err := x.l1Table(v); err != nil {
			return err
		}
	}
	return nil
}

func (x *fixer) l1Table(v *checkView) error {
	b := make([]byte, v.l1Size*8)
	if err := readFull(x.o, b, v.l1); err != nil {
		return err
	}
	for i := range v.l1Size {
		e := l1Entry(binary.BigEndian.Uint64(b[i*8:]))
		if e == 0 {
			continue
		}
		if fixed := x.l1Entry(v, i, e); fixed != e {
			x.links = append(x.links, entryEdit{v.l1 + HostOffset(i*8), []uint64{uint64(fixed)}})
		}
	}
	return x.ctx.Err()
}

func (x *fixer) edit(host HostOffset, words ...uint64) {
	x.edits = append(x.edits, entryEdit{host, words})
}

// l1Entry is what an L1 entry has to be.
func (x *fixer) l1Entry(v *checkView, i int64, e l1Entry) l1Entry {
	g := x.img.geometry
	host := e.offset()
	if host == 0 || !g.aligned(host) || !within(host, uint64(g.ClusterSize()), x.o.size) {
		return x.lostTable(v, i)
	}
	if e&l1Reserved != 0 {
		x.say("clears reserved bits of table entries")
		e &^= l1Reserved
	}
	t := x.byAt[host]
	if t == nil || uint64(t.refs) >= x.limit {
		t = x.newTable(v, i, host)
	} else {
		t.refs++
	}
	if t.to == host {
		x.c.win.addReferences(int64(host>>g.ClusterBits), 1)
		return e
	}
	return e&^entryOffset | l1Entry(t.to)
}

// newTable is a table to look at: where it is, or as a copy if something else is in its
// cluster too. Then none of its entries is changed where they are.
func (x *fixer) newTable(v *checkView, i int64, host HostOffset) *fixTable {
	g := x.img.geometry
	cluster := int64(host >> g.ClusterBits)
	t := &fixTable{from: host, to: host, view: v, index: i, refs: 1}
	if x.mixed[cluster] || x.c.win.use(cluster) != unused {
		x.say("copies tables and data that share a cluster with something else")
		t.to = x.move(host, g.ClusterSize())
	} else {
		x.c.win.mark(cluster, 0, useL2)
	}
	x.byAt[host] = t
	x.queue = append(x.queue, t)
	return t
}

// move copies n bytes, which begin anywhere in a cluster, to new clusters.
func (x *fixer) move(from HostOffset, n int64) HostOffset {
	g := x.img.geometry
	in := int64(from) & (g.ClusterSize() - 1)
	to := HostOffset(x.end<<g.ClusterBits + in)
	x.end += (in + n + g.ClusterSize() - 1) >> g.ClusterBits
	x.moved = append(x.moved, movedRun{from: from, to: to, n: n})
	return to
}
