package qcow2

import (
	"encoding/binary"
	"fmt"
)

const (
	// maxUnits bounds what a search remembers: three bits for each.
	maxUnits = 1 << 26
	// maxCandidates is how many tables are looked at as a possible L1 table, for each
	// cluster size.
	maxCandidates = 1 << 14
	// maxScored is how many L2 tables of a possible L1 table are looked at.
	maxScored = 32
)

// findTables finds the L1 table and the cluster size, where the header does not say
// them or says what cannot be.
func (x *rescue) findTables() error {
	if at := x.s.opts.L1Offset; at != 0 {
		x.h.L1TableOffset = at
	}
	if x.bitsOK && x.headerL1() {
		return nil
	}
	x.s.note("searching the whole file for the L1 table")
	x.finder = newTableFinder(x.s.bad, x.img.size)
	if err := x.finder.scan(x.ctx.Err); err != nil {
		return err
	}
	best, second := x.search(x.geometries(x.known && x.bitsOK))
	if best.score <= 0 {
		best, second = x.search(x.geometries(false))
	}
	if x.known && x.bitsOK && !best.owned {
		x.s.note("none was found")
		x.noL1 = !x.placedL1()
		return nil
	}
	if best.score <= 0 {
		return fmt.Errorf("%w: the header cannot be used (%v), and %w; --cluster-size, --l1-offset and --size say what is known", ErrNotQcow2, x.broken, errNoTables)
	}
	x.take(best, second)
	x.findRefcounts(best)
	return nil
}

// placedL1 reports that the L1 table can be where the header says.
func (x *rescue) placedL1() bool {
	h := &x.h
	return h.L1TableOffset != 0 && h.Geometry().aligned(h.L1TableOffset) && within(h.L1TableOffset, 8, x.img.size)
}

// headerL1 reports that the L1 table is where the header says, or the user.
func (x *rescue) headerL1() bool {
	h := &x.h
	if !x.placedL1() {
		return h.L1Size == 0 && h.Size == 0 && x.known && x.s.opts.Size == 0
	}
	if h.L1Size == 0 || uint64(h.L1Size)*8 > uint64(x.img.limits.L1Bytes) {
		h.L1Size = x.countL1(h)
	}
	good, bad := x.l1Entries(h)
	return x.s.opts.L1Offset != 0 || good > 0 || bad == 0
}

// countL1 is how many entries an L1 table has of which only the place is known: up to
// the last that is one.
func (x *rescue) countL1(h *Header) uint32 {
	if x.s.opts.Size > 0 {
		return uint32(min(h.Geometry().l1EntriesFor(uint64(x.s.opts.Size)), uint64(x.img.limits.L1Bytes)/8))
	}
	if x.h.Size > 0 {
		if n := h.Geometry().l1EntriesFor(x.h.Size); n <= uint64(x.img.limits.L1Bytes)/8 {
			return uint32(n)
		}
	}
	b := make([]byte, h.Geometry().ClusterSize())
	x.s.bad.ReadAt(b, int64(h.L1TableOffset))
	last := 0
	for c := (cursor{b: b}); c.off < len(b); {
		if e := l1Entry(c.u64()); e != 0 && checkL1(e, h.Geometry(), x.img.size) == "" {
			last = c.off / 8
		}
	}
	return uint32(last)
}

// take takes over what a search found.
func (x *rescue) take(best, second candidate) {
	h := &x.h
	x.s.searched = best.host != h.L1TableOffset
	h.ClusterBits, h.L1TableOffset, x.bitsOK = best.g.ClusterBits, best.host, true
	h.IncompatibleFeatures &^= IncompatExtendedL2
	if best.g.ExtendedL2 {
		h.IncompatibleFeatures |= IncompatExtendedL2
	}
	if need := h.Geometry().l1EntriesFor(h.Size); h.Size == 0 || uint64(h.L1Size) < need || int64(h.L1Size) < best.entries || h.L1Size > uint32(best.entries)+1<<16 {
		h.L1Size = uint32(best.entries)
	}
	x.s.note("cluster size %d, L1 table at %s with %d L2 tables, as far as could be found out", h.Geometry().ClusterSize(), best.host, best.good)
	if second.score*2 > best.score {
		x.s.note("another table, at %s, could be the L1 table as well; --l1-offset chooses", second.host)
		x.s.doubt = ReasonAmbiguous
	}
}

// A candidate is a table that may be the L1 table, under a geometry.
type candidate struct {
	g       Geometry
	host    HostOffset
	entries int64 // up to the last that is not 0
	good    int64 // that lead to L2 tables
	score   int64
	owned   bool // an entry has the copied bit
}

// better reports the candidate that explains more; of the same, the one with the larger
// clusters: tables of large clusters make sense as those of smaller ones too.
func (c candidate) better(o candidate) bool {
	if c.score != o.score {
		return c.score > o.score
	}
	return c.g.ClusterBits > o.g.ClusterBits
}

// search looks for L1 tables under geometries. The second is the best
// that stands elsewhere.
func (x *rescue) search(geometries []Geometry) (best, second candidate) {
	var all []candidate
	for _, g := range geometries {
		for _, c := range x.finder.candidates(g, x.s.opts.L1Offset) {
			if x.known && c.host == x.h.L1TableOffset {
				c.score *= 4 // the header says so too
			}
			all = append(all, c)
		}
	}
	best, _ = pick(all, nil)
	if best.score > 0 {
		best, second = pick(all, x.snapshotTables(best.g))
	}
	return best, second
}

// pick is the best of candidates, leaving out those that are taken, and the best with the
// same geometry that stands elsewhere.
func pick(all []candidate, taken map[HostOffset]bool) (best, second candidate) {
	for _, c := range all {
		if !taken[c.host] && c.better(best) {
			best = c
		}
	}
	for _, c := range all {
		if !taken[c.host] && c.host != best.host && c.g == best.g && c.better(second) {
			second = c
		}
	}
	return best, second
}

// geometries are those that may be: all, or only those with the cluster size that the
// header says; only those with the cluster size that the user said.
func (x *rescue) geometries(likeHeader bool) []Geometry {
	var all []Geometry
	for n := uint32(maxClusterBits); n >= minClusterBits; n-- {
		if (x.s.opts.ClusterSize != 0 || likeHeader) && n != x.h.ClusterBits {
			continue
		}
		for _, extended := range []bool{false, true} {
			g := Geometry{ClusterBits: n, RefcountOrder: 4, ExtendedL2: extended, Version: 3}
			known := x.known && x.tailOK && extended != x.h.Geometry().ExtendedL2
			if extended && n < 14 || g.ClusterSize() < x.finder.unit || known {
				continue
			}
			all = append(all, g)
		}
	}
	return all
}

// A tableFinder remembers what every piece of a file looks like.
type tableFinder struct {
	r              *tolerantReader
	size, unit     int64
	zero, std, ext []uint64     // a bit a unit: all zero; L1 or L2 entries; extended L2 entries
	snapshots      []HostOffset // what may be snapshot tables, up to maxCandidates
}

func newTableFinder(r *tolerantReader, size int64) *tableFinder {
	f := &tableFinder{r: r, size: size, unit: salvageSector}
	for size/f.unit >= maxUnits {
		f.unit *= 2
	}
	n := size/f.unit/64 + 1
	f.zero, f.std, f.ext = make([]uint64, n), make([]uint64, n), make([]uint64, n)
	return f
}

// scan looks at the whole file.
func (f *tableFinder) scan(stop func() error) error {
	buf := make([]byte, max(1<<20, f.unit))
	for off := int64(0); off < f.size; off += int64(len(buf)) {
		if err := stop(); err != nil {
			return err
		}
		part := buf[:min(int64(len(buf)), f.size-off)]
		f.r.ReadAt(part, off)
		for at := int64(0); at < int64(len(part)); at += f.unit {
			unit := part[at:min(at+f.unit, int64(len(part)))]
			f.classify((off+at)/f.unit, unit)
			if len(f.snapshots) < maxCandidates && f.maybeSnapshot(unit) {
				f.snapshots = append(f.snapshots, HostOffset(off+at))
			}
		}
	}
	return nil
}

func (f *tableFinder) classify(unit int64, b []byte) {
	zero, std, ext := true, true, true
	for i := 0; i+8 <= len(b) && (std || ext); i += 8 {
		w := binary.BigEndian.Uint64(b[i:])
		if w == 0 {
			continue
		}
		zero = false
		entry := f.maybeEntry(w)
		std = std && entry
		if i%16 == 0 {
			ext = ext && entry && (l2Entry(w).compressed() || w&entryZero == 0)
		} else {
			ext = ext && w>>32&w&0xffffffff == 0
		}
	}
	bit := uint64(1) << (unit % 64)
	switch {
	case zero:
		f.zero[unit/64] |= bit
		return
	case std:
		f.std[unit/64] |= bit
	}
	if ext {
		f.ext[unit/64] |= bit
	}
}

// maybeEntry reports a word that can be an L1 or L2 entry with some cluster size.
func (f *tableFinder) maybeEntry(w uint64) bool {
	e := l2Entry(w)
	if e.compressed() {
		return !e.copied() && w&(1<<49-1) < uint64(f.size)
	}
	return e&l2Reserved == 0 && uint64(e.offset()) < uint64(f.size) && (e.offset() != 0 || w == entryZero)
}

// like reports a cluster that looks like a table, of one kind of entries.
func (f *tableFinder) like(host int64, g Geometry, extended bool) bool {
	set, any := f.std, false
	if extended {
		set = f.ext
	}
	for unit := host / f.unit; unit < (host+g.ClusterSize())/f.unit; unit++ {
		i, bit := unit/64, uint64(1)<<(unit%64)
		switch {
		case i >= int64(len(f.zero)):
			return any
		case f.zero[i]&bit != 0:
		case set[i]&bit != 0:
			any = true
		default:
			return false
		}
	}
	return any
}

// candidates are the tables that may be L1 tables under g; only the one at the offset
// that the user said, where that is not 0.
func (f *tableFinder) candidates(g Geometry, only HostOffset) []candidate {
	var all []candidate
	looked := 0
	for host := g.ClusterSize(); host < f.size && looked < maxCandidates; host += g.ClusterSize() {
		if only != 0 && HostOffset(host) != only || only == 0 && !f.like(host, g, false) {
			continue
		}
		looked++
		if c := f.assess(g, HostOffset(host)); c.score > 0 {
			all = append(all, c)
		}
	}
	return all
}

// assess looks at a table as an L1 table. It goes on behind its first cluster as long as
// there are nothing but L1 entries.
func (f *tableFinder) assess(g Geometry, host HostOffset) candidate {
	a := assessment{candidate: candidate{g: g, host: host}, f: f, seen: map[HostOffset]bool{}}
	b := make([]byte, min(g.ClusterSize(), 4096))
	for index := int64(0); index < maxL1Bytes/8; index += int64(len(b) / 8) {
		at := host + HostOffset(index*8)
		if !within(at, uint64(len(b)), f.size) {
			break
		}
		f.r.ReadAt(b, int64(at))
		if !a.add(b, index, at >= host+HostOffset(g.ClusterSize())) {
			break
		}
	}
	if a.good > 0 {
		a.score = a.good + f.score(g, a.tables)
	}
	return a.candidate
}

// An assessment is what was seen of a candidate so far.
type assessment struct {
	candidate
	f      *tableFinder
	seen   map[HostOffset]bool
	tables []HostOffset // the first maxScored
}

// add looks at entries from index on; false where the table ends before them.
func (a *assessment) add(b []byte, index int64, behindFirst bool) bool {
	next := *a
	bad := int64(0)
	for i := 0; i < len(b); i += 8 {
		e := l1Entry(binary.BigEndian.Uint64(b[i:]))
		switch {
		case e == 0:
		case checkL1(e, a.g, a.f.size) != "" || a.seen[e.offset()] || !a.f.like(int64(e.offset()), a.g, a.g.ExtendedL2):
			bad++
		default:
			next.good++
			next.owned = next.owned || e&entryCopied != 0
			next.entries = index + int64(i/8) + 1
			a.seen[e.offset()] = true
			if len(next.tables) < maxScored {
				next.tables = append(next.tables, e.offset())
			}
		}
	}
	good := next.good - a.good
	if bad > good || behindFirst && (bad > 0 || good == 0) {
		return false
	}
	*a = next
	return true
}

// score counts what speaks for L2 tables, less what speaks against them.
func (f *tableFinder) score(g Geometry, tables []HostOffset) (score int64) {
	b := make([]byte, min(g.ClusterSize(), sliceBytes))
	stride := int(g.l2EntryWords()) * 8
	for _, host := range tables {
		f.r.ReadAt(b, int64(host))
		for i := 0; i+stride <= len(b); i += stride {
			e := l2Entry(binary.BigEndian.Uint64(b[i:]))
			if e == 0 {
				continue
			}
			if e.plausible(g, f.size) {
				score++
			} else {
				score -= 8
			}
		}
	}
	return score
}
