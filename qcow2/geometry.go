package qcow2

// Geometry is what the shape of every table of an image follows from.
type Geometry struct {
	ClusterBits   uint32 // 9 to 21
	RefcountOrder uint32 // 0 to 6
	ExtendedL2    bool   // L2 entries of 16 bytes, each with 32 subclusters
	Version       uint32 // 2 or 3
}

// subclustersPerCluster is fixed by the section "Extended L2 Entries".
const subclustersPerCluster = 32

// ClusterSize is the size of a cluster in bytes: 512 B to 2 MiB.
func (g Geometry) ClusterSize() int64 { return 1 << g.ClusterBits }

// RefcountBits is the width of a refcount in bits: 1 to 64.
func (g Geometry) RefcountBits() int { return 1 << g.RefcountOrder }

// SubclusterSize is the smallest unit of allocation in bytes: a 32nd of a
// cluster with extended L2 entries, a cluster otherwise.
func (g Geometry) SubclusterSize() int64 {
	if g.ExtendedL2 {
		return g.ClusterSize() / subclustersPerCluster
	}
	return g.ClusterSize()
}

// l2EntryWords is the number of 64-bit words in an L2 entry.
func (g Geometry) l2EntryWords() int64 {
	if g.ExtendedL2 {
		return 2
	}
	return 1
}

// l2Entries is the number of entries in an L2 table, which is one cluster.
func (g Geometry) l2Entries() int64 { return g.ClusterSize() / 8 / g.l2EntryWords() }

// l2Coverage is the number of guest bytes that one L2 table maps.
func (g Geometry) l2Coverage() int64 { return g.l2Entries() << g.ClusterBits }

// l1EntriesFor is the number of L1 entries that a disk of size bytes needs.
func (g Geometry) l1EntriesFor(size uint64) uint64 {
	cover := uint64(g.l2Coverage())
	n := size / cover
	if size%cover != 0 {
		n++
	}
	return n
}

// aligned reports that h is a multiple of the cluster size.
func (g Geometry) aligned(h HostOffset) bool {
	return h&HostOffset(g.ClusterSize()-1) == 0
}

// refcountsPerBlock is the number of refcounts in a refcount block.
func (g Geometry) refcountsPerBlock() int64 {
	return g.ClusterSize() * 8 / int64(g.RefcountBits())
}
