package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// planDropping plans a repair that may give up snapshots.
func planDropping(image []byte) (*qcow2.Repair, error) {
	return qcow2.PlanRepair(context.Background(), bytes.NewReader(image), int64(len(image)), nil,
		qcow2.RepairOptions{Mode: qcow2.RepairAll, DropSnapshots: true})
}

// TestRepairDropsSnapshots gives up broken snapshots, only where that is asked for: the
// active disk is the same in every crash state, and nothing is wrong any more.
func TestRepairDropsSnapshots(t *testing.T) {
	count := 0
	for _, r := range build.Recipes() {
		_, err := planRepair(r.Image, r.Data, qcow2.RepairAll)
		if !errors.Is(err, qcow2.ErrBrokenSnapshots) || r.Data != nil {
			continue
		}
		count++
		p, err := planDropping(r.Image)
		if err != nil || len(p.Left) > 0 || !p.After.Clean() || p.Before.Clean() {
			t.Errorf("%s: %+v, %v", r.Name, p, err)
			continue
		}
		f := crash.New(r.Image)
		if err := p.Apply(f); err != nil {
			t.Fatal(err)
		}
		before := map[string][][]byte{"": readable(r.Image, nil)[""]}
		f.States(&crash.Options{Random: 2}, func(s *crash.State) bool {
			if err := sameGuest(before, readable(s.Bytes(), nil)); err != nil {
				t.Errorf("%s: %v: %v", r.Name, s, err)
			}
			again, err := planDropping(s.Bytes())
			if err != nil || !again.After.Clean() {
				t.Errorf("%s: %v: repairing again: %+v, %v", r.Name, s, again, err)
			}
			return !t.Failed()
		})
		none := &build.Sound{Image: &build.Image{Spec: build.Spec{ClusterBits: 9}}}
		if err := errors.Join(qemuFindsNothing(t, t.TempDir(), none, f.Bytes()), undone(p, r.Image, f.Bytes())); err != nil {
			t.Errorf("%s: %v", r.Name, err)
		}
	}
	if count < 15 {
		t.Errorf("%d images with broken snapshots", count)
	}
}

// TestRepairKeepsSnapshots gives up no snapshot where none is broken.
func TestRepairKeepsSnapshots(t *testing.T) {
	img := build.Must(build.Spec{Size: 8 * 512, Clusters: map[uint64]build.Cluster{0: {Form: build.Normal}},
		Snapshots: []build.Snapshot{{ID: "1", Name: "one", Copy: true}}})
	p, err := planDropping(img.Patch("refcount_table[0]", 0))
	if err != nil || !p.After.Clean() {
		t.Fatalf("%+v, %v", p, err)
	}
	fixed, err := openBuilt(repaired(t, p, img.Patch("refcount_table[0]", 0)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := fixed.Snapshots(); err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
}
