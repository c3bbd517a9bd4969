package qcow2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// A slowBitmap is a bitmap as a bool for each granule.
type slowBitmap struct {
	granularity int64
	auto        bool
	dirty       []bool
}

// A slowImage is the bitmaps of an image by name.
type slowImage map[string]slowBitmap

// A walker does random transactions.
type walker struct {
	*rand.Rand
	t     *testing.T
	c     *trial
	f     *crash.File
	have  slowImage
	most  int                   // clusters in use at once
	past  [][]build.AuditBitmap // the bitmaps at each mark of f
	count map[string]int
}

var errAbandoned = errors.New("abandoned")

// transaction is a random one: its changes, made to tx one by one, and what the
// image must hold then. A change that is not possible must be refused, and tells
// so; the transaction goes on without it.
func (w *walker) transaction(tx *qcow2.Tx) (slowImage, error) {
	now := maps.Clone(w.have)
	for range 1 + w.IntN(5) {
		w.step(tx, now)
	}
	if w.IntN(5) == 0 {
		return nil, errAbandoned
	}
	return now, nil
}

// step does one change.
func (w *walker) step(tx *qcow2.Tx, now slowImage) {
	name, other := w.name(), w.name()
	old, exists := now[name]
	_, taken := now[other]
	switch k := w.IntN(12); k {
	case 0, 1, 2, 3:
		b, bits := w.random(1 << (9 + w.IntN(23)))
		if w.IntN(20) == 0 {
			w.refused(tx.AddBitmap("wrong size", newBits(w.c.size+512, 512), false), nil)
		}
		if err := tx.AddBitmap(name, bits, b.auto); exists {
			w.refused(err, fs.ErrExist)
		} else if w.done("add", err) {
			now[name] = b
		}
		bits.Complement() // the Editor must have its own
	case 4, 5, 6:
		granularity := int64(512)
		if exists {
			granularity = old.granularity
		}
		b, bits := w.random(granularity)
		b.auto = old.auto
		if err := tx.ReplaceBitmap(name, bits); !exists {
			w.refused(err, fs.ErrNotExist)
		} else if w.done("replace", err) {
			now[name] = b
		}
	case 7, 8:
		if err := tx.RemoveBitmap(name); !exists {
			w.refused(err, fs.ErrNotExist)
		} else if w.done("remove", err) {
			delete(now, name)
		}
	case 9:
		if err := tx.RenameBitmap(name, other); !exists {
			w.refused(err, fs.ErrNotExist)
		} else if name != other && taken {
			w.refused(err, fs.ErrExist)
		} else if name != other && w.done("rename", err) {
			delete(now, name)
			now[other] = old
		}
	case 10:
		auto := w.IntN(2) == 0
		if err := tx.SetBitmapAuto(name, auto); !exists {
			w.refused(err, fs.ErrNotExist)
		} else if w.done("set auto", err) {
			old.auto = auto
			now[name] = old
		}
	default:
		if w.IntN(6) == 0 && w.done("drop all", tx.DropBitmaps()) {
			clear(now)
		}
	}
	w.pending(tx, now)
}

func (w *walker) done(what string, err error) bool {
	if err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
	w.count[what]++
	return true
}

func (w *walker) refused(err, want error) {
	w.t.Helper()
	if err == nil || want != nil && !errors.Is(err, want) {
		w.t.Fatalf("refused with %v, want %v", err, want)
	}
	w.count["refused"]++
}

// name is one of a few.
func (w *walker) name() string {
	return [...]string{"a", "b", "bitmap", "a long name of a bitmap that takes more than sixty-four bytes of the directory", "Ünïcode"}[w.IntN(5)]
}

// random is a bitmap in both forms.
func (w *walker) random(granularity int64) (slowBitmap, *bitmap.Bitmap) {
	s := slowBitmap{granularity, w.IntN(2) == 0, make([]bool, (w.c.size+granularity-1)/granularity)}
	b := newBits(w.c.size, granularity)
	p := []float64{0, 0.001, 0.5, 0.999, 1}[w.IntN(5)]
	for i := range s.dirty {
		if s.dirty[i] = w.Float64() < p; s.dirty[i] {
			b.Set(int64(i)*granularity, 1)
		}
	}
	return s, b
}

func (s *slowBitmap) equal(b *bitmap.Bitmap, size int64) error {
	if b.Size() != size || b.Granularity() != s.granularity {
		return fmt.Errorf("size %d, granularity %d, want %d, %d", b.Size(), b.Granularity(), size, s.granularity)
	}
	for i, dirty := range s.dirty {
		if b.Test(int64(i)*s.granularity) != dirty {
			return fmt.Errorf("granule %d is not %t", i, dirty)
		}
	}
	return nil
}

// pending checks what the transaction shows before it is committed.
func (w *walker) pending(tx *qcow2.Tx, now slowImage) {
	list, err := tx.Bitmaps()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := now.equal(list, tx.LoadBitmap, w.c.size); err != nil {
		w.t.Fatalf("in the transaction: %v", err)
	}
}

func (s slowImage) equal(list []qcow2.BitmapInfo, load func(string) (*bitmap.Bitmap, error), size int64) error {
	if len(list) != len(s) {
		return fmt.Errorf("%d bitmaps, want %d", len(list), len(s))
	}
	for _, info := range list {
		want, ok := s[info.Name]
		if !ok || info.Auto != want.auto || info.InUse || info.Granularity != want.granularity {
			return fmt.Errorf("bitmap %+v, want %t, auto %t, granularity %d", info, ok, want.auto, want.granularity)
		}
		b, err := load(info.Name)
		if err != nil {
			return err
		}
		if err := want.equal(b, size); err != nil {
			return fmt.Errorf("bitmap %q: %w", info.Name, err)
		}
		b.Complement() // it must be the caller's own
	}
	return nil
}

// round does a transaction and checks the file.
func (w *walker) round(e *qcow2.Editor) {
	before, want := w.f.Bytes(), slowImage(nil)
	err := e.Update(func(tx *qcow2.Tx) (err error) {
		want, err = w.transaction(tx)
		return err
	})
	switch {
	case errors.Is(err, errAbandoned):
		if !bytes.Equal(before, w.f.Bytes()) {
			w.t.Fatal("an abandoned transaction changed the file")
		}
		w.count["abandoned"]++
	case err != nil:
		w.t.Fatal(err)
	default:
		w.have = want
		w.f.Mark()
	}
	a := w.check(e)
	if err == nil {
		w.past = append(w.past, a.Bitmaps)
	}
}

// crashes wants in each state the bitmaps of the last mark, or of the one after it.
func (w *walker) crashes() {
	start, err := auditBytes(w.c.file)
	if err != nil {
		w.t.Fatal(err)
	}
	w.past = slices.Insert(w.past, 0, start.Bitmaps)
	w.f.States(&crash.Options{Max: 100, Random: 1}, func(s *crash.State) bool {
		a, err := build.AuditFile(s, s.Size())
		if err != nil || len(a.Problems) > 0 || a.Mapping != start.Mapping {
			w.t.Errorf("%v: %v, %q, or the guest is mapped to other clusters", s, err, a.Problems)
		} else if next := w.past[min(s.Marks+1, len(w.past)-1)]; !slices.Equal(a.Bitmaps, w.past[s.Marks]) && !slices.Equal(a.Bitmaps, next) {
			w.t.Errorf("%v: the bitmaps are %+v, want %+v or %+v", s, a.Bitmaps, w.past[s.Marks], next)
		}
		w.count["crash states"]++
		return !w.t.Failed()
	})
}

func (w *walker) check(e *qcow2.Editor) *build.Audit {
	a, err := build.AuditFile(w.f, w.f.Size())
	if err != nil || len(a.Problems) > 0 || a.Leaks > 0 {
		w.t.Fatalf("%v, %d leaks, %q", err, a.Leaks, a.Problems)
	}
	img, err := qcow2.Open(w.f, w.f.Size(), w.c.opts)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, img := range []*qcow2.Image{img, e.Image()} {
		list, err := img.Bitmaps()
		if err != nil {
			w.t.Fatal(err)
		}
		if err := w.have.equal(list, img.LoadBitmap, w.c.size); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := w.c.expectGuest(img); err != nil {
		w.t.Fatal(err)
	}
	w.size(a)
	return a
}

// size wants freed clusters to be used again.
func (w *walker) size(a *build.Audit) {
	used := 0
	for _, cl := range a.Clusters {
		used += int(min(cl.Refs, 1))
	}
	w.most = max(w.most, used)
	if len(a.Clusters) > 4*w.most+64 {
		w.t.Fatalf("the file has %d clusters, and never used more than %d", len(a.Clusters), w.most)
	}
}

// walkedSpec is an image of odd sizes.
func walkedSpec(rng *rand.Rand) build.Spec {
	s := build.Spec{Size: rng.Uint64N(3 << 20), ClusterBits: 9 + rng.IntN(5), RefcountBits: 1 << rng.IntN(7), Seed: rng.Uint64()}
	s.Clusters = map[uint64]build.Cluster{}
	for k := range s.Size >> s.ClusterBits {
		if rng.IntN(20) == 0 {
			s.Clusters[k] = build.Cluster{Form: []build.Form{build.Normal, build.ZeroPlain, build.Packed}[rng.IntN(3)]}
		}
	}
	if rng.IntN(3) == 0 && s.RefcountBits > 2 {
		s.Snapshots = []build.Snapshot{{ID: "1", Copy: true}}
	}
	return s
}

// Random transactions, with and without opening the file anew in between, against
// a slow model.
func TestEditorRandom(t *testing.T) {
	seeds, rounds := 24, 25
	if full() {
		seeds, rounds = 400, 60
	}
	count := map[string]int{}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 77))
			c := newTrial("random", build.Must(walkedSpec(rng)))
			w := &walker{Rand: rng, t: t, c: c, f: crash.New(c.file), have: slowImage{}, count: count}
			var e *qcow2.Editor
			for range rounds {
				if e == nil || rng.IntN(3) == 0 {
					var err error
					if e, err = c.open(w.f); err != nil {
						t.Fatal(err)
					}
				}
				w.round(e)
			}
			w.crashes()
		})
	}
	for _, what := range slices.Sorted(maps.Keys(count)) {
		t.Logf("%6d %s", count[what], what)
	}
}
