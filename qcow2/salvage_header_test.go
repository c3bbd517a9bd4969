package qcow2_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// TestSalvageDamagedHeader damages the header of random images, in fields or as a whole.
func TestSalvageDamagedHeader(t *testing.T) {
	opened := 0
	for seed := range salvageSeeds() {
		img := build.Random(seed % 500)
		rng := rand.New(rand.NewPCG(seed, 8))
		names := slices.DeleteFunc(img.Names(), func(name string) bool {
			return !strings.HasPrefix(name, "header") && !strings.HasPrefix(name, "extension")
		})
		b := slices.Clone(img.Bytes)
		done := damages(img.Image, names, rng)
		for _, d := range done {
			d.apply(b)
		}
		if !visible(img, b) {
			continue
		}
		if err := checkHeaderDamage(img, b, done); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		opened++
	}
	t.Logf("%d images", opened)
}

func checkHeaderDamage(img build.Sound, b []byte, done []damage) error {
	s, err := salvage(b, img.Data, img.Backing, qcow2.SalvageOptions{})
	if err != nil {
		return nil
	}
	list, disk, err := verdictsOf(s)
	if err != nil {
		return err
	}
	truth := img.Guest()
	for _, v := range list {
		for off := v.Off; off < min(v.End(), int64(len(truth))) && v.Grade == qcow2.Sound; off += 512 {
			end := min(off+512, v.End(), int64(len(truth)))
			if !bytes.Equal(disk[off:end], truth[off:end]) {
				return fmt.Errorf("%+v is sound and wrong at %d; notes %q; bits %d\n%s", v, off, s.Notes(), img.ClusterSize, describeAll(img, done))
			}
		}
	}
	return nil
}

func describeAll(img build.Sound, done []damage) string {
	var s strings.Builder
	for _, d := range done {
		old := img.Bytes[d.at : d.at+int64(len(d.new))]
		fmt.Fprintf(&s, "\n  %s at %#x: %x -> %x", d.what, d.at, old[:min(32, len(old))], d.new[:min(32, len(old))])
	}
	return s.String()
}
