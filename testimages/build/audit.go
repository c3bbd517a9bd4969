package build

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"io"
	"math/bits"
)

// A Use says what a host cluster is used for.
type Use uint8

// What host clusters are used for.
const (
	Unused Use = iota
	UsedByHeader
	UsedByRefcountTable
	UsedByRefcountBlock
	UsedByL1
	UsedByL2
	UsedByData
	UsedByPacked // compressed clusters, any number of them
	UsedBySnapshots
	UsedByLUKS
	UsedByBitmapDirectory
	UsedByBitmapTable
	UsedByBitmapData
)

func (u Use) String() string {
	return [...]string{"nothing", "the header", "the refcount table", "a refcount block", "an L1 table", "an L2 table",
		"data", "compressed data", "the snapshot table", "the encryption header", "the bitmap directory", "a bitmap table",
		"bitmap data"}[u]
}

// Bitmap reports that the cluster belongs to persistent bitmaps.
func (u Use) Bitmap() bool { return u >= UsedByBitmapDirectory }

// An AuditCluster is what an Audit found of one host cluster.
type AuditCluster struct {
	Use   Use
	Refs  uint64 // how many references there are to it
	Count uint64 // its refcount
}

// An AuditBitmap is an entry of the bitmap directory, with its bits.
type AuditBitmap struct {
	Name, Extra           string
	Flags                 uint32
	Type, GranularityBits uint8
	Content               uint64 // a hash of the table and data that is good in this process
}

// An Audit is what following every reference in an image finds. It does not
// look at guest data, compressed streams or the contents of a data file.
type Audit struct {
	ClusterSize int64
	Clusters    []AuditCluster // by host cluster, to the end of the file
	// Problems are what is worse than a leak: a reference to a cluster whose
	// refcount is lower, two uses of one cluster, a table that is no table.
	Problems []string
	// Leaks counts clusters whose refcount is higher than their references.
	Leaks int
	// Mapping is a hash of where each guest cluster of each view is stored, good
	// in this process.
	Mapping uint64
	// Extension is where the bitmaps extension begins in the file; 0 without one.
	Extension int64
	// Stale: there is a bitmaps extension, and its autoclear bit is clear.
	Stale   bool
	Bitmaps []AuditBitmap
}

// Limits of an audit, so that no image makes it run for long.
const (
	maxAuditTable    = 64 << 20
	maxAuditEntries  = 1 << 23
	maxAuditProblems = 50
)

var auditSeed = maphash.MakeSeed()

// auditor makes one Audit.
type auditor struct {
	Audit
	r       io.ReaderAt
	size    int64
	header  []byte // the first cluster
	v3      bool
	width   uint64 // bits of a refcount
	entries int    // of tables, so far
	buf     []byte // a cluster
	copied  []copiedEntry
	hash    maphash.Hash
}

// A copiedEntry is an active L1 or L2 entry whose bit 63 must say whether the
// refcount is one.
type copiedEntry struct {
	cluster uint64
	flag    bool
	name    string
	index   int64
}

// AuditFile audits an image of size bytes. The error is that of a file which is
// no image at all, or cannot be read; all else is a problem.
func AuditFile(r io.ReaderAt, size int64) (*Audit, error) {
	a := &auditor{r: r, size: size}
	a.hash.SetSeed(auditSeed)
	if err := a.loadHeader(); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	a.mark(0, a.ClusterSize, UsedByHeader)
	a.refcounts()
	a.walkViews()
	a.walkExtensions()
	a.compare()
	a.Mapping = a.hash.Sum64()
	return &a.Audit, nil
}

func (a *auditor) loadHeader() error {
	start := make([]byte, 72)
	if _, err := a.r.ReadAt(start, 0); err != nil {
		return err
	}
	clusterBits := binary.BigEndian.Uint32(start[20:])
	if binary.BigEndian.Uint32(start) != magic || clusterBits < 9 || clusterBits > 21 {
		return fmt.Errorf("no image: magic %x, cluster bits %d", start[:4], clusterBits)
	}
	a.ClusterSize = 1 << clusterBits
	a.Clusters = make([]AuditCluster, (a.size+a.ClusterSize-1)/a.ClusterSize)
	a.header = a.read(0, a.ClusterSize)
	a.v3 = a.u32(4) == 3
	a.width = 16
	if a.v3 {
		a.width = 1 << min(a.u32(96), 6)
	}
	return nil
}

func (a *auditor) u32(at int) uint32 { return binary.BigEndian.Uint32(a.header[at:]) }
func (a *auditor) u64(at int) uint64 { return binary.BigEndian.Uint64(a.header[at:]) }

// feature is a feature field; version 2 has none.
func (a *auditor) feature(at int) uint64 {
	if !a.v3 {
		return 0
	}
	return a.u64(at)
}

func (a *auditor) problem(format string, args ...any) {
	if len(a.Problems) < maxAuditProblems {
		a.Problems = append(a.Problems, fmt.Sprintf(format, args...))
	}
}

// cluster is a cluster's bytes, until the next call.
func (a *auditor) cluster(off uint64) []byte {
	if a.buf == nil {
		a.buf = make([]byte, a.ClusterSize)
	}
	a.readInto(a.buf, int64(off))
	return a.buf
}

// read reads what there is of [off, off+n); the rest is zero.
func (a *auditor) read(off, n int64) []byte {
	b := make([]byte, n)
	a.readInto(b, off)
	return b
}

func (a *auditor) readInto(b []byte, off int64) {
	n := int64(len(b))
	there := max(0, min(n, a.size-off))
	clear(b[there:])
	if got, err := a.r.ReadAt(b[:there], off); err != nil && err != io.EOF {
		a.problem("reading [%#x, +%#x): %d bytes, %v", off, n, got, err)
	}
}

// table marks and reads a table; nil where it cannot be one.
func (a *auditor) table(off uint64, n int64, use Use) []byte {
	if !a.isTable(off, n, use) {
		return nil
	}
	return a.read(int64(off), n)
}

// tableCluster is table for one cluster; its bytes are there until the next call.
func (a *auditor) tableCluster(off uint64, use Use) []byte {
	if !a.isTable(off, a.ClusterSize, use) {
		return nil
	}
	return a.cluster(off)
}

// isTable marks a table, where it can be one.
func (a *auditor) isTable(off uint64, n int64, use Use) bool {
	switch {
	case off == 0 || off%uint64(a.ClusterSize) != 0:
		a.problem("%v at %#x", use, off)
	case n < 0 || n > maxAuditTable || off > uint64(a.size) || uint64(n) > uint64(a.size)-off:
		a.problem("%v at %#x reaches beyond the end of the file", use, off)
	default:
		a.mark(off, n, use)
		return true
	}
	return false
}

// mark counts a reference to each cluster of [off, off+n).
func (a *auditor) mark(off uint64, n int64, use Use) {
	for c := off / uint64(a.ClusterSize); c*uint64(a.ClusterSize) < off+uint64(n); c++ {
		if c >= uint64(len(a.Clusters)) {
			a.problem("%v at %#x lies beyond the end of the file", use, off)
			return
		}
		cl := &a.Clusters[c]
		shared := cl.Use == use && (use == UsedByL2 || use == UsedByData || use == UsedByPacked)
		if cl.Refs > 0 && !shared {
			a.problem("cluster %d is used by %v and by %v", c, cl.Use, use)
		}
		if cl.Refs == 0 || cl.Use.Bitmap() {
			cl.Use = use // what is not a bitmap's is told first
		}
		cl.Refs++
	}
}

// refcounts loads the refcount table and its blocks.
func (a *auditor) refcounts() {
	n := int64(a.u32(56)) * a.ClusterSize
	perBlock := uint64(a.ClusterSize) * 8 / a.width
	table := a.table(a.u64(48), n, UsedByRefcountTable)
	for i := 0; i+8 <= len(table); i += 8 {
		entry := binary.BigEndian.Uint64(table[i:])
		if entry == 0 {
			continue
		}
		if block := a.tableCluster(entry, UsedByRefcountBlock); block != nil {
			a.loadBlock(block, uint64(i/8)*perBlock, perBlock)
		}
	}
}

func (a *auditor) loadBlock(block []byte, first, perBlock uint64) {
	for i := uint64(0); i < perBlock && first+i < uint64(len(a.Clusters)); i++ {
		bit := i * a.width
		if a.width >= 8 {
			a.Clusters[first+i].Count = getBE(block, Place{int64(bit / 8), int64(a.width / 8)})
		} else {
			a.Clusters[first+i].Count = uint64(block[bit/8]) >> (bit % 8) & (1<<a.width - 1)
		}
	}
}

// compare compares references and refcounts.
func (a *auditor) compare() {
	for c := range a.Clusters {
		switch cl := &a.Clusters[c]; {
		case cl.Count < cl.Refs:
			a.problem("cluster %d (%v) has %d references and refcount %d", c, cl.Use, cl.Refs, cl.Count)
		case cl.Count > cl.Refs:
			a.Leaks++
		}
	}
	for _, e := range a.copied {
		if one := a.Clusters[e.cluster].Count == 1; one != e.flag {
			a.problem("%s entry %d: bit 63 is %t, the refcount of cluster %d is %d",
				e.name, e.index, e.flag, e.cluster, a.Clusters[e.cluster].Count)
		}
	}
}

func (a *auditor) clusterBits() int { return bits.TrailingZeros64(uint64(a.ClusterSize)) }
