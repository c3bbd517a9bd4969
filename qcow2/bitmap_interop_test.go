package qcow2_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/interop"
)

// TestInteropBitmapRoundTrips has qbit and QEMU change the bitmaps of one image in
// turns. After each step both must read the same bitmaps, bit by bit, QEMU must
// find nothing wrong, not even a leak, and the guest's data must be untouched.
func TestInteropBitmapRoundTrips(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io", "qemu-nbd", "nbdinfo")
	seeds, steps := len(imageKinds), 8
	if os.Getenv("QBIT_FULL") == "1" {
		seeds, steps = 8*len(imageKinds), 16
	}
	for seed := range seeds {
		kind := imageKinds[seed%len(imageKinds)]
		t.Run(fmt.Sprintf("%d %s", seed, kind.name), func(t *testing.T) {
			t.Parallel()
			tr := newTrip(t, kind, rand.New(rand.NewPCG(uint64(seed), 3)))
			for i := range steps {
				if i%2 == 0 {
					tr.qbitStep()
				} else {
					tr.qemuStep()
				}
			}
			tr.expectAllBits()
		})
	}
}

// A trip is an image on its way between qbit and QEMU.
type trip struct {
	t     *testing.T
	rng   *rand.Rand
	dir   string
	path  string
	size  int64
	want  bitmapSet
	log   []string
	truth int // how often it was taken
}

func (tr *trip) note(format string, args ...any) {
	tr.log = append(tr.log, fmt.Sprintf(format, args...))
}

// checked runs a step and the checks after it; what was done is told if it fails.
func (tr *trip) checked(step func(t *testing.T)) {
	tr.t.Helper()
	defer func() {
		if tr.t.Failed() {
			tr.t.Logf("what was done:\n%s", strings.Join(tr.log, "\n"))
		}
	}()
	step(tr.t)
	expectBitmapsOfQbit(tr.t, tr.path, tr.want)
	expectListedByQEMU(tr.t, tr.path, tr.want)
	expectSound(tr.t, tr.path)
}

// qbitStep is some transactions by one Editor. What they touched is compared with
// what QEMU reads.
func (tr *trip) qbitStep() {
	tr.t.Helper()
	var touched []string
	tr.checked(func(t *testing.T) {
		editImage(t, tr.path, func(e *qcow2.Editor) error {
			for range 1 + tr.rng.IntN(2) {
				err := e.Update(func(tx *qcow2.Tx) error {
					for range 1 + tr.rng.IntN(4) {
						name, err := tr.qbitOperation(tx)
						if err != nil {
							return fmt.Errorf("%s: %w", tr.log[len(tr.log)-1], err)
						}
						touched = append(touched, name)
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
	tr.expectTruth()
	expectInFirstSector(tr.t, tr.path)
	slices.Sort(touched)
	for _, name := range slices.Compact(touched) {
		if b, ok := tr.want[name]; ok {
			expectBitsOfQEMU(tr.t, tr.path, name, b.bits)
		}
	}
}

// qbitOperation does one operation, to the image and to the model.
func (tr *trip) qbitOperation(tx *qcow2.Tx) (string, error) {
	name, ok := tr.anyName()
	kind := tr.rng.IntN(8)
	if !ok || kind < 2 && len(tr.want) < 5 {
		return tr.addByQbit(tx)
	}
	b := tr.want[name]
	switch kind {
	case 0, 1, 2, 3:
		b.bits = tr.randomBits()
		tr.want[name] = b
		tr.note("qbit: replace %.20q: granularity %d, %s", name, b.bits.Granularity(), someRanges(b.bits))
		return name, tx.ReplaceBitmap(name, b.bits)
	case 4:
		delete(tr.want, name)
		tr.note("qbit: remove %.20q", name)
		return name, tx.RemoveBitmap(name)
	case 5:
		to := tr.newName()
		tr.want[to] = b
		delete(tr.want, name)
		tr.note("qbit: rename %.20q to %.20q", name, to)
		return to, tx.RenameBitmap(name, to)
	case 6:
		b.auto = !b.auto
		tr.want[name] = b
		tr.note("qbit: recording of %.20q: %v", name, b.auto)
		return name, tx.SetBitmapAuto(name, b.auto)
	}
	return tr.mergeByQbit(tx, name)
}

func (tr *trip) addByQbit(tx *qcow2.Tx) (string, error) {
	name, b := tr.newName(), modelBitmap{tr.randomBits(), tr.rng.IntN(2) == 0}
	tr.want[name] = b
	tr.note("qbit: add %.20q: granularity %d, recording %v, %s", name, b.bits.Granularity(), b.auto, someRanges(b.bits))
	return name, tx.AddBitmap(name, b.bits, b.auto)
}

// mergeByQbit reads the bits from the image, not from the model.
func (tr *trip) mergeByQbit(tx *qcow2.Tx, name string) (string, error) {
	from, _ := tr.anyName()
	tr.note("qbit: merge %.20q into %.20q", from, name)
	source, err := tx.LoadBitmap(from)
	if err != nil {
		return name, err
	}
	bits, err := tx.LoadBitmap(name)
	if err != nil {
		return name, err
	}
	if err := bits.Union(source); err != nil {
		return name, err
	}
	tr.want[name] = tr.want[name].merged(tr.want[from])
	return name, tx.ReplaceBitmap(name, bits)
}

// merged is b with every granule dirty that a dirty range of o touches.
func (b modelBitmap) merged(o modelBitmap) modelBitmap {
	b.bits = b.bits.Clone()
	for r := range o.bits.Ranges() {
		b.bits.Set(r.Off, r.Len)
	}
	return b
}

// qemuStep is one command of QEMU, which may hold several operations.
func (tr *trip) qemuStep() {
	tr.t.Helper()
	tr.checked(func(t *testing.T) {
		if tr.rng.IntN(2) == 0 || len(tr.want) == 0 {
			tr.guestWrites(1 + tr.rng.IntN(5))
			return
		}
		tr.qemuBitmap(t)
	})
	tr.takeTruth()
}

// qemuBitmap is one call of qemu-img bitmap.
func (tr *trip) qemuBitmap(t *testing.T) {
	t.Helper()
	name, _ := tr.anyName()
	if tr.rng.IntN(8) == 0 {
		delete(tr.want, name)
		tr.note("qemu-img bitmap --remove %.20q", name)
		interop.Run(t, "qemu-img", "bitmap", "--remove", "-f", "qcow2", tr.path, name)
		return
	}
	b := tr.want[name]
	var args []string
	if tr.rng.IntN(4) == 0 {
		name = tr.newName()
		granularity := int64(512) << tr.rng.IntN(18)
		args = append(args, "--add", "-g", fmt.Sprint(granularity))
		b = modelBitmap{tr.emptyBits(granularity), true}
	}
	for range 1 + tr.rng.IntN(3) {
		args = append(args, tr.qemuOperation(&b)...)
		tr.want[name] = b // a bitmap can be merged into itself
	}
	tr.note("qemu-img bitmap %.60q %.20q", args, name)
	interop.Run(t, "qemu-img", append(append([]string{"bitmap"}, args...), "-f", "qcow2", tr.path, name)...)
}

// qemuOperation are the words for one change of a bitmap that is b before it.
func (tr *trip) qemuOperation(b *modelBitmap) []string {
	switch tr.rng.IntN(4) {
	case 0:
		b.auto = false
		return []string{"--disable"}
	case 1:
		b.auto = true
		return []string{"--enable"}
	case 2:
		b.bits = tr.emptyBits(b.bits.Granularity())
		return []string{"--clear"}
	}
	source, ok := tr.anyName()
	if !ok {
		return []string{"--enable"}
	}
	*b = b.merged(tr.want[source])
	return []string{"--merge", source}
}

// guestWrites are writes through QEMU, which records them in every bitmap that is
// to record.
func (tr *trip) guestWrites(n int) {
	tr.t.Helper()
	var commands []string
	for range n {
		length := min(512*(1+tr.rng.Int64N(600)), tr.size)
		off := tr.rng.Int64N(tr.size-length+1) &^ 511
		verb := []string{"write -P 7", "write -z", "write -z -u", "discard"}[tr.rng.IntN(4)]
		commands = append(commands, fmt.Sprintf("%s %d %d", verb, off, length))
		for name, b := range tr.want {
			if b.auto {
				b.bits = b.bits.Clone()
				b.bits.Set(off, length)
				tr.want[name] = b
			}
		}
	}
	tr.qemuIO(commands...)
}

func (tr *trip) qemuIO(commands ...string) {
	tr.t.Helper()
	args := []string{"-f", "qcow2"}
	for _, c := range commands {
		tr.note("qemu-io: %s", c)
		args = append(args, "-c", c)
	}
	if out := interop.Run(tr.t, "qemu-io", append(args, tr.path)...); bytes.Contains(out, []byte("failed")) {
		tr.t.Fatalf("qemu-io %q: %s", commands, out)
	}
}

// takeTruth copies what the guest sees.
func (tr *trip) takeTruth() {
	tr.t.Helper()
	if tr.truth > 0 {
		os.Remove(tr.truthPath())
	}
	tr.truth++
	interop.Run(tr.t, "qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", tr.path, tr.truthPath())
}

func (tr *trip) truthPath() string {
	return filepath.Join(tr.dir, fmt.Sprintf("truth%d.qcow2", tr.truth))
}

func (tr *trip) expectTruth() {
	tr.t.Helper()
	interop.Run(tr.t, "qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", tr.path, tr.truthPath())
}

func (tr *trip) expectAllBits() {
	tr.t.Helper()
	for _, name := range tr.want.names() {
		expectBitsOfQEMU(tr.t, tr.path, name, tr.want[name].bits)
	}
}

// anyName is the name of a bitmap that there is.
func (tr *trip) anyName() (string, bool) {
	names := tr.want.names()
	if len(names) == 0 {
		return "", false
	}
	return names[tr.rng.IntN(len(names))], true
}

// newName is a name that is not taken; some are what few programs expect.
func (tr *trip) newName() string {
	odd := []string{"", "with blank ", "größe-", "a,b=c:", "../", strings.Repeat("x", 1000)}
	for {
		name := odd[tr.rng.IntN(len(odd))] + fmt.Sprint(tr.rng.IntN(1000))
		if _, taken := tr.want[name]; !taken {
			return name
		}
	}
}

func (tr *trip) emptyBits(granularity int64) *bitmap.Bitmap {
	b, err := bitmap.New(tr.size, granularity)
	if err != nil {
		tr.t.Fatal(err)
	}
	return b
}

// randomBits are of any granularity and density; those of some stretches are
// wholly dirty, or every other one is.
func (tr *trip) randomBits() *bitmap.Bitmap {
	granularity := int64(512) << min(tr.rng.IntN(23), tr.rng.IntN(23))
	b := tr.emptyBits(granularity)
	switch tr.rng.IntN(6) {
	case 0:
		return b
	case 1:
		b.SetAll()
	}
	for range 1 + tr.rng.IntN(12) {
		off := tr.rng.Int64N(tr.size)
		switch tr.rng.IntN(4) {
		case 0:
			b.Set(off, tr.rng.Int64N(tr.size-off)+1)
		case 1:
			b.Unset(off, tr.rng.Int64N(tr.size-off)+1)
		case 2:
			for i := range int64(200) {
				b.Set(off+2*i*granularity, 1)
			}
		default:
			b.Set(off, 1+tr.rng.Int64N(1<<20))
		}
	}
	return b
}
