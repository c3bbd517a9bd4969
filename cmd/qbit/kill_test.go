package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/interop"
)

// TestInteropKill kills a process with SIGKILL at random moments while it changes
// an image's bitmaps, in transaction after transaction, and goes on with what is
// there. After each kill QEMU must find nothing worse than leaks, the bitmaps must
// be those before or those after the transaction that was under way, all of them,
// and the guest's bytes must be untouched.
func TestInteropKill(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io", "qemu-nbd", "nbdinfo")
	kills := 8
	if os.Getenv("QBIT_FULL") == "1" {
		kills = 250
	}
	for i, options := range []string{
		"cluster_size=64k", "cluster_size=512,refcount_bits=8", "cluster_size=2M", "cluster_size=4k,lazy_refcounts=on",
	} {
		t.Run(options, func(t *testing.T) {
			v := newVictim(t, options, uint64(i))
			for range kills {
				v.killOnce()
			}
			t.Logf("%d kills: %d found the old bitmaps, %d the new, %d a transaction that had leaked",
				kills, v.old, v.new, v.leaky)
		})
	}
}

// TestInteropKillCommand kills `qbit bitmap` itself in the same way.
func TestInteropKillCommand(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io", "qemu-nbd", "nbdinfo")
	kills := 12
	if os.Getenv("QBIT_FULL") == "1" {
		kills = 200
	}
	v := newVictim(t, "cluster_size=64k", 10)
	v.killWith(nil, "--add", v.path, "a")
	v.killWith(nil, "--add", "-g", "4k", "--disable", v.path, "b")
	v.ended = 0
	for range kills {
		at := fmt.Sprintf("%d+%d", v.rng.Int64N(60<<20), 1+v.rng.Int64N(4<<20))
		moment := time.Duration(v.rng.Int64N(int64(v.took)))
		v.killWith(&moment, "--clear", "--merge", "b", "--set", at, "--rename", "c", "--copy", "a", "--remove", v.path, "a")
		v.killWith(&moment, "--set", at, v.path, "b")
	}
	t.Logf("%d kills: %d found the old bitmaps, %d the new, %d a transaction that had leaked; %d came too late",
		2*kills-v.ended, v.old, v.new, v.leaky, v.ended)
}

// The child's part: environment variables tell the test binary to be one.
const (
	killImage = "QBIT_KILL_IMAGE"
	killSeed  = "QBIT_KILL_SEED"
)

// TestKillChild is the process that is killed: it does transactions for ever and
// says after each that it is done.
func TestKillChild(t *testing.T) {
	path := os.Getenv(killImage)
	if path == "" {
		t.Skip("this is the child of TestInteropKill")
	}
	seed, err := strconv.ParseUint(os.Getenv(killSeed), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := qcow2.Lock(f, qcow2.LockWrite); err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	e, err := qcow2.Edit(f, info.Size(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := loadState(e.Image())
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	for {
		fmt.Println("done")
		if err := e.Update(func(tx *qcow2.Tx) error { return s.step(rng, tx) }); err != nil {
			t.Fatal(err)
		}
	}
}

// A killState is the bitmaps of an image. Its steps depend on it and the seed
// alone, so parent and child take the same ones.
type killState struct {
	size  int64
	names []string
	bits  map[string]*bitmap.Bitmap
	auto  map[string]bool
}

func loadState(img *qcow2.Image) (*killState, error) {
	s := &killState{size: img.Size(), bits: map[string]*bitmap.Bitmap{}, auto: map[string]bool{}}
	list, err := img.Bitmaps()
	if err != nil {
		return nil, err
	}
	for _, b := range list {
		s.names = append(s.names, b.Name)
		s.auto[b.Name] = b.Auto
		if s.bits[b.Name], err = img.LoadBitmap(b.Name); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *killState) equal(o *killState) bool {
	if !slices.Equal(s.names, o.names) {
		return false
	}
	for _, n := range s.names {
		if s.auto[n] != o.auto[n] || !s.bits[n].Equal(o.bits[n]) {
			return false
		}
	}
	return true
}

func (s *killState) String() string {
	var b strings.Builder
	for _, n := range s.names {
		fmt.Fprintf(&b, "%s (%d dirty, granularity %d, recording %v) ", n, s.bits[n].Count(), s.bits[n].Granularity(), s.auto[n])
	}
	return b.String()
}

// step is one transaction: most of the bitmaps change at once, so that a mixture
// of old and new ones would be seen. tx may be nil: then only the state changes.
func (s *killState) step(rng *rand.Rand, tx *qcow2.Tx) error {
	for _, name := range slices.Clone(s.names) {
		if err := s.change(rng, tx, name); err != nil {
			return err
		}
	}
	if len(s.names) >= 4 {
		return nil
	}
	name := fmt.Sprintf("bitmap-%d", rng.Uint32())
	s.names = append(s.names, name)
	s.bits[name], s.auto[name] = s.random(rng), rng.IntN(2) == 0
	if tx == nil {
		return nil
	}
	return tx.AddBitmap(name, s.bits[name], s.auto[name])
}

func (s *killState) change(rng *rand.Rand, tx *qcow2.Tx, name string) error {
	switch rng.IntN(6) {
	case 0:
		s.names = slices.DeleteFunc(s.names, func(n string) bool { return n == name })
		if tx == nil {
			return nil
		}
		return tx.RemoveBitmap(name)
	case 1:
		s.auto[name] = !s.auto[name]
		if tx == nil {
			return nil
		}
		return tx.SetBitmapAuto(name, s.auto[name])
	}
	s.bits[name] = s.random(rng)
	if tx == nil {
		return nil
	}
	return tx.ReplaceBitmap(name, s.bits[name])
}

func (s *killState) random(rng *rand.Rand) *bitmap.Bitmap {
	b, err := bitmap.New(s.size, 512<<rng.IntN(9))
	if err != nil {
		panic(err) // the size is that of an image that was opened
	}
	for range 1 + rng.IntN(20) {
		off := rng.Int64N(s.size)
		b.Set(off, 1+rng.Int64N(min(s.size-off, 4<<20)))
	}
	return b
}

// A victim is an image whose changers are killed.
type victim struct {
	t     *testing.T
	path  string
	truth string
	rng   *rand.Rand
	round uint64
	took  time.Duration // of a transaction, about

	leaks int // clusters, after the round before

	old, new, leaky, ended int // rounds
}

func newVictim(t *testing.T, options string, seed uint64) *victim {
	t.Helper()
	dir := t.TempDir()
	v := &victim{t: t, path: filepath.Join(dir, "disk.qcow2"), truth: filepath.Join(dir, "truth.qcow2"),
		rng: rand.New(rand.NewPCG(seed, 7)), round: seed << 32, took: 5 * time.Millisecond}
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, v.path, "64M")
	interop.Run(t, "qemu-io", "-c", "write -P 3 1M 300k", "-c", "write -P 4 40M 5k", v.path)
	if seed%2 == 1 {
		interop.Run(t, "qemu-img", "snapshot", "-c", "snap", v.path)
		interop.Run(t, "qemu-io", "-c", "write -P 5 1M 20k", v.path)
	}
	interop.Run(t, "qemu-img", "convert", "-O", "qcow2", v.path, v.truth)
	return v
}

// killOnce starts a child, kills it, and looks at what it left.
func (v *victim) killOnce() {
	v.t.Helper()
	v.round++
	before := v.load()
	done := v.runAndKill()
	rng := rand.New(rand.NewPCG(v.round, 0))
	for range done {
		v.must(before.step(rng, nil))
	}
	now := v.load()
	switch {
	case now.equal(before):
		v.old++
	default:
		old := before.String()
		v.must(before.step(rng, nil))
		if !now.equal(before) {
			v.t.Fatalf("round %d: the bitmaps are neither the old nor the new ones:\nold %s\nnew %s\nare %s", v.round, old, before, now)
		}
		v.new++
	}
	v.expectUnharmed(now)
}

// killWith runs qbit bitmap, to its end or up to that moment. What it is to do is
// found out on a copy.
func (v *victim) killWith(moment *time.Duration, args ...string) {
	v.t.Helper()
	v.round++
	before, copied := v.load(), filepath.Join(filepath.Dir(v.path), "copy.qcow2")
	v.must(os.WriteFile(copied, must(os.ReadFile(v.path)), 0o600))
	elsewhere := slices.Clone(args)
	elsewhere[slices.Index(args, v.path)] = copied
	if _, said, status := qbit(append([]string{"bitmap"}, elsewhere...)...); status != 0 {
		v.t.Fatalf("qbit bitmap %q: status %d: %s", args, status, said)
	}
	after := v.loadFrom(copied)
	cmd := exec.Command("qbit", append([]string{"bitmap"}, args...)...)
	started := time.Now()
	v.must(cmd.Start())
	if moment != nil {
		<-time.After(*moment)
		v.must(cmd.Process.Kill())
	}
	err := cmd.Wait()
	switch now := v.load(); {
	case now.equal(after) && (err == nil || !before.equal(after)):
		if err == nil {
			v.ended++
			v.took = time.Since(started)
		} else {
			v.new++
		}
		v.expectUnharmed(now)
	case now.equal(before) && err != nil:
		v.old++
		v.expectUnharmed(now)
	default:
		v.t.Fatalf("round %d: qbit bitmap %q ended with %v:\nbefore %s\nafter %s\nare %s", v.round, args, err, before, after, now)
	}
}

func (v *victim) must(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
}

func (v *victim) load() *killState {
	v.t.Helper()
	return v.loadFrom(v.path)
}

func (v *victim) loadFrom(path string) *killState {
	v.t.Helper()
	f, err := os.Open(path)
	v.must(err)
	defer f.Close()
	info, err := f.Stat()
	v.must(err)
	img, err := qcow2.Open(f, info.Size(), nil)
	v.must(err)
	s, err := loadState(img)
	v.must(err)
	return s
}

// runAndKill returns how many transactions the child said were done.
func (v *victim) runAndKill() int {
	v.t.Helper()
	exe, err := os.Executable()
	v.must(err)
	cmd := exec.Command(exe, "-test.run=^TestKillChild$", "-test.v=false")
	cmd.Env = append(os.Environ(), killImage+"="+v.path, fmt.Sprintf("%s=%d", killSeed, v.round),
		"TMPDIR="+filepath.Dir(v.path)) // it cannot tidy up behind itself
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	v.must(err)
	v.must(cmd.Start())
	lines := bufio.NewScanner(out)
	started := time.Now()
	wait := 1 + v.rng.IntN(4) // how many "done" to await; the first says that it begins
	n := 0
	for n < wait && lines.Scan() && lines.Text() == "done" {
		if n++; n == 1 {
			started = time.Now()
		}
	}
	if n > 1 {
		v.took = time.Since(started) / time.Duration(n-1)
	}
	// The moment is anywhere in the next transaction, or a little behind it.
	<-time.After(time.Duration(v.rng.Int64N(int64(v.took) * 5 / 4)))
	v.must(cmd.Process.Kill())
	for lines.Scan() && lines.Text() == "done" {
		n++
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() || n < wait {
		v.t.Fatalf("round %d: the child ended by itself after %d transactions: %v\n%s\n%s", v.round, n, err, lines.Text(), said.Bytes())
	}
	return n - 1
}

// expectUnharmed asks QEMU. From time to time it also compares every bit, and
// has the leaks repaired so that they do not pile up.
func (v *victim) expectUnharmed(s *killState) {
	v.t.Helper()
	leaks := v.check()
	if leaks > v.leaks {
		v.leaky++
	}
	v.leaks = leaks
	v.expectListed(s)
	interop.Run(v.t, "qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", v.path, v.truth)
	if v.round%8 != 0 {
		return
	}
	for _, name := range s.names {
		v.expectBits(name, s.bits[name])
	}
	if leaks > 0 {
		// QEMU stores the bitmaps anew when it has repaired an image, and now and then
		// leaves leaks of its own behind.
		if _, said, status := qbit("check", "-q", "-r", "leaks", "--journal", fmt.Sprintf("%s.%d.json", v.path, v.round), v.path); status != 0 {
			v.t.Fatalf("round %d: check -r leaks: status %d: %s", v.round, status, said)
		}
		if v.leaks = v.check(); v.leaks != 0 {
			v.t.Fatalf("round %d: %d leaks after their repair", v.round, v.leaks)
		}
		if now := v.load(); !now.equal(s) {
			v.t.Fatalf("round %d: the repair of leaks changed the bitmaps from %s to %s", v.round, s, now)
		}
	}
}

// check wants nothing but leaks and counts those.
func (v *victim) check() int {
	v.t.Helper()
	out, err := exec.Command("qemu-img", "check", "-f", "qcow2", "--output=json", v.path).Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) {
		v.t.Fatalf("round %d: qemu-img check: %v\n%s", v.round, err, out)
	}
	var report struct {
		Leaks       int
		Corruptions int
		CheckErrors int `json:"check-errors"`
	}
	v.must(json.Unmarshal(out, &report))
	if report.Corruptions+report.CheckErrors > 0 {
		v.t.Fatalf("round %d: qemu-img check: %s", v.round, out)
	}
	return report.Leaks
}

func (v *victim) expectListed(s *killState) {
	v.t.Helper()
	var info struct {
		Specific struct {
			Data struct {
				Bitmaps []struct {
					Name        string
					Flags       []string
					Granularity int64
				}
			}
		} `json:"format-specific"`
	}
	v.must(json.Unmarshal(interop.Run(v.t, "qemu-img", "info", "-f", "qcow2", "--output=json", v.path), &info))
	if n := len(info.Specific.Data.Bitmaps); n != len(s.names) {
		v.t.Fatalf("round %d: qemu-img lists %d bitmaps, there are %d", v.round, n, len(s.names))
	}
	for _, b := range info.Specific.Data.Bitmaps {
		bits := s.bits[b.Name]
		if !slices.Contains(s.names, b.Name) || bits.Granularity() != b.Granularity ||
			s.auto[b.Name] != slices.Contains(b.Flags, "auto") || slices.Contains(b.Flags, "in-use") {
			v.t.Fatalf("round %d: qemu-img lists %+v, there are %s", v.round, b, s)
		}
	}
}

func (v *victim) expectBits(name string, want *bitmap.Bitmap) {
	v.t.Helper()
	var ranges []struct{ Offset, Length, Type int64 }
	v.must(json.Unmarshal(interop.Run(v.t, "nbdinfo", "--json", "--map=qemu:dirty-bitmap:"+name, "--",
		"[", "qemu-nbd", "-r", "-f", "qcow2", "-B", name, v.path, "]"), &ranges))
	got, err := bitmap.New(want.Size(), want.Granularity())
	v.must(err)
	for _, r := range ranges {
		if r.Type != 0 {
			got.Set(r.Offset, r.Length)
		}
	}
	if !got.Equal(want) {
		v.t.Fatalf("round %d: QEMU reads other bits of %q than there are", v.round, name)
	}
}
