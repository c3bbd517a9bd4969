package qcow2_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/crash"
)

// guestFaultTrials are images on which every operation of the file fails in turn.
func guestFaultTrials() []*guestTrial {
	names := []string{"512 B", "snapshots", "snapshots, never in place", "version 2", "extended L2, backing file, snapshot",
		"unknown autoclear bits", "data file", "1 free in the table", "2 free in the last block"}
	return slices.DeleteFunc(guestTrials(), func(c *guestTrial) bool { return !slices.Contains(names, c.name) })
}

// Every operation that fails is an error; sectors are old or new, bitmaps say what
// changed, and nothing is worse than leaked, also in what a crash leaves afterwards.
func TestGuestFaults(t *testing.T) {
	runs := 0
	for i, c := range guestFaultTrials() {
		t.Run(c.name, func(t *testing.T) {
			for k, name := range []string{"one over another", "other tables", "random", "zero clusters"} {
				ops := c.guestOperations()[name]
				if len(ops) == 0 || !full() && k%2 != i%2 {
					continue
				}
				for _, fault := range faults() {
					runs += c.failGuest(t, name, ops, fault)
				}
			}
		})
	}
	t.Logf("%d runs with a failure, each an error", runs)
}

// failGuest has each operation fail in turn.
func (c *guestTrial) failGuest(t *testing.T, name string, ops []guestOp, fault crash.Fault) (runs int) {
	t.Helper()
	for fault.N = 1; !t.Failed(); fault.N++ {
		if !full() && fault.N > 3 && fault.N%23 != 0 {
			continue
		}
		f := c.both()
		f.Fail(fault)
		j, err := c.run(f, ops)
		failed := f.Failed()
		f.Fail(crash.Fault{})
		if failed == 0 {
			break
		}
		runs++
		if err == nil || !errors.Is(err, fault.Err) {
			t.Errorf("%s, %+v: %v", name, fault, err)
		}
		j.torn = fault.Short > 0 && fault.Short < 1<<20 // its end, or its begin, lies within a sector
		if err := j.state(f.Bytes(), false); err != nil {
			t.Errorf("%s, %+v: afterwards %v", name, fault, err)
		}
		if j.torn {
			continue // crashes leave no part of a sector
		}
		f.States(&crash.Options{Max: 4, Random: 1}, func(s *crash.State) bool {
			if err := j.state(s.Bytes(), false); err != nil {
				t.Errorf("%s, %+v, then %v: %v", name, fault, s, err)
			}
			return !t.Failed()
		})
	}
	return runs
}

// The same, for changes of size.
func TestResizeFaults(t *testing.T) {
	runs := 0
	for i, c := range guestFaultTrials() {
		sizes := c.resizes()
		for k := range 2 {
			size := sizes[(i+k*7)%len(sizes)]
			if c.raw {
				continue
			}
			for _, fault := range faults() {
				for fault.N = 1; !t.Failed(); fault.N++ {
					if !full() && fault.N > 4 && fault.N%7 != 0 {
						continue
					}
					f := c.both()
					f.Fail(fault)
					j, err := c.resize(f, size)
					failed := f.Failed()
					f.Fail(crash.Fault{})
					if failed == 0 {
						break
					}
					runs++
					if err == nil || !errors.Is(err, fault.Err) {
						t.Errorf("%s, %d, %+v: %v", c.name, size, fault, err)
					}
					if err := j.state(f.Bytes(), false); err != nil {
						t.Errorf("%s, %d, %+v: afterwards %v", c.name, size, fault, err)
					}
				}
			}
		}
	}
	t.Logf("%d runs with a failure, each an error", runs)
}

// What cannot be written is refused, and no byte of the file changes.
func TestGuestRefused(t *testing.T) {
	c := guestTrials()[0]
	f := c.both()
	e, _, err := c.edit(f)
	if err != nil {
		t.Fatal(err)
	}
	g, err := e.Guest(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]int64{{-1, 1}, {c.size, 1}, {c.size - 1, 2}, {0, -1}, {1 << 62, 1 << 62}} {
		if err := errors.Join(nil, g.Zero(r[0], r[1])); err == nil {
			t.Errorf("%v: it is zeroed", r)
		}
		if err := g.Discard(r[0], r[1]); err == nil {
			t.Errorf("%v: it is discarded", r)
		}
		if _, err := g.WriteAt(make([]byte, max(0, min(r[1], 5))), r[0]); err == nil && r[1] > 0 {
			t.Errorf("%v: it is written", r)
		}
	}
	if err := e.Update(func(*qcow2.Tx) error { return nil }); err == nil {
		t.Error("an Update beside an open Guest")
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if _, err := g.WriteAt(make([]byte, 1), 0); err == nil {
		t.Error("a closed Guest writes")
	}
	for _, op := range f.Ops() {
		if op.Kind != crash.Sync {
			t.Error(op)
		}
	}
	if err := e.Update(func(*qcow2.Tx) error { return nil }); err != nil {
		t.Error(err)
	}
}

// The rest of a cluster that lies in a backing file which is not open cannot be known;
// whole clusters can be written.
func TestGuestUnopenedBacking(t *testing.T) {
	for _, c := range guestTrials() {
		if c.name != "backing file" {
			continue
		}
		f := crash.New(c.file)
		e, err := qcow2.Edit(f, f.Size(), nil)
		if err != nil {
			t.Fatal(err)
		}
		g, err := e.Guest(nil)
		if err != nil {
			t.Fatal(err)
		}
		for off := int64(0); off < c.cluster; off += 100 { // in parts that make up the cluster
			if _, err := g.WriteAt(make([]byte, min(100, c.cluster-off)), 2*c.cluster+off); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.Flush(); err != nil {
			t.Fatal(err)
		}
		_, err = g.WriteAt([]byte("x"), 7*c.cluster)
		err = errors.Join(err, g.Close())
		var ref *qcow2.RefError
		if !errors.As(err, &ref) {
			t.Error(err)
		}
		if a, err := auditBytes(f.Bytes()); err != nil || len(a.Problems)+a.Leaks > 0 {
			t.Errorf("%v, %+v", err, a)
		}
	}
}
