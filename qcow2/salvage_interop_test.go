package qcow2_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/interop"
	"github.com/qbitkit/qbit/testimages/qemumaker"
)

// TestSalvageQEMU damages images that QEMU made, in every structure, and wants what is
// called sound to be what QEMU read before.
func TestSalvageQEMU(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	n := uint64(6)
	if os.Getenv("QBIT_FULL") == "1" {
		n = 60
	}
	for seed := range n {
		dir := t.TempDir()
		made := qemumaker.Make(t, dir, seed)
		if len(made.Files) > 1 || made.Crashed {
			continue // a damaged header would not name them any more
		}
		raw := filepath.Join(dir, "truth")
		interop.Run(t, "qemu-img", "convert", "-O", "raw", made.Path, raw)
		truth, err := os.ReadFile(raw)
		if err != nil {
			t.Fatal(err)
		}
		image, err := os.ReadFile(made.Path)
		if err != nil {
			t.Fatal(err)
		}
		if err := damageQEMU(image, truth, seed); err != nil {
			t.Errorf("seed %d: %v\n%s", seed, err, made.Options)
		}
	}
}

// damageQEMU damages one structure after the other.
func damageQEMU(image, truth []byte, seed uint64) error {
	img, err := qcow2.Open(bytes.NewReader(image), int64(len(image)), nil)
	if err != nil {
		return err
	}
	h, g := img.Header(), img.Geometry()
	l1, size := int64(h.L1TableOffset), int(g.ClusterSize())
	l2 := int64(0)
	for at := l1; at < l1+int64(h.L1Size)*8 && l2 == 0; at += 8 {
		l2 = int64(be64(image[at:]) & 0x00fffffffffffe00)
	}
	rng := rand.New(rand.NewPCG(seed, 3))
	for _, place := range []struct {
		name  string
		at, n int
	}{
		{"nothing", 0, 0}, {"header", 0, 512}, {"first cluster", 0, size}, {"L1 table", int(l1), int(h.L1Size) * 8},
		{"L2 table", int(l2), size}, {"L2 sector", int(l2), 512}, {"refcount table", int(h.RefcountTableOffset), size},
		{"snapshots", int(h.SnapshotsOffset), 64}, {"cut", len(image) / 2, len(image)}, {"cut", len(image) - size, len(image)},
	} {
		for _, garbage := range []bool{false, true} {
			if err := damagePlace(image, truth, place.at, place.n, garbage, rng); err != nil {
				return fmt.Errorf("%s at %#x, garbage %t: %w", place.name, place.at, garbage, err)
			}
		}
	}
	return nil
}

// damagePlace overwrites a place, or cuts the file there, and compares.
func damagePlace(image, truth []byte, at, n int, garbage bool, rng *rand.Rand) error {
	b := slices.Clone(image)
	if n == len(image) {
		b = b[:at]
	} else if at > 0 || n > 0 {
		for i := at; i < min(at+n, len(b)); i++ {
			b[i] = 0
			if garbage {
				b[i] = byte(rng.Uint32())
			}
		}
	}
	s, err := qcow2.Salvage(context.Background(), bytes.NewReader(b), int64(len(b)), &qcow2.SalvageOptions{Size: int64(len(truth))})
	if err != nil {
		if n == 0 {
			return err
		}
		return nil
	}
	list, disk, err := verdictsOf(s)
	if err != nil {
		return err
	}
	for _, v := range list {
		end := min(v.End(), int64(len(truth)))
		if v.Grade == qcow2.Sound && v.Off < end && !bytes.Equal(disk[v.Off:end], truth[v.Off:end]) {
			return fmt.Errorf("%+v is sound and wrong; notes %q", v, s.Notes())
		}
		if n == 0 && v.Grade != qcow2.Sound {
			return fmt.Errorf("nothing is wrong, and %+v; notes %q", v, s.Notes())
		}
	}
	return nil
}

func be64(b []byte) uint64 {
	n := uint64(0)
	for _, x := range b[:8] {
		n = n<<8 | uint64(x)
	}
	return n
}
