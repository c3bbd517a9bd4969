package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

// Where the filesystem can, squash and convert share blocks with what they read, also
// those of an increment, and QEMU finds the same bytes.
func TestInteropReflinkSquash(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io")
	dir := interop.Reflinking(t)
	links := reflinkChain(t, dir)
	before := linkSums(t, links)
	top := links[1]
	for _, c := range []struct{ args, has, hasNot string }{
		{"squash -o OUT " + links[0] + " " + top, "in blocks that are shared\ndigest: not computed", "xxh64"},
		{"squash -o OUT " + top, "in blocks that are shared\nstands on", "digest"},
		{"squash -o OUT --reflink=never " + top, "stands on", "shared"},
		{"squash -o OUT --compress " + links[0] + " " + top, "xxh64-4m:", "shared"},
		{"convert --trust -C -O qcow2 " + top + " OUT", "in blocks that are shared\ndigest: not computed", "xxh64"},
		{"convert --trust -C -O qcow2 -B " + links[0] + " " + top + " OUT", "in blocks that are shared", "xxh64"},
		{"convert --trust -C " + top + " OUT", "in blocks that are shared", "xxh64"},
		{"convert --trust " + top + " OUT", "xxh64", "shared"},
	} {
		out := filepath.Join(dir, "out")
		stdout, _ := mustQbit(t, strings.Fields(strings.ReplaceAll(c.args, "OUT", out))...)
		for part := range strings.Lines(c.has) {
			if !strings.Contains(stdout, strings.TrimSpace(part)) {
				t.Errorf("%s: there is no %q in\n%s", c.args, part, stdout)
			}
		}
		if strings.Contains(stdout, c.hasNot) {
			t.Errorf("%s: there is %q in\n%s", c.args, c.hasNot, stdout)
		}
		interop.Run(t, "qemu-img", "compare", top, out)
		if format := string(interop.Run(t, "qemu-img", "info", out)); strings.Contains(format, "qcow2") {
			interop.Run(t, "qemu-img", "check", out)
		}
		if err := os.Remove(out); err != nil {
			t.Fatal(fmt.Errorf("%s: %w", c.args, err))
		}
	}
	if linkSums(t, links) != before {
		t.Error("what was read has changed")
	}
}
