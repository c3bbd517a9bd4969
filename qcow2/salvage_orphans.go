package qcow2

import (
	"context"
	"encoding/binary"
	"iter"

	"github.com/qbitkit/qbit/bitmap"
)

// orphanBudget is how many bytes of clusters that nothing leads to are read to find out
// whether they hold something. What is not read counts as holding something.
const orphanBudget = 64 << 20

// An Orphan is a cluster that nothing in the image leads to and that looks like an L2
// table. Which range of the disk it mapped cannot be proved.
type Orphan struct {
	Host    HostOffset
	Entries int64 // that are not 0
	// Unclaimed is how many of them lead to clusters that nothing else leads to: all of
	// them, for an L2 table whose L1 entry was lost; few, for an outdated copy.
	Unclaimed int64
	// Copied is how many have the copied bit, which the data of tables of bitmaps and of
	// snapshots lacks.
	Copied int64
	// Counted: its refcount says that it is in use.
	Counted bool
	// Guest is the range that it most likely mapped, where GuestLen is not 0: that of an
	// L2 table of a snapshot with which it shares Shared entries at the same places, as
	// a table does that was copied to be changed.
	GuestOff, GuestLen int64
	Shared             int64
}

// Score is from 0 to 100: how much of what can be looked at speaks for a lost table of
// the active disk.
func (o Orphan) Score() int {
	score := o.Unclaimed * 60 / max(1, o.Entries)
	score += o.Copied * 20 / max(1, o.Entries)
	if o.Counted {
		score += 20
	}
	return int(score)
}

// orphans yields the clusters that may be in use although nothing leads to them, in
// order: counted ones, and all that nothing leads to where the refcounts are lost.
func (ev *evidence) orphans() iter.Seq[bitmap.Range] {
	return func(yield func(bitmap.Range) bool) {
		for r := range ev.leaks.Ranges() {
			if !yield(r) {
				return
			}
		}
		for r := range ev.uncounted.Ranges() {
			for run := range ev.used.Runs(r.Off, r.Len) {
				if !run.Dirty && run.Off > 0 && !yield(bitmap.Range{Off: run.Off, Len: run.Len}) {
					return
				}
			}
		}
	}
}

// weighOrphans finds out whether clusters that nothing leads to hold something, so that
// what seems empty may have been wiped.
func (ev *evidence) weighOrphans(ctx context.Context) error {
	clusters := ev.orphanData + ev.orphanTables
	budget := int64(orphanBudget)
	for r := range ev.orphans() {
		clusters += (r.Len + ev.geometry.ClusterSize() - 1) >> ev.geometry.ClusterBits
		for at := r.Off; at < min(r.Off+r.Len, ev.s.img.size); at += ev.geometry.ClusterSize() {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if budget -= ev.geometry.ClusterSize(); budget < 0 {
				ev.orphanData++
				ev.orphanTables++
				break
			}
			ev.weigh(HostOffset(at))
		}
	}
	tables := ev.lostTables * (ev.geometry.l2Entries() + 1)
	ev.tableExplained = ev.explained || ev.orphanTables <= ev.lostTables
	ev.explained = ev.explained || clusters <= ev.lostEntries+tables
	return nil
}

// weigh looks into a cluster that nothing leads to. A refcount block that the lost
// refcount table led to is no sign of anything.
func (ev *evidence) weigh(host HostOffset) {
	if ev.uncounted.Test(int64(host)) && ev.isRefBlock(host) {
		return
	}
	zero, table := ev.s.look(host)
	if !zero {
		ev.orphanData++
	}
	if table {
		ev.orphanTables++
	}
}

// maxAgreeing is how many refcounts are looked at to tell a refcount block.
const maxAgreeing = 4096

// isRefBlock reports bytes that are the refcounts of the clusters around them.
func (ev *evidence) isRefBlock(host HostOffset) bool {
	g := ev.geometry
	b := make([]byte, g.ClusterSize())
	ev.s.bad.fill(b[:min(int64(len(b)), ev.s.img.size-int64(host))], int64(host))
	first := int64(host) >> g.ClusterBits / g.refcountsPerBlock() * g.refcountsPerBlock()
	used, agree := 0, 0
	for i := int64(0); i < min(g.refcountsPerBlock(), maxAgreeing); i++ {
		n := g.refcountAt(b, i)
		if n > maxPlausibleCount {
			return false
		}
		if ev.used.Test((first + i) << g.ClusterBits) {
			used++
			if n > 0 {
				agree++
			}
		}
	}
	return used > 0 && agree*10 >= used*9
}

// look says whether a cluster is all zero, and whether it looks like an L2 table. What
// cannot be read is neither.
func (s *Salvaged) look(host HostOffset) (zero, table bool) {
	g := s.img.geometry
	zero, table = true, true
	owned := false
	b := make([]byte, min(g.ClusterSize(), sliceBytes))
	for off := int64(0); off < g.ClusterSize(); off += int64(len(b)) {
		at := host + HostOffset(off)
		part := b[:max(0, min(int64(len(b)), s.img.size-int64(at)))]
		if readFull(s.img.r, part, at) != nil {
			return false, false
		}
		c := looksLikeTable(part[:len(part)&^15], g, s.img.size)
		zero, table, owned = zero && c.zero, table && c.ok, owned || c.owned
		if !zero && !table {
			break
		}
	}
	return zero, table && owned
}

// A tableLook is what bytes look like. owned: an entry has the copied bit or is compressed,
// as no entry of the table of a bitmap is.
type tableLook struct{ zero, ok, owned bool }

// looksLikeTable looks for bytes of an L2 table: every word is an entry that breaks no
// rule.
func looksLikeTable(b []byte, g Geometry, fileSize int64) tableLook {
	look := tableLook{zero: true, ok: true}
	stride := int(g.l2EntryWords()) * 8
	for i := 0; i+stride <= len(b); i += stride {
		e := l2Entry(binary.BigEndian.Uint64(b[i:]))
		var sub subclusterBitmap
		if stride == 16 {
			sub = subclusterBitmap(binary.BigEndian.Uint64(b[i+8:]))
		}
		if e == 0 && sub == 0 {
			continue
		}
		look.zero = false
		if !e.plausible(g, fileSize) || stride == 16 && checkSubclusters(sub, e.offset() != 0 && !e.compressed()) != "" {
			return tableLook{}
		}
		look.owned = look.owned || e.copied() || e.compressed()
	}
	return look
}

// Orphans yields the clusters that nothing leads to and that look like L2 tables. It
// reads all clusters that nothing leads to. An error, of ctx, is yielded once.
func (s *Salvaged) Orphans(ctx context.Context) iter.Seq2[Orphan, error] {
	return func(yield func(Orphan, error) bool) {
		for r := range s.ev.orphans() {
			for at := r.Off; at < min(r.Off+r.Len, s.img.size); at += s.img.geometry.ClusterSize() {
				if ctx.Err() != nil {
					yield(Orphan{}, ctx.Err())
					return
				}
				if _, table := s.look(HostOffset(at)); table && !yield(s.orphan(HostOffset(at)), nil) {
					return
				}
			}
		}
	}
}

// orphan describes the table at host.
func (s *Salvaged) orphan(host HostOffset) Orphan {
	g := s.img.geometry
	o := Orphan{Host: host, Counted: s.ev.leaks.Test(int64(host))}
	for off := int64(0); off < g.l2Coverage(); {
		at, _ := s.target.slice(host, off)
		for ; off < at.end; off += g.ClusterSize() {
			e, _ := at.entry(off)
			if e != 0 {
				s.orphanEntry(&o, e)
			}
		}
	}
	s.guess(&o)
	return o
}

// guess finds the range of an orphan by the tables of snapshots.
func (s *Salvaged) guess(o *Orphan) {
	cover := s.img.geometry.l2Coverage()
	for _, v := range s.snapshots {
		for index := range min(v.l1Size, maxGuesses) {
			l2 := v.tableHost(index)
			if l2 < 0 || s.target.tableHost(index) >= 0 {
				continue
			}
			if n := s.sharedEntries(o.Host, HostOffset(l2)); n > o.Shared {
				o.GuestOff, o.GuestLen, o.Shared = index*cover, cover, n
			}
		}
	}
}

// maxGuesses is how many L2 tables of a snapshot an orphan is compared with.
const maxGuesses = 1024

// sharedEntries counts the clusters that two L2 tables have at the same place.
func (s *Salvaged) sharedEntries(a, b HostOffset) (n int64) {
	g := s.img.geometry
	for off := int64(0); off < g.l2Coverage(); {
		x, _ := s.target.slice(a, off)
		y, _ := s.target.slice(b, off)
		for ; off < x.end; off += g.ClusterSize() {
			e, _ := x.entry(off)
			f, _ := y.entry(off)
			if e.offset() != 0 && e&^entryCopied == f&^entryCopied {
				n++
			}
		}
	}
	return n
}

func (s *Salvaged) orphanEntry(o *Orphan, e l2Entry) {
	o.Entries++
	if e.copied() {
		o.Copied++
	}
	host := e.offset()
	if e.compressed() {
		host, _ = e.compressedRange(s.img.geometry)
	}
	if host != 0 && !s.ev.used.Test(int64(host)) {
		o.Unclaimed++
	}
}
