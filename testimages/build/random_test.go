package build

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

func TestRandomIsRepeatable(t *testing.T) {
	for seed := range uint64(20) {
		if a, b := Random(seed), Random(seed); !bytes.Equal(a.Bytes, b.Bytes) || !bytes.Equal(a.Guest(), b.Guest()) {
			t.Errorf("seed %d gives two images", seed)
		}
	}
}

func TestQEMUAgreesOnRandom(t *testing.T) {
	interop.Need(t, "qemu-img")
	seeds := uint64(40)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			checkRandom(t, Random(seed))
		})
	}
}

func checkRandom(t *testing.T, s Sound) {
	if s.Spec.DataFile != nil && s.Spec.DataFile.Name == "" {
		t.Skip("QEMU wants the name of the data file as an option")
	}
	path := write(t, s.Image, s.Backing)
	clean := s.Spec.Incompatible&(Dirty|Corrupt) == 0 && !s.Spec.StaleBitmaps
	if clean {
		checkClean(t, path)
	}
	got, want := convert(t, path, ""), s.Guest()
	same(t, "disk", got, want)
	if s.Spec.Backing != "" || s.Spec.Incompatible != 0 {
		return
	}
	for i := range s.Snapshots {
		checkSnapshot(t, s.Image, i, path)
	}
}
