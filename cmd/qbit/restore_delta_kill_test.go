//go:build unix

package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/qbitkit/qbit/qcow2"
)

// TestDeltaKill kills a run that brings a file from one point to another, at random
// moments: the same command must go on with what is there, and give the new point.
func TestDeltaKill(t *testing.T) {
	kills := 3
	if os.Getenv("QBIT_FULL") == "1" {
		kills = 60
	}
	rng := rand.New(rand.NewPCG(6, 6))
	dir := t.TempDir()
	full, inc, out := filepath.Join(dir, "full.raw"), filepath.Join(dir, "inc.qcow2"), filepath.Join(dir, "device")
	const size = 64 << 20
	old, now := make([]byte, size), make([]byte, size)
	for i := range size / 8 {
		old[8*i], now[8*i+rng.IntN(8)] = byte(i), byte(rng.Uint32())
	}
	writeFile(t, full, old)
	f := must(os.Create(inc))
	w := must(qcow2.Create(f, qcow2.Layout{Size: size}))
	must(w.WriteAt(now, 0))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	args := []string{"restore", "raw:" + full, inc, "--onto", out, "--from", "raw:" + full}
	mixed := 0
	for range kills {
		writeFile(t, out, old)
		cmd := processCommand(args...)
		said := must(cmd.StderrPipe())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		awaitText(said, "were compared with", "was compared with")
		<-time.After(time.Duration(rng.Int64N(int64(30 * time.Millisecond))))
		cmd.Process.Kill()
		cmd.Wait()
		if !bytes.Equal(must(os.ReadFile(out)), now) {
			_, stderr, status := qbit(args...)
			if status != exitDone {
				t.Fatalf("it does not go on: %s", stderr)
			}
			if strings.Contains(stderr, "a run before this one") {
				mixed++
			}
		}
		if !bytes.Equal(must(os.ReadFile(out)), now) {
			t.Fatal("the file does not hold the new point")
		}
	}
	t.Logf("%d kills, %d of which left a mix", kills, mixed)
}

// awaitText reads up to one of the texts, or to the end.
func awaitText(r io.Reader, texts ...string) {
	var seen []byte
	b := make([]byte, 256)
	for {
		n, err := r.Read(b)
		seen = append(seen, b[:n]...)
		if err != nil || slices.ContainsFunc(texts, func(text string) bool { return bytes.Contains(seen, []byte(text)) }) {
			return
		}
	}
}
