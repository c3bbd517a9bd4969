package crash

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// A modelPiece changes plain bytes. The model below knows nothing of shared
// sectors, versions or sums.
type modelPiece struct {
	op    int
	apply func([]byte) []byte
}

func longer(b []byte, size int) []byte {
	return append(b, make([]byte, max(0, size-len(b)))...)
}

// A modelFile does what File does, on plain bytes.
type modelFile struct {
	live   []byte
	pieces []modelPiece
	ops    int
}

func (m *modelFile) add(apply func([]byte) []byte) {
	m.pieces = append(m.pieces, modelPiece{m.ops, apply})
}

func (m *modelFile) write(p []byte, off int) {
	m.ops++
	before := len(m.live)
	m.live = longer(m.live, off+len(p))
	copy(m.live[off:], p)
	for at := off / 512 * 512; at < off+len(p); at += 512 {
		sector := bytes.Clone(m.live[at:min(at+512, len(m.live))])
		m.add(func(b []byte) []byte {
			b = longer(b, at+len(sector))
			copy(b[at:min(at+512, len(b))], append(bytes.Clone(sector), make([]byte, 512)...))
			return b
		})
	}
	if size := len(m.live); size > before {
		m.add(func(b []byte) []byte { return longer(b, size) })
	}
}

func (m *modelFile) truncate(size int) {
	m.ops++
	cut := func(b []byte) []byte { return longer(b[:min(len(b), size)], size) }
	m.live = cut(bytes.Clone(m.live))
	m.add(cut)
}

// chosen applies the pieces that want says yes to.
func (m *modelFile) chosen(base []byte, want func(i int) bool) string {
	b := bytes.Clone(base)
	for i, p := range m.pieces {
		if want(i) {
			b = p.apply(b)
		}
	}
	return string(b)
}

// expected are the states of the last cut, and reachable every subset.
func (m *modelFile) expected(base []byte, add func(string)) {
	add(m.chosen(base, func(int) bool { return false }))
	add(m.chosen(base, func(int) bool { return true }))
	for i, p := range m.pieces {
		add(m.chosen(base, func(j int) bool { return i == j }))
		add(m.chosen(base, func(j int) bool { return i != j }))
		add(m.chosen(base, func(j int) bool { return m.pieces[j].op == p.op }))
		add(m.chosen(base, func(j int) bool { return m.pieces[j].op != p.op }))
	}
}

func (m *modelFile) reachable(base []byte, add func(string)) {
	for set := range 1 << len(m.pieces) {
		add(m.chosen(base, func(i int) bool { return set>>i&1 != 0 }))
	}
}

// Short random programs: the states given are those that a slow model expects, and
// random choices among all subsets.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 2))
		start := bytes.Repeat([]byte{0xee}, rng.IntN(1200))
		f, m := New(start), &modelFile{live: bytes.Clone(start)}
		base := bytes.Clone(start)
		expected, reachable := map[string]bool{}, map[string]bool{}
		note := func() {
			m.expected(base, func(s string) { expected[s] = true })
			m.reachable(base, func(s string) { reachable[s] = true })
		}
		note()
		for range 1 + rng.IntN(6) {
			if randomOp(t, rng, f, m) {
				m.pieces, base = nil, bytes.Clone(m.live)
			}
			note()
		}
		if !bytes.Equal(f.Bytes(), m.live) {
			t.Fatalf("seed %d: the program sees other bytes than the model", seed)
		}
		compareStates(t, fmt.Sprintf("seed %d: %v", seed, f.Ops()), f, seed, expected, reachable)
	}
}

func compareStates(t *testing.T, name string, f *File, seed uint64, expected, reachable map[string]bool) {
	t.Helper()
	given := map[string]bool{}
	count := f.States(&Options{Seed: seed, Max: -1}, func(s *State) bool {
		b := string(s.Bytes())
		if !reachable[b] {
			t.Errorf("%s: %v: cannot be reached", name, s)
		}
		if given[b] {
			t.Errorf("%s: %v: given twice", name, s)
		}
		given[b] = true
		return true
	})
	for b := range expected {
		if !given[b] {
			t.Errorf("%s: a state of %d bytes is missing", name, len(b))
		}
	}
	if count.States != len(given) || count.Skipped != 0 {
		t.Errorf("%s: %+v, given %d", name, count, len(given))
	}
}

// randomOp does an operation on both; the result is whether it was a sync.
func randomOp(t *testing.T, rng *rand.Rand, f *File, m *modelFile) bool {
	t.Helper()
	var err error
	what := rng.IntN(8)
	if len(m.pieces) > 6 {
		what = 0 // all subsets are too many
	}
	switch what {
	case 0:
		m.ops++
		err = f.Sync()
	case 1, 2:
		size := rng.IntN(2000)
		m.truncate(size)
		err = f.Truncate(int64(size))
	default:
		p, off := bytes.Repeat([]byte{byte(rng.IntN(3))}, 1+rng.IntN(800)), rng.IntN(1500)
		m.write(p, off)
		_, err = f.WriteAt(p, int64(off))
	}
	if err != nil {
		t.Fatal(err)
	}
	return len(f.Ops()) > 0 && f.Ops()[len(f.Ops())-1].Kind == Sync
}
