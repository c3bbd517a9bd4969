package qcow2

import (
	"fmt"
	"io"
)

// refTableEntry is an entry of the refcount table; 0 where it has none.
func (c *checker) refTableEntry(i int64) (uint64, error) {
	entries := c.refTableEntries()
	if i >= entries {
		return 0, nil
	}
	const perSlice = sliceBytes / 8
	first := i / perSlice * perSlice
	words, err := c.img.tables.load(c.img.header.RefcountTableOffset+HostOffset(first*8), int(min(perSlice, entries-first)))
	if err != nil {
		return 0, err
	}
	return words[i-first], nil
}

// refTableEntries is how many entries the refcount table has in the file.
func (c *checker) refTableEntries() int64 {
	h := &c.img.header
	n := int64(h.RefcountTableClusters) << h.ClusterBits
	return max(0, min(n, c.img.size-int64(min(h.RefcountTableOffset, HostOffset(c.img.size))))) / 8
}

// blockRule is the rule that an entry of the refcount table breaks, or "".
func (c *checker) blockRule(e uint64) string {
	host := HostOffset(e &^ refTableReserved)
	switch {
	case e&refTableReserved != 0:
		return "reserved bits must be zero"
	case !c.img.geometry.aligned(host):
		return "the refcount block must be aligned to a cluster"
	case host >= HostOffset(c.img.size):
		return "the refcount block lies beyond the end of the file"
	}
	return ""
}

// eachStored gives the refcounts of the window in pieces, in order: the clusters
// [lo, hi) and their entries of a block; nil: they are all 0. What cannot be had is 0,
// as for QEMU; refcountStructures says so, and failed is told what could not be read.
func (c *checker) eachStored(yield func(lo, hi int64, b []byte) error, failed func(HostOffset, error) error) error {
	g := c.img.geometry
	per, bits := g.refcountsPerBlock(), int64(g.RefcountBits())
	if c.counts == nil {
		c.counts = make([]byte, min(sliceBytes, g.ClusterSize()))
	}
	buf := c.counts
	for at := c.win.lo; at < c.win.hi; {
		end := min((at/per+1)*per, c.win.hi, at+int64(len(buf))*8/bits)
		e, err := c.refTableEntry(at / per)
		part := buf[:((end-at)*bits+7)/8]
		if err == nil && e != 0 && c.blockRule(e) == "" {
			clear(part)
			err = c.readStored(part, HostOffset(e)+HostOffset(at%per*bits/8))
		} else {
			part = nil
		}
		if err != nil {
			part = nil
			if err := failed(HostOffset(e), err); err != nil {
				return err
			}
		}
		if err := yield(at, end, part); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// loadOnes finds out which clusters of the window have the refcount 1: the copied bits
// have to say the same.
func (c *checker) loadOnes() error {
	g := c.img.geometry
	return c.eachStored(func(lo, hi int64, b []byte) error {
		if b == nil {
			return nil
		}
		for cluster := lo; cluster < hi; cluster++ {
			if g.refcountAt(b, cluster-lo) == 1 {
				c.win.setOne(cluster)
			}
		}
		return nil
	}, func(HostOffset, error) error { return nil }) // compare says it
}

// refcount is the refcount of a cluster, 0 where it cannot be had.
func (c *checker) refcount(cluster int64) uint64 {
	g := c.img.geometry
	per, bits := g.refcountsPerBlock(), int64(g.RefcountBits())
	e, err := c.refTableEntry(cluster / per)
	if err != nil || e == 0 || c.blockRule(e) != "" {
		return 0
	}
	b := make([]byte, 8)
	bit := cluster % per * bits
	if c.readStored(b[:max(1, bits/8)], HostOffset(e)+HostOffset(bit/8)) != nil {
		return 0
	}
	return g.refcountAt(b, bit%8/bits)
}

// readStored reads a part of a refcount block. Beyond the end of the file it is zero,
// as for QEMU.
func (c *checker) readStored(p []byte, host HostOffset) error {
	n, err := c.img.r.ReadAt(p, int64(host))
	if err == io.EOF || n == len(p) {
		return nil
	}
	return err
}

// refcountStructures counts the references of the refcount table and to its blocks.
func (c *checker) refcountStructures() error {
	if c.noRefcounts {
		return nil
	}
	h := &c.img.header
	at := place{structure: "header", field: "refcount_table_offset", host: 48}
	n := int64(h.RefcountTableClusters) << h.ClusterBits
	if n == 0 {
		c.res.brokenRefcounts = true
		if err := c.structural(at.finding(FindEntry, "no refcount table", "one cluster at least")); err != nil {
			return err
		}
	}
	if !within(h.RefcountTableOffset, uint64(n), c.img.size) {
		c.res.brokenRefcounts = true
	}
	if err := c.add(h.RefcountTableOffset, n, useRefTable, at); err != nil {
		return err
	}
	for i := range c.refTableEntries() {
		e, err := c.refTableEntry(i)
		if err != nil {
			c.res.brokenRefcounts = true
			return c.unreadable("refcount table", h.RefcountTableOffset+HostOffset(i*8), err)
		}
		if e == 0 {
			continue
		}
		if err := c.refBlock(i, e); err != nil {
			return err
		}
	}
	return nil
}

// refBlock counts the reference to a refcount block.
func (c *checker) refBlock(i int64, e uint64) error {
	at := place{structure: "refcount table", entry: i + 1, host: c.img.header.RefcountTableOffset + HostOffset(i*8)}
	if c.img.geometry.refcountsPerBlock()*i < c.plan.Clusters {
		c.win.holds(i * c.img.geometry.refcountsPerBlock()) // what it counts is looked at
	}
	rule := c.blockRule(e)
	if rule == "" {
		return c.add(HostOffset(e), c.img.geometry.ClusterSize(), useRefBlock, at)
	}
	c.res.brokenRefcounts = true
	kind := FindBeyondEnd
	switch {
	case e&refTableReserved != 0:
		kind = FindReserved
	case !c.img.geometry.aligned(HostOffset(e)):
		kind = FindUnaligned
	}
	return c.structural(at.finding(kind, fmt.Sprintf("%#x", e), rule))
}

// encryption counts the references to the encryption header.
func (c *checker) encryption() error {
	e := findExtension(c.img.extensions, ExtEncryption)
	if e == nil {
		return nil
	}
	x := cursor{b: e.Data}
	host, length := HostOffset(x.u64()), x.u64()
	at := place{structure: "header extension", field: "full disk encryption header pointer", host: e.Host}
	if !within(host, length, alignUp(c.img.size, c.img.geometry.ClusterSize())) {
		c.res.Incomplete = true
		return c.structural(at.finding(FindEncryption, fmt.Sprintf("%d bytes at %s", length, host),
			fmt.Sprintf("an end before %#x", c.img.size)))
	}
	return c.add(host, int64(length), useEncryption, at)
}
