package qcow2

import (
	"context"
	"iter"

	"github.com/qbitkit/qbit/bitmap"
)

const (
	defaultSalvageMemory = 256 << 20
	// maxTableUses is for how many ranges of the disk one L2 table is read. A sound
	// image has one; a hostile one could have millions.
	maxTableUses = 16
	// maxEvidencePasses bounds how often the image is walked to count references, where
	// the clusters that it refers to lie far apart in a sparse file.
	maxEvidencePasses = 64
	// maxPlausibleCount is about the most that a refcount says that is one.
	maxPlausibleCount = 255
	// chunkClusters are those that a bitmap keeps together, in 4 KiB.
	chunkClusters = 1 << 15
)

// evidence is what the image as a whole says about its parts: which host clusters are
// used twice, for what else, and what the refcounts say. All sets are of host clusters,
// as seen by the disk that is salvaged.
type evidence struct {
	s        *Salvaged
	geometry Geometry

	tables map[HostOffset]tableUse
	chunks map[int64]struct{}
	chunk  int64 // the last one
	most   int   // tables, and chunks, that there is room for

	plain, packedIn *bitmap.Bitmap // standard, compressed clusters of the target; nil when all is marked
	twice           *bitmap.Bitmap // two ranges of the disk lead there
	overlap         *bitmap.Bitmap // it has two uses
	clash           *bitmap.Bitmap // it has two uses, and neither is guest data
	used            *bitmap.Bitmap // something leads there
	wrong           *bitmap.Bitmap // it has more references than its refcount says
	short           *bitmap.Bitmap // it has fewer references than its refcount says
	ones            *bitmap.Bitmap // its refcount is 1
	leaks           *bitmap.Bitmap // it is counted, and nothing leads there
	uncounted       *bitmap.Bitmap // the refcounts there are lost, or useless

	group  countGroup
	totals countGroup // of what is contradictory without being lost

	lostEntries, lostTables   int64 // that could have led somewhere
	orphanData, orphanTables  int64 // clusters that nothing leads to and that hold something
	explained, tableExplained bool  // by what is known to be lost
	doubt                     Reason
}

// A tableUse says for which range of the disk an L2 table is used.
type tableUse struct {
	index   int64
	uses    int32
	ofOther bool // the target does not use it
}

// A countGroup is the clusters that one sector of a refcount block counts.
type countGroup struct {
	number             int64
	refs, match, known int64 // referenced; of them counted, at least as often; counted plausibly
	any                bool
}

// gather collects the evidence. It walks every table once or a few times.
func (s *Salvaged) gather(ctx context.Context) error {
	ev := &evidence{s: s, geometry: s.img.geometry, tables: map[HostOffset]tableUse{}, chunks: map[int64]struct{}{}, chunk: -1}
	s.ev = ev
	ev.most = int(max(64, s.opts.memory()/(12*4096)))
	for _, b := range []**bitmap.Bitmap{&ev.plain, &ev.packedIn, &ev.twice, &ev.overlap, &ev.clash, &ev.used, &ev.wrong, &ev.short, &ev.ones, &ev.leaks, &ev.uncounted} {
		var err error
		if *b, err = newClusterSet(ev.geometry, s.img.size); err != nil {
			return err
		}
	}
	if err := ev.markViews(ctx); err != nil {
		return err
	}
	if err := ev.count(ctx); err != nil {
		return err
	}
	if err := ev.leaks.Difference(ev.plain); err != nil {
		return err
	}
	if err := ev.leaks.Difference(ev.packedIn); err != nil {
		return err
	}
	ev.plain, ev.packedIn, ev.chunks = nil, nil, nil
	ev.ownBitmaps()
	ev.judgeL1()
	return ev.weighOrphans(ctx)
}

// ownBitmaps takes the clusters of bitmaps off the leaks, where a check does not follow
// them: they are stale, or the directory breaks off behind them.
func (ev *evidence) ownBitmaps() {
	img := ev.s.img
	x, err := img.bitmapsExtension()
	if err != nil || x == nil || !within(x.directoryOffset, x.directorySize, img.size) || int64(x.directorySize) > img.limits.BitmapDirectoryBytes {
		return
	}
	ev.known(hostRange{x.directoryOffset, int64(x.directorySize)})
	room := min(img.size, img.limits.BitmapWork)
	for info, err := range img.EachBitmap() {
		if err != nil || room < 0 {
			return
		}
		ranges, _ := img.bitmapRanges(&info)
		for _, r := range ranges {
			ev.known(r)
		}
		room -= int64(info.TableSize) * 8
	}
}

// known takes clusters off the leaks.
func (ev *evidence) known(r hostRange) {
	size := ev.geometry.ClusterSize()
	off := int64(r.host) &^ (size - 1)
	ev.leaks.Unset(off, alignUp(int64(r.host)+r.n, size)-off)
	ev.used.Set(off, alignUp(int64(r.host)+r.n, size)-off)
}

// judgeL1 doubts everything where the L1 table shares a cluster.
func (ev *evidence) judgeL1() {
	v := ev.s.target
	size := ev.geometry.ClusterSize()
	for at := int64(v.l1) &^ (size - 1); at < int64(v.l1)+v.l1Size*8; at += size {
		if ev.clash.Test(at) || ev.overlap.Test(at) && ev.brokenL1() {
			ev.doubt = ReasonTableData
		}
	}
}

// brokenL1 reports an L1 table in which an entry breaks the format, as guest data would
// in its place.
func (ev *evidence) brokenL1() bool {
	v := ev.s.target
	for i := range v.l1Size {
		if e, missing := v.l1Entry(i); missing != "" || e != 0 && checkL1(e, ev.geometry, v.img.size) != "" {
			return true
		}
	}
	return false
}

// markViews marks what the target leads to, and then what others have against it.
func (ev *evidence) markViews(ctx context.Context) error {
	if err := ev.markView(ctx, ev.s.target); err != nil {
		return err
	}
	for v := range ev.s.others() {
		if err := ev.markView(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

// others are the views beside the target: the active disk and the snapshots.
func (s *Salvaged) others() iter.Seq[*salvageView] {
	return func(yield func(*salvageView) bool) {
		if !s.target.active && !yield(newSalvageView(s, s.img.active, true)) {
			return
		}
		for snap, err := range s.img.EachSnapshot() {
			if err != nil {
				return
			}
			if s.target.l1 == snap.L1TableOffset && !s.target.active {
				continue
			}
			d, err := s.img.snapshotView(&snap)
			if err == nil && !yield(newSalvageView(s, d.view, false)) {
				return
			}
		}
	}
}

// markView marks what the tables of a view lead to.
func (ev *evidence) markView(ctx context.Context, v *salvageView) error {
	for index := range v.l1Size {
		if index%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		e, missing := v.l1Entry(index)
		if missing != "" || e == 0 {
			if missing != "" {
				ev.lostTables++
			}
			continue
		}
		host, grade, _ := mendL1(e, ev.geometry, v.img.size)
		if grade == Lost {
			ev.lostTables++
			continue
		}
		if ev.newTable(v, host, index) {
			if err := ev.markTable(ctx, v, host, index); err != nil {
				return err
			}
		}
	}
	return nil
}

// newTable notes that a table is used for an index, and reports whether its entries are
// still to be marked.
func (ev *evidence) newTable(v *salvageView, host HostOffset, index int64) bool {
	t, known := ev.tables[host]
	switch {
	case !known:
		allowed := ev.s.img.limits.L2Bytes >> ev.geometry.ClusterBits
		if len(ev.tables) >= ev.most || int64(len(ev.tables)) >= allowed {
			ev.doubt = ReasonEvidence
			return false
		}
		ev.tables[host] = tableUse{index: index, uses: 1, ofOther: v != ev.s.target}
		return true
	case v == ev.s.target, t.index != index:
		t.uses++
		ev.tables[host] = t
	}
	return false
}

// markTable marks what an L2 table leads to.
func (ev *evidence) markTable(ctx context.Context, v *salvageView, host HostOffset, index int64) error {
	base := index * ev.geometry.l2Coverage()
	for off := base; off < base+ev.geometry.l2Coverage(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		at, part := v.slice(host, off)
		stride := int(ev.geometry.l2EntryWords())
		for i := 0; i < len(at.words); i += stride {
			if at.words[i] != 0 || part.missing != nil {
				ev.markEntry(v, &at, &part, i, off+int64(i/stride)<<ev.geometry.ClusterBits)
			}
		}
		off = at.end
		if off <= 0 {
			return nil // the end of what offsets can say
		}
	}
	return nil
}

// markEntry marks where the entry at word i leads, which maps off.
func (ev *evidence) markEntry(v *salvageView, at *l2Slice, part *tablePart, i int, off int64) {
	if part.why(i) != "" {
		ev.lostEntries++
		return
	}
	e := l2Entry(at.words[i])
	if e.compressed() {
		ev.markPacked(v, e, off)
		return
	}
	r := v.readStandard(e, off, at.table())
	switch {
	case r.grade == Lost:
		ev.lostEntries++
	case r.hasHost && v.img.dataFile == nil && within(r.host, 1, v.img.size):
		ev.mark(v, r.host, off, ev.plain, ev.packedIn)
	}
}

func (ev *evidence) markPacked(v *salvageView, e l2Entry, off int64) {
	host, length := e.compressedRange(ev.geometry)
	if !within(host, 1, v.img.size) {
		ev.lostEntries++
		return
	}
	end := min(int64(host)+length, v.img.size)
	for at := int64(host) &^ (ev.geometry.ClusterSize() - 1); at < end; at += ev.geometry.ClusterSize() {
		ev.mark(v, HostOffset(at), off, ev.packedIn, ev.plain)
	}
}

// mark marks a cluster in one set; the other is that of clusters that are used in the
// other way, which cannot be together with it.
func (ev *evidence) mark(v *salvageView, host HostOffset, off int64, set, other *bitmap.Bitmap) {
	if !ev.room(int64(host) >> ev.geometry.ClusterBits) {
		return
	}
	at := int64(host)
	switch {
	case other.Test(at):
		ev.twice.Set(at, 1)
	case v != ev.s.target:
		if set == ev.plain && set.Test(at) && ev.s.target.hostAt(off) != at {
			ev.twice.Set(at, 1)
		}
		return
	case set == ev.plain && set.Test(at):
		ev.twice.Set(at, 1)
	}
	if v == ev.s.target {
		set.Set(at, 1)
	}
}

// room reports that there is memory to mark a cluster.
func (ev *evidence) room(cluster int64) bool {
	chunk := cluster / chunkClusters
	if chunk == ev.chunk {
		return true
	}
	if _, ok := ev.chunks[chunk]; !ok {
		if len(ev.chunks) >= ev.most {
			ev.doubt = ReasonEvidence
			return false
		}
		ev.chunks[chunk] = struct{}{}
	}
	ev.chunk = chunk
	return true
}

// count compares the references with the refcounts, as a check does.
func (ev *evidence) count(ctx context.Context) error {
	c := newChecker(ctx, ev.s.img, &CheckOptions{Memory: ev.s.opts.memory() / 4}, func(f Finding) error {
		switch f.Kind {
		case FindSnapshotTable, FindBitmapsExt, FindBitmapDirectory, FindBitmapsStale, FindBitmapTable, FindBitmapEntry, FindEncryption:
			ev.explained = true // their clusters are among the leaks
		}
		return nil
	})
	c.onOverlap = func(cluster int64, a, b use) {
		if !ev.room(cluster) {
			return
		}
		ev.overlap.Set(cluster<<ev.geometry.ClusterBits, 1)
		if !(a &^ useTold).holdsData() && !(b &^ useTold).holdsData() {
			ev.clash.Set(cluster<<ev.geometry.ClusterBits, 1)
		}
	}
	c.onCount = ev.counts
	for lo := int64(0); lo < c.plan.Clusters; lo = c.nextWindow() {
		if c.pass >= maxEvidencePasses {
			ev.doubt = ReasonEvidence
			break
		}
		if err := c.checkWindow(lo, min(lo+c.plan.Window, c.plan.Clusters)); err != nil {
			return err
		}
		c.first = false
		c.pass++
	}
	ev.endGroup()
	if t := ev.totals; t.refs > 0 && (t.refs-t.match)*4 > t.refs && t.known*2 > t.refs {
		ev.doubt = ReasonGeometry
	}
	return ctx.Err()
}

// counts takes the refcount and the references of a cluster.
func (ev *evidence) counts(cluster int64, stored, refs uint64, u use) {
	if !ev.room(cluster) {
		return
	}
	if n := cluster / ev.groupSize(); n != ev.group.number || !ev.group.any {
		ev.endGroup()
		ev.group = countGroup{number: n, any: true}
	}
	at := cluster << ev.geometry.ClusterBits
	g := &ev.group
	if refs == 0 {
		ev.leaks.Set(at, 1)
		return
	}
	ev.used.Set(at, 1)
	if stored == 1 {
		ev.ones.Set(at, 1)
	}
	g.refs++
	plausible := stored <= max(refs, maxPlausibleCount)
	switch {
	case stored < refs:
		ev.wrong.Set(at, 1)
	case plausible:
		g.match++
	}
	if stored > refs && plausible { // a reference is missing
		ev.short.Set(at, 1)
		ev.missing(u)
	}
	if stored > 0 && plausible {
		g.known++
	}
}

// missing notes that something that led to a cluster is gone.
func (ev *evidence) missing(u use) {
	if u == useL2 {
		ev.orphanTables++
	} else if u.holdsData() {
		ev.orphanData++
	}
}

// groupSize is how many clusters a sector of a refcount block counts.
func (ev *evidence) groupSize() int64 {
	return salvageSector * 8 / int64(ev.geometry.RefcountBits())
}

// endGroup decides whether the refcounts of a group are to be believed.
func (ev *evidence) endGroup() {
	g := ev.group
	if !g.any {
		return
	}
	ev.group = countGroup{}
	ev.totals.refs += g.refs
	ev.totals.match += g.match
	ev.totals.known += g.known
	if g.match*2 >= g.refs {
		return
	}
	n := ev.groupSize() << ev.geometry.ClusterBits
	ev.uncounted.Set(g.number*n, n)
	ev.wrong.Unset(g.number*n, n)
	ev.short.Unset(g.number*n, n)
	ev.leaks.Unset(g.number*n, n)
}
