package qcow2

import (
	"fmt"
	"math"
)

// extraPage is how many clusters a page of extraCounts has.
const extraPage = 256

// extraCounts are how many references beyond the first there are to each cluster. Most
// have none; the memory follows those that have. A count that reached the highest
// number is not believed any more, and never becomes smaller.
type extraCounts struct {
	pages map[int64]*[extraPage]uint16
}

func (m *extraCounts) get(c int64) uint64 {
	if p := m.pages[c/extraPage]; p != nil {
		return uint64(p[c%extraPage])
	}
	return 0
}

func (m *extraCounts) add(c int64, n uint64) {
	if n == 0 {
		return
	}
	p := m.pages[c/extraPage]
	if p == nil {
		p = new([extraPage]uint16)
		m.pages[c/extraPage] = p
	}
	p[c%extraPage] = uint16(min(uint64(p[c%extraPage])+n, math.MaxUint16))
}

// lower takes one from a count that is not 0.
func (m *extraCounts) lower(c int64) {
	if p := m.pages[c/extraPage]; p[c%extraPage] < math.MaxUint16 {
		p[c%extraPage]--
	}
}

// mark notes x.weight references to the clusters of n bytes at host.
func (x *references) mark(host, n int64) {
	if x.counts == nil || n <= 0 {
		x.used.Set(host, n)
		return
	}
	size := x.img.geometry.ClusterSize()
	start := host &^ (size - 1)
	if next, ok := x.used.Next(start); x.weight == 1 && (!ok || next >= host+n) {
		x.used.Set(host, n)
		return
	}
	for at := start; at < host+n; at += size {
		extra := x.weight
		if !x.used.Test(at) {
			x.used.Set(at, size)
			extra--
		}
		x.counts.add(at/size, extra)
	}
}

// markTwice notes data that the active disk refers to once more. The run is not in
// used yet.
func (x *references) markTwice(host, n int64) {
	size := x.img.geometry.ClusterSize()
	for at, ok := x.used.Next(host); ok && at < host+n; at, ok = x.used.Next(at + size) {
		x.twice.Set(at, size)
	}
}

// refsTo is how many references were found to a cluster.
func (x *references) refsTo(c int64) uint64 {
	if !x.used.Test(c * x.img.geometry.ClusterSize()) {
		return 0
	}
	return 1 + x.counts.get(c)
}

// drop takes a reference to a cluster away, and tells how many are left.
func (x *references) drop(c int64) uint64 {
	size := x.img.geometry.ClusterSize()
	if left := x.counts.get(c); left > 0 {
		x.counts.lower(c)
		return x.refsTo(c)
	}
	x.used.Unset(c*size, size)
	return 0
}

// countTables counts how many L1 entries refer to each L2 table: what a table that
// several snapshots share refers to is referred to by each of them.
func (x *references) countTables() error {
	seen, err := newClusterSet(x.img.geometry, x.img.size)
	if err != nil {
		return err
	}
	if x.twice, err = newClusterSet(x.img.geometry, x.img.size); err != nil {
		return err
	}
	x.tables = &references{img: x.img, used: seen, counts: &extraCounts{pages: map[int64]*[extraPage]uint16{}}, weight: 1}
	if err := x.tables.countView(&x.img.active); err != nil {
		return err
	}
	if len(x.tables.counts.pages) > 0 {
		x.twice.SetAll() // all that is below such a table, and it is an odd image
	}
	list, _, err := x.img.loadSnapshots()
	if err != nil {
		return err
	}
	for i := range list {
		d, err := x.img.snapshotView(&list[i])
		if err == nil {
			err = x.tables.countView(&d.view)
		}
		if err != nil {
			return fmt.Errorf("snapshot %q: %w", list[i].Name, err)
		}
	}
	return nil
}

func (x *references) countView(v *view) error {
	for i := range v.l1Size {
		l2, err := v.l2Table(i)
		if err != nil {
			return err
		}
		if l2 != 0 {
			x.mark(int64(l2), x.img.geometry.ClusterSize())
		}
	}
	return nil
}

// addWeighted is addTable, as often as there are references to the table.
func (x *references) addWeighted(v *view, l2 HostOffset) error {
	if x.tables == nil {
		return x.addTable(v, l2)
	}
	if err := x.flush(); err != nil { // the run has the weight of its table
		return err
	}
	x.weight = max(1, x.tables.refsTo(int64(l2)>>x.img.geometry.ClusterBits))
	err := x.addTable(v, l2)
	if err == nil {
		err = x.flush()
	}
	x.weight = 1
	return err
}
