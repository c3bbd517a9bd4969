// Package qemumaker makes random images with the real qemu-img and qemu-io,
// so that what is read is what QEMU writes and not what we think it does.
//
// The same seed gives the same commands. [Make] may be called from several
// goroutines, each with a folder or a seed of its own.
package qemumaker

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

// Made is a finished image.
type Made struct {
	// Path of the image, and all files that belong to it: first the image,
	// then its data file, then its backing file with what that one needs.
	Path  string
	Files []string
	// Options are the commands that made it, one a line, for messages.
	Options string
	// Snapshots are the names of the internal snapshots, oldest first; their
	// IDs are 1, 2, 3 …
	Snapshots []string
	// Bitmaps are the names of the persistent bitmaps.
	Bitmaps []string
	// Size is the virtual size in bytes.
	Size int64
	// Crashed images were flushed, but never closed: all bitmaps are in use,
	// and with lazy refcounts the dirty bit is set and refcounts are wrong.
	Crashed bool
}

// maker makes one image.
type maker struct {
	*rand.Rand
	t         testing.TB
	dir, name string
	log       []string
	made      Made

	version2, extended, raw, prealloc, lazy bool
	dataFile                                string
	cluster                                 int64
	refcountBits                            int
	backing                                 *Made
	touched                                 map[int64]bool // guest clusters that are no longer fresh
}

// Make makes the image of a seed in dir. It skips the test where the tools are
// missing, and fails it when one of them fails.
func Make(t testing.TB, dir string, seed uint64) Made {
	t.Helper()
	interop.Need(t, "qemu-img", "qemu-io")
	m := newMaker(t, dir, fmt.Sprintf("image-%d", seed), rand.New(rand.NewPCG(seed, 0x71656d75)))
	pattern := m.writePattern()
	defer os.Remove(pattern)
	m.create(m.options())
	m.addBitmaps()
	m.rounds()
	if !m.made.Crashed {
		m.changeBitmaps()
	}
	m.made.Options = strings.Join(m.log, "\n")
	return m.made
}

func newMaker(t testing.TB, dir, name string, r *rand.Rand) *maker {
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name+".qcow2")
	return &maker{
		Rand: r, t: t, dir: dir, name: name, touched: map[int64]bool{},
		made: Made{Path: path, Files: []string{path}},
	}
}

// chance is true once in n times.
func (m *maker) chance(n int) bool { return m.IntN(n) == 0 }

func pick[T any](m *maker, from ...T) T { return from[m.IntN(len(from))] }

// run runs a tool in the folder of the image and logs it.
func (m *maker) run(tool string, args ...string) {
	m.t.Helper()
	out, err := m.try(tool, args...)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s\nafter:\n%s", tool, err, out, strings.Join(m.log, "\n"))
	}
}

func (m *maker) try(tool string, args ...string) ([]byte, error) {
	line := tool
	for _, a := range args {
		if strings.ContainsRune(a, ' ') {
			a = strconv.Quote(a)
		}
		line += " " + a
	}
	m.log = append(m.log, line)
	cmd := exec.Command(tool, args...)
	cmd.Dir = m.dir
	return cmd.CombinedOutput()
}

func (m *maker) file() string { return m.name + ".qcow2" }

// writePattern makes the file that `write -s` takes its bytes from: a part
// that compresses and one that does not.
func (m *maker) writePattern() string {
	b := make([]byte, 8000)
	for i := range b[:3000] {
		b[i] = byte(m.Uint32())
	}
	copy(b[3000:], bytes.Repeat([]byte("pattern"), 1000))
	path := filepath.Join(m.dir, m.name+".pattern")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		m.t.Fatal(err)
	}
	return path
}
