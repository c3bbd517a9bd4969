package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/qbitkit/qbit/testimages/build"
)

// nasty is a name that clears the screen, sets the title, turns the text around,
// rings, moves the cursor with a C1 code, and is no UTF-8.
const nasty = "x\x1b[2J\x1b]0;owned\x07\u202e\u009b1A\r\n\t\x7f\x00\xff\xc0y"

// nastyImages are images that have the name wherever a name can be.
func nastyImages() map[string]build.Spec {
	rich := build.Spec{ClusterBits: 12, Size: 16 << 12, Backing: nasty, BackingFormat: nasty,
		Clusters: map[uint64]build.Cluster{1: {Form: build.Normal}},
		Snapshots: []build.Snapshot{{ID: nasty, Name: nasty, Clusters: map[uint64]build.Cluster{0: {Form: build.Normal}}},
			{ID: "2", Name: nasty + "2", VMState: []byte("state"), Clusters: map[uint64]build.Cluster{}}},
		Bitmaps:      []build.Bitmap{{Name: nasty, GranularityBits: 12}, {Name: nasty + "2", Type: 7}, {Name: nasty + "3", Flags: build.InUse}, {Name: nasty + "4", Flags: 64}},
		FeatureNames: []build.Feature{{Kind: 0, Bit: 1, Name: nasty}, {Kind: 1, Bit: 9, Name: nasty}, {Kind: 7, Bit: 200, Name: nasty}},
		Compatible:   1 << 9,
	}
	unknown := build.Spec{ClusterBits: 12, Size: 4096, Incompatible: 1 << 40,
		FeatureNames: []build.Feature{{Kind: 0, Bit: 40, Name: nasty}}}
	stale := build.Spec{ClusterBits: 12, Size: 16 << 12, Bitmaps: []build.Bitmap{{Name: nasty}}, StaleBitmaps: true}
	raw := build.Spec{ClusterBits: 12, Size: 16 << 12, Backing: nasty, BackingFormat: "raw"}
	data := build.Spec{ClusterBits: 12, Size: 16 << 12, DataFile: &build.DataFile{Name: nasty}, Clusters: map[uint64]build.Cluster{1: {Form: build.Normal}}}
	return map[string]build.Spec{"rich": rich, "unknown": unknown, "stale": stale, "raw": raw, "data": data}
}

// verbLines are command lines of every verb for an image: those that stand here, or
// the verb with the image alone.
func verbLines(path, dir string) [][]string {
	lines := map[string][][]string{
		"restore": {{"restore", "-o", filepath.Join(dir, "out")}, {"restore", "--trust", "-o", filepath.Join(dir, "out2")}},
		"info":    {{"info"}, {"info", "--backing-chain"}, {"info", "--backing-chain", "--trust"}},
		"inspect": {{"inspect"}, {"inspect", "--policy"}, {"inspect", "--policy", "--allow-backing"}},
		"map":     {{"map"}, {"map", "--trust"}},
		"compare": {{"compare", path}, {"compare", "--trust", path}},
	}
	var all [][]string
	for _, v := range verbs() {
		known := lines[v.name]
		if known == nil {
			known = [][]string{{v.name}}
		}
		for _, line := range known {
			all = append(all, append(append([]string(nil), line...), path), append(append([]string(nil), line...), path+"@"+nasty))
		}
	}
	return all
}

// TestNastyNames runs every verb on images with names that attack a terminal, in a
// file whose own name does so too.
func TestNastyNames(t *testing.T) {
	shown := 0
	for name, spec := range nastyImages() {
		dir := t.TempDir()
		path := filepath.Join(dir, "image\x1b[31m\u202e")
		writeImage(t, path, spec)
		for _, line := range verbLines(path, dir) {
			stdout, stderr, _ := qbit(line...)
			for _, text := range []string{stdout, stderr} {
				if bad, at := steersTerminal(text); bad {
					t.Errorf("%s: qbit %q: raw at %q", name, line, text[max(0, at-30):min(len(text), at+10)])
				}
				if strings.Contains(text, `\x1b[2J`) {
					shown++
				}
			}
		}
	}
	if shown < 10 {
		t.Errorf("the name was shown in %d texts only", shown)
	}
}

// steersTerminal finds what a terminal could take for more than text.
func steersTerminal(text string) (bool, int) {
	for i, r := range text {
		_, n := utf8.DecodeRuneInString(text[i:])
		if r != '\n' && !isPlain(r) || r == utf8.RuneError && n == 1 {
			return true, i
		}
	}
	return false, 0
}

// TestVerbsRefuseSpecialFiles names a FIFO, a socket's folder and a device to every
// verb. None waits for a writer, and none takes it for a disk.
func TestVerbsRefuseSpecialFiles(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(dir+"/fifo", 0o666); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir + "/fifo", "/dev/zero", "/dev/tty", dir} {
		for _, line := range verbLines(path, dir) {
			if strings.HasSuffix(line[len(line)-1], nasty) {
				continue
			}
			if stdout, stderr, status := endsSoon(t, line...); status == 0 || stderr == "" || stdout != "" {
				t.Errorf("qbit %q: status %d, %q, %q", line, status, stdout, stderr)
			}
		}
	}
}

// endsSoon runs a command that must not wait for anything.
func endsSoon(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		stdout, stderr, status = qbit(args...)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		t.Fatalf("qbit %q does not end", args)
	}
	return stdout, stderr, status
}

// TestChainsThatNeverEnd has images that name themselves, each other, and each other
// by other names of the same files.
func TestChainsThatNeverEnd(t *testing.T) {
	dir := t.TempDir()
	for name, backing := range map[string]string{"self": "self", "a": "b", "b": "a", "linked": "link", "dotted": "./x/../dotted"} {
		writeImage(t, filepath.Join(dir, name), build.Spec{ClusterBits: 9, Size: 512, Backing: backing, BackingFormat: "qcow2"})
	}
	for link, to := range map[string]string{"link": "linked", "hard": "self"} {
		make := os.Symlink
		if link == "hard" {
			make = os.Link
			to = filepath.Join(dir, to)
		}
		if err := make(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "x"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"self", "a", "b", "linked", "link", "dotted", "hard"} {
		for _, verb := range []string{"map", "digest"} {
			_, stderr, status := endsSoon(t, verb, "--trust", filepath.Join(dir, name))
			if status != exitBad || !strings.Contains(stderr, "the chain never ends") {
				t.Errorf("%s %s: status %d, %s", verb, name, status, stderr)
			}
		}
		if stdout, _, _ := endsSoon(t, "info", "--backing-chain", "--trust", filepath.Join(dir, name)); !strings.Contains(stdout, "the chain never ends") {
			t.Errorf("info %s: %s", name, stdout)
		}
	}
}

// A chain that is deeper than the limit is refused, and followed with a higher one.
func TestDepthLimit(t *testing.T) {
	dir := t.TempDir()
	writeImage(t, dir+"/0", build.Spec{ClusterBits: 9, Size: 512})
	for i := 1; i < 5; i++ {
		writeImage(t, filepath.Join(dir, string(rune('0'+i))), build.Spec{ClusterBits: 9, Size: 512, Backing: string(rune('0' + i - 1)), BackingFormat: "qcow2"})
	}
	if _, stderr, status := qbit("map", "--trust", "--limit=depth=4", dir+"/4"); status != exitBad || !strings.Contains(stderr, "the limit depth") {
		t.Errorf("status %d, %s", status, stderr)
	}
	if _, stderr, status := qbit("map", "--trust", "--limit=depth=5", dir+"/4"); status != 0 {
		t.Errorf("status %d, %s", status, stderr)
	}
}
