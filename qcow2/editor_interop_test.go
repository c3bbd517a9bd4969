package qcow2_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/crash"
	"github.com/qbitkit/qbit/testimages/interop"
)

// A qemuJudge lets qemu-img judge files, several at a time.
type qemuJudge struct {
	t     *testing.T
	dir   string
	slots chan string // paths that are free
	wg    sync.WaitGroup
	count int
}

func newQEMUJudge(t *testing.T) *qemuJudge {
	q := &qemuJudge{t: t, dir: t.TempDir(), slots: make(chan string, 2)}
	for i := range cap(q.slots) {
		q.slots <- filepath.Join(q.dir, fmt.Sprint(i, ".qcow2"))
	}
	for _, name := range []string{"base.raw", "data"} {
		if err := os.WriteFile(filepath.Join(q.dir, name), make([]byte, trialSize), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return q
}

// state has a file judged that must have these bitmaps, or those.
func (q *qemuJudge) state(name string, file []byte, leaks bool, bitmaps ...[]string) {
	path := <-q.slots
	q.count++
	q.wg.Go(func() {
		defer func() { q.slots <- path }()
		if err := os.WriteFile(path, file, 0o600); err != nil {
			q.t.Error(err)
			return
		}
		if err := errors.Join(qemuChecks(path, leaks), qemuBitmaps(path, bitmaps)); err != nil {
			q.t.Errorf("%s: %v", name, err)
		}
	})
}

// qemuChecks is an error where qemu-img check finds corruptions, or leaks that may not be.
func qemuChecks(path string, leaks bool) error {
	cmd := exec.Command("qemu-img", "check", "-f", "qcow2", "--output=json", path)
	cmd.Dir = filepath.Dir(path)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 3 && leaks {
		return nil
	}
	if err != nil {
		return fmt.Errorf("qemu-img check: %w\n%s", err, out)
	}
	return nil
}

// qemuBitmaps is an error where qemu-img info does not open the image without a
// word, or lists other bitmaps.
func qemuBitmaps(path string, want [][]string) error {
	cmd := exec.Command("qemu-img", "info", "--output=json", "-f", "qcow2", path)
	cmd.Dir = filepath.Dir(path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 && len(want) > 0 {
		return fmt.Errorf("qemu-img info: %w: %s", err, stderr.Bytes())
	}
	var info struct {
		Specific struct {
			Data struct {
				Bitmaps []struct {
					Name        string
					Granularity int64
					Flags       []string
				}
			}
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return err
	}
	var have []string
	for _, b := range info.Specific.Data.Bitmaps {
		have = append(have, qemuLine(b.Name, b.Granularity, slices.Contains(b.Flags, "in-use"), slices.Contains(b.Flags, "auto")))
	}
	slices.Sort(have)
	if len(want) > 0 && !slices.ContainsFunc(want, func(w []string) bool { return slices.Equal(w, have) }) {
		return fmt.Errorf("qemu-img info lists %q, want one of %q", have, want)
	}
	return nil
}

func qemuLine(name string, granularity int64, inUse, auto bool) string {
	return fmt.Sprintf("%s, granularity %d, in use %t, auto %t", name, granularity, inUse, auto)
}

// qemuLines is what qemu-img info must list of a model.
func (m trialBitmaps) qemuLines() []string {
	var lines []string
	for _, b := range m {
		lines = append(lines, qemuLine(b.name, b.granularity, b.flags&qcow2.BitmapInUse != 0, b.flags&qcow2.BitmapAuto != 0))
	}
	slices.Sort(lines)
	return lines
}

// interopTrials are images that QEMU opens without more than the files which a
// qemuJudge has.
func interopTrials() []*trial {
	return slices.DeleteFunc(slices.Clone(trials()), func(c *trial) bool {
		return c.full || c.encrypted || c.stays || c.size == 0 || c.size%512 != 0 || slices.Contains([]string{"kept kinds", "long backing name", "long backing name, no bitmaps", "just enough room"}, c.name) ||
			len(c.file) > 4<<20 && !full()
	})
}

// A part of the states that a crash can leave, and the end of each operation, are
// judged by qemu-img: check finds nothing worse than leaks, info lists the old
// bitmaps or the new ones.
func TestInteropEditorCrash(t *testing.T) {
	interop.Need(t, "qemu-img")
	q := newQEMUJudge(t)
	rng := rand.New(rand.NewPCG(3, 3))
	chance, each := 4, 1
	if full() {
		chance, each = 1, 4
	}
	for _, c := range interopTrials() {
		for _, o := range operations() {
			if changes := o.on(c); len(changes) > 0 && rng.IntN(chance) == 0 {
				q.sample(c, changes, fmt.Sprintf("%s, %s", c.name, o.name), each, rng)
			}
		}
	}
	q.wg.Wait()
	t.Logf("%d files were judged", q.count)
}

// sample has some states of one operation judged.
func (q *qemuJudge) sample(c *trial, changes []change, name string, each int, rng *rand.Rand) {
	q.t.Helper()
	f := c.changed(q.t, changes)
	j, err := newEditorJudge(c, f.Bytes())
	if err != nil {
		q.t.Fatal(err)
	}
	was, will := c.bitmaps.qemuLines(), c.bitmaps.afterAll(changes).qemuLines()
	var states []*crash.State
	f.States(&crash.Options{Max: 300, Seed: rng.Uint64()}, func(s *crash.State) bool {
		states = append(states, s)
		return true
	})
	for range each {
		s := states[rng.IntN(len(states))]
		allowed := [][]string{was, will}
		if v, err := j.look(s, s.Size(), false); err != nil {
			q.t.Errorf("%s, %v: %v", name, s, err)
		} else if v == unusableBitmaps {
			allowed = nil
		}
		q.state(fmt.Sprintf("%s, %v", name, s), s.Bytes(), true, allowed...)
	}
	if rng.IntN(3) == 0 {
		q.state(name, f.Bytes(), c.leaks > 0, will)
	}
}

// qemuTrial is an image that QEMU made.
func qemuTrial(t *testing.T, name string, cluster int64, more func(path string)) *trial {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "image.qcow2")
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", fmt.Sprintf("cluster_size=%d", cluster), path, "5M")
	interop.Run(t, "qemu-io", "-f", "qcow2", "-c", "write -q -P 7 0 70k", "-c", "write -q -P 9 3M 4k", "-c", "write -q -z 1M 64k", path)
	more(path)
	raw := filepath.Join(dir, "raw")
	interop.Run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw)
	c := &trial{name: name, size: 5 << 20, opts: &qcow2.Options{}}
	var err, err2 error
	c.file, err = os.ReadFile(path)
	guest, err2 := os.ReadFile(raw)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	c.disks = []trialDisk{newTrialDisk("", guest)}
	c.bitmaps = readModel(t, c.file)
	return c
}

// readModel is the bitmaps of a file as the reader gives them.
func readModel(t *testing.T, file []byte) (m trialBitmaps) {
	t.Helper()
	img, err := qcow2.Open(bytes.NewReader(file), int64(len(file)), nil)
	if err != nil {
		t.Fatal(err)
	}
	list, err := img.Bitmaps()
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range list {
		bits, err := img.ReadBitmap(info)
		if err != nil {
			t.Fatal(err)
		}
		m = append(m, trialBitmap{name: info.Name, granularity: info.Granularity, flags: info.Flags, kind: info.Type, bits: bits})
	}
	return m
}

// qemuTrials are images of the layout that QEMU gives them, small ones.
func qemuTrials(t *testing.T) []*trial {
	t.Helper()
	add := func(names ...string) func(string) {
		return func(path string) {
			for i, name := range names {
				interop.Run(t, "qemu-img", "bitmap", "--add", "-g", fmt.Sprint(512<<i), path, name)
				interop.Run(t, "qemu-io", "-f", "qcow2", "-c", fmt.Sprintf("write -q -P 5 %dk 4k", 40*i), path)
			}
		}
	}
	return []*trial{
		qemuTrial(t, "QEMU, no bitmaps", 4096, func(string) {}),
		qemuTrial(t, "QEMU, 512 B", 512, add("one", "two")),
		qemuTrial(t, "QEMU, 4 KiB", 4096, add("one", "two", "three")),
		qemuTrial(t, "QEMU, snapshot", 4096, func(path string) {
			add("one")(path)
			interop.Run(t, "qemu-img", "snapshot", "-q", "-c", "snap", path)
			interop.Run(t, "qemu-io", "-f", "qcow2", "-c", "write -q -P 3 0 8k", path)
		}),
		qemuTrial(t, "QEMU, 64 KiB", 65536, add("one", "two")),
	}
}

// The crash sweep on images that QEMU made, whose bitmaps extension stands where
// QEMU puts it.
func TestInteropEditorQEMUImages(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	q := newQEMUJudge(t)
	rng := rand.New(rand.NewPCG(4, 4))
	var total sweep
	for _, c := range qemuTrials(t) {
		a, err := auditBytes(c.file)
		if err != nil || len(a.Problems) > 0 {
			t.Fatalf("%s: %v, %q", c.name, err, a.Problems)
		}
		var sum sweep
		for _, o := range operations() {
			changes := o.on(c)
			if len(changes) == 0 {
				continue
			}
			t.Run(strings.Join([]string{c.name, o.name}, "/"), func(t *testing.T) { sum.add(c.crashes(t, changes)) })
			if rng.IntN(4) == 0 || full() {
				q.sample(c, changes, fmt.Sprintf("%s, %s", c.name, o.name), 1, rng)
			}
		}
		t.Logf("%-18s extension at %3d, %v", c.name, a.Extension, sum)
		total.add(sum)
	}
	q.wg.Wait()
	t.Logf("%v; %d files were judged by qemu-img", total, q.count)

}
