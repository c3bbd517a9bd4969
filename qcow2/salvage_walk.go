package qcow2

// A salvageView is a view that is walked whatever is wrong with it: the active disk, or
// a snapshot.
type salvageView struct {
	view
	s *Salvaged
	// claimed is how many entries the L1 table is said to have; l1Size is how many of
	// them the file holds.
	claimed int64
	active  bool
}

// newSalvageView makes a view; entries that lie beyond the end of the file are left out
// of l1Size, so that nothing else has to care.
func newSalvageView(s *Salvaged, v view, active bool) *salvageView {
	sv := &salvageView{view: v, s: s, claimed: v.l1Size, active: active}
	held := max(0, v.img.size-int64(min(v.l1, HostOffset(v.img.size)))) / 8
	sv.l1Size = min(v.l1Size, held)
	return sv
}

// A tableRef is what an L1 entry leads to.
type tableRef struct {
	host   HostOffset // 0: there is no L2 table
	entry  HostOffset // where the L1 entry stands
	index  int64
	grade  Grade
	reason Reason
}

// tableAt is what the L1 table has at an index.
func (v *salvageView) tableAt(index int64) tableRef {
	ref := tableRef{index: index, entry: v.l1 + HostOffset(index*8)}
	if host, ok := v.s.assigned[index]; ok && v == v.s.target {
		ref.host, ref.grade, ref.reason = host, Doubtful, ReasonAssigned
		return ref
	}
	if index >= v.l1Size {
		return v.beyondL1(ref)
	}
	e, missing := v.l1Entry(index)
	switch {
	case missing != "":
		ref.grade, ref.reason = Lost, missing
	case e == 0:
		ref.grade, ref.reason = v.s.ev.emptyTable(v, index)
	default:
		ref.host, ref.grade, ref.reason = mendL1(e, v.img.geometry, v.img.size)
		v.judgeTable(&ref)
	}
	return ref
}

// beyondL1 is what an L1 table has behind its end: nothing, in a snapshot of a smaller
// disk.
func (v *salvageView) beyondL1(ref tableRef) tableRef {
	ref.entry = 0
	if ref.index < v.claimed || v.active {
		ref.grade, ref.reason = Lost, ReasonL1End
	}
	return ref
}

// l1Entry is an entry of the L1 table in the file, or the reason for which it cannot be
// had.
func (v *salvageView) l1Entry(index int64) (l1Entry, Reason) {
	const perSlice = sliceBytes / 8
	first := index / perSlice * perSlice
	part := v.s.parts.load(v.l1+HostOffset(first*8), int(min(perSlice, v.l1Size-first)))
	return l1Entry(part.words[index-first]), part.why(int(index - first))
}

// judgeTable says what the rest of the image has against a table.
func (v *salvageView) judgeTable(ref *tableRef) {
	if ref.grade == Lost {
		return
	}
	if at := ref.host; at >= v.l1 && at-v.l1 < HostOffset(v.l1Size*8) {
		ref.grade, ref.reason = Lost, ReasonL1Entry
		return
	}
	grade, reason := v.s.ev.table(v, ref.host, ref.index)
	if grade > ref.grade {
		ref.grade, ref.reason = grade, reason
	}
}

// walk emits the pieces of this layer, a cluster or less at a time where there is an L2
// table. An error is errStop.
func (v *salvageView) walk(off, end int64, emit func(piece) bool) error {
	cover := v.img.geometry.l2Coverage()
	for off < end {
		index := off / cover
		tableEnd := end
		if index < (end-1)/cover {
			tableEnd = (index + 1) * cover
		}
		if err := v.walkTable(v.tableAt(index), off, tableEnd, emit); err != nil {
			return err
		}
		off = tableEnd
	}
	return nil
}

// walkTable emits the pieces of what one L1 entry maps.
func (v *salvageView) walkTable(ref tableRef, off, end int64, emit func(piece) bool) error {
	if ref.host == 0 || ref.grade == Lost {
		p := piece{Extent: Extent{Off: off, Len: end - off}, grade: ref.grade, reason: ref.reason, entry: ref.entry, owner: v.s}
		if ref.grade == Lost {
			p.lose(ref.reason)
		}
		return v.settle(p, true, emit)
	}
	for off < end {
		s, part := v.slice(ref.host, off)
		w := sliceWalk{salvageView: v, ref: ref, at: s, part: part, emit: emit, sector: -1}
		for off < min(end, s.end) {
			next := min(end, s.clusterEnd(off))
			if err := w.cluster(off, next); err != nil {
				return err
			}
			off = next
		}
	}
	return nil
}

// slice loads the part of an L2 table that maps off.
func (v *salvageView) slice(l2 HostOffset, off int64) (l2Slice, tablePart) {
	s := v.img.geometry.l2SliceAt(l2, off)
	part := v.s.parts.load(s.host, v.img.geometry.l2SliceWords())
	s.words = part.words
	return s, part
}

// settle emits a piece. Where the mapping is lost, a snapshot may still have it.
func (v *salvageView) settle(p piece, mapping bool, emit func(piece) bool) error {
	if p.grade == Lost && mapping && v == v.s.target && v.active {
		return v.s.fromSnapshot(len(v.s.snapshots)-1, p, emit)
	}
	return stopped(emit(p.asEmpty()))
}

// fromSnapshot emits p as the newest snapshot up to number i has it that has not lost
// it as well; p itself where none has it.
func (s *Salvaged) fromSnapshot(i int, p piece, emit func(piece) bool) error {
	if i < 0 {
		return stopped(emit(p.asEmpty()))
	}
	v := s.snapshots[i]
	off, end := p.Off, min(p.End(), v.size)
	if off < end {
		var failed error
		err := v.walk(off, end, func(q piece) bool {
			if q.grade == Lost {
				failed = s.fromSnapshot(i-1, p.part(q.Off, q.End()), emit)
			} else {
				q.grade, q.reason = Doubtful, ReasonSnapshot
				failed = stopped(emit(q))
			}
			return failed == nil
		})
		if err != nil {
			return failed
		}
	}
	if off = max(off, end); off < p.End() {
		return s.fromSnapshot(i-1, p.part(off, p.End()), emit)
	}
	return nil
}

// asEmpty makes a piece that was most likely wiped what a reader takes it for: one that
// nothing is stored of.
func (p piece) asEmpty() piece {
	if p.grade == Lost && (p.reason == ReasonL1Wiped || p.reason == ReasonWipedEntry) {
		p.grade, p.Kind = Doubtful, Absent
	}
	return p
}

// A sliceWalk is the walk of a part of an L2 table.
type sliceWalk struct {
	*salvageView
	ref    tableRef
	at     l2Slice
	part   tablePart
	emit   func(piece) bool
	sector int // the last that was looked at for broken entries
	broken bool
}

// cluster emits the pieces of [off, end), which lies in one cluster.
func (w *sliceWalk) cluster(off, end int64) error {
	g := w.img.geometry
	i := int((off-w.at.off)>>g.ClusterBits) * int(g.l2EntryWords())
	p := piece{Extent: Extent{Off: off, Len: end - off}, entry: w.at.host + HostOffset(i*8), owner: w.s}
	if why := w.part.why(i); why != "" {
		p.lose(why)
		return w.settle(p, true, w.emit)
	}
	entry, bitmap := w.at.entry(off)
	if entry.compressed() {
		return w.compressed(p, entry, bitmap)
	}
	r := w.readStandard(entry, w.at.clusterStart(off), w.at.table())
	if r.grade == Lost {
		p.lose(r.reason)
		return w.settle(p, true, w.emit)
	}
	if r.subs {
		return w.subclusters(p, r, bitmap, i)
	}
	return w.standard(p, r, i)
}

// standard emits a piece of a standard cluster, stored as r says; i is the word of its
// entry.
func (w *sliceWalk) standard(p piece, r reading, i int) error {
	p.Kind, p.HasHost, p.grade, p.reason = r.kind, r.hasHost, r.grade, r.reason
	if r.hasHost {
		p.Host = r.host + HostOffset(p.Off-w.at.clusterStart(p.Off))
		p.Storage = w.s.storage
	}
	w.inherit(&p)
	if p.Kind != Data {
		if p.Kind == Absent && !r.hasHost && w.s.ev.wiped(w, p.Off) {
			p.lose(ReasonWipedEntry)
			return w.settle(p, true, w.emit)
		}
		w.judgeEmpty(&p, r, i)
		return w.settle(p, false, w.emit)
	}
	return w.data(p, r, i)
}

// inherit hands the doubts about the table down to a piece.
func (w *sliceWalk) inherit(p *piece) {
	if w.ref.grade == Doubtful {
		p.doubt(w.ref.reason)
	}
}

// judgeEmpty says what can be said against a piece that nothing is stored of.
func (w *sliceWalk) judgeEmpty(p *piece, r reading, i int) {
	if p.grade != Sound {
		return
	}
	if r.hasHost && w.img.dataFile == nil { // the cluster that it keeps confirms it
		p.doubt(w.s.ev.data(w.salvageView, r.host))
		return
	}
	if w.brokenSector(i) {
		p.doubt(ReasonSuspect)
	}
	p.doubt(w.s.ev.emptyEntry(w, i))
}

// data emits a piece of plain data, as far as it is in its file.
func (w *sliceWalk) data(p piece, r reading, i int) error {
	s := w.s
	if s.storage == nil {
		p.lose(ReasonDataFile)
		return w.settle(p, false, w.emit)
	}
	if w.img.dataFile == nil {
		reason := s.ev.data(w.salvageView, r.host)
		if reason == "" && s.ev.copiedWrongly(w.salvageView, r) {
			reason = ReasonCopied
		}
		if reason == "" && p.grade == Sound && !s.ev.counted(r.host) && w.brokenSector(i) {
			reason = ReasonSuspect
		}
		p.doubt(reason)
	}
	held := min(p.Len, max(0, w.img.storageSize-int64(min(p.Host, HostOffset(w.img.storageSize)))))
	if held > 0 {
		if err := w.settle(p.part(p.Off, p.Off+held), false, w.emit); err != nil {
			return err
		}
	}
	if held == p.Len {
		return nil
	}
	return w.beyond(p.part(p.Off+held, p.End()), r.host)
}

// subclusters emits p, of a cluster with an extended L2 entry.
func (w *sliceWalk) subclusters(p piece, r reading, b subclusterBitmap, i int) error {
	size := w.img.geometry.SubclusterSize()
	for off, end := p.Off, p.End(); off < end; {
		sub := int((off - w.at.clusterStart(off)) / size)
		next := min(end, w.at.clusterStart(off)+int64(sub+1)*size)
		if err := w.subcluster(p.part(off, next), r, b, sub, i); err != nil {
			return err
		}
		off = next
	}
	return nil
}

// subcluster emits p, which lies in subcluster sub.
func (w *sliceWalk) subcluster(p piece, r reading, b subclusterBitmap, sub, i int) error {
	r.kind = b.kind(sub)
	allocated := b.allocated()>>sub&1 != 0
	switch {
	case allocated && !r.hasHost:
		p.lose(ReasonSubclusters)
		return w.settle(p, true, w.emit)
	case allocated && r.kind == Zero: // both bits
		r.kind = Data
		if r.grade == Sound {
			r.grade, r.reason = Doubtful, ReasonSubclusters
		}
	case checkSubclusters(b, r.hasHost) != "" && r.grade == Sound:
		r.grade, r.reason = Doubtful, ReasonSubclusters
	}
	return w.standard(p, r, i)
}

// compressed emits a piece of a compressed cluster; whether its stream can be decoded
// is found out by who reads it.
func (w *sliceWalk) compressed(p piece, e l2Entry, b subclusterBitmap) error {
	if w.img.dataFile != nil {
		p.lose(ReasonEntry)
		return w.settle(p, true, w.emit)
	}
	host, _ := e.compressedRange(w.img.geometry)
	p.Kind, p.Host, p.HasHost, p.packed = Compressed, host, true, e
	if !within(host, 1, w.img.size) {
		return w.beyond(p, host)
	}
	w.inherit(&p)
	switch {
	case e.copied():
		p.doubt(ReasonCopiedPacked)
	case b != 0:
		p.doubt(ReasonSubclusters)
	case w.checkCompressed(e) != "":
		p.doubt(ReasonCutStream)
	}
	p.doubt(w.s.ev.packed(w.salvageView, e))
	return w.settle(p, false, w.emit)
}

// beyond emits a piece whose entry leads behind the end of the file: of a file that was
// cut, or of an entry that is none.
func (w *sliceWalk) beyond(p piece, host HostOffset) error {
	if w.far(host) {
		p.HasHost = false
		p.lose(ReasonEntry)
		return w.settle(p, true, w.emit)
	}
	p.lose(ReasonBeyondEnd)
	return w.settle(p, false, w.emit)
}

// brokenSector reports that the sector of the table that holds word i has entries which
// break the format.
func (w *sliceWalk) brokenSector(i int) bool {
	sector := i / (salvageSector / 8)
	if sector == w.sector {
		return w.broken
	}
	w.sector, w.broken = sector, false
	g, stride := w.img.geometry, int(w.img.geometry.l2EntryWords())
	first := sector * salvageSector / 8
	for j := first; j < min(first+salvageSector/8, len(w.at.words)); j += stride {
		e := l2Entry(w.at.words[j])
		if e.compressed() {
			host, _ := e.compressedRange(g)
			w.broken = w.broken || w.img.dataFile != nil || e.copied() || w.far(host)
			continue
		}
		outside := w.img.dataFile != nil
		w.broken = w.broken || checkStandard(e, g, outside) != "" || w.far(e.offset()) ||
			stride == 2 && checkSubclusters(subclusterBitmap(w.at.words[j+1]), e.meaning(outside).hasHost) != ""
	}
	return w.broken
}

// emptySector reports that the sector of the table that holds word i has no entry.
func (t *tablePart) emptySector(i int) bool {
	first := i / (salvageSector / 8) * (salvageSector / 8)
	for _, word := range t.words[first:min(first+salvageSector/8, len(t.words))] {
		if word != 0 {
			return false
		}
	}
	return true
}
