package qcow2

// l1Entry is a raw entry of an L1 table: section "L1 table entry".
type l1Entry uint64

// l2Entry is the first word of an entry of an L2 table: section "L2 table
// entry", with its standard and compressed cluster descriptors.
type l2Entry uint64

const (
	entryCopied     = 1 << 63
	entryCompressed = 1 << 62
	entryZero       = 1 << 0
	entryOffset     = 0x00fffffffffffe00 // bits 9 to 55
	l1Reserved      = 0x7f000000000001ff // bits 0 to 8 and 56 to 62
	l2Reserved      = 0x3f000000000001fe // bits 1 to 8 and 56 to 61
)

func (e l1Entry) offset() HostOffset { return HostOffset(e & entryOffset) }

func (e l2Entry) compressed() bool   { return e&entryCompressed != 0 }
func (e l2Entry) copied() bool       { return e&entryCopied != 0 }
func (e l2Entry) zero() bool         { return e&entryZero != 0 }
func (e l2Entry) offset() HostOffset { return HostOffset(e & entryOffset) }

// compressedRange decodes a compressed cluster descriptor: where its bytes
// begin, and the most that they can be. The length is only known to the
// sector, so bytes of the next cluster may follow them.
func (e l2Entry) compressedRange(g Geometry) (HostOffset, int64) {
	shift := 62 - (g.ClusterBits - 8)
	host := HostOffset(e) & (1<<shift - 1)
	sectors := int64(e&(entryCompressed-1)>>shift) + 1
	return host, sectors*512 - int64(host&511)
}

// A mapping is what an L2 entry means, for a run of subclusters (one cluster,
// without extended L2 entries).
type mapping struct {
	kind    Kind
	host    HostOffset // of the cluster, where hasHost
	hasHost bool
}

// checkL1 checks an L1 entry that points to a table; the result is the rule
// that it breaks, or "".
func checkL1(e l1Entry, g Geometry, fileSize int64) string {
	switch {
	case e&l1Reserved != 0:
		return "reserved bits must be zero"
	case !g.aligned(e.offset()):
		return "the L2 table must be aligned to a cluster"
	case !within(e.offset(), uint64(g.ClusterSize()), fileSize):
		return "the L2 table lies beyond the end of the file"
	}
	return ""
}

// checkStandard checks a standard cluster descriptor; the result is the rule
// that it breaks, or "".
func checkStandard(e l2Entry, g Geometry, dataFile bool) string {
	switch {
	case e&l2Reserved != 0:
		return "reserved bits must be zero"
	case e.zero() && g.Version < 3:
		return "the zero flag must not be set in version 2"
	case e.zero() && g.ExtendedL2:
		return "bit 0 must be zero with extended L2 entries"
	case !g.aligned(e.offset()):
		return "the offset must be aligned to a cluster"
	case e.copied() && e.offset() == 0 && !dataFile:
		return "the offset must not be 0, where the header is, in an allocated cluster"
	}
	return ""
}

// meaning of a standard cluster descriptor without subclusters. With an
// external data file offset 0 is a place like any other, and only the copied
// bit says that the cluster is allocated.
func (e l2Entry) meaning(dataFile bool) mapping {
	m := mapping{host: e.offset()}
	m.hasHost = m.host != 0 || dataFile && e.copied()
	switch {
	case e.zero():
		m.kind, m.hasHost = Zero, m.host != 0
	case m.hasHost:
		m.kind = Data
	}
	return m
}

// subclusterBitmap is the second word of an extended L2 entry: section
// "Extended L2 Entries". Bits 0 to 31 say allocated, 32 to 63 reads as zero.
type subclusterBitmap uint64

func (b subclusterBitmap) allocated() uint32 { return uint32(b) }
func (b subclusterBitmap) zero() uint32      { return uint32(b >> 32) }

// checkSubclusters checks the bitmap beside its standard descriptor; the
// result is the rule that it breaks, or "".
func checkSubclusters(b subclusterBitmap, clusterAllocated bool) string {
	switch {
	case b.allocated()&b.zero() != 0:
		return "a subcluster must not be both allocated and zero"
	case b.allocated() != 0 && !clusterAllocated:
		return "subclusters must not be allocated in an unallocated cluster"
	}
	return ""
}

// kind of subcluster i.
func (b subclusterBitmap) kind(i int) Kind {
	switch {
	case b.zero()>>i&1 != 0:
		return Zero
	case b.allocated()>>i&1 != 0:
		return Data
	}
	return Absent
}
