//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/qbitkit/qbit/testimages/streams"
)

// TestRestoreMemory restores long chains of compressed streams, which each keep
// something of what they decode, in the memory that the help promises.
func TestRestoreMemory(t *testing.T) {
	links := 80
	if os.Getenv("QBIT_FULL") == "1" {
		links = 200
	}
	const size, part, most = 32 << 20, 4 << 20, 190 << 20
	frame := streams.Form{}.Frame(bytes.Repeat([]byte("some that is compressed"), part/23+1)[:part])
	set := t.TempDir()
	for i := range links {
		name, meta := "vda.full.data", streams.Meta{VirtualSize: size, DataSize: part, Compressed: 2,
			CheckpointName: fmt.Sprintf("virtnbdbackup.%d", i), Date: fmt.Sprintf("2024-05-06T07:%02d:%02d.1", i/60, i%60)}
		if i > 0 {
			meta.Incremental, meta.ParentCheckpoint = true, fmt.Sprintf("virtnbdbackup.%d", i-1)
			name = fmt.Sprintf("vda.inc.virtnbdbackup.%d.data", i)
		}
		w := streams.New(meta)
		// Every link shows through at the ends of its frames, which have to be decoded
		// all the way to there.
		for off := int64(links-i) * 20 << 10; off+part <= size; off += size / 3 &^ 4095 {
			w.Parts(off, part, false, frame)
		}
		w.Stop()
		writeFile(t, filepath.Join(set, name), w.Bytes())
	}
	out := filepath.Join(t.TempDir(), "disk")
	for _, args := range [][]string{
		{"-o", out, "--digest=sha256"},
		{"-O", "qcow2", "-o", out + ".qcow2", "--continue", "virtnbdbackup.0=virtnbdbackup.0"},
		{"--onto", out, "--from", fmt.Sprintf("virtnbdbackup.%d", links-1), "--at", "virtnbdbackup.3", "--verify-all"},
	} {
		var said bytes.Buffer
		used := runMeasured(t, &said, append([]string{"qbit", "restore", "-q", "--assume", set}, args...)...)
		t.Logf("%q: %d MiB", args, used.memory>>20)
		if used.status != exitDone || used.memory > most {
			t.Errorf("%q: status %d, %d MiB, must be at most %d: %.500s", args, used.status, used.memory>>20, int64(most)>>20, said.String())
		}
	}
}
