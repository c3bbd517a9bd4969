package qcow2

import (
	"fmt"
	"math"
)

// A use is what a host cluster is used for.
type use uint8

const (
	unused use = iota
	useHeader
	useL1
	useL2
	useData
	useCompressed
	useSnapshots
	useRefTable
	useRefBlock
	useEncryption
	useBitmapDirectory
	useBitmapTable
	useBitmapData

	useOnce use = 1 << 6 // a reference was found
	useTold use = 1 << 7 // that two uses overlap
	useKind use = 1<<4 - 1
)

var useNames = [...]string{"nothing", "the header", "an L1 table", "an L2 table", "data", "compressed data", "the snapshot table",
	"the refcount table", "a refcount block", "the encryption header", "the bitmap directory", "a bitmap table", "bitmap data"}

func (u use) String() string { return useNames[u&useKind] }

// mayShare reports uses that may share a cluster: data with data, since a shared
// cluster is copied before it is written, and L2 tables, each with their like.
func (u use) mayShare(other use) bool {
	return u == other && u == useL2 || u.holdsData() && other.holdsData()
}

func (u use) holdsData() bool { return u == useData || u == useCompressed }

// windowBits is the most that a window holds for each cluster, in bits.
const windowBits = 32 + 8 + 1

// A window is what one pass knows of the host clusters [lo, hi).
type window struct {
	lo, hi int64
	uses   []use    // the first use, and whether there is a reference
	refs   []uint8  // references beside that one; nil while no cluster is shared
	wide   []uint32 // the same instead, once a cluster has more than 255
	ones   []uint64 // a bit a cluster: the refcount is 1
	next   int64    // the first cluster behind the window that something refers to
}

// reset begins a pass. end is the clusters of the file.
func (w *window) reset(lo, hi, end int64) {
	n := hi - lo
	if int64(len(w.uses)) != n {
		w.refs, w.wide = nil, nil
		w.uses, w.ones = make([]use, n), make([]uint64, (n+63)/64)
	}
	clear(w.refs)
	clear(w.wide)
	clear(w.uses)
	clear(w.ones)
	w.lo, w.hi, w.next = lo, hi, end
}

// holds reports that a cluster is in the window; where one behind it is referred to
// is remembered.
func (w *window) holds(c int64) bool {
	if c >= w.hi {
		w.next = min(w.next, c)
		return false
	}
	return c >= w.lo
}

// one reports that the refcount of a cluster of the window is 1.
func (w *window) one(c int64) bool { return w.ones[(c-w.lo)/64]>>((c-w.lo)%64)&1 != 0 }

func (w *window) setOne(c int64) { w.ones[(c-w.lo)/64] |= 1 << ((c - w.lo) % 64) }

// use is the first use of a cluster of the window.
func (w *window) use(c int64) use { return w.uses[c-w.lo] & useKind }

// references is how many references to a cluster of the window were found.
func (w *window) references(c int64) uint64 {
	n := uint64(w.uses[c-w.lo] & useOnce / useOnce)
	switch {
	case w.wide != nil:
		n += uint64(w.wide[c-w.lo])
	case w.refs != nil:
		n += uint64(w.refs[c-w.lo])
	}
	return n
}

// addReferences adds n references to a cluster of the window.
func (w *window) addReferences(c int64, n uint32) {
	if n > 0 && w.uses[c-w.lo]&useOnce == 0 {
		w.uses[c-w.lo] |= useOnce
		n--
	}
	if n > 0 {
		w.addMore(c-w.lo, n)
	}
}

// addMore adds references beside the first.
func (w *window) addMore(i int64, n uint32) {
	if w.wide == nil {
		if w.refs == nil {
			w.refs = make([]uint8, len(w.uses))
		}
		if sum := uint64(w.refs[i]) + uint64(n); sum <= math.MaxUint8 {
			w.refs[i] = uint8(sum)
			return
		}
		w.widen()
	}
	w.wide[i] = uint32(min(uint64(w.wide[i])+uint64(n), math.MaxUint32))
}

func (w *window) widen() {
	w.wide = make([]uint32, len(w.refs))
	for i, n := range w.refs {
		w.wide[i] = uint32(n)
	}
	w.refs = nil
}

// mark adds n references to a cluster. The result is what it is used for already,
// where the two may not share it and nobody was told.
func (w *window) mark(c int64, n uint32, u use) use {
	if !w.holds(c) {
		return unused
	}
	w.addReferences(c, n)
	old := w.use(c)
	switch {
	case old == unused:
		w.uses[c-w.lo] |= u
		return unused
	case w.uses[c-w.lo]&useTold != 0, u.mayShare(old):
		return unused
	}
	w.uses[c-w.lo] |= useTold
	return old
}

// A place is what refers to clusters: for messages.
type place struct {
	structure, field   string
	entry              int64      // 1 + the number of the entry that field is about; 0: of none
	host               HostOffset // of what refers
	snapshot           string
	guestOff, guestLen int64
}

// name is what refers, in words. Few are ever told.
func (p place) name() string {
	if p.entry == 0 {
		return p.field
	}
	return fmt.Sprintf("entry %d%s", p.entry-1, p.field)
}

func (p place) finding(kind FindingKind, found, wanted string) Finding {
	return Finding{Kind: kind, Severity: SeverityCorruption, Structure: p.structure, Field: p.name(), Host: p.host,
		Snapshot: p.snapshot, GuestOff: p.guestOff, GuestLen: p.guestLen, Found: found, Wanted: wanted}
}

// add counts references to the clusters of [host, host+n), as QEMU does: the last
// cluster of the file may be cut, what begins beyond is not counted.
func (c *checker) add(host HostOffset, n int64, u use, at place) error {
	if n <= 0 {
		return nil
	}
	size := c.img.geometry.ClusterSize()
	if !within(host, uint64(n), alignUp(c.img.size, size)) {
		c.res.Incomplete = true
		f := at.finding(FindBeyondEnd, fmt.Sprintf("%d bytes at %s", n, host), fmt.Sprintf("an end before %#x", c.img.size))
		return c.structural(f)
	}
	for cluster := int64(host) / size; cluster*size < int64(host)+n; cluster++ {
		if other := c.win.mark(cluster, 1, u); other != 0 {
			if err := c.overlap(cluster, u, other, at); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) overlap(cluster int64, u, other use, at place) error {
	if c.onOverlap != nil {
		c.onOverlap(cluster, u, other)
	}
	f := at.finding(FindOverlap, fmt.Sprintf("%v in the cluster of %v", u, other), "a cluster of its own")
	f.Cluster = HostOffset(cluster << c.img.geometry.ClusterBits)
	return c.report(f)
}

// A run is clusters that follow each other with the same wrong refcount.
type run struct {
	first, n int64
	stored   uint64
	refs     uint64
	used     use
}

// A comparison compares the references with the refcounts of the window.
type comparison struct {
	*checker
	limit uint64
	cur   run // not yet reported
}

func (c *checker) compare() error {
	x := comparison{checker: c, limit: c.img.geometry.maxRefcount()}
	failed := func(host HostOffset, err error) error { return c.failedRead("refcount block", host, err) }
	if err := c.eachStored(x.piece, failed); err != nil {
		return err
	}
	return c.wrongCount(x.cur)
}

// piece compares the clusters [lo, hi), whose refcounts are given; nil: they are 0.
func (x *comparison) piece(lo, hi int64, b []byte) error {
	for cluster := lo; cluster < hi; cluster++ {
		stored := uint64(0)
		if b != nil {
			stored = x.img.geometry.refcountAt(b, cluster-lo)
		}
		refs := x.win.references(cluster)
		if stored|refs != 0 {
			x.res.ImageEnd = (cluster + 1) << x.img.geometry.ClusterBits
			if x.onCount != nil {
				x.onCount(cluster, stored, refs, x.win.use(cluster))
			}
		}
		if stored == refs {
			continue
		}
		if err := x.differ(cluster, stored, refs); err != nil {
			return err
		}
	}
	return nil
}

// differ reports a refcount that is wrong, together with those before it that are
// wrong in the same way.
func (x *comparison) differ(cluster int64, stored, refs uint64) error {
	used := x.win.use(cluster)
	if refs > x.limit {
		if err := x.overflow(cluster, refs, x.limit, used); err != nil {
			return err
		}
		if refs = x.limit; stored == refs {
			return nil
		}
	}
	cur := &x.cur
	if cur.n > 0 && cur.first+cur.n == cluster && cur.stored == stored && cur.refs == refs && cur.used == used {
		cur.n++
		return nil
	}
	err := x.wrongCount(*cur)
	*cur = run{cluster, 1, stored, refs, used}
	return err
}

// maxRefcount is the largest refcount of that width, or 2^32-1: no file has room for
// more references.
func (g Geometry) maxRefcount() uint64 {
	if g.RefcountOrder >= 5 {
		return math.MaxUint32
	}
	return 1<<g.RefcountBits() - 1
}

func (c *checker) wrongCount(r run) error {
	if r.n == 0 {
		return nil
	}
	f := c.refcountFinding(r.first, r.n, r.used)
	f.Found, f.Wanted = fmt.Sprintf("refcount %d", r.stored), fmt.Sprint(r.refs)
	f.Kind, f.Severity = FindRefcountHigh, SeverityLeak
	if r.stored < r.refs {
		f.Kind, f.Severity = FindRefcountLow, SeverityCorruption
	}
	return c.report(f)
}

func (c *checker) overflow(cluster int64, refs, limit uint64, used use) error {
	f := c.refcountFinding(cluster, 1, used)
	f.Kind, f.Severity = FindRefcountWidth, SeverityCorruption
	f.Found, f.Wanted = fmt.Sprintf("%d references", refs), fmt.Sprintf("at most %d", limit)
	return c.report(f)
}

// refcountFinding is the place of a refcount.
func (c *checker) refcountFinding(cluster, n int64, used use) Finding {
	g := c.img.geometry
	per := g.refcountsPerBlock()
	f := Finding{Structure: "refcount block", Field: fmt.Sprintf("entry %d of block %d", cluster%per, cluster/per),
		Cluster: HostOffset(cluster << g.ClusterBits), Clusters: n}
	if e, err := c.refTableEntry(cluster / per); err == nil && c.blockRule(e) == "" && e != 0 {
		f.Host = HostOffset(e) + HostOffset(cluster%per*int64(g.RefcountBits())/8)
	}
	if used != unused {
		f.Field += " (" + used.String() + ")"
	}
	return f
}
