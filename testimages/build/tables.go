package build

import "fmt"

const copied = 1 << 63

// Entries that are zero have no name in tables of more than namedEntries;
// names of a 2 MiB table would take longer than all else.
const namedEntries = 512

// A disk is a view that is being laid out.
type disk struct {
	prefix   string // of its names in the Layout
	size     uint64
	clusters map[uint64]Cluster
	hosts    map[uint64]*host  // by guest cluster
	l1, l1n  uint64            // where the L1 table stands, its entries
	l2       map[uint64]uint64 // host offsets of the L2 tables by L1 index
	copyOf   *disk
}

// placeDisks gives every view its L1 and L2 tables.
func (b *builder) placeDisks() {
	active := &disk{size: b.s.Size, clusters: b.s.Clusters}
	b.placeTables(active, b.l1Entries(b.s.Size)+uint64(b.s.ExtraL1))
	for i, sn := range b.s.Snapshots {
		d := &disk{prefix: fmt.Sprintf("snapshot[%d].", i), size: sn.DiskSize, clusters: sn.Clusters}
		if d.size == 0 {
			d.size = b.s.Size
		}
		if sn.Copy {
			d.copyOf, d.clusters = active, active.clusters
		}
		b.addVMState(d, sn.VMState)
		b.placeTables(d, b.l1Entries(d.size)+ceilDiv(uint64(len(sn.VMState)), b.cs*b.l2n))
	}
}

func (b *builder) l1Entries(size uint64) uint64 {
	return ceilDiv(ceilDiv(size, b.cs), b.l2n)
}

// addVMState stores the state as clusters that begin with the first L1 entry
// which describes no cluster of the disk.
func (b *builder) addVMState(d *disk, state []byte) {
	if len(state) == 0 {
		return
	}
	clusters := map[uint64]Cluster{}
	for k, c := range d.clusters {
		clusters[k] = c
	}
	first := b.l1Entries(d.size) * b.l2n
	for i := uint64(0); i*b.cs < uint64(len(state)); i++ {
		content := make([]byte, b.cs)
		copy(content, state[i*b.cs:])
		clusters[first+i] = Cluster{Form: Normal, Content: content}
	}
	d.clusters = clusters
}

func (b *builder) placeTables(d *disk, entries uint64) {
	b.views = append(b.views, d)
	d.hosts, d.l2, d.l1n = map[uint64]*host{}, map[uint64]uint64{}, entries
	if entries > 0 {
		d.l1 = b.alloc(ceilDiv(entries*8, b.cs))
		b.lay.note(int64(d.l1), int64(entries*8), "%sl1", d.prefix)
	}
	for _, k := range sortedKeys(d.clusters) {
		i := k / b.l2n
		if _, ok := d.l2[i]; !ok {
			d.l2[i] = b.l2Table(d, i)
		}
	}
}

// l2Table allocates the table, or shares the one of the active disk.
func (b *builder) l2Table(d *disk, i uint64) uint64 {
	if d.copyOf != nil {
		if off, ok := d.copyOf.l2[i]; ok {
			b.refs[off/b.cs]++
			return off
		}
	}
	return b.alloc(1)
}

// writeTables writes the L1 table and all L2 tables of d.
func (b *builder) writeTables(d *disk) {
	for i := range d.l1n {
		entry := d.l2[i]
		if entry != 0 && b.refs[entry/b.cs] == 1 {
			entry |= copied
		}
		b.put(d.l1+8*i, 8, entry, "%sl1[%d]", d.prefix, i)
	}
	for i, off := range d.l2 {
		b.lay.note(int64(off), int64(b.cs), "%sl2[%d]", d.prefix, i)
		for j := range b.l2n {
			if _, used := d.clusters[i*b.l2n+j]; used || b.l2n <= namedEntries {
				b.writeEntry(d, off, i, j)
			}
		}
	}
}

func (b *builder) writeEntry(d *disk, off, i, j uint64) {
	k := i*b.l2n + j
	c := d.clusters[k]
	at := off + j*b.width
	b.put(at, 8, b.descriptor(c, d.hosts[k]), "%sl2[%d][%d]", d.prefix, i, j)
	if b.s.ExtendedL2 {
		b.put(at+8, 8, subBitmap(c), "%sl2[%d][%d].bitmap", d.prefix, i, j)
	}
}

// descriptor is the L2 entry, the first word of an extended one.
func (b *builder) descriptor(c Cluster, h *host) uint64 {
	var entry uint64
	switch {
	case c.Form == Packed:
		return h.descriptor(b)
	case h != nil:
		entry = h.off
		if b.s.DataFile != nil || b.refs[h.off/b.cs] == 1 {
			entry |= copied
		}
	}
	if !b.s.ExtendedL2 && (c.Form == ZeroPlain || c.Form == ZeroPrealloc) {
		entry |= 1
	}
	return entry
}

// subBitmap is the second word of an extended L2 entry.
func subBitmap(c Cluster) uint64 {
	switch c.Form {
	case Normal:
		return 1<<32 - 1
	case ZeroPlain, ZeroPrealloc:
		return (1<<32 - 1) << 32
	case Sub:
		return uint64(c.Zero)<<32 | uint64(c.Alloc)
	}
	return 0
}
