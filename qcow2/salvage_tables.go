package qcow2

import (
	"encoding/binary"
	"math"
)

// maybeSnapshot reports bytes that can be the first entry of a snapshot table.
func (f *tableFinder) maybeSnapshot(b []byte) bool {
	if len(b) < salvageSector {
		return false
	}
	c := cursor{b: b}
	l1, entries := HostOffset(c.u64()), c.u32()
	id, name := c.u16(), c.u16()
	c.off = 36
	extra := c.u32()
	return l1 != 0 && l1%salvageSector == 0 && within(l1, uint64(entries)*8, f.size) && entries > 0 && entries <= maxL1Bytes/8 &&
		id > 0 && id <= 64 && name <= 1024 && extra <= maxSnapshotExtra && extra%8 == 0
}

// snapshotTables are the L1 tables that are known to be those of snapshots. Where the
// header is lost, the snapshot table is searched for.
func (x *rescue) snapshotTables(g Geometry) map[HostOffset]bool {
	h := x.h
	h.ClusterBits = g.ClusterBits
	if x.known {
		taken, _ := x.readSnapshots(&h)
		return taken
	}
	var best map[HostOffset]bool
	for _, at := range x.finder.snapshots {
		if !g.aligned(at) {
			continue
		}
		h.SnapshotsOffset, h.NbSnapshots = at, maxSnapshots
		if taken, size := x.readSnapshots(&h); len(taken) > len(best) {
			best, x.snapshotSize = taken, size
			x.h.SnapshotsOffset, x.h.NbSnapshots = at, uint32(len(taken))
		}
	}
	if len(best) > 0 {
		x.s.note("a table of %d snapshots was found at %s", len(best), x.h.SnapshotsOffset)
	}
	return best
}

// readSnapshots reads the snapshot table of h up to the first entry that cannot be one.
func (x *rescue) readSnapshots(h *Header) (taken map[HostOffset]bool, size uint64) {
	taken = map[HostOffset]bool{}
	img := Image{r: x.s.bad, size: x.img.size, header: *h, geometry: h.Geometry(), limits: x.img.limits}
	for snap, err := range img.EachSnapshot() {
		if err != nil || snap.ID == "" || taken[snap.L1TableOffset] {
			break
		}
		if _, err := img.snapshotView(&snap); err != nil {
			break
		}
		taken[snap.L1TableOffset], size = true, snap.DiskSize
	}
	return taken, size
}

// findRefcounts searches for the refcount table where the header is lost. It is believed
// where it counts itself, its first block, the header and the L1 table.
func (x *rescue) findRefcounts(l1 candidate) {
	if x.known {
		return
	}
	g := l1.g
	looked := 0
	for host := g.ClusterSize(); host < x.img.size && looked < maxCandidates; host += g.ClusterSize() {
		if !x.finder.like(host, g, false) {
			continue
		}
		looked++
		for _, order := range []uint32{4, 3, 5, 2, 1, 0, 6} {
			g.RefcountOrder = order
			if x.countsItself(g, HostOffset(host), l1.host) {
				x.takeRefcounts(g, HostOffset(host))
				return
			}
		}
	}
}

func (x *rescue) takeRefcounts(g Geometry, host HostOffset) {
	h := &x.h
	h.RefcountOrder, h.RefcountTableOffset = g.RefcountOrder, host
	blocks := (x.img.size>>g.ClusterBits)/g.refcountsPerBlock() + 1
	h.RefcountTableClusters = uint32(min(math.MaxUint32, (blocks*8-1)>>g.ClusterBits+1))
	x.s.note("refcount table at %s, refcounts of %d bits, as far as could be found out", host, g.RefcountBits())
}

// countsItself reports a refcount table that says of what is known to be in use that it
// is.
func (x *rescue) countsItself(g Geometry, table, l1 HostOffset) bool {
	first := x.word(table)
	if first == 0 || first&refTableReserved != 0 || !g.aligned(HostOffset(first)) || !within(HostOffset(first), 1, x.img.size) {
		return false
	}
	for _, used := range []HostOffset{0, table, HostOffset(first), l1} {
		cluster := int64(used >> g.ClusterBits)
		per := g.refcountsPerBlock()
		if cluster/per*8 >= g.ClusterSize() {
			return false
		}
		block := x.word(table + HostOffset(cluster/per*8))
		if block == 0 || block&refTableReserved != 0 || !within(HostOffset(block), uint64(g.ClusterSize()), alignUp(x.img.size, g.ClusterSize())) {
			return false
		}
		b := make([]byte, 8)
		bit := cluster % per * int64(g.RefcountBits())
		x.s.bad.ReadAt(b[:max(1, g.RefcountBits()/8)], int64(block)+bit/8)
		if n := g.refcountAt(b, bit%8/int64(g.RefcountBits())); n != 1 {
			return false
		}
	}
	return true
}

// word is the word at a place of the file.
func (x *rescue) word(host HostOffset) uint64 {
	b := make([]byte, 8)
	x.s.bad.ReadAt(b, int64(host))
	return binary.BigEndian.Uint64(b)
}
