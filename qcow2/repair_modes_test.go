package qcow2_test

import (
	"errors"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// TestRepairModesKeepGuest repairs every broken image that we know in every mode: what
// could be read before is the same, also where a refcount block is read as guest data.
func TestRepairModesKeepGuest(t *testing.T) {
	images := map[string][2][]byte{}
	for _, r := range build.Recipes() {
		if len(r.Image) <= 64<<10 {
			images[r.Name] = [2][]byte{r.Image, r.Data}
		}
	}
	for name, image := range shared() {
		images[name] = [2][]byte{image, nil}
	}
	count := 0
	for name, image := range images {
		for _, mode := range []qcow2.RepairMode{qcow2.RepairLeaks, qcow2.RepairBitmaps, qcow2.RepairAll} {
			p, err := planRepair(image[0], image[1], mode)
			if err != nil {
				continue
			}
			count++
			if err := sameGuest(readable(image[0], image[1]), readable(repaired(t, p, image[0]), image[1])); err != nil {
				t.Errorf("%s: -r %s: %v\n%v", name, mode, err, p.Done)
			}
		}
	}
	if count < 200 {
		t.Errorf("%d repairs", count)
	}
}

// TestRepairLeaksRefusesOverlaps refuses to correct refcounts that are guest data too.
func TestRepairLeaksRefusesOverlaps(t *testing.T) {
	for _, name := range []string{"data in a refcount block", "data in an L2 table"} {
		if _, err := planRepair(shared()[name], nil, qcow2.RepairLeaks); !errors.Is(err, qcow2.ErrCannotRepair) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}
