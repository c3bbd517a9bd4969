package qcow2_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// A damage is bytes that are overwritten.
type damage struct {
	what string
	at   int64
	new  []byte
}

func (d damage) apply(b []byte) { copy(b[d.at:], d.new) }

// damages are a few pieces of metadata overwritten, the same for a seed each time: a
// bit, a byte, some bytes, a sector, a whole structure; with zeros, or with anything.
func damages(img *build.Image, names []string, rng *rand.Rand) []damage {
	var all []damage
	for range 1 + rng.IntN(3) {
		name := names[rng.IntN(len(names))]
		p := img.At("%s", name)
		if p.Len == 0 || p.End() > int64(len(img.Bytes)) {
			continue
		}
		at := p.Off + rng.Int64N(p.Len)
		n := min([]int64{1, 1, 1, 2, 8, 64, 512, 1 << 21}[rng.IntN(8)], p.End()-at)
		if n >= 64 {
			at = max(p.Off, at-n)
		}
		d := damage{name, at, slices.Clone(img.Bytes[at : at+n])}
		switch rng.IntN(4) {
		case 0:
			d.new[rng.IntN(int(n))] ^= 1 << rng.IntN(8)
		case 1:
			clear(d.new)
		default:
			for i := range d.new {
				d.new[i] = byte(rng.Uint32())
			}
		}
		all = append(all, d)
	}
	return all
}

// visible reports damage that a check can see at all: it finds something else than in
// the image as it was.
func visible(img build.Sound, b []byte) bool {
	_, before, err := tryCheck(img.Bytes, img.Data, nil)
	if err != nil {
		return true
	}
	_, after, err := tryCheck(b, img.Data, nil)
	return err != nil || !slices.Equal(worst(before), worst(after))
}

// salvageSeeds is how many damaged images a test makes.
func salvageSeeds() uint64 {
	if os.Getenv("QBIT_FULL") == "1" {
		return 20000
	}
	return 200
}

// TestSalvageCut cuts images anywhere. What is left of them is there, and right.
func TestSalvageCut(t *testing.T) {
	for seed := range salvageSeeds() / 4 {
		img := build.Random(seed % 500)
		rng := rand.New(rand.NewPCG(seed, 9))
		at := rng.Int64N(int64(len(img.Bytes)))
		if seed%3 == 0 {
			at &^= int64(img.ClusterSize) - 1
		}
		b := slices.Clone(img.Bytes[:at])
		if err := checkDamaged(img, b, nil); err != nil && at > int64(img.ClusterSize) {
			t.Errorf("seed %d, cut at %d of %d: %v", seed, at, len(img.Bytes), err)
		}
	}
}

// TestSalvageDamaged damages metadata and compressed data of random images. What is
// called sound holds the true bytes, and what a reader can read is not lost. Left out is
// what nobody can see: damage that leaves an image without a fault, and streams that
// can be decoded all the same.
func TestSalvageDamaged(t *testing.T) {
	tested := 0
	for seed := range salvageSeeds() {
		img := build.Random(seed % 500)
		rng := rand.New(rand.NewPCG(seed, 7))
		names := slices.DeleteFunc(img.Names(), func(name string) bool {
			return strings.HasPrefix(name, "data[") || strings.Contains(name, "].data[") || strings.HasPrefix(name, "header") ||
				strings.HasPrefix(name, "extension") || name == "backing_name"
		})
		b := slices.Clone(img.Bytes)
		var done []damage
		for _, d := range damages(img.Image, names, rng) {
			alone := slices.Clone(img.Bytes)
			d.apply(alone)
			if !bytes.Equal(alone, img.Bytes) && (visible(img, alone) || strings.Contains(d.what, "packed[")) {
				d.apply(b)
				done = append(done, d)
			}
		}
		if len(done) == 0 {
			continue
		}
		tested++
		if err := checkDamaged(img, b, done); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
	t.Logf("%d images", tested)
}

func checkDamaged(img build.Sound, b []byte, done []damage) error {
	describe := func() string {
		var s strings.Builder
		for _, d := range done {
			old := img.Bytes[d.at : d.at+int64(len(d.new))]
			fmt.Fprintf(&s, "\n  %s at %#x: %x -> %x", d.what, d.at, old[:min(32, len(old))], d.new[:min(32, len(old))])
		}
		return s.String()
	}
	s, err := salvage(b, img.Data, img.Backing, qcow2.SalvageOptions{})
	if err != nil {
		return fmt.Errorf("%w%s", err, describe())
	}
	list, disk, err := verdictsOf(s)
	if err != nil {
		return fmt.Errorf("%w%s", err, describe())
	}
	truth := img.Guest()
	hidden := hiddenStreams(img, done)
	for _, v := range list {
		if v.Grade != qcow2.Sound {
			continue
		}
		for off := v.Off; off < min(v.End(), int64(len(truth))); off += 512 {
			end := min(off+512, v.End(), int64(len(truth)))
			if !bytes.Equal(disk[off:end], truth[off:end]) && !hidden(off) {
				return fmt.Errorf("%+v is sound and wrong at %d; doubt %q%s", v, off, s.Notes(), describe())
			}
		}
	}
	return checkReadable(img, b, list, disk, s.Notes(), describe)
}

// hiddenStreams tells the guest bytes of compressed clusters that were damaged.
func hiddenStreams(img build.Sound, done []damage) func(int64) bool {
	return func(off int64) bool {
		k := uint64(off) / img.ClusterSize
		p, ok := img.Find(fmt.Sprintf("packed[%d]", k))
		for _, d := range done {
			if ok && d.at < p.End() && p.Off < d.at+int64(len(d.new)) {
				return true
			}
		}
		return false
	}
}

// checkReadable wants what a reader can read to be the same here, and not lost.
func checkReadable(img build.Sound, b []byte, list []qcow2.Verdict, disk []byte, notes []string, describe func() string) error {
	d, err := openBuilt(b, img.Data, img.Backing)
	if err != nil || d.Size() != int64(len(disk)) {
		return nil
	}
	p := make([]byte, 512)
	for _, v := range list {
		if v.Reason == qcow2.ReasonSnapshot {
			continue // what was wiped reads as zeros
		}
		for off := v.Off; off < v.End(); off += 512 {
			part := p[:min(512, v.End()-off)]
			if _, err := d.ReadAt(part, off); err != nil {
				continue
			}
			if v.Grade == qcow2.Lost || !bytes.Equal(part, disk[off:off+int64(len(part))]) {
				return fmt.Errorf("%+v: a reader can read it at %d, notes %q, the same: %t%s", v, off, notes, bytes.Equal(part, disk[off:off+int64(len(part))]), describe())
			}
		}
	}
	return nil
}
