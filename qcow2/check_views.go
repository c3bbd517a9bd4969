package qcow2

import (
	"encoding/binary"
	"fmt"
)

// A checkView is the active disk or a snapshot.
type checkView struct {
	view
	snapshot string // its ID; "" for the active disk
	active   bool
}

// views walks the L1 tables of the active disk and of the snapshots. Those of one
// place and size, which only a hostile image has, are refused when they are more than
// the file has room for.
func (c *checker) views() error {
	c.tables.reset()
	room := c.img.size
	if err := c.l1Table(&checkView{view: c.img.active, active: true}, &room); err != nil {
		return err
	}
	for s, err := range c.img.EachSnapshot() {
		if err != nil {
			return nil // snapshotTable says it
		}
		d, err := c.img.snapshotView(&s)
		if err != nil {
			if err := c.broken(FindSnapshotTable, "snapshot table", c.img.header.SnapshotsOffset, err); err != nil {
				return err
			}
			continue
		}
		if err := c.l1Table(&checkView{view: d.view, snapshot: s.ID}, &room); err != nil {
			return err
		}
	}
	return nil
}

// snapshotTable counts the references to the snapshot table.
func (c *checker) snapshotTable() error {
	h := &c.img.header
	if h.NbSnapshots == 0 {
		return nil
	}
	length, err := c.snapshotEntries()
	if err != nil {
		return c.broken(FindSnapshotTable, "snapshot table", h.SnapshotsOffset, err)
	}
	at := place{structure: "header", field: "snapshots_offset", host: 64}
	return c.add(h.SnapshotsOffset, length, useSnapshots, at)
}

// snapshotEntries reads the snapshot table and gives its length in bytes.
func (c *checker) snapshotEntries() (int64, error) {
	h := &c.img.header
	if err := c.img.validateSnapshots(); err != nil {
		return 0, err
	}
	t := c.img.snapshotReader()
	i := 0
	for s, err := range t.snapshots(h.NbSnapshots, h.Size) {
		if err != nil {
			return 0, err
		}
		if h.Version >= 3 && len(s.ExtraData) < 16 {
			at := place{structure: "snapshot table", field: fmt.Sprintf("entry %d extra_data_size", i), host: t.entry, snapshot: s.ID}
			if err := c.structural(at.finding(FindSnapshotExtra, fmt.Sprint(len(s.ExtraData)), "16 at least in version 3")); err != nil {
				return 0, err
			}
		}
		i++
	}
	return int64(t.host - t.start), nil
}

// l1Table counts the references of an L1 table. The table goes beyond the end of the
// disk where the state of a virtual machine is stored.
func (c *checker) l1Table(v *checkView, room *int64) error {
	if v.l1Size == 0 {
		return nil
	}
	at := place{structure: "L1 table", field: "offset", host: v.l1, snapshot: v.snapshot}
	if *room -= v.l1Size * 8; *room < 0 {
		c.res.Incomplete = true
		return c.structural(at.finding(FindTablesOverlap, "more L1 tables than the file has bytes", "tables that do not overlap"))
	}
	if err := c.add(v.l1, v.l1Size*8, useL1, at); err != nil {
		return err
	}
	if int64(len(c.l1)) < min(sliceBytes, v.l1Size*8) {
		c.l1 = make([]byte, min(sliceBytes, v.l1Size*8))
	}
	buf := c.l1
	for first := int64(0); first < v.l1Size; first += int64(len(buf)) / 8 {
		part := buf[:min(int64(len(buf)), (v.l1Size-first)*8)]
		if err := readFull(c.img.r, part, v.l1+HostOffset(first*8)); err != nil {
			return c.unreadable("L1 table", v.l1+HostOffset(first*8), err)
		}
		if err := c.l1Entries(v, first, part); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) l1Entries(v *checkView, first int64, part []byte) error {
	for i := range int64(len(part)) / 8 {
		e := l1Entry(binary.BigEndian.Uint64(part[i*8:]))
		if e == 0 {
			continue
		}
		if err := c.l1Entry(v, first+i, e); err != nil {
			return err
		}
	}
	return c.ctx.Err()
}

// l1Entry counts the reference to an L2 table and puts the table on the list.
func (c *checker) l1Entry(v *checkView, index int64, e l1Entry) error {
	g := c.img.geometry
	at := place{structure: "L1 table", entry: index + 1, host: v.l1 + HostOffset(index*8), snapshot: v.snapshot}
	at.guestOff = index * g.l2Coverage()
	at.guestLen = max(0, min(g.l2Coverage(), v.size-at.guestOff))
	rule := checkL1(e, g, c.img.size)
	if rule == "" && e.offset() == 0 {
		rule = "the L2 table must not be at 0, where the header is"
	}
	follow := e.offset() != 0 && g.aligned(e.offset()) && within(e.offset(), uint64(g.ClusterSize()), c.img.size)
	if rule != "" {
		if err := c.wrongL1(e, rule, follow, at); err != nil {
			return err
		}
	}
	if !follow {
		return nil
	}
	return c.l2Reference(v, index, e, at)
}

func (c *checker) wrongL1(e l1Entry, rule string, follow bool, at place) error {
	kind := FindEntry
	switch {
	case e&l1Reserved != 0:
		kind = FindReserved
	case !c.img.geometry.aligned(e.offset()):
		kind = FindUnaligned
	case e.offset() != 0:
		kind = FindBeyondEnd
	}
	if !follow {
		c.res.Incomplete = true
	}
	return c.structural(at.finding(kind, fmt.Sprintf("%#x", uint64(e)), rule))
}

func (c *checker) l2Reference(v *checkView, index int64, e l1Entry, at place) error {
	if err := c.add(e.offset(), c.img.geometry.ClusterSize(), useL2, at); err != nil {
		return err
	}
	if v.active {
		if err := c.copiedBit(e.offset(), e&entryCopied != 0, at); err != nil {
			return err
		}
	}
	if c.tables.add(e.offset(), v, index) {
		return nil
	}
	return c.walkTable(&l2Walk{host: e.offset(), view: v, index: index, refs: 1})
}

// copiedBit compares the copied bit of an active entry with the refcount of the
// cluster: it says that the refcount is exactly 1.
func (c *checker) copiedBit(host HostOffset, set bool, at place) error {
	cluster := int64(host >> c.img.geometry.ClusterBits)
	if !c.win.holds(cluster) {
		return nil
	}
	one := c.win.one(cluster)
	if one == set {
		return nil
	}
	f := at.finding(FindCopied, fmt.Sprintf("copied bit %t, refcount %d", set, c.refcount(cluster)), fmt.Sprintf("copied bit %t", one))
	f.Cluster = host
	return c.report(f)
}
