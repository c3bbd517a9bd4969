package checkpoint_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/checkpoint"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
	"github.com/qbitkit/qbit/testimages/crash"
)

// randomWorld is a world with a random history.
func randomWorld(rng *rand.Rand, steps int) *world {
	w := newWorld(1 + rng.IntN(2))
	w.older = rng.IntN(2) == 0
	for range steps {
		w.randomStep(rng)
	}
	return w
}

func (w *world) randomStep(rng *rand.Rand) {
	d := w.disks[rng.IntN(len(w.disks))]
	switch n := rng.IntN(10); {
	case n < 5:
		d.write(rng.Int64N(16) * granule)
	case n < 8:
		w.libvirtCreates(rng)
	case n == 8:
		d.snapshot()
	case rng.IntN(4) == 0:
		w.older = false // the host is updated
	}
}

// TestHistories does random things to random worlds: whatever qbit deletes, merges and
// makes, the bitmaps of what is left say what is true.
func TestHistories(t *testing.T) {
	worlds := 60
	if full() {
		worlds = 3000
	}
	for seed := range uint64(worlds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 7))
			w := randomWorld(rng, 14)
			w.judge(t, true)
			for range 6 {
				w.change(t, rng)
				w.forget()
				w.judge(t, true)
				if kinds := w.compared(); len(kinds) > 0 {
					t.Fatal(kinds)
				}
				for range 4 {
					w.randomStep(rng)
				}
				w.judge(t, true)
			}
		})
	}
}

// change lets qbit change the checkpoints.
func (w *world) change(t *testing.T, rng *rand.Rand) {
	t.Helper()
	tree := w.tree()
	names := tree.Names()
	if len(names) == 0 {
		w.mustDo(t)(w.createNext())
		return
	}
	name := names[rng.IntN(len(names))]
	switch rng.IntN(4) {
	case 0:
		w.mustDo(t)(w.createNext())
	case 1:
		w.mustDo(t)(checkpoint.PlanDelete(w.all(), tree, []string{name}, checkpoint.DesignAuto))
	case 2:
		w.mustDo(t)(checkpoint.PlanDelete(w.all(), tree, tree.ChangedSince(name), checkpoint.DesignAuto))
	default:
		w.merge(t, rng, tree, name)
	}
}

func (w *world) createNext() (*checkpoint.Plan, error) {
	w.older = false // no libvirt of the older design goes on behind one of today's
	w.serial++
	name := fmt.Sprintf("c%d", w.serial)
	plan, err := w.create(name)
	for _, d := range w.disks {
		d.truth[name], _ = bitmap.New(worldSize, granule)
	}
	return plan, err
}

func (w *world) mustDo(t *testing.T) func(*checkpoint.Plan, error) {
	return func(plan *checkpoint.Plan, err error) {
		t.Helper()
		if err == nil {
			err = w.apply(plan)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// merge merges a random way down from name, under a random name.
func (w *world) merge(t *testing.T, rng *rand.Rand, tree *libvirt.Tree, name string) {
	t.Helper()
	below := tree.ChangedSince(name)
	to := below[rng.IntN(len(below))]
	into := []string{"", "merged", to}[rng.IntN(3)]
	if tree.Checkpoint("merged") != nil && into == "merged" {
		into = ""
	}
	plan, err := checkpoint.PlanMerge(w.all(), tree, name, to, into)
	w.mustDo(t)(plan, err)
	for _, d := range w.disks {
		truth := d.truth[name]
		if into == "" || into == name {
			continue
		}
		delete(d.truth, into)
		if truth != nil {
			d.truth[into] = truth
		}
	}
}

// TestInterrupted stops every change after every number of operations. What is left says
// the truth, or too much, or that it does not know.
func TestInterrupted(t *testing.T) {
	worlds := 8
	if full() {
		worlds = 200
	}
	stops := 0
	for seed := range uint64(worlds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 8))
			w := randomWorld(rng, 14)
			for _, plan := range w.plans(t, rng) {
				stops += w.stopEverywhere(t, plan)
			}
		})
	}
	if stops < 500 {
		t.Errorf("only %d stops", stops)
	}
	t.Logf("%d stops", stops)
}

// A namedPlan is a plan with the truth about a checkpoint that it makes.
type namedPlan struct {
	*checkpoint.Plan
	what, makes, like string
}

func (w *world) plans(t *testing.T, rng *rand.Rand) (plans []namedPlan) {
	t.Helper()
	add := func(what, makes, like string, p *checkpoint.Plan, err error) {
		if err != nil {
			t.Fatal(what, err)
		}
		plans = append(plans, namedPlan{p, what, makes, like})
	}
	p, err := w.create("new")
	add("create", "new", "", p, err)
	tree := w.tree()
	names := tree.Names()
	if len(names) == 0 {
		return plans
	}
	name := names[rng.IntN(len(names))]
	p, err = checkpoint.PlanDelete(w.all(), tree, []string{name}, checkpoint.DesignAuto)
	add("delete "+name, "", "", p, err)
	p, err = checkpoint.PlanDelete(w.all(), tree, tree.ChangedSince(name)[1:], checkpoint.DesignAuto)
	add("delete below "+name, "", "", p, err)
	below := tree.ChangedSince(name)
	to := below[rng.IntN(len(below))]
	p, err = checkpoint.PlanMerge(w.all(), tree, name, to, "")
	add("merge "+name+".."+to, "", "", p, err)
	p, err = checkpoint.PlanMerge(w.all(), tree, name, to, "merged")
	add("merge and rename "+name+".."+to, "merged", name, p, err)
	return plans
}

// stopEverywhere applies a plan with everything failing from operation n on, for each n.
func (w *world) stopEverywhere(t *testing.T, plan namedPlan) int {
	t.Helper()
	for n := 0; ; n++ {
		c := w.clone()
		for _, d := range c.disks {
			switch like := d.truth[plan.like]; {
			case plan.makes == "":
			case plan.like == "":
				d.truth[plan.makes], _ = bitmap.New(worldSize, granule)
			case like != nil:
				d.truth[plan.makes] = like.Clone()
			}
		}
		left := n
		stop := func() error {
			if left--; left < 0 {
				return errStopped
			}
			return nil
		}
		c.gate(stop)
		err := plan.Apply(c.all(), c.images, &c.docs)
		c.gate(nil)
		if err == nil {
			c.judge(t, true)
			return n
		}
		if !errors.Is(err, errStopped) {
			t.Fatalf("%s, stopped after %d: %v", plan.what, n, err)
		}
		c.judge(t, false)
		if t.Failed() {
			t.Fatalf("%s, stopped after %d: %v", plan.what, n, err)
		}
	}
}

var errStopped = errors.New("stopped")

// gate has everything that changes a file or a document ask first.
func (w *world) gate(ask func() error) {
	w.docs.gate = func() error { return nil }
	if ask != nil {
		w.docs.gate = ask
	}
	for _, d := range w.disks {
		for _, f := range d.layers {
			if ask == nil {
				f.Guard(nil)
				continue
			}
			f.Guard(func(op crash.Op) error {
				if op.Kind == crash.Read {
					return nil
				}
				return ask()
			})
		}
	}
}

// TestCreateUndone makes one operation fail; what was made is taken back.
func TestCreateUndone(t *testing.T) {
	w := newWorld(3)
	w.libvirtCreates(rand.New(rand.NewPCG(1, 1)))
	before := w.bitmaps()
	plan, err := w.create("new")
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		c := w.clone()
		left := n
		c.gate(func() error {
			if left--; left == -1 {
				return errStopped
			}
			return nil
		})
		err := plan.Apply(c.all(), c.images, &c.docs)
		c.gate(nil)
		if err == nil {
			if left >= 0 {
				break
			}
			continue // a failure that does no harm
		}
		var apply *checkpoint.ApplyError
		if !errors.As(err, &apply) || apply.Undo != nil || apply.Changed || !errors.Is(err, errStopped) {
			t.Fatalf("failure %d: %v", n, err)
		}
		if got := c.bitmaps(); got != before || len(c.docs.byName) != 1 {
			t.Fatalf("failure %d: bitmaps %s, were %s", n, got, before)
		}
	}
}

// bitmaps are the names of all bitmaps.
func (w *world) bitmaps() (s string) {
	for _, d := range w.disks {
		s += fmt.Sprint(d.disk().Chain.Names())
	}
	return s
}

func TestCreateRefused(t *testing.T) {
	w := newWorld(2)
	w.mustDo(t)(w.create("a"))
	if _, err := w.create("a"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
	w.disks[1].snapshot()
	update(w.disks[1].layers[1], func(tx *qcow2.Tx) error {
		bits, _ := bitmap.New(worldSize, granule)
		return tx.AddBitmap("below", bits, true)
	})
	var exists *checkpoint.ExistsError
	if _, err := w.create("below"); !errors.As(err, &exists) || exists.Target != "vdb" || exists.Layer != 1 {
		t.Errorf("a bitmap further down: %v", err)
	}
}
