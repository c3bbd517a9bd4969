package qcow2

import (
	"cmp"
	"fmt"
	"slices"
)

// A batch is a part of the pending works on its way to the file.
type batch struct {
	g      *Guest
	s      *session
	tables map[int64]*l2Table // by L1 index
	order  []*l2Table
	writes []dataWrite
	gone   []hostRange // what is no longer referred to, once for each reference

	placements []placement
	adopted    []HostOffset // data clusters that were allocated
}

// A dataWrite is a write of the fill phase: of b, or of Guest.data[from:to].
type dataWrite struct {
	host     HostOffset
	from, to int
	b        []byte
	owned    bool // it goes to clusters that were allocated
}

// flush writes the pending works, in as many batches as their tables need.
func (g *Guest) flush() error {
	works := g.works
	if len(works) == 0 {
		return nil
	}
	slices.SortFunc(works, func(a, b work) int { return cmp.Compare(a.index, b.index) })
	if g.marks && len(g.recording) > 0 {
		if err := g.mark(g.changes(works)); err != nil {
			return err
		}
	}
	for len(works) > 0 {
		b := &batch{g: g, s: g.s, tables: map[int64]*l2Table{}}
		n, err := b.plan(works)
		if err == nil {
			err = b.commit()
		}
		if err != nil {
			return err
		}
		works = works[n:]
	}
	g.works, g.data = g.works[:0], g.data[:0]
	clear(g.at)
	return g.syncRelease()
}

// syncRelease makes the refcounts that became smaller durable.
func (g *Guest) syncRelease() error {
	if err := g.s.f.Sync(); err != nil {
		g.e.failed = err
		return err
	}
	return nil
}

// plan plans works in memory, as many as the bound on tables allows; it tells how many.
func (b *batch) plan(works []work) (int, error) {
	cluster := b.g.e.img.geometry.ClusterSize()
	perTable := b.g.e.img.geometry.l2Entries()
	for i := range works {
		known := b.tables[works[i].index/perTable] != nil
		if !known && i > 0 && int64(len(b.tables)+1)*cluster > batchBytes {
			return i, nil
		}
		if err := b.planWork(&works[i]); err != nil {
			return 0, fmt.Errorf("changing the guest's bytes at %d: %w", works[i].index*cluster, err)
		}
	}
	return len(works), nil
}

// commit writes the batch in four phases. What release writes is durable with the next
// sync: until then a crash leaves leaks, and nothing is allocated without a sync.
func (b *batch) commit() error {
	if len(b.order) == 0 && len(b.writes) == 0 {
		return nil
	}
	table, clusters, err := b.prepare()
	if err != nil {
		return err
	}
	if err := b.phases(table, clusters); err != nil {
		b.g.e.failed = err
		return err
	}
	if err := b.adopt(); err != nil {
		return err
	}
	if err := b.release(); err != nil {
		b.g.e.failed = err
		return fmt.Errorf("the bytes are written, but giving back clusters failed, which are leaked: %w", err)
	}
	if err := b.s.settle(); err != nil {
		return err
	}
	b.g.moved()
	return nil
}

// prepare is the end of planning: new clusters get their place, and a refcount table that is full gets a new place.
func (b *batch) prepare() (table HostOffset, clusters int64, err error) {
	if err := b.place(); err != nil {
		return 0, 0, err
	}
	return b.s.alloc.growTable()
}

func (b *batch) phases(table HostOffset, clusters int64) error {
	for _, phase := range []func() error{
		b.s.clearAutoclear,
		func() error { return b.allocate(table, clusters) },
		b.fill,
	} {
		if err := phase(); err != nil {
			b.s.giveBack()
			return err
		}
	}
	return b.link()
}

// allocate is the first phase; where nothing was allocated there is none.
func (b *batch) allocate(table HostOffset, clusters int64) error {
	if len(b.s.alloc.taken) == 0 {
		return nil
	}
	return b.s.allocate(table, clusters)
}

// fill is the second phase: data and new tables, and data in place.
func (b *batch) fill() error {
	if err := b.s.extendWhole(); err != nil {
		return err
	}
	external := b.g.e.img.dataFile != nil
	for i := 0; i < len(b.writes); {
		w := b.writes[i]
		for i++; i < len(b.writes) && w.b == nil && w.continues(&b.writes[i]); i++ {
			w.to = b.writes[i].to
		}
		if err := b.write(&w); err != nil {
			return err
		}
	}
	if external {
		if err := b.g.opts.DataFile.Sync(); err != nil {
			return fmt.Errorf("the data file: %w", err)
		}
	}
	return b.fillTables()
}

// continues reports that next follows w in the file and in the data.
func (w *dataWrite) continues(next *dataWrite) bool {
	return next.b == nil && next.owned == w.owned && next.from == w.to && next.host == w.host+HostOffset(w.to-w.from)
}

// write writes data, to the file that has it.
func (b *batch) write(w *dataWrite) error {
	p := w.b
	if p == nil {
		p = b.g.data[w.from:w.to]
	}
	var err error
	switch {
	case b.g.e.img.dataFile != nil:
		b.g.dataSize = max(b.g.dataSize, int64(w.host)+int64(len(p)))
		err = writeFull(b.g.opts.DataFile, p, w.host)
	case w.owned:
		err = b.s.write(w.host, p)
	default:
		err = writeFull(b.s.f, p, w.host)
	}
	if err != nil {
		return fmt.Errorf("writing %d bytes of data at %s: %w", len(p), w.host, err)
	}
	return nil
}

func (b *batch) fillTables() error {
	for _, t := range b.order {
		if t.fresh == 0 || t.dropped {
			continue
		}
		if err := b.s.write(t.fresh, t.encode(0, len(t.words))); err != nil {
			return fmt.Errorf("writing an L2 table: %w", err)
		}
	}
	return b.s.f.Sync()
}

// link is the third phase: entries of tables that stay where they are, and L1 entries.
func (b *batch) link() error {
	linked := false
	for _, t := range b.order {
		wrote, err := t.link(b.s.f, b.g.e.img.header.L1TableOffset)
		if err != nil {
			return fmt.Errorf("linking the data: %w", err)
		}
		linked = linked || wrote
	}
	if !linked {
		return nil
	}
	return b.s.f.Sync()
}

// adopt notes the clusters that the guest now refers to.
func (b *batch) adopt() error {
	size := b.g.e.img.geometry.ClusterSize()
	for _, t := range b.order {
		if t.fresh != 0 && !t.dropped {
			b.adopted = append(b.adopted, t.fresh)
		}
	}
	if err := b.s.x.used.Resize(alignUp(b.s.alloc.fileSize(), size), false); err != nil {
		return err
	}
	for _, host := range b.adopted {
		b.s.x.used.Set(int64(host), size)
	}
	return nil
}

// release is the fourth phase: the clusters that the batch no longer refers to.
func (b *batch) release() error {
	s := b.s
	size := s.img.geometry.ClusterSize()
	for _, r := range append(b.gone, s.retired...) {
		for at := int64(r.host) &^ (size - 1); at < int64(r.host)+r.n; at += size {
			left := uint64(0)
			if s.x.used.Test(at) {
				left = s.x.drop(at / size)
			}
			if s.kept.Test(at) || s.x.refs.Test(at) {
				left++
			}
			if left == 1 && s.x.twice.Test(at) {
				left++ // the other entry of the active disk would have to be marked COPIED: leak it
			}
			if _, err := s.releaseCluster(at/size, left); err != nil {
				return err
			}
		}
	}
	s.retired = nil
	return s.refs.flushBlocks()
}

// A placement is a cluster of the guest that gets a new cluster of the file.
type placement struct {
	t        *l2Table
	cluster  int64
	from, to int // of batch.writes, whose hosts are offsets in the cluster
}

// place allocates the new clusters, together: what follows each other in the guest
// follows each other in the file, as far as there is room.
func (b *batch) place() error {
	size := b.g.e.img.geometry.ClusterSize()
	for todo := b.placements; len(todo) > 0; {
		host, n, err := b.s.alloc.allocateRun(int64(len(todo)))
		if err != nil {
			return err
		}
		for _, p := range todo[:n] {
			for i := p.from; i < p.to; i++ {
				b.writes[i].host += host
			}
			p.t.words[p.t.word(p.cluster)] = uint64(host) | entryCopied
			b.adopted = append(b.adopted, host)
			host += HostOffset(size)
		}
		todo = todo[n:]
	}
	return nil
}

// moved has readers see the image as it is now.
func (g *Guest) moved() {
	img := g.e.img
	img.tables.forget()
	for _, i := range []*Image{img, g.disk.img} {
		i.size, i.clusters.size = g.s.alloc.size, g.s.alloc.size
		if img.dataFile == nil {
			i.storageSize = i.size
		} else if i.storage != nil {
			i.storageSize = max(i.storageSize, g.dataSize)
		}
	}
}

// forget drops all tables.
func (c *tableCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.order.Len() > 0 {
		c.drop(c.order.Back())
	}
}
