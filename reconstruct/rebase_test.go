package reconstruct

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
)

// TestPlanRebase takes random disks for old, new and the views, and wants each
// view, with old's bytes written where its bitmap says, to read the same over new; and
// no granule in the bitmap that needs none.
func TestPlanRebase(t *testing.T) {
	const granule = 4096
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		old := newFake(r, 1+r.Int64N(3<<20), granule, func(int) qcow2.Kind { return allKinds[r.IntN(len(allKinds))] })
		next := similar(r, old)
		next.content = next.content[:1+r.IntN(len(next.content))]
		next = stored(r, next.content)
		var views []qcow2.Disk
		for range 1 + r.IntN(3) {
			views = append(views, newFake(r, 1+r.Int64N(4<<20), granule, func(int) qcow2.Kind { return allKinds[r.IntN(len(allKinds))] }))
		}
		plan, err := PlanRebase(t.Context(), views, old, next, &RebaseOptions{Granularity: granule})
		if err != nil {
			t.Fatal(err)
		}
		cost, err := CostOfRebase(t.Context(), views, old, next, &RebaseOptions{Granularity: granule})
		if err != nil {
			t.Fatal(err)
		}
		found := int64(0)
		for i, v := range views {
			expectPlan(t, v.(*fake), old.guest(), next.guest(), plan[i].Test, granule)
			found += plan[i].Count()
		}
		if cost == 0 && found > 0 {
			t.Errorf("seed %d: %d bytes differ, and the maps alone say that none does", seed, found)
		}
	}
}

// expectPlan compares a bitmap with what reading everything says, granule by granule.
func expectPlan(t *testing.T, v *fake, old, next []byte, dirty func(int64) bool, granule int64) {
	t.Helper()
	at := func(content []byte, off, end int64) []byte {
		p := make([]byte, end-off)
		if off < int64(len(content)) {
			copy(p, content[off:])
		}
		return p
	}
	for off := int64(0); off < v.Size(); off += granule {
		end := min(off+granule, v.Size())
		// What differs behind the end of the view in its last granule may count too.
		whole := off + granule
		absent := v.kinds[off/v.block] == qcow2.Absent
		differs := !bytes.Equal(at(old, off, end), at(next, off, end))
		mayDiffer := !bytes.Equal(at(old, off, whole), at(next, off, whole))
		switch got := dirty(off); {
		case absent && differs && !got:
			t.Fatalf("the plan misses the granule at %d", off)
		case got && (!absent || !mayDiffer):
			t.Fatalf("the plan has the granule at %d: absent %v, differs %v", off, absent, mayDiffer)
		}
	}
}

// TestPlanRebaseReadsNothing: what both disks have in one file, opened twice, is not
// read; nor is what no view leaves to them.
func TestPlanRebaseReadsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "base")
	if err := os.WriteFile(path, bytes.Repeat([]byte{7}, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	twice := func() qcow2.Disk {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return NewRaw(unreadable{f}, 1<<20, nil)
	}
	view := newFake(rand.New(rand.NewPCG(1, 1)), 2<<20, 4096, func(int) qcow2.Kind { return qcow2.Absent })
	plan, err := PlanRebase(t.Context(), []qcow2.Disk{view}, twice(), twice(), nil)
	if err != nil || plan[0].Count() != 0 {
		t.Errorf("got %v, %v", plan, err)
	}
	if cost, err := CostOfRebase(t.Context(), []qcow2.Disk{view}, twice(), twice(), nil); cost != 0 || err != nil {
		t.Errorf("cost %d, %v", cost, err)
	}
	full := newFake(rand.New(rand.NewPCG(1, 1)), 2<<20, 4096, func(int) qcow2.Kind { return qcow2.Data })
	other := NewRaw(unreadable{}, 1<<20, nil)
	if plan, err = PlanRebase(t.Context(), []qcow2.Disk{full}, twice(), other, nil); err != nil || plan[0].Count() != 0 {
		t.Errorf("got %v, %v", plan, err)
	}
	if _, err = PlanRebase(t.Context(), []qcow2.Disk{view}, twice(), other, nil); !errors.Is(err, errUnreadable) {
		t.Errorf("what cannot be read gave %v", err)
	}
}

var errUnreadable = errors.New("it is not to be read")

// An unreadable storage is a file whose bytes nobody may read.
type unreadable struct{ f *os.File }

func (u unreadable) SysFile() *os.File { return u.f }

func (u unreadable) ReadAt([]byte, int64) (int, error) { return 0, errUnreadable }

var _ io.ReaderAt = unreadable{}
