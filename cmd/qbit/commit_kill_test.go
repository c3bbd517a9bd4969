package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/qbitkit/qbit/testimages/interop"
)

// TestInteropKillCommit kills qbit commit at random moments. After each kill the disk
// reads the same through the overlay, no image has anything worse than leaks, and the
// next commit finishes the work.
func TestInteropKillCommit(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	for seed := range uint64(rounds(2, 30)) {
		rng := rand.New(rand.NewPCG(seed, 5))
		c := newRandomChain(t, rng, 3)
		killRounds(t, c, rng, 0, []string{"commit", "--trust", c.path(2)})
	}
}

// TestInteropKillRebase does the same with qbit rebase.
func TestInteropKillRebase(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	for seed := range uint64(rounds(2, 30)) {
		rng := rand.New(rand.NewPCG(seed, 6))
		c := newRandomChain(t, rng, 3)
		name := []string{"", c.names[0]}[rng.IntN(2)]
		args := []string{"rebase", "--trust", "-b", name, c.path(2)}
		if name != "" {
			args = append(args, "-F", c.formatOf(0))
		}
		killRounds(t, c, rng, 2, args)
	}
}

// TestInteropKillResize does the same with qbit resize: old size or new, and the same
// bytes.
func TestInteropKillResize(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	for seed := range uint64(rounds(2, 30)) {
		rng := rand.New(rand.NewPCG(seed, 7))
		c := newRandomChain(t, rng, 2)
		killRounds(t, c, rng, 1, []string{"resize", "--trust", c.path(1), "+9M"})
	}
}

// killRounds runs a command on the chain several times: first to its end, on a copy, to
// know how long it takes; then killed, each time from the start. lowest is the lowest
// layer that is sure to stay sound.
func killRounds(t *testing.T, c *randomChain, rng *rand.Rand, lowest int, args []string) {
	t.Helper()
	top := len(c.names) - 1
	before, saved := c.content(top), c.twin()
	restore := func() {
		for i := range c.names {
			writeFile(t, c.path(i), must(os.ReadFile(saved.path(i))))
		}
	}
	started := time.Now()
	if out, err := exec.Command("qbit", args...).CombinedOutput(); err != nil {
		t.Fatalf("qbit %q: %v\n%s", args, err, out)
	}
	took, killed := time.Since(started), 0
	for range rounds(3, 40) {
		restore()
		if killAt(t, time.Duration(rng.Int64N(int64(took))), args) {
			killed++
		}
		now := c.content(top)
		if !bytes.Equal(now[:len(before)], before) || len(bytes.Trim(now[len(before):], "\x00")) > 0 {
			t.Fatalf("after qbit %q was killed the disk reads otherwise", args)
		}
		for i := lowest; i <= top; i++ {
			c.expectLeaksAtMost(i)
		}
		if out, err := exec.Command("qbit", args...).CombinedOutput(); err != nil && args[0] != "resize" && !bytes.Contains(out, []byte("no backing file")) {
			t.Fatalf("qbit %q after the kill: %v\n%s", args, err, out)
		}
		if now := c.content(top); !bytes.Equal(now[:len(before)], before) {
			t.Fatalf("qbit %q after the kill: the disk reads otherwise", args)
		}
	}
	t.Logf("%d killed within %v", killed, took)
}

// killAt kills a run of qbit at that moment; false: it had ended before.
func killAt(t *testing.T, moment time.Duration, args []string) bool {
	t.Helper()
	cmd := exec.Command("qbit", args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-time.After(moment)
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	return cmd.Wait() != nil
}

// expectLeaksAtMost has qemu-img find nothing worse than leaks.
func (c *randomChain) expectLeaksAtMost(i int) {
	c.t.Helper()
	if c.formatOf(i) != "qcow2" {
		return
	}
	out, err := exec.Command("qemu-img", "check", "-f", "qcow2", "--output=json", c.path(i)).Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) {
		c.t.Fatalf("qemu-img check: %v\n%s", err, out)
	}
	var report struct {
		Corruptions int
		CheckErrors int `json:"check-errors"`
	}
	if err := json.Unmarshal(out, &report); err != nil || report.Corruptions+report.CheckErrors > 0 {
		c.t.Fatalf("qemu-img check of layer %d: %v %s", i, err, out)
	}
}
