package qcow2

import (
	"encoding/binary"
	"fmt"
)

// walkTables walks the L2 tables on the list.
func (c *checker) walkTables() error {
	for i := range c.tables.n {
		t := c.tables.at(i)
		w := l2Walk{host: t.host, view: c.tables.view(t), index: int64(t.index), refs: t.refs}
		if err := c.walkTable(&w); err != nil {
			return err
		}
		c.progress(int64(i+1), int64(c.tables.n))
	}
	return nil
}

// An l2Walk is the walk of one L2 table.
type l2Walk struct {
	host  HostOffset
	view  *checkView // where the table was first found
	index int64      // of the L1 entry there
	refs  uint32
	s     l2Slice
	next  HostOffset // where a cluster must be that is not fragmented; 0 at first
}

// walkTable counts the references of an L2 table.
func (c *checker) walkTable(w *l2Walk) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	g := c.img.geometry
	for off := int64(0); off < g.l2Coverage(); off = w.s.end {
		if err := c.loadSlice(w, off); err != nil {
			return c.unreadable("L2 table", w.host, err)
		}
		stride := int(g.l2EntryWords())
		for i := 0; i < len(w.s.words); i += stride {
			e, b := l2Entry(w.s.words[i]), subclusterBitmap(0)
			if stride == 2 {
				b = subclusterBitmap(w.s.words[i+1])
			}
			if e == 0 && b == 0 {
				continue
			}
			if err := c.l2Entry(w, int64(i/stride), e, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadSlice loads the slice of the table for the entry that maps off. Its memory is
// used again: a check reads each table once, and many of them.
func (c *checker) loadSlice(w *l2Walk, off int64) error {
	g := c.img.geometry
	if c.buf == nil {
		c.buf = make([]byte, min(g.ClusterSize(), sliceBytes))
		c.words = make([]uint64, len(c.buf)/8)
	}
	perSlice := int64(len(c.words)) / g.l2EntryWords()
	first := off >> g.ClusterBits
	w.s = l2Slice{geometry: g, words: c.words, host: w.host + HostOffset(first*g.l2EntryWords()*8), first: first,
		off: off, end: off + perSlice<<g.ClusterBits}
	if err := readFull(c.img.r, c.buf, w.s.host); err != nil {
		return err
	}
	for i := range c.words {
		c.words[i] = binary.BigEndian.Uint64(c.buf[i*8:])
	}
	return nil
}

// place is the place of entry i of the slice.
func (w *l2Walk) place(i int64) place {
	g := w.s.geometry
	p := place{structure: "L2 table", entry: w.s.first + i + 1, snapshot: w.view.snapshot}
	p.host = w.s.host + HostOffset(i*g.l2EntryWords()*8)
	p.guestOff = w.guest(i)
	p.guestLen = max(0, min(g.ClusterSize(), w.view.size-p.guestOff))
	return p
}

// guest is the guest offset of entry i of the slice.
func (w *l2Walk) guest(i int64) int64 {
	g := w.s.geometry
	return w.index*g.l2Coverage() + (w.s.first+i)<<g.ClusterBits
}

// l2Entry counts the references of an L2 entry and checks its rules.
func (c *checker) l2Entry(w *l2Walk, i int64, e l2Entry, b subclusterBitmap) error {
	if e.compressed() {
		return c.compressed(w, i, e, b)
	}
	if c.first {
		if err := c.standardRules(w, i, e, b); err != nil {
			return err
		}
	}
	outside := c.img.dataFile != nil
	if m := e.meaning(outside); !m.hasHost {
		return nil
	}
	c.allocated(w, e.offset())
	if outside {
		return nil
	}
	return c.data(w, i, e)
}

// allocated counts a cluster of the active disk as qemu-img check does.
func (c *checker) allocated(w *l2Walk, host HostOffset) {
	if !c.first || !w.view.active {
		return
	}
	c.res.AllocatedClusters++
	if w.next != 0 && host != w.next {
		c.res.FragmentedClusters++
	}
	w.next = host + HostOffset(c.img.geometry.ClusterSize())
}

// data counts the references to a data cluster.
func (c *checker) data(w *l2Walk, i int64, e l2Entry) error {
	g := c.img.geometry
	host := e.offset()
	if !g.aligned(host) || host >= HostOffset(c.img.size) {
		return nil // standardRules says it
	}
	if other := c.win.mark(int64(host>>g.ClusterBits), w.refs, useData); other != 0 {
		if err := c.overlap(int64(host>>g.ClusterBits), useData, other, w.place(i)); err != nil {
			return err
		}
	}
	cluster := int64(host >> g.ClusterBits)
	if !w.view.active || !c.win.holds(cluster) || c.win.one(cluster) == e.copied() {
		return nil
	}
	return c.copiedBit(host, e.copied(), w.place(i))
}

// standardRules checks the rules of a standard cluster descriptor.
func (c *checker) standardRules(w *l2Walk, i int64, e l2Entry, b subclusterBitmap) error {
	g := c.img.geometry
	outside := c.img.dataFile != nil
	if rule := checkStandard(e, g, outside); rule != "" {
		if err := c.wrongL2(w, i, e, b, c.standardKind(e), rule); err != nil {
			return err
		}
	}
	m := e.meaning(outside)
	if g.ExtendedL2 {
		if rule := checkSubclusters(b, m.hasHost); rule != "" {
			if err := c.wrongL2(w, i, e, b, FindSubclusters, rule); err != nil {
				return err
			}
		}
	}
	if !m.hasHost || !g.aligned(m.host) {
		return nil
	}
	if outside {
		return c.dataFileRules(w, i, e, b)
	}
	return c.insideFile(w, i, e, b)
}

// standardKind is the kind of the first rule that checkStandard checks.
func (c *checker) standardKind(e l2Entry) FindingKind {
	switch {
	case e&l2Reserved != 0:
		return FindReserved
	case e.zero() && (c.img.geometry.Version < 3 || c.img.geometry.ExtendedL2):
		return FindZeroFlag
	case !c.img.geometry.aligned(e.offset()):
		c.res.Incomplete = true
		return FindUnaligned
	}
	return FindEntry
}

// needed is how many bytes of the cluster the guest can read.
func (w *l2Walk) needed(i int64, e l2Entry, b subclusterBitmap) int64 {
	g := w.s.geometry
	n := max(0, min(g.ClusterSize(), w.view.size-w.guest(i)))
	switch {
	case g.ExtendedL2:
		last := int64(0)
		for sub := range subclustersPerCluster {
			if b.allocated()>>sub&1 != 0 {
				last = int64(sub+1) * g.SubclusterSize()
			}
		}
		return min(n, last)
	case e.zero():
		return 0
	}
	return n
}

// insideFile checks that a data cluster lies in the file, as far as it is read.
func (c *checker) insideFile(w *l2Walk, i int64, e l2Entry, b subclusterBitmap) error {
	needed := w.needed(i, e, b)
	if host := e.offset(); host < HostOffset(c.img.size) && within(host, uint64(needed), c.img.size) {
		return nil
	}
	c.res.Incomplete = true
	return c.wrongL2(w, i, e, b, FindBeyondEnd, fmt.Sprintf("the cluster must lie in the file (%d bytes)", c.img.size))
}

// dataFileRules checks an entry of an image with an external data file.
func (c *checker) dataFileRules(w *l2Walk, i int64, e l2Entry, b subclusterBitmap) error {
	switch {
	case int64(e.offset()) != w.guest(i):
		return c.wrongL2(w, i, e, b, FindDataFile, "the offset must match the guest offset with an external data file")
	case c.img.storage != nil && w.needed(i, e, b) > 0 && !within(e.offset(), uint64(w.needed(i, e, b)), c.img.storageSize):
		return c.wrongL2(w, i, e, b, FindBeyondEnd, fmt.Sprintf("the cluster must lie in the data file (%d bytes)", c.img.storageSize))
	case w.view.active && !e.copied():
		return c.wrongL2(w, i, e, b, FindCopied, "the copied bit must be set with an external data file")
	}
	return nil
}

// compressed counts the references of a compressed cluster descriptor. The sectors
// may belong to several of them.
func (c *checker) compressed(w *l2Walk, i int64, e l2Entry, b subclusterBitmap) error {
	g := c.img.geometry
	if c.first {
		if err := c.compressedRules(w, i, e, b); err != nil {
			return err
		}
	}
	if c.img.dataFile != nil || b != 0 {
		return nil
	}
	if c.first && w.view.active {
		c.res.AllocatedClusters++
		c.res.CompressedClusters++
		c.res.FragmentedClusters++
	}
	host, length := e.compressedRange(g)
	if host >= HostOffset(c.img.size) {
		return nil // compressedRules says it
	}
	end := min(int64(host)+length, alignUp(c.img.size, g.ClusterSize()))
	for cluster := int64(host) >> g.ClusterBits; cluster<<g.ClusterBits < end; cluster++ {
		if other := c.win.mark(cluster, w.refs, useCompressed); other != 0 {
			if err := c.overlap(cluster, useCompressed, other, w.place(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) compressedRules(w *l2Walk, i int64, e l2Entry, b subclusterBitmap) error {
	if e.copied() {
		if err := c.wrongL2(w, i, e, b, FindCopiedPacked, "the copied bit must be clear for a compressed cluster"); err != nil {
			return err
		}
	}
	if b != 0 {
		if err := c.wrongL2(w, i, e, b, FindSubclusters, "the subcluster bitmap must be 0 for a compressed cluster"); err != nil {
			return err
		}
	}
	if rule := w.view.checkCompressed(e); rule != "" {
		c.res.Incomplete = true
		kind := FindBeyondEnd
		if c.img.dataFile != nil {
			kind = FindDataFile
		}
		return c.wrongL2(w, i, e, b, kind, rule)
	}
	return nil
}

// wrongL2 reports an entry that breaks a rule.
func (c *checker) wrongL2(w *l2Walk, i int64, e l2Entry, b subclusterBitmap, kind FindingKind, rule string) error {
	found := fmt.Sprintf("%#x", uint64(e))
	if c.img.geometry.ExtendedL2 {
		found += fmt.Sprintf(", subclusters %#x", uint64(b))
	}
	return c.structural(w.place(i).finding(kind, found, rule))
}
