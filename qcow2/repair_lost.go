package qcow2

import "encoding/binary"

// What cannot be read becomes zeros that are recorded as such, where the version knows
// them. Left unallocated it would say "as below": in an overlay the backing file's bytes
// would come up, and in a backup those of an older one, and nothing would tell them from
// what the guest wrote. Zeros are as wrong, but they are of no time at all.

// lostEntry is the entry of a cluster that cannot be read.
func (g Geometry) lostEntry() (l2Entry, subclusterBitmap) {
	switch {
	case g.Version < 3:
		return 0, 0
	case g.ExtendedL2:
		return 0, 0xffffffff << 32
	}
	return entryZero, 0
}

// lostCluster is the entry of a cluster that cannot be read.
func (x *fixer) lostCluster(t *fixTable, i int64) (l2Entry, subclusterBitmap) {
	g := x.img.geometry
	x.say("drops L2 entries that lead nowhere")
	off := (t.index*g.l2Entries() + i) << g.ClusterBits
	x.lose(t.view.snapshot, off, min(g.ClusterSize(), t.view.size-off))
	return g.lostEntry()
}

// lostTable is the L1 entry of an L2 table that cannot be read: nothing, or a table of
// zero clusters. One table serves as many entries as a refcount can count.
func (x *fixer) lostTable(v *checkView, i int64) l1Entry {
	g := x.img.geometry
	x.say("drops L1 entries that lead nowhere")
	off := i * g.l2Coverage()
	x.lose(v.snapshot, off, min(g.l2Coverage(), v.size-off))
	if g.Version < 3 || off >= v.size {
		return 0
	}
	if x.blank == 0 || x.blankRefs >= x.limit {
		x.say("adds an L2 table of zero clusters for what they led to")
		x.blank, x.blankRefs = x.newBlank(), 0
	}
	x.blankRefs++
	return l1Entry(x.blank)
}

// newBlank adds a table of zero clusters behind the end of the file.
func (x *fixer) newBlank() HostOffset {
	to := HostOffset(x.end << x.img.geometry.ClusterBits)
	x.end++
	x.moved = append(x.moved, movedRun{to: to, n: x.img.geometry.ClusterSize(), blank: true})
	return to
}

// blankTable is an L2 table in which nothing can be read.
func (g Geometry) blankTable() []byte {
	var b []byte
	e, bits := g.lostEntry()
	for range g.l2Entries() {
		b = binary.BigEndian.AppendUint64(b, uint64(e))
		if g.ExtendedL2 {
			b = binary.BigEndian.AppendUint64(b, uint64(bits))
		}
	}
	return b
}
