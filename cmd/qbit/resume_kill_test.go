//go:build unix

package main

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestResumeKill kills restores at random moments, with SIGKILL more often than not,
// and has the next one go on, until one comes to its end. Its disk must be the true
// one, and nothing that was recorded may be missing.
func TestResumeKill(t *testing.T) {
	rounds := 2
	if os.Getenv("QBIT_FULL") == "1" {
		rounds = 60
	}
	r := newResumeChain(t, 64<<20)
	k := &resumeKiller{resumeChain: r, rng: rand.New(rand.NewPCG(5, 5)), took: time.Second}
	k.took = k.run(0, nil)
	for range rounds {
		os.Remove(r.out)
		k.round()
	}
	t.Logf("%d kills, after %d of which something was kept; %d came too late", k.kills, k.kept, k.late)
}

// A resumeKiller kills restores of one chain.
type resumeKiller struct {
	*resumeChain
	rng               *rand.Rand
	took              time.Duration // of a restore that is not killed
	kills, kept, late int
}

// round restores the disk once, in up to five runs.
func (k *resumeKiller) round() {
	k.Helper()
	for range 4 {
		signals := []syscall.Signal{syscall.SIGKILL, syscall.SIGKILL, syscall.SIGKILL, syscall.SIGINT, syscall.SIGTERM}
		k.run(time.Duration(k.rng.Int64N(int64(k.took)+1)), signals[k.rng.IntN(len(signals))])
		if _, err := os.Stat(k.out); err == nil {
			break
		}
	}
	if _, err := os.Stat(k.out); err != nil {
		k.run(0, nil)
	}
	if got := fileSHA256(k.T, k.out); got != k.want {
		k.Fatalf("the disk is %s, want %s", got, k.want)
	}
	k.run(0, nil) // the kill may have come when only the journal was left to be removed
}

// run restores, and kills that after a while with sig, if there is one. It returns
// how long it took.
func (k *resumeKiller) run(after time.Duration, sig os.Signal) time.Duration {
	k.Helper()
	_, was := os.Stat(k.out)
	cmd := processCommand("restore", "raw:"+k.full, k.inc, "-o", k.out, "--resume", "--digest=sha256", "--reflink=never")
	cmd.Env = append(cmd.Env, "TMPDIR="+k.folder) // it cannot tidy up behind itself
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	started := time.Now()
	if err := cmd.Start(); err != nil {
		k.Fatal(err)
	}
	if sig != nil {
		<-time.After(after)
		cmd.Process.Signal(sig)
	}
	err := cmd.Wait()
	k.judge(sig, err, was == nil, said.String())
	return time.Since(started)
}

// judge looks at how a run ended.
func (k *resumeKiller) judge(sig os.Signal, err error, there bool, said string) {
	k.Helper()
	hidden, _ := filepath.Glob(filepath.Join(k.folder, ".*"))
	switch {
	case strings.Contains(said, "did not read back"):
		k.Fatalf("a chunk was recorded before it was there: %s", said)
	case err == nil:
		if sig != nil {
			k.late++
		}
		if !strings.Contains(said, "sha256:"+k.want) || len(hidden) > 0 {
			k.Fatalf("at the end there is %q: %s", hidden, said)
		}
	case there && len(hidden) == 0:
		if !strings.Contains(said, "file already exists") {
			k.Fatalf("the disk was there: %v, %s", err, said)
		}
	case sig == nil || !errors.As(err, new(*exec.ExitError)):
		k.Fatalf("it ended with %v: %s", err, said)
	default:
		k.kills++
	}
	if strings.Contains(said, "were read back and kept") {
		k.kept++
	}
}
