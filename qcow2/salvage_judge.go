package qcow2

import "math"

// table is what can be said against an L2 table that the view uses for an index.
func (ev *evidence) table(v *salvageView, host HostOffset, index int64) (Grade, Reason) {
	t, known := ev.tables[host]
	switch {
	case !known:
		return Lost, ReasonLimit
	case t.uses > maxTableUses:
		return Lost, ReasonTable
	case v != ev.s.target:
		return Sound, ""
	case t.uses > 1 || t.index != index:
		return Doubtful, ReasonTable
	case ev.overlap.Test(int64(host)):
		if !ev.clash.Test(int64(host)) && ev.s.isTable(host) {
			return Sound, "" // the data that leads here is what is wrong
		}
		return Doubtful, ReasonTableData
	case ev.wrong.Test(int64(host)):
		return Doubtful, ReasonRefcount
	}
	return Sound, ""
}

// isTable reports a cluster in which every entry is one of an L2 table, as no guest data
// is.
func (s *Salvaged) isTable(host HostOffset) bool {
	_, table := s.look(host)
	return table
}

// data is what can be said against a plain cluster.
func (ev *evidence) data(v *salvageView, host HostOffset) Reason {
	if v != ev.s.target {
		return ""
	}
	return ev.cluster(int64(host))
}

func (ev *evidence) cluster(host int64) Reason {
	switch {
	case ev.twice.Test(host):
		return ReasonShared
	case ev.overlap.Test(host):
		return ReasonOverlap
	case ev.wrong.Test(host):
		return ReasonRefcount
	}
	return ""
}

// packed is what can be said against a compressed cluster.
func (ev *evidence) packed(v *salvageView, e l2Entry) Reason {
	if v != ev.s.target {
		return ""
	}
	host, length := e.compressedRange(ev.geometry)
	for at := int64(host) &^ (ev.geometry.ClusterSize() - 1); at < int64(host)+length; at += ev.geometry.ClusterSize() {
		if r := ev.cluster(at); r != "" {
			return r
		}
	}
	return ""
}

// counted reports that a refcount that can be believed confirms the use of a cluster.
func (ev *evidence) counted(host HostOffset) bool {
	at := int64(host)
	return ev.used.Test(at) && !ev.wrong.Test(at) && !ev.uncounted.Test(at)
}

// copiedWrongly reports an entry of the active disk whose copied bit contradicts a
// refcount that can be believed.
func (ev *evidence) copiedWrongly(v *salvageView, r reading) bool {
	return v == ev.s.target && v.active && ev.counted(r.host) && ev.ones.Test(int64(r.host)) != r.copied
}

// emptyEntry is what can be said against an L2 entry that leads nowhere.
func (ev *evidence) emptyEntry(w *sliceWalk, i int) Reason {
	switch {
	case w.salvageView != ev.s.target, ev.orphanData == 0:
		return ""
	case ev.explained && !w.part.emptySector(i):
		return ReasonWipedUnlikely
	}
	return ReasonWiped
}

// emptyTable is what can be said against an L1 entry that leads nowhere.
func (ev *evidence) emptyTable(v *salvageView, index int64) (Grade, Reason) {
	if v != ev.s.target {
		return Sound, ""
	}
	const perSlice = sliceBytes / 8
	first := index / perSlice * perSlice
	part := v.s.parts.load(v.l1+HostOffset(first*8), int(min(perSlice, v.l1Size-first)))
	i := int(index - first)
	missing := ev.orphanTables > 0 && !ev.tableExplained && part.emptySector(i)
	for _, old := range v.s.snapshots {
		if host := old.tableHost(index); v.active && host >= 0 && (missing || ev.short.Test(host)) {
			return Lost, ReasonL1Wiped
		}
	}
	if part.brokenL1(i, v) {
		return Doubtful, ReasonSuspect
	}
	switch {
	case ev.orphanTables == 0:
		return Sound, ""
	case ev.tableExplained && !part.emptySector(i):
		return Doubtful, ReasonWipedUnlikely
	}
	return Doubtful, ReasonWiped
}

// brokenL1 reports that the sector of an L1 table that holds entry i has entries which
// break the format, those of a file that was cut aside.
func (t *tablePart) brokenL1(i int, v *salvageView) bool {
	first := i / (salvageSector / 8) * (salvageSector / 8)
	for _, word := range t.words[first:min(first+salvageSector/8, len(t.words))] {
		e := l1Entry(word)
		if word != 0 && (checkL1(e, v.img.geometry, math.MaxInt64) != "" || v.far(e.offset())) {
			return true
		}
	}
	return false
}

// far reports an offset behind all that a file can have had that holds such a disk.
func (v *salvageView) far(host HostOffset) bool {
	return uint64(host)/16 > uint64(v.size)+uint64(v.img.size)
}

// tableHost is where the L2 table for an index is; -1 where there is none.
func (v *salvageView) tableHost(index int64) int64 {
	if index >= v.l1Size {
		return -1
	}
	e, missing := v.l1Entry(index)
	if missing != "" || checkL1(e, v.img.geometry, v.img.size) != "" || e.offset() == 0 {
		return -1
	}
	return int64(e.offset())
}

// wiped reports an entry that is empty, while a snapshot has a cluster there to which a
// reference is missing: that of this entry.
func (ev *evidence) wiped(w *sliceWalk, off int64) bool {
	if w.salvageView != ev.s.target || !w.active || ev.orphanData == 0 {
		return false
	}
	for _, old := range ev.s.snapshots {
		if host := old.hostAt(off); host >= 0 && ev.short.Test(host) {
			return true
		}
	}
	return false
}

// hostAt is where the plain cluster is that maps off; -1 where there is none.
func (v *salvageView) hostAt(off int64) int64 {
	l2 := v.tableHost(off / v.img.geometry.l2Coverage())
	if l2 < 0 {
		return -1
	}
	at, part := v.slice(HostOffset(l2), off)
	i := int((off-at.off)>>v.img.geometry.ClusterBits) * int(v.img.geometry.l2EntryWords())
	entry, _ := at.entry(off)
	if part.why(i) != "" || entry.compressed() {
		return -1
	}
	if r := v.readStandard(entry, at.clusterStart(off), at.table()); r.grade != Lost && r.hasHost {
		return int64(r.host)
	}
	return -1
}

// proven reports refcounts that count everything, and nothing more than what the tables
// lead to: with another L1 table there would be leaks.
func (ev *evidence) proven() bool {
	return ev.totals.match > 0 && ev.orphanData+ev.orphanTables == 0 && ev.uncounted.Count() == 0
}
