package qcow2_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// full asks for all states, not a part of them.
func full() bool { return os.Getenv("QBIT_FULL") != "" }

// update opens the file for changing and makes the changes.
func (c *trial) update(f *crash.File, changes []change) (*qcow2.Editor, error) {
	e, err := c.open(f)
	if err != nil {
		return nil, fmt.Errorf("opening: %w", err)
	}
	return e, e.Update(doAll(changes))
}

// changed is the trial's file in a recorder, with the changes made to it under
// guard. What comes out is compared with the model.
func (c *trial) changed(t *testing.T, changes []change) *crash.File {
	t.Helper()
	f := crash.New(c.file)
	guarded(t, f)
	e, err := c.update(f, changes)
	if err != nil {
		t.Fatalf("%v: %v", changes, err)
	}
	f.Mark()
	f.Guard(nil)
	if err := c.expectChanged(f, e, changes); err != nil {
		t.Fatalf("%v: %v", changes, err)
	}
	return f
}

// expectChanged checks the file after the changes, and what the Editor says.
func (c *trial) expectChanged(f *crash.File, e *qcow2.Editor, changes []change) error {
	a, err := build.AuditFile(f, f.Size())
	if err != nil {
		return err
	}
	if len(a.Problems) > 0 || a.Leaks != c.leaks || e.Leaked() != 0 {
		return fmt.Errorf("%d leaks, the Editor says %d; %q", a.Leaks, e.Leaked(), a.Problems)
	}
	img, err := qcow2.Open(f, f.Size(), c.opts)
	if err != nil {
		return err
	}
	want := c.bitmaps.afterAll(changes)
	if c.stays && len(want) == 0 && a.Stale {
		return c.expectGuest(img)
	}
	if err := errors.Join(want.expect(img, a), c.expectGuest(img)); err != nil {
		return err
	}
	if err := want.expect(e.Image(), a); err != nil {
		return fmt.Errorf("the Editor's image: %w", err)
	}
	if h := img.Header(); h.HeaderLength+32 <= 512 && !whole(a) {
		return fmt.Errorf("the extension is at %#x, outside of the first sector", a.Extension)
	}
	return nil
}

// guarded lets the Editor write to what no one uses, to refcounts, and to the
// header's cluster.
func guarded(t *testing.T, f *crash.File) {
	t.Helper()
	a, err := build.AuditFile(f, f.Size())
	if err != nil {
		t.Fatal(err)
	}
	f.Guard(func(op crash.Op) error {
		err := mayDo(a, op)
		if err != nil {
			t.Errorf("%v: %v", op, err)
		}
		return err
	})
}

// mayDo is an error where an Editor must not do op to an image of that audit.
func mayDo(a *build.Audit, op crash.Op) error {
	switch op.Kind {
	case crash.Truncate:
		if op.Off <= int64(len(a.Clusters)-1)*a.ClusterSize {
			return errors.New("it makes the file shorter")
		}
	case crash.Write:
		for c := op.Off / a.ClusterSize; c*a.ClusterSize < op.Off+op.Len && c < int64(len(a.Clusters)); c++ {
			switch cl := a.Clusters[c]; {
			case cl.Refs == 0 && cl.Count == 0:
			case cl.Use == build.UsedByHeader, cl.Use == build.UsedByRefcountTable, cl.Use == build.UsedByRefcountBlock:
			default:
				return fmt.Errorf("cluster %d is used by %v (refcount %d)", c, cl.Use, cl.Count)
			}
		}
	}
	return nil
}

// sweepStates is how many states of one operation on one image are tried.
func sweepStates(c *trial) int {
	n := 60
	switch {
	case len(c.file) > 4<<20:
		n = 6
	case len(c.file) > 128<<10:
		n = 25
	}
	if full() {
		n *= 6
	}
	return n
}

// A sweep counts states.
type sweep struct {
	states, skipped int
	verdicts        [verdicts]int
}

func (s *sweep) add(o sweep) {
	s.states, s.skipped = s.states+o.states, s.skipped+o.skipped
	for i := range s.verdicts {
		s.verdicts[i] += o.verdicts[i]
	}
}

func (s sweep) String() string {
	return fmt.Sprintf("%6d states: %6d old, %6d new, %4d unusable; %d left out",
		s.states, s.verdicts[oldBitmaps], s.verdicts[newBitmaps], s.verdicts[unusableBitmaps], s.skipped)
}

// crashes makes the changes and tries what a crash can leave of them.
func (c *trial) crashes(t *testing.T, changes []change) (s sweep) {
	t.Helper()
	f := c.changed(t, changes)
	j, err := newEditorJudge(c, f.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	count := f.States(&crash.Options{Max: sweepStates(c), Random: 2}, func(st *crash.State) bool {
		thorough := len(c.file) < 128<<10 || s.states%16 == 0
		v, err := j.look(st, st.Size(), thorough)
		s.states++
		s.verdicts[v]++
		switch {
		case err != nil:
			t.Errorf("%v: %v", st, err)
		case st.Marks > 0 && v != newBitmaps && !slices.Equal(j.old.Bitmaps, j.new.Bitmaps):
			t.Errorf("%v: Update had returned, the bitmaps are %v", st, v)
		case v == unusableBitmaps && j.atomic():
			t.Errorf("%v: the bitmaps are stale", st)
		}
		if s.states%30 == 0 && err == nil {
			c.goesOn(t, st, v, changes)
		}
		return !t.Failed()
	})
	s.skipped = count.Skipped
	return s
}

// goesOn changes what a crash has left.
func (c *trial) goesOn(t *testing.T, st *crash.State, v verdict, changes []change) {
	t.Helper()
	was := c.bitmaps
	if v == newBitmaps {
		was = was.afterAll(changes)
	}
	more := []change{{kind: addBitmap, name: "after the crash", bits: filledBits(c.size, 512)}}
	if v == unusableBitmaps || c.stays && len(was) == 0 {
		more, was = slices.Insert(more, 0, change{kind: dropAll}), nil
	}
	if c.size == 0 {
		return
	}
	f := st.File()
	_, err := c.update(f, more)
	if err != nil {
		t.Fatalf("%v: changing it: %v", st, err)
	}
	a, err := build.AuditFile(f, f.Size())
	if err != nil || len(a.Problems) > 0 {
		t.Fatalf("%v: after another change %v, %q", st, err, a.Problems)
	}
	img, err := qcow2.Open(f, f.Size(), c.opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(was.afterAll(more).expect(img, a), c.expectGuest(img)); err != nil {
		t.Errorf("%v: after another change %v", st, err)
	}
}

// In every state that a crash can leave, the image opens, the audit finds nothing
// worse than leaks, the guest's bytes are the same, and all bitmaps are the old
// ones or all are the new ones.
func TestEditorCrash(t *testing.T) {
	all := slices.Concat(trials(), randomTrials(0, 20))
	if full() {
		all = append(all, randomTrials(20, 100)...)
	}
	var total sweep
	for k, o := range operations() {
		var sum sweep
		t.Run(o.name, func(t *testing.T) {
			for i, c := range all {
				changes := o.on(c)
				if few := len(c.file) > 1<<20 && o.name != "several" && (k+i)%3 != 0; len(changes) == 0 || c.full || few && !full() {
					continue
				}
				t.Run(c.name, func(t *testing.T) { sum.add(c.crashes(t, changes)) })
			}
		})
		t.Logf("%-16s %v", o.name, sum)
		total.add(sum)
	}
	t.Logf("%-16s %v", "all", total)
}

// A stale or broken extension forbids everything but dropping it, which a crash
// may find done or not.
func TestEditorDropsWhatIsBroken(t *testing.T) {
	img := build.Must(spec(nil))
	drop := change{kind: dropAll}
	for field, value := range map[string]uint64{
		"header.autoclear_features":                 0, // stale
		"bitmap[1].name_size":                       0,
		"bitmap[2].table[0]":                        77,
		"bitmap[0].bitmap_table_offset":             1 << 40,
		"bitmaps_extension.nb_bitmaps":              9,
		"bitmaps_extension.bitmap_directory_offset": 3 << 40,
		"bitmaps_extension.bitmap_directory_size":   1 << 40,
		"bitmaps_extension.length":                  16,
	} {
		t.Run(field, func(t *testing.T) {
			c := newTrial(field, img)
			c.file, c.bitmaps = img.Patch(field, value), nil
			for _, changes := range [][]change{{drop}, {drop, {kind: addBitmap, name: "new", bits: filledBits(c.size, 512)}}} {
				c.drops(t, changes)
			}
			if field == "bitmap[2].table[0]" || field == "bitmap[0].bitmap_table_offset" {
				return // only that bitmap is broken
			}
			f := crash.New(c.file)
			_, err := c.update(f, []change{{kind: addBitmap, name: "new", bits: newBits(c.size, 512)}})
			if err == nil || len(f.Ops()) > 0 || errors.Is(err, qcow2.ErrBitmapsStale) != (value == 0 && field == "header.autoclear_features") {
				t.Errorf("adding to it: %v, and %v", err, f.Ops())
			}
		})
	}
}

// drops checks the file after a drop of what is broken, and in all states before.
func (c *trial) drops(t *testing.T, changes []change) {
	t.Helper()
	h, err := newHarm(c.file)
	if err != nil {
		t.Fatal(err)
	}
	f := crash.New(c.file)
	if _, err := c.update(f, changes); err != nil {
		t.Fatal(err)
	}
	f.Mark()
	f.States(nil, func(s *crash.State) bool {
		if err := h.done(s.Bytes(), func(string) bool { return false }); err != nil {
			t.Errorf("%v: %v", s, err)
		}
		a, err := auditBytes(s.Bytes())
		if err == nil && s.Marks > 0 && len(a.Problems) > 0 {
			err = fmt.Errorf("the audit finds %q", a.Problems)
		}
		img, err2 := qcow2.Open(s, s.Size(), c.opts)
		if err := errors.Join(err, err2); err != nil {
			t.Fatalf("%v: %v", s, err)
		}
		err = c.expectGuest(img)
		if s.Marks > 0 {
			err = errors.Join(err, c.bitmaps.afterAll(changes).expect(img, a))
		}
		if err != nil {
			t.Errorf("%v: %v", s, err)
		}
		return !t.Failed()
	})
}

// An image whose first cluster has no room for the extension is refused, and not
// a byte of it is changed.
func TestEditorNoRoom(t *testing.T) {
	for _, c := range trials() {
		if !c.full {
			continue
		}
		f := crash.New(c.file)
		_, err := c.update(f, []change{{kind: addBitmap, name: "new", bits: newBits(c.size, 512)}})
		if err == nil || len(f.Ops()) > 0 {
			t.Errorf("%s: error %v, and %v", c.name, err, f.Ops())
		} else if !strings.Contains(err.Error(), "room") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A transaction that fails, or changes nothing, writes nothing.
func TestEditorNothing(t *testing.T) {
	stop := errors.New("stop")
	for _, c := range smallTrials() {
		for _, o := range operations() {
			f := crash.New(c.file)
			e, err := c.open(f)
			if err != nil {
				t.Fatal(err)
			}
			err = e.Update(func(tx *qcow2.Tx) error {
				_ = doAll(o.on(c))(tx)
				return stop
			})
			if !errors.Is(err, stop) || len(f.Ops()) > 0 {
				t.Errorf("%s, %s: error %v, and %v", c.name, o.name, err, f.Ops())
			}
		}
		f := crash.New(c.file)
		if _, err := c.update(f, nil); err != nil || len(f.Ops()) > 0 {
			t.Errorf("%s: nothing to do: %v, and %v", c.name, err, f.Ops())
		}
	}
}
