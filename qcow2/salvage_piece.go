package qcow2

import "math"

// read fills b, as long as the piece, with its bytes; what cannot be had is zero.
func (p piece) read(b []byte) {
	switch {
	case p.grade == Lost, p.Kind == Zero, p.Kind == Absent:
		clear(b)
	case p.Kind == Data:
		p.Storage.ReadAt(b, int64(p.Host)) // a tolerantReader
	default:
		p.owner.streams.unpack(p.packed, func(cluster []byte, _ Reason) {
			in := p.Off & (p.owner.img.geometry.ClusterSize() - 1)
			n := 0
			if in < int64(len(cluster)) {
				n = copy(b, cluster[in:])
			}
			clear(b[n:])
		})
	}
}

// probe emits the piece in parts, as what is known of reading it says.
func (p piece) probe(emit func(piece) bool) bool {
	switch {
	case p.grade == Lost:
	case p.Kind == Data:
		return p.probeStorage(emit)
	case p.Kind == Compressed:
		return p.probeStream(emit)
	}
	return emit(p)
}

// probeStorage cuts out what could not be read so far.
func (p piece) probeStorage(emit func(piece) bool) bool {
	t, ok := p.Storage.(*tolerantReader)
	if !ok || uint64(p.Host) > uint64(math.MaxInt64-p.Len) {
		return emit(p)
	}
	off, shift := p.Off, p.Off-int64(p.Host)
	for _, r := range t.badIn(int64(p.Host), int64(p.Host)+p.Len) {
		if r.off+shift > off && !emit(p.part(off, r.off+shift)) {
			return false
		}
		bad := p.part(r.off+shift, r.end+shift)
		bad.lose(ReasonUnreadable)
		if !emit(bad) {
			return false
		}
		off = r.end + shift
	}
	return off >= p.End() || emit(p.part(off, p.End()))
}

// probeStream decodes the stream of a compressed piece.
func (p piece) probeStream(emit func(piece) bool) bool {
	var reason Reason
	got := int64(0)
	p.owner.streams.unpack(p.packed, func(cluster []byte, r Reason) { got, reason = int64(len(cluster)), r })
	start := p.Off &^ (p.owner.img.geometry.ClusterSize() - 1)
	if reason == ReasonStreamEnd || reason == "" {
		p.doubt(reason)
		return emit(p)
	}
	held := min(max(start+got, p.Off), p.End())
	if held > p.Off {
		q := p.part(p.Off, held)
		q.doubt(ReasonStreamCut)
		if !emit(q) {
			return false
		}
	}
	if held == p.End() {
		return true
	}
	rest := p.part(held, p.End())
	rest.lose(reason)
	return emit(rest)
}
