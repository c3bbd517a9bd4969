package qcow2

import "hash/maphash"

// A tableList is the L2 tables that the L1 tables point at, each once with the number
// of references to it: a table that thirty snapshots share is read once. It grows
// without copying what it holds, since an image with small clusters has many tables.
type tableList struct {
	max    int // what does not fit is walked as often as it is referred to
	n      int
	blocks [][]l2Ref // of tableBlock each
	slots  []int32   // a hash table: 1 + the number of a table, or 0
	seed   maphash.Seed
	views  []*checkView
}

// An l2Ref is an L2 table, from where it was first found.
type l2Ref struct {
	host  HostOffset
	index uint32 // of the L1 entry: a table of 32 MiB has four million
	view  uint32 // of the list's views
	refs  uint32
}

const (
	tableBytes = 48 // about what a tableList uses for a table
	tableBlock = 256
)

func (t *tableList) reset() {
	if t.seed == (maphash.Seed{}) {
		t.seed = maphash.MakeSeed()
	}
	t.n, t.views = 0, t.views[:0]
	clear(t.slots)
}

// at is a table of the list.
func (t *tableList) at(i int) *l2Ref { return &t.blocks[i/tableBlock][i%tableBlock] }

// view is the disk in which a table was first found.
func (t *tableList) view(r *l2Ref) *checkView { return t.views[r.view] }

// add adds a reference; false where there is no room for the table.
func (t *tableList) add(host HostOffset, v *checkView, index int64) bool {
	if 2*t.n >= len(t.slots) {
		t.grow()
	}
	slot := t.find(host)
	if i := t.slots[slot]; i != 0 {
		t.at(int(i-1)).refs++
		return true
	}
	if t.n >= t.max {
		return false
	}
	t.put(l2Ref{host, uint32(index), t.number(v), 1})
	t.slots[slot] = int32(t.n)
	return true
}

// number is the number of a view; that of the one before is asked for again and again.
func (t *tableList) number(v *checkView) uint32 {
	if n := len(t.views); n == 0 || t.views[n-1] != v {
		t.views = append(t.views, v)
	}
	return uint32(len(t.views) - 1)
}

// put adds a table at the end.
func (t *tableList) put(r l2Ref) {
	if t.n == len(t.blocks)*tableBlock {
		t.blocks = append(t.blocks, make([]l2Ref, min(tableBlock, t.max-t.n)))
	}
	*t.at(t.n) = r
	t.n++
}

// find is the slot of a table, or the empty one for it. Nobody who makes an image knows
// the seed, so that its tables cannot be made to stand in each other's way.
func (t *tableList) find(host HostOffset) int {
	mask := len(t.slots) - 1
	slot := int(maphash.Comparable(t.seed, host)) & mask
	for t.slots[slot] != 0 && t.at(int(t.slots[slot]-1)).host != host {
		slot = (slot + 1) & mask
	}
	return slot
}

func (t *tableList) grow() {
	t.slots = make([]int32, max(16, 2*len(t.slots)))
	for i := range t.n {
		t.slots[t.find(t.at(i).host)] = int32(i + 1)
	}
}
