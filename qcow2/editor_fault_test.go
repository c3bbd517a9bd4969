package qcow2_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// faults are the ways in which an operation fails: N is filled in.
func faults() []crash.Fault {
	return []crash.Fault{
		{Err: syscall.EIO, Reads: true},
		{Err: syscall.EIO, Reads: true, From: true},
		{Err: syscall.ENOSPC, Short: 100},
		{Err: syscall.ENOSPC, Short: 512, From: true},
		{Err: syscall.EIO, Short: 1 << 30},
	}
}

// faultTrials are images on which every operation of the file fails in turn.
func faultTrials() []*trial {
	names := []string{"512 B", "512 B, no bitmaps", "snapshots", "raw data file", "stock layout", "stock layout, no bitmaps",
		"1 refcount bits", "2 free in the last block", "1 free in the table", "0 free in the table", "64 KiB, stock layout, snapshots"}
	var all []*trial
	for _, c := range trials() {
		if slices.Contains(names, c.name) {
			all = append(all, c)
		}
	}
	return all
}

// A faultCount counts how the runs ended.
type faultCount struct{ runs, oldLeft, newLeft, leaks, again int }

// Every single operation that fails, once or from then on, is an error of Update,
// or of Edit; the bitmaps are the old ones or the new ones, the guest's bytes the
// same, in every state that a crash can leave afterwards too. An Editor that goes
// on working after a failure does it right.
func TestEditorFaults(t *testing.T) {
	var n faultCount
	part := 4
	if full() {
		part = 2
	}
	for i, c := range faultTrials() {
		t.Run(c.name, func(t *testing.T) {
			for k, o := range operations() {
				changes := o.on(c)
				if few := o.name != "several" && (k%part != i%part || len(c.file) > 128<<10); len(changes) == 0 || few {
					continue
				}
				c.failEach(t, o.name, changes, &n)
			}
		})
	}
	t.Logf("%d runs with a failure, each an error: %d left the old bitmaps, %d the new, %d leaks; %d Editors worked on",
		n.runs, n.oldLeft, n.newLeft, n.leaks, n.again)
}

func (c *trial) failEach(t *testing.T, name string, changes []change, n *faultCount) {
	t.Helper()
	j, err := newEditorJudge(c, c.changed(t, changes).Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range faults() {
		for fault.N = 1; !t.Failed(); fault.N++ {
			if c.fail(t, j, fmt.Sprintf("%s, %+v", name, fault), changes, fault, n) == 0 {
				break
			}
		}
	}
}

// fail runs the changes with one failure and returns how many operations failed.
func (c *trial) fail(t *testing.T, j *editorJudge, name string, changes []change, fault crash.Fault, n *faultCount) int {
	t.Helper()
	f := crash.New(c.file)
	f.Fail(fault)
	e, err := c.update(f, changes)
	failed := f.Failed()
	f.Fail(crash.Fault{})
	if failed == 0 {
		if err != nil {
			t.Errorf("%s: nothing failed, and %v", name, err)
		}
		return 0
	}
	n.runs++
	if err == nil {
		t.Errorf("%s: no error", name)
	} else if !errors.Is(err, fault.Err) {
		t.Errorf("%s: %v", name, err)
	}
	if a, auditErr := build.AuditFile(f, f.Size()); auditErr == nil && a.Leaks > 0 {
		n.leaks++
		early := err != nil && !strings.Contains(err.Error(), "linking") && !strings.Contains(err.Error(), "giving back")
		if early && !fault.From && !strings.Contains(c.name, "free in") {
			t.Errorf("%s: %d leaks after %v", name, a.Leaks, err)
		}
	}
	v, err := j.look(f, f.Size(), true)
	switch {
	case err != nil:
		t.Errorf("%s: afterwards %v", name, err)
	case v == oldBitmaps:
		n.oldLeft++
	case v == newBitmaps:
		n.newLeft++
	case j.atomic():
		t.Errorf("%s: the bitmaps are %v", name, v)
	}
	if fault.Short%crash.SectorSize != 0 {
		return c.again(t, e, f, v, name, changes, n, failed) // crashes leave no part of a sector
	}
	f.States(&crash.Options{Max: 8, Random: 1}, func(s *crash.State) bool {
		if v, err := j.look(s, s.Size(), false); err != nil || v == unusableBitmaps && j.atomic() {
			t.Errorf("%s, then %v: the bitmaps are %v, %v", name, s, v, err)
		}
		return !t.Failed()
	})
	return c.again(t, e, f, v, name, changes, n, failed)
}

// again goes on with an Editor that has failed.
func (c *trial) again(t *testing.T, e *qcow2.Editor, f *crash.File, v verdict, name string, changes []change, n *faultCount, failed int) int {
	t.Helper()
	if e == nil || v == unusableBitmaps {
		return failed
	}
	was := c.bitmaps
	if v == newBitmaps {
		was = was.afterAll(changes)
	}
	more := []change{{kind: addBitmap, name: "after the failure", bits: filledBits(c.size, 512)}}
	if err := e.Update(doAll(more)); err != nil {
		return failed // it may refuse
	}
	n.again++
	a, err := build.AuditFile(f, f.Size())
	if err != nil || len(a.Problems) > 0 {
		t.Fatalf("%s, and another change: %v, %q", name, err, a.Problems)
	}
	img, err := qcow2.Open(f, f.Size(), c.opts)
	if err != nil {
		t.Fatalf("%s, and another change: %v", name, err)
	}
	if err := errors.Join(was.afterAll(more).expect(img, a), c.expectGuest(img)); err != nil {
		t.Errorf("%s, and another change: %v", name, err)
	}
	return failed
}
