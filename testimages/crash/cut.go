package crash

import "fmt"

// cut tries the states of a crash here.
func (r *replay) cut() {
	r.try(r.base.clone(), "with nothing since the last sync")
	if len(r.pieces) == 0 {
		return
	}
	r.try(r.all.clone(), "with everything")
	r.cutOperations()
	r.cutPieces()
	for range r.random {
		r.try(r.choose(), "with a random part")
	}
	r.fresh, r.freshOps = len(r.pieces), len(r.operations)
}

// cutOperations tries each operation alone, unless an earlier cut did, and all
// but each.
func (r *replay) cutOperations() {
	for i, op := range r.operations {
		if r.stopped {
			return
		}
		name := fmt.Sprintf("operation %d (%v)", op.number, op.Op)
		if i >= r.freshOps && r.kept() {
			r.try(r.only(op.from, op.to), "with only "+name)
		}
		if r.kept() {
			r.try(r.without(op.from, op.to), "without "+name)
		}
	}
}

// cutPieces does the same with each piece.
func (r *replay) cutPieces() {
	for _, op := range r.operations {
		for i := op.from; i < op.to; i++ {
			if r.stopped {
				return
			}
			if i >= r.fresh && r.kept() {
				r.try(r.only(i, i+1), fmt.Sprintf("with only %v of operation %d (%v)", &r.pieces[i], op.number, op.Op))
			}
			if r.kept() {
				r.try(r.without(i, i+1), fmt.Sprintf("without %v of operation %d (%v)", &r.pieces[i], op.number, op.Op))
			}
		}
	}
}

// kept reports that the next state is not left out.
func (r *replay) kept() bool {
	if r.keep >= 1 || r.rng.Float64() < r.keep {
		return true
	}
	r.count.Skipped++
	return false
}

func (r *replay) try(m *image, what string) {
	if r.stopped {
		return
	}
	k := key{m.sum, m.size}
	if r.seen[k] {
		r.count.Equal++
		return
	}
	r.seen[k] = true
	r.count.States++
	r.stopped = !r.yield(&State{Ops: r.ops, Marks: r.marks, What: what, image: m})
}

// only is what is synced and the pieces [from, to).
func (r *replay) only(from, to int) *image {
	m := r.base.clone()
	for i := from; i < to; i++ {
		r.pieces[i].apply(m)
	}
	return m
}

// choose takes each piece with one probability, itself random.
func (r *replay) choose() *image {
	p := r.rng.Float64()
	m := r.base.clone()
	for i := range r.pieces {
		if r.rng.Float64() < p {
			r.pieces[i].apply(m)
		}
	}
	return m
}

// without is all but the pieces [from, to). While nothing makes the file shorter
// it is made from "all", which costs as much as there are pieces to take back.
func (r *replay) without(from, to int) *image {
	if r.shrinks {
		return r.replayWithout(from, to)
	}
	m := r.all.clone()
	for i := from; i < to; i++ {
		if p := &r.pieces[i]; p.kind == sectorPiece {
			m.setSector(p.index, r.versionWithout(p.index, from, to))
		} else {
			m.size = r.sizeWithout(from, to)
		}
	}
	return m
}

func (r *replay) replayWithout(from, to int) *image {
	m := r.base.clone()
	for i := range r.pieces {
		if i < from || i >= to {
			r.pieces[i].apply(m)
		}
	}
	return m
}

// versionWithout is a sector's last version that is not among [from, to).
func (r *replay) versionWithout(index int64, from, to int) *sector {
	v := r.versions[index]
	for i := len(v) - 1; i >= 0; i-- {
		if v[i] < from || v[i] >= to {
			return r.pieces[v[i]].sector
		}
	}
	return r.base.sector(index)
}

func (r *replay) sizeWithout(from, to int) int64 {
	size := r.base.size
	for i := range r.pieces {
		if i < from || i >= to {
			size = max(size, r.pieces[i].size)
		}
	}
	return size
}
