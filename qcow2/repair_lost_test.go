package qcow2_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// TestRepairLostIsZero wants what cannot be read to be zero on purpose, so that neither
// a backing file nor an older backup comes up in its place; and named as lost.
func TestRepairLostIsZero(t *testing.T) {
	const cover = 64 * 512 // of an L2 table
	bits := uint64(1) << 40
	normal := map[uint64]build.Cluster{0: {Form: build.Normal}, 1: {Form: build.Normal}, 70: {Form: build.Normal}}
	for name, c := range map[string]struct {
		spec  build.Spec
		patch map[string]uint64
		want  qcow2.Kind
		lost  []qcow2.GuestRange
	}{
		"an L1 entry": {build.Spec{Size: 3*cover + 512, Clusters: normal}, map[string]uint64{"l1[1]": bits},
			qcow2.Zero, []qcow2.GuestRange{{Off: cover, Len: cover}}},
		"the last L1 entry": {build.Spec{Size: cover + 512, Clusters: normal}, map[string]uint64{"l1[1]": bits},
			qcow2.Zero, []qcow2.GuestRange{{Off: cover, Len: 512}}},
		"an L2 entry": {build.Spec{Size: 2 * cover, Clusters: normal}, map[string]uint64{"l2[0][1]": bits},
			qcow2.Zero, []qcow2.GuestRange{{Off: 512, Len: 512}}},
		"an L1 entry of version 2": {build.Spec{Version: 2, Size: 2 * cover, Clusters: normal}, map[string]uint64{"l1[1]": bits},
			qcow2.Absent, []qcow2.GuestRange{{Off: cover, Len: cover}}},
		"an L2 entry of version 2": {build.Spec{Version: 2, Size: 2 * cover, Clusters: normal}, map[string]uint64{"l2[0][1]": bits},
			qcow2.Absent, []qcow2.GuestRange{{Off: 512, Len: 512}}},
		"an L1 entry of extended tables": {build.Spec{Size: 1 << 25, ClusterBits: 14, ExtendedL2: true,
			Clusters: map[uint64]build.Cluster{0: {Form: build.Normal}}}, map[string]uint64{"l1[1]": bits},
			qcow2.Zero, []qcow2.GuestRange{{Off: 1 << 24, Len: 1 << 24}}},
	} {
		t.Run(name, func(t *testing.T) {
			c.spec.Backing, c.spec.BackingFormat = "below", "raw"
			broken := build.Must(c.spec).PatchAll(c.patch)
			p, err := planRepair(broken, nil, qcow2.RepairAll)
			if err != nil || !p.After.Clean() {
				t.Fatalf("%+v, %v", p, err)
			}
			if d := cmp.Diff(c.lost, p.Lost); d != "" {
				t.Error(d)
			}
			fixed, err := openBuilt(repaired(t, p, broken), nil, make([]byte, c.spec.Size))
			if err != nil {
				t.Fatal(err)
			}
			for _, lost := range c.lost {
				for e, err := range fixed.Extents(lost.Off, lost.Len) {
					if err != nil || e.Depth == 0 && e.Kind != c.want || e.Depth > 0 && c.want != qcow2.Absent {
						t.Errorf("%+v, %v", e, err)
					}
				}
			}
		})
	}
}
