package qcow2

import (
	"encoding/binary"
	"fmt"
)

// table looks at the entries of an L2 table.
func (x *fixer) table(t *fixTable) error {
	g := x.img.geometry
	b := make([]byte, g.ClusterSize())
	if err := readFull(x.o, b, t.from); err != nil {
		return err
	}
	stride := g.l2EntryWords() * 8
	for i := range g.l2Entries() {
		e, bits := l2Entry(binary.BigEndian.Uint64(b[i*stride:])), subclusterBitmap(0)
		if g.ExtendedL2 {
			bits = subclusterBitmap(binary.BigEndian.Uint64(b[i*stride+8:]))
		}
		if e == 0 && bits == 0 {
			continue
		}
		newE, newBits := x.entry(t, i, e, bits)
		switch {
		case newE == e && newBits == bits:
		case g.ExtendedL2:
			x.edit(t.to+HostOffset(i*stride), uint64(newE), uint64(newBits))
		default:
			x.edit(t.to+HostOffset(i*stride), uint64(newE))
		}
	}
	return x.ctx.Err()
}

// entry is what an L2 entry has to be.
func (x *fixer) entry(t *fixTable, i int64, e l2Entry, b subclusterBitmap) (l2Entry, subclusterBitmap) {
	if e.compressed() {
		return x.compressedEntry(t, i, e)
	}
	e, b = x.plainEntry(t, i, e, b)
	if x.img.dataFile != nil {
		return x.dataFileEntry(t, i, e), b
	}
	if e.offset() == 0 {
		return e, b
	}
	return x.place(t, e, b)
}

// plainEntry makes a standard cluster descriptor obey the rules.
func (x *fixer) plainEntry(t *fixTable, i int64, e l2Entry, b subclusterBitmap) (l2Entry, subclusterBitmap) {
	g := x.img.geometry
	outside := x.img.dataFile != nil
	fixed := e &^ l2Reserved
	if fixed.zero() && (g.Version < 3 || g.ExtendedL2) {
		fixed &^= entryZero
	}
	if fixed.offset() == 0 && !outside {
		fixed &^= entryCopied
	}
	if fixed != e {
		x.say("clears reserved bits of table entries")
	}
	if !g.aligned(fixed.offset()) || !outside && fixed.offset() >= HostOffset(x.o.size) {
		return x.lostCluster(t, i)
	}
	if g.ExtendedL2 {
		b = x.subclusters(t, i, fixed, b)
	}
	return fixed, b
}

// subclusters resolves contradictions to zero: never to bytes of which nobody knows
// whether they are the guest's.
func (x *fixer) subclusters(t *fixTable, i int64, e l2Entry, b subclusterBitmap) subclusterBitmap {
	bad := b.allocated() & b.zero()
	if !e.meaning(x.img.dataFile != nil).hasHost {
		bad = b.allocated()
	}
	if bad == 0 {
		return b
	}
	x.say("makes subclusters read as zero whose bits contradict each other")
	g := x.img.geometry
	for sub := range int64(subclustersPerCluster) {
		if bad>>sub&1 != 0 {
			off := (t.index*g.l2Entries()+i)<<g.ClusterBits + sub*g.SubclusterSize()
			x.lose(t.view.snapshot, off, min(g.SubclusterSize(), t.view.size-off))
		}
	}
	return b&^subclusterBitmap(bad) | subclusterBitmap(bad)<<32
}

// dataFileEntry makes an entry obey the rules of external data files: a cluster is
// where the guest has it.
func (x *fixer) dataFileEntry(t *fixTable, i int64, e l2Entry) l2Entry {
	g := x.img.geometry
	m := e.meaning(true)
	if !m.hasHost {
		return e
	}
	guest := HostOffset((t.index*g.l2Entries() + i) << g.ClusterBits)
	if m.host != guest {
		x.say("makes entries point at the guest's offset in the external data file")
		e = e&^entryOffset | l2Entry(guest)
	}
	return e | entryCopied
}

// place marks the cluster of an entry, or gives it another one where it has to move.
func (x *fixer) place(t *fixTable, e l2Entry, b subclusterBitmap) (l2Entry, subclusterBitmap) {
	g := x.img.geometry
	cluster := int64(e.offset() >> g.ClusterBits)
	if x.fits(cluster, t.refs, useData) {
		x.c.win.mark(cluster, t.refs, useData)
		return e, b
	}
	if x.c.win.use(cluster) == useL1 && t.from != t.to {
		x.bad = fmt.Errorf("guest bytes are in an L1 table at %s, which maps them: %w", e.offset(), ErrCannotRepair)
	}
	x.say("copies tables and data that share a cluster with something else")
	if e.zero() || g.ExtendedL2 && b.allocated() == 0 {
		return e &^ (entryOffset | entryCopied), b // nothing of it is read
	}
	to := x.move(e.offset(), g.ClusterSize())
	return e&^entryOffset | l2Entry(to), b
}

// fits reports that a cluster may have n more references of a use.
func (x *fixer) fits(cluster int64, n uint32, u use) bool {
	old := x.c.win.use(cluster)
	return (old == unused || old.mayShare(u)) && x.c.win.references(cluster)+uint64(n) <= x.limit
}

// compressedEntry makes a compressed cluster descriptor obey the rules.
func (x *fixer) compressedEntry(t *fixTable, i int64, e l2Entry) (l2Entry, subclusterBitmap) {
	if e.copied() {
		x.say("clears reserved bits of table entries")
		e &^= entryCopied
	}
	if t.view.checkCompressed(e) != "" {
		return x.lostCluster(t, i)
	}
	g := x.img.geometry
	host, length := e.compressedRange(g)
	length = min(length, x.o.size-int64(host))
	first, last := int64(host)>>g.ClusterBits, (int64(host)+length-1)>>g.ClusterBits
	for cluster := first; cluster <= last; cluster++ {
		if !x.fits(cluster, t.refs, useCompressed) {
			return x.moveCompressed(e, host, length), 0
		}
	}
	for cluster := first; cluster <= last; cluster++ {
		x.c.win.mark(cluster, t.refs, useCompressed)
	}
	return e, 0
}

// moveCompressed copies compressed bytes to clusters of their own.
func (x *fixer) moveCompressed(e l2Entry, host HostOffset, length int64) l2Entry {
	x.say("copies tables and data that share a cluster with something else")
	to := x.move(host, length)
	shift := 62 - (x.img.geometry.ClusterBits - 8)
	return e&^(1<<shift-1) | l2Entry(to)
}

// word reads a table entry.
func (p *planner) word(host HostOffset) (uint64, error) {
	var b [8]byte
	if err := readFull(p.o, b[:], host); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b[:]), nil
}

// putWord writes a table entry.
func (p *planner) putWord(host HostOffset, word uint64) error {
	return writeFull(p.o, binary.BigEndian.AppendUint64(nil, word), host)
}
