package qcow2

import (
	"fmt"
	"math/bits"
	"slices"
)

// A state is how a guest cluster is stored, and how it is to be. A cluster without
// subclusters is one of a single subcluster.
type state struct {
	host       HostOffset // of the cluster, where hasHost
	hasHost    bool
	alloc      uint32 // subclusters that are stored at host, or compressed
	zero       uint32 // subclusters that read as zero
	compressed bool
	entry      l2Entry
}

// A plan is the planning of one work.
type plan struct {
	b      *batch
	w      *work
	t      *l2Table
	start  int64 // guest offset
	n      int   // subclusters
	sub    int64 // bytes of one
	old    state
	now    state
	blank  uint32 // subclusters whose old bytes count as zeros
	segged uint32 // subclusters that segments write
	anew   bool   // it gets a new cluster
}

// planWork plans one cluster.
func (b *batch) planWork(w *work) error {
	g := b.g.e.img.geometry
	t, err := b.table(w.index / g.l2Entries())
	if err != nil {
		return err
	}
	if w.base == baseDropTable {
		return b.dropTable(t)
	}
	p := &plan{b: b, w: w, t: t, start: w.index << g.ClusterBits, n: 1, sub: g.SubclusterSize()}
	if g.ExtendedL2 {
		p.n = subclustersPerCluster
	}
	if p.old, err = p.decode(); err != nil {
		return err
	}
	p.now = p.old
	p.applyBase()
	p.splitZeros()
	if err := p.store(); err != nil {
		return err
	}
	return p.finish()
}

// decode checks the entry and says what it means.
func (p *plan) decode() (state, error) {
	entry, sub := p.t.entry(p.w.index)
	v := p.b.g.disk
	s, rule := state{entry: entry}, ""
	if entry.compressed() {
		s.compressed, s.alloc, rule = true, p.mask(), v.checkCompressed(entry)
	} else {
		s, rule = p.decodeStandard(entry, sub, v.img.dataFile != nil)
	}
	if rule != "" {
		at := p.t.host + HostOffset(p.t.word(p.w.index)*8)
		return s, entryError("L2 table", p.w.index%p.t.geometry.l2Entries(), at, uint64(entry), rule)
	}
	return s, nil
}

// decodeStandard is decode for a standard cluster descriptor; the second result is
// the rule that it breaks, or "".
func (p *plan) decodeStandard(entry l2Entry, sub subclusterBitmap, external bool) (state, string) {
	if rule := checkStandard(entry, p.t.geometry, external); rule != "" {
		return state{}, rule
	}
	m := entry.meaning(external)
	if external && m.hasHost && m.host != HostOffset(p.start) {
		return state{}, "the offset must match the guest offset with an external data file"
	}
	s := state{entry: entry, host: m.host, hasHost: m.hasHost}
	if p.t.geometry.ExtendedL2 {
		s.alloc, s.zero = sub.allocated(), sub.zero()
		return s, checkSubclusters(sub, m.hasHost)
	}
	s.alloc, s.zero = b2u(m.kind == Data), b2u(m.kind == Zero)
	return s, ""
}

func b2u(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// mask has a bit for each subcluster.
func (p *plan) mask() uint32 { return uint32(1<<p.n - 1) }

// rawData reports a data file that must read as the disk does.
func (p *plan) rawData() bool {
	ref := p.b.g.e.img.dataFile
	return ref != nil && ref.Raw
}

// applyBase has the base happen: sections "Standard Cluster Descriptor" and "Extended
// L2 Entries".
func (p *plan) applyBase() {
	v3 := p.t.geometry.Version >= 3
	backed := p.b.g.e.img.backingRef != nil
	b := p.w.base
	nothing := !p.old.hasHost && p.old.alloc == 0 && p.old.zero == 0
	switch {
	case b == baseKeep:
		return
	case b == baseDrop:
		p.now = state{}
	case b == baseDiscard && nothing && !backed:
		return
	case p.rawData() || !v3 && backed:
		p.w.segs = append([]segment{{0, min(p.t.geometry.ClusterSize(), p.b.g.limit-p.start), -1}}, p.w.segs...)
	case v3:
		p.now = state{zero: p.mask()}
	default:
		p.now = state{}
	}
	p.blank = p.mask()
}

// splitZeros finds out which subclusters segments write. Those of which all that is
// written is zeros become zero, where extended L2 entries can say so.
func (p *plan) splitZeros() {
	canZero := p.t.geometry.ExtendedL2 && !p.rawData() && !p.old.compressed
	for _, s := range p.w.segs {
		for i := s.from / p.sub; i*p.sub < s.to; i++ {
			bit := uint32(1) << i
			whole := s.from <= i*p.sub && s.to >= min((i+1)*p.sub, p.b.g.limit-p.start)
			if s.data >= 0 || !whole || !canZero {
				p.segged |= bit
				continue
			}
			p.segged &^= bit
			p.blank |= bit
			p.now.zero |= bit
			p.now.alloc &^= bit
		}
	}
	if p.w.absentStays {
		p.segged &= p.now.alloc | p.now.zero
	}
	if p.segged&^p.now.zero == 0 && !slices.ContainsFunc(p.w.segs, func(s segment) bool { return s.data >= 0 }) {
		p.segged = 0 // zeros where there are zeros
	}
	if p.now.alloc == 0 && p.segged == 0 && p.now.hasHost && p.now != p.old && !p.rawData() {
		p.now.host, p.now.hasHost = 0, false
	}
}

// store plans where the bytes of the segments go.
func (p *plan) store() error {
	if p.segged == 0 {
		return nil
	}
	inPlace, err := p.inPlace()
	if err != nil {
		return err
	}
	if p.b.g.e.img.dataFile != nil && !p.now.hasHost {
		p.now.host, p.now.hasHost = HostOffset(p.start), true
		inPlace = true
	}
	if inPlace {
		return p.storeInPlace()
	}
	return p.storeAnew()
}

// inPlace reports that the cluster may be written over.
func (p *plan) inPlace() (bool, error) {
	if p.b.g.e.img.dataFile != nil {
		return true, nil
	}
	if !p.now.hasHost || !p.t.private || !p.old.entry.copied() || p.b.g.opts.NeverInPlace {
		return false, nil
	}
	return p.b.s.private(p.now.host)
}

// storeInPlace writes the segment where subclusters are stored, and other subclusters
// whole. So are all where there are several segments: they can meet in a sector, which
// a crash must leave old or new.
func (p *plan) storeInPlace() error {
	whole := p.segged &^ p.now.alloc
	if len(p.w.segs) > 1 {
		whole = p.segged
	}
	for _, s := range p.w.segs {
		for from := s.from; from < s.to; {
			i := from / p.sub
			to := min(s.to, (i+1)*p.sub)
			if bit := uint32(1) << i; p.segged&bit != 0 && whole&bit == 0 {
				p.writeSegment(segment{from, to, advance(s.data, from-s.from)}, p.now.host, false)
			}
			from = to
		}
	}
	p.now.alloc |= whole
	p.now.zero &^= whole
	return p.writeSubclusters(whole, p.now.host, false)
}

// advance is the place of data n bytes further.
func advance(data int, n int64) int {
	if data < 0 {
		return data
	}
	return data + int(n)
}

// writeSegment plans a write of what a segment says, to the cluster at host.
func (p *plan) writeSegment(s segment, host HostOffset, owned bool) {
	w := dataWrite{host: host + HostOffset(s.from), from: s.data, to: s.data + int(s.to-s.from), owned: owned}
	if s.data < 0 {
		w.b = make([]byte, s.to-s.from)
	}
	p.b.writes = append(p.b.writes, w)
}

// storeAnew writes all that is to be stored to a new cluster.
func (p *plan) storeAnew() error {
	need := p.segged | p.now.alloc
	from := len(p.b.writes)
	if err := p.writeSubclusters(need, 0, true); err != nil {
		return err
	}
	p.b.placements = append(p.b.placements, placement{t: p.t, cluster: p.w.index, from: from, to: len(p.b.writes)})
	p.now.alloc, p.now.zero = need, p.now.zero&^need
	p.now.host, p.now.hasHost, p.now.compressed, p.now.entry = 0, true, false, 0
	p.anew = true
	return nil
}

// writeSubclusters plans writes of whole subclusters, runs of them at once.
func (p *plan) writeSubclusters(set uint32, host HostOffset, owned bool) error {
	for set != 0 {
		i := bits.TrailingZeros32(set)
		n := bits.TrailingZeros32(^(set >> i))
		lo, hi := int64(i)*p.sub, int64(i+n)*p.sub
		if p.b.g.e.img.dataFile != nil {
			hi = min(hi, p.b.g.limit-p.start)
		}
		if err := p.writeRun(lo, hi, host, owned); err != nil {
			return err
		}
		set &^= uint32(1<<n-1) << i
	}
	return nil
}

// writeRun plans the write of [lo, hi) of the cluster: segments over the old bytes.
func (p *plan) writeRun(lo, hi int64, host HostOffset, owned bool) error {
	for _, s := range p.w.segs {
		if len(p.w.segs) == 1 && s.data >= 0 && s.from <= lo && s.to >= hi {
			p.writeSegment(segment{lo, hi, advance(s.data, lo-s.from)}, host, owned)
			return nil
		}
	}
	buf := make([]byte, hi-lo)
	if err := p.readOld(buf, lo, hi); err != nil {
		return err
	}
	for _, s := range p.w.segs {
		from, to := max(lo, s.from), min(hi, s.to)
		switch {
		case from >= to:
		case s.data < 0:
			clear(buf[from-lo : to-lo])
		default:
			copy(buf[from-lo:to-lo], p.b.g.data[advance(s.data, from-s.from):])
		}
	}
	p.b.writes = append(p.b.writes, dataWrite{host: host + HostOffset(lo), b: buf, owned: owned})
	return nil
}

// readOld reads what [lo, hi) of the cluster held, as far as segments leave it.
func (p *plan) readOld(buf []byte, lo, hi int64) error {
	hi = min(hi, p.b.g.disk.size-p.start)
	for lo < hi {
		i := lo / p.sub
		end := min(hi, (i+1)*p.sub)
		if p.blank>>i&1 == 0 && !p.w.covered(lo, end) {
			if _, err := p.b.g.disk.ReadAt(buf[:end-lo], p.start+lo); err != nil {
				return fmt.Errorf("reading the rest of the cluster: %w", err)
			}
		}
		buf, lo = buf[end-lo:], end
	}
	return nil
}

// finish changes the entry, and lets go of what the old one referred to.
func (p *plan) finish() error {
	if p.now == p.old {
		return nil
	}
	if p.old.compressed && !p.now.compressed || p.old.hasHost && (!p.now.hasHost || p.now.host != p.old.host) {
		p.b.drop(p.old)
	}
	entry, sub := p.encode()
	if was, wasSub := p.t.entry(p.w.index); entry == was && sub == wasSub && !p.anew {
		return nil
	}
	return p.b.set(p.t, p.w.index, entry, sub)
}

// drop lets go of what an entry refers to.
func (b *batch) drop(s state) {
	r := hostRange{s.host, b.g.e.img.geometry.ClusterSize()}
	switch {
	case s.compressed:
		r.host, r.n = s.entry.compressedRange(b.g.e.img.geometry)
		r.n = min(r.n, alignUp(b.s.alloc.size, b.g.e.img.geometry.ClusterSize())-int64(r.host))
	case !s.hasHost || b.g.e.img.dataFile != nil:
		return
	}
	if n := len(b.gone); n > 0 && !s.compressed && b.gone[n-1].host+HostOffset(b.gone[n-1].n) == r.host && b.s.img.geometry.aligned(r.host) {
		b.gone[n-1].n += r.n
		return
	}
	b.gone = append(b.gone, r)
}

// dropTable lets go of an L2 table and of all that it maps.
func (b *batch) dropTable(t *l2Table) error {
	if t.host == 0 {
		return nil
	}
	p := plan{b: b, t: t, n: 1}
	if t.geometry.ExtendedL2 {
		p.n = subclustersPerCluster
	}
	for i := range t.geometry.l2Entries() {
		index := t.index*t.geometry.l2Entries() + i
		p.w, p.start = &work{index: index}, index<<t.geometry.ClusterBits
		old, err := p.decode()
		if err != nil {
			return err
		}
		b.drop(old)
	}
	b.gone = append(b.gone, hostRange{t.host, t.geometry.ClusterSize()})
	t.dropped = true
	b.order = append(b.order, t)
	return nil
}

// encode is the entry that says what is to be; of a new cluster the place is still
// missing.
func (p *plan) encode() (l2Entry, subclusterBitmap) {
	entry := l2Entry(0)
	if p.now.hasHost {
		entry = l2Entry(p.now.host) | entryCopied
		if !p.anew && p.b.g.e.img.dataFile == nil { // it is shared as it was
			entry = l2Entry(p.now.host) | p.old.entry&entryCopied
		}
	}
	if p.t.geometry.ExtendedL2 {
		return entry, subclusterBitmap(uint64(p.now.zero)<<32 | uint64(p.now.alloc))
	}
	if p.now.zero != 0 {
		entry |= entryZero
	}
	return entry, 0
}
