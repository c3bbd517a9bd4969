package crash

import (
	"fmt"
	"math/rand/v2"
)

// DefaultMax is how many states are tried where Options does not say it.
const DefaultMax = 20000

// Options say which states to try. The zero value, or nil, is good for programs
// of a few hundred operations.
type Options struct {
	Seed   uint64 // of the random choices
	Random int    // random choices at each cut; 0: 4, negative: none
	Max    int    // about how many states to try; 0: DefaultMax, negative: all
}

// A Count says how much States has tried.
type Count struct {
	States  int // given to yield
	Equal   int // not given, because an equal one had been, since the same mark
	Skipped int // left out because of Options.Max
}

// States calls yield with the states that a crash could have left, in the order of
// the cuts, until it returns false. States that are equal are given once between
// two marks. The File must not be changed meanwhile.
//
// With more states than Options.Max, each cut keeps "none", "all" and its random
// choices, and of the others a random part; Skipped counts what was left out.
func (f *File) States(opts *Options, yield func(*State) bool) Count {
	f.mu.Lock()
	records := f.records[:len(f.records):len(f.records)]
	base := f.start.clone()
	f.mu.Unlock()
	r := newReplay(records, base, opts, yield)
	r.cut()
	for i := range records {
		if r.stopped {
			break
		}
		r.step(&records[i])
		r.cut()
	}
	return r.count
}

// A piece is what reaches the disk, or does not, on its own: a sector, or a size.
type piece struct {
	placed
	kind pieceKind
	size int64 // that the file then has at least, or exactly
}

type pieceKind uint8

const (
	sectorPiece   pieceKind = iota
	growPiece               // a size, if the file is shorter
	truncatePiece           // a size
)

// An operation is a run of pieces.
type operation struct {
	Op
	number   int
	from, to int
}

// A replay stands at a cut.
type replay struct {
	random  int
	rng     *rand.Rand
	keep    float64 // of the states that may be skipped
	yield   func(*State) bool
	count   Count
	stopped bool

	base, all  *image // what is synced; and with all pieces
	pieces     []piece
	operations []operation     // of the pieces
	versions   map[int64][]int // of a sector: the pieces that write it
	shrinks    bool            // a piece makes the file shorter

	ops, marks int
	fresh      int // pieces before it were tried alone
	freshOps   int // operations before it were
	seen       map[key]bool
}

// A key identifies a state.
type key struct {
	sum  sum
	size int64
}

func newReplay(records []record, base *image, opts *Options, yield func(*State) bool) *replay {
	if opts == nil {
		opts = &Options{}
	}
	r := &replay{random: opts.Random, rng: rand.New(rand.NewPCG(opts.Seed, 1)), keep: 1, yield: yield,
		base: base, all: base.clone(), versions: map[int64][]int{}, seen: map[key]bool{}}
	if r.random == 0 {
		r.random = 4
	}
	limit := opts.Max
	if limit == 0 {
		limit = DefaultMax
	}
	if n := singles(records); limit > 0 && n > limit {
		r.keep = float64(limit) / float64(n)
	}
	return r
}

// singles is how many states there are with one piece or operation more or less.
func singles(records []record) int {
	total, pieces, ops := 0, 0, 0
	for i := range records {
		switch n := len(split(&records[i])); {
		case records[i].mark:
			total += pieces + ops // alone, once more
		case records[i].Kind == Sync:
			pieces, ops = 0, 0
		default:
			pieces, ops = pieces+n, ops+1
			total += n + 1
		}
		total += pieces + ops
	}
	return total
}

// split makes the pieces of an operation.
func split(rec *record) []piece {
	var pieces []piece
	switch {
	case rec.mark || rec.Kind == Sync:
	case rec.Kind == Truncate:
		pieces = append(pieces, piece{kind: truncatePiece, size: rec.after})
	default:
		for _, s := range rec.sectors {
			pieces = append(pieces, piece{placed: s, size: min((s.index+1)*SectorSize, rec.after)})
		}
		if rec.after > rec.before {
			pieces = append(pieces, piece{kind: growPiece, size: rec.after})
		}
	}
	return pieces
}

// step goes to the cut after rec.
func (r *replay) step(rec *record) {
	if rec.mark {
		r.marks++
		r.forget()
		return
	}
	r.ops++
	if rec.Kind == Sync {
		r.base = r.all.clone()
		r.pieces, r.operations, r.shrinks = nil, nil, false
		clear(r.versions)
		r.fresh, r.freshOps = 0, 0
		return
	}
	from := len(r.pieces)
	for _, p := range split(rec) {
		if p.kind == sectorPiece {
			r.versions[p.index] = append(r.versions[p.index], len(r.pieces))
		}
		r.pieces = append(r.pieces, p)
		p.apply(r.all)
	}
	r.shrinks = r.shrinks || rec.after < rec.before
	r.operations = append(r.operations, operation{rec.Op, r.ops, from, len(r.pieces)})
}

// forget has every state be given again, because more is promised now.
func (r *replay) forget() {
	clear(r.seen)
	r.fresh, r.freshOps = 0, 0
}

func (p *piece) apply(m *image) {
	switch p.kind {
	case sectorPiece:
		m.setSector(p.index, p.sector)
		m.size = max(m.size, p.size)
	case growPiece:
		m.size = max(m.size, p.size)
	default:
		m.resize(p.size)
	}
}

func (p *piece) String() string {
	if p.kind == sectorPiece {
		return fmt.Sprintf("sector %#x", p.index*SectorSize)
	}
	return fmt.Sprintf("size %d", p.size)
}
