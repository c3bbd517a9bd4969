package qcow2

import (
	"slices"

	"github.com/qbitkit/qbit/bitmap"
)

// A base is what becomes of a whole cluster before anything is written to it.
type base uint8

const (
	baseKeep      base = iota
	baseZero           // reads as zero
	baseDiscard        // what Discard does
	baseDrop           // absent, whatever shows then: behind the end of the disk
	baseDropTable      // the same for all that its L2 table maps
)

// A work is what is to be done to one guest cluster.
type work struct {
	index int64
	base  base
	segs  []segment // in order, over the base

	absentStays bool // what is absent reads as the segments say
}

// A segment is bytes of a cluster, [from, to), that are written.
type segment struct {
	from, to int64
	data     int // where they begin in Guest.data; -1: zeros
}

// pending is the work of a cluster, new or known.
func (g *Guest) pending(index int64) *work {
	i, ok := g.at[index]
	if !ok {
		i = len(g.works)
		g.at[index] = i
		g.works = append(g.works, work{index: index})
	}
	return &g.works[i]
}

// write collects bytes; there is room for them.
func (g *Guest) write(p []byte, off int64) {
	size := g.e.img.geometry.ClusterSize()
	if g.data == nil {
		g.data = make([]byte, 0, min(batchBytes, max(len(p), 256<<10)))
	}
	at := len(g.data)
	g.data = append(g.data, p...)
	for end := off + int64(len(p)); off < end; {
		next := min(end, off&^(size-1)+size)
		from := off & (size - 1)
		g.pending(off / size).add(segment{from, from + next - off, at})
		at += int(next - off)
		off = next
	}
}

// add adds a segment to the last one, where it continues it.
func (w *work) add(s segment) {
	if n := len(w.segs); n > 0 {
		last := &w.segs[n-1]
		joined := last.data >= 0 && s.data == last.data+int(last.to-last.from) || last.data < 0 && s.data < 0
		if last.to == s.from && joined {
			last.to = s.to
			return
		}
	}
	w.segs = append(w.segs, s)
}

// span collects a change of a run of bytes that are not given.
func (g *Guest) span(off, n int64, b base) error {
	if err := g.ready(off, n); err != nil {
		return err
	}
	if b == baseDiscard && g.e.img.header.Version < 3 && g.e.img.backingRef != nil {
		return nil // it would show what the backing file holds
	}
	if g.marks && n > batchBytes { // once, and not for each batch
		if g.failed = g.mark([]bitmap.Range{{Off: off, Len: n}}); g.failed != nil {
			return g.failed
		}
	}
	size := g.e.img.geometry.ClusterSize()
	for end := off + n; off < end; {
		if skip := g.nothingAt(off, end, b); skip > off {
			off = skip
			continue
		}
		next := min(end, off&^(size-1)+size)
		switch whole := off&(size-1) == 0 && (next-off == size || next == g.limit); {
		case whole:
			g.pending(off / size).reset(b)
		case b == baseZero:
			from := off & (size - 1)
			g.pending(off / size).add(segment{from, from + next - off, -1})
		}
		off = next
		if len(g.works) >= batchClusters {
			if err := g.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// reset has b happen to the whole cluster, after what was to be written.
func (w *work) reset(b base) {
	if b == baseDiscard && (len(w.segs) > 0 || w.base == baseZero) {
		b = baseZero // it would have been allocated
	}
	w.base, w.segs = b, nil
}

// nothingAt is where the next L2 table begins, at most end, when b changes nothing
// before that: there is no table, and what is absent stays absent.
func (g *Guest) nothingAt(off, end int64, b base) int64 {
	cover := g.e.img.geometry.l2Coverage()
	if b == baseKeep || b == baseZero || b == baseDiscard && g.disk.img.backingRef != nil || off%cover != 0 {
		return off
	}
	if l2, err := g.disk.l2Table(off / cover); err != nil || l2 != 0 || len(g.works) > 0 {
		return off // an error is told when the table is changed
	}
	return min(end, off+cover)
}

// covered reports that segments write all of [lo, hi).
func (w *work) covered(lo, hi int64) bool {
	segs := slices.Clone(w.segs)
	slices.SortFunc(segs, func(a, b segment) int { return int(a.from - b.from) })
	for _, s := range segs {
		if s.from <= lo {
			lo = max(lo, s.to)
		}
	}
	return lo >= hi
}
