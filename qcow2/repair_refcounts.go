package qcow2

import (
	"encoding/binary"
	"fmt"
)

// count counts the references to all clusters of an image; structures says whether the
// refcount table and its blocks count too.
func (p *planner) count(img *Image, structures bool) (*window, error) {
	c, err := p.counter(img)
	if err != nil {
		return nil, err
	}
	c.noRefcounts = !structures
	if err := c.run(); err != nil {
		return nil, err
	}
	return &c.win, nil
}

// counter is a checker whose window is the whole file, and which tells nobody.
func (p *planner) counter(img *Image) (*checker, error) {
	c := newChecker(p.ctx, img, nil, func(Finding) error { return nil })
	if need := c.plan.Clusters * windowBits / 8 * 2; need > p.opts.Memory {
		return nil, fmt.Errorf("counting the references of %d clusters takes %d bytes of memory, %d are allowed", c.plan.Clusters, need, p.opts.Memory)
	}
	c.plan.Window, c.plan.Passes = alignUp(c.plan.Clusters, 64), 1
	return c, nil
}

// upTo is how many references a cluster has; 0 behind the window.
func (w *window) upTo(cluster int64) uint64 {
	if cluster >= w.hi {
		return 0
	}
	return w.references(cluster)
}

// lower lowers the refcounts that are above the references.
func (p *planner) lower(refs *window) error {
	r, err := loadRefcounts(p.o, p.img)
	if err != nil {
		return err
	}
	n, err := p.setCounts(r, refs.hi, func(cluster int64, now uint64) uint64 { return min(now, refs.upTo(cluster)) })
	if err != nil || n == 0 {
		return err
	}
	p.say("gives back %d leaked clusters, or leaked references to them", n)
	if err := r.flushBlocks(); err != nil {
		return err
	}
	return p.o.Sync()
}

// setCounts changes the refcounts of the first clusters, in blocks that are there. It
// gives how many changed.
func (p *planner) setCounts(r *refcounts, clusters int64, want func(cluster int64, now uint64) uint64) (int64, error) {
	changed := int64(0)
	for c := int64(0); c < clusters; c++ {
		now, err := r.get(c)
		if err != nil {
			return 0, err
		}
		n := want(c, now)
		if n == now {
			continue
		}
		r.set(c, n)
		changed++
	}
	return changed, nil
}

// raise raises the refcounts that are below what two windows count. false says that the
// refcount table has no room, so that all has to be rebuilt.
func (p *planner) raise(a, b *window) (bool, error) {
	r, err := loadRefcounts(p.o, p.img)
	if err != nil {
		return false, err
	}
	alloc := newAllocator(p.img, r, nil, true)
	limit := p.img.geometry.maxRefcount()
	changed := int64(0)
	for c := int64(0); c < max(a.hi, b.hi); c++ {
		now, err := r.get(c)
		if err != nil {
			return false, err
		}
		want := min(limit, max(a.upTo(c), b.upTo(c)))
		if want <= now {
			continue
		}
		if block, err := r.block(c / p.img.geometry.refcountsPerBlock()); err != nil {
			return false, err
		} else if block == nil {
			if err := alloc.count(c); err != nil {
				return false, err
			}
		}
		r.set(c, want)
		changed++
	}
	if int64(len(r.table)) > r.room {
		return false, nil
	}
	if changed == 0 {
		return true, nil
	}
	p.say("raises %d refcounts that were too low", changed)
	return true, p.writeRaised(r, alloc)
}

// writeRaised writes refcount blocks, and then the table entries of new ones.
func (p *planner) writeRaised(r *refcounts, alloc *allocator) error {
	if err := r.flushBlocks(); err != nil {
		return err
	}
	if size := alloc.fileSize(); size > p.o.size {
		if err := p.o.Truncate(size); err != nil {
			return err
		}
	}
	if err := p.o.Sync(); err != nil {
		return err
	}
	linked, err := r.linkBlocks()
	if err != nil || !linked {
		return err
	}
	return p.o.Sync()
}

// A rebuild is a whole new refcount table with its blocks, behind the end of the file.
type rebuild struct {
	geometry Geometry
	counts   func(cluster int64) uint64
	end      int64           // clusters of the file so far: the new structures follow
	blocks   map[int64]int64 // index -> cluster
	order    []int64
	table    int64 // clusters of the table, which comes first
}

// rebuildRefcounts writes new refcount structures that count what two windows count, to
// clusters behind the end of the file, and links them by the header's first sector. The
// old ones are not touched; nothing refers to them any more then.
func (p *planner) rebuildRefcounts(a, b *window) error {
	g := p.img.geometry
	limit := g.maxRefcount()
	end := max(a.hi, b.hi, p.img.fileClusters())
	rb := &rebuild{geometry: g, end: end, counts: func(c int64) uint64 {
		if c >= end {
			return 1
		}
		return min(limit, max(a.upTo(c), b.upTo(c)))
	}}
	rb.layOut()
	if rb.table*g.ClusterSize() > maxRefTableBytes {
		return fmt.Errorf("the refcount table would grow beyond %d bytes", maxRefTableBytes)
	}
	p.say("rebuilds the refcounts from scratch: a new table and %d blocks", len(rb.order))
	if err := rb.write(p.o); err != nil {
		return err
	}
	if err := p.o.Sync(); err != nil {
		return err
	}
	sector := make([]byte, atomicUnit)
	if err := readFull(p.o, sector, 0); err != nil {
		return err
	}
	putRefTable(sector, HostOffset(end<<g.ClusterBits), uint32(rb.table))
	if err := writeFull(p.o, sector, 0); err != nil {
		return err
	}
	return p.o.Sync()
}

// layOut finds out which blocks are needed: those of clusters in use, and those that
// count the new structures themselves.
func (rb *rebuild) layOut() {
	per := rb.geometry.refcountsPerBlock()
	needed := map[int64]bool{}
	rb.order = nil
	need := func(index int64) {
		if !needed[index] {
			needed[index] = true
			rb.order = append(rb.order, index)
		}
	}
	for c := int64(0); c < rb.end; c++ {
		if !needed[c/per] && rb.counts(c) > 0 {
			need(c / per)
		}
	}
	for total := int64(-1); total != rb.total(); {
		total = rb.total()
		for c := rb.end; c < rb.end+total; c++ {
			need(c / per)
		}
		last := int64(0)
		for _, index := range rb.order {
			last = max(last, index)
		}
		rb.table = ((last+1)*8 + rb.geometry.ClusterSize() - 1) / rb.geometry.ClusterSize()
	}
	rb.blocks = map[int64]int64{}
	for i, index := range rb.order {
		rb.blocks[index] = rb.end + rb.table + int64(i)
	}
}

// total is how many clusters the new structures have.
func (rb *rebuild) total() int64 { return rb.table + int64(len(rb.order)) }

func (rb *rebuild) write(f File) error {
	size := rb.geometry.ClusterSize()
	per := rb.geometry.refcountsPerBlock()
	total := rb.total()
	table := make([]byte, rb.table*size)
	for _, index := range rb.order {
		at := rb.blocks[index] * size
		binary.BigEndian.PutUint64(table[index*8:], uint64(at))
		block := make([]byte, size)
		for i := int64(0); i < per && index*per+i < rb.end+total; i++ {
			rb.geometry.putRefcount(block, i, rb.counts(index*per+i))
		}
		if err := writeFull(f, block, HostOffset(at)); err != nil {
			return err
		}
	}
	return writeFull(f, table, HostOffset(rb.end*size))
}
