package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/testimages/interop"
)

// On a filesystem that can, a restore shares its blocks with the links, and says so;
// it reads them where a digest was asked for, and copies them with --reflink=never.
func TestInteropReflink(t *testing.T) {
	interop.Need(t, "qemu-img")
	dir := interop.Reflinking(t)
	links := reflinkChain(t, dir)
	before := linkSums(t, links)
	for _, c := range []struct {
		args, has, hasNot string
	}{
		{"", "in blocks that are shared\ndigest: not computed", "xxh64"},
		{"--digest=xxh64-4m", "in blocks that are shared\nxxh64-4m:", "not computed"},
		{"--digest=none", "in blocks that are shared", "digest"},
		{"--reflink=never", "xxh64-4m:", "shared"},
		{"-O=qcow2", "in blocks that are shared", "xxh64"},
		{"-O=qcow2 --cluster-size=512", "restored", "--reflink"},
		{"--output=json", `"bytes-shared":`, `"bytes-shared":0,`},
		{"--direct --reflink=never", "xxh64-4m:", "shared"},
		{"--direct -O=qcow2 --reflink=never", "xxh64-4m:", "shared"},
		{"--resume", "in blocks that are shared\ndigest: not computed", "xxh64"},
		{"--resume --direct --reflink=never", "xxh64-4m:", "shared"},
	} {
		out := filepath.Join(dir, "out")
		args := append([]string{"restore", "-o", out}, strings.Fields(c.args)...)
		stdout, stderr, status := qbit(append(args, links...)...)
		if status != 0 {
			t.Fatalf("%s: %s", c.args, stderr)
		}
		for part := range strings.Lines(c.has) {
			if !strings.Contains(stdout, strings.TrimSpace(part)) {
				t.Errorf("%s: there is no %q in\n%s", c.args, part, stdout)
			}
		}
		if c.hasNot != "" && strings.Contains(stdout, c.hasNot) {
			t.Errorf("%s: there is %q in\n%s", c.args, c.hasNot, stdout)
		}
		interop.Run(t, "qemu-img", "compare", links[len(links)-1], out)
		os.Remove(out)
	}
	if linkSums(t, links) != before {
		t.Error("what was read has changed")
	}
}

// reflinkChain is a full image and one of what changed since, as qemu-img makes them.
func reflinkChain(t *testing.T, dir string) []string {
	t.Helper()
	r := rand.New(rand.NewPCG(70, 70))
	content := make([]byte, 12<<20)
	for i := 0; i < len(content); i += 64 {
		if i%(3<<20) < 2<<20 {
			content[i] = byte(r.Uint32()) | 1
		}
	}
	raw, full, inc := filepath.Join(dir, "raw"), filepath.Join(dir, "full.qcow2"), filepath.Join(dir, "inc.qcow2")
	writeFile(t, raw, content)
	interop.Run(t, "qemu-img", "convert", "-O", "qcow2", raw, full)
	os.Remove(raw)
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", full, "-F", "qcow2", inc)
	interop.Run(t, "qemu-io", "-c", "write -q -P 5 1M 192k", "-c", "write -q -z 5M 1M", "-c", "write -q -P 6 8M 300k", inc)
	return []string{full, inc}
}

// linkSums is what is in files, and when they changed.
func linkSums(t *testing.T, paths []string) string {
	t.Helper()
	var all bytes.Buffer
	for _, path := range paths {
		p, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%x %s", sha256.Sum256(p), interop.Run(t, "stat", "-c", "%Y %Z %s", path))
	}
	return all.String()
}

// What cannot be written directly is refused, and why is said.
func TestDirectRefused(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	writeFile(t, disk, make([]byte, 4096))
	_, stderr, status := qbit("restore", "--direct", "-o", "-", "raw:"+disk)
	if status != exitUsage || !strings.Contains(stderr, "--direct is for files and devices") {
		t.Errorf("status %d: %s", status, stderr)
	}
	flags := targetFlags{out: "OUT"}
	err := flags.noDirect(plainError("OUT", &fs.PathError{Op: "open", Path: ".OUT.partial", Err: reconstruct.ErrNoDirect}))
	if want := "OUT: it cannot be written around the page cache: the filesystem has no direct I/O; leave out --direct"; err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if err := flags.noDirect(os.ErrExist); err != os.ErrExist {
		t.Errorf("another error became %v", err)
	}
}

// Whichever of the system calls that share blocks fails, and how, the restore has the
// same bytes.
func TestInteropReflinkInjected(t *testing.T) {
	interop.Need(t, "qemu-img", "strace")
	dir := interop.Reflinking(t)
	links, binary, out := reflinkChain(t, dir), buildQbit(t), filepath.Join(dir, "out")
	before, few := linkSums(t, links), 0
	for _, errno := range []string{"EXDEV", "EINVAL", "ENOSPC"} {
		for _, when := range []string{"1", "2", "3", "5", "8", "1+", "4+", "2+2"} {
			args := append([]string{binary, "restore", "--output=json", "-o", out}, links...)
			status, report := runInjected(t, fmt.Sprintf("ioctl:error=%s:when=%s", errno, when), args...)
			if status != 0 {
				t.Fatalf("%s at %s: %s", errno, when, report)
			}
			if bytes.Contains(report, []byte(`"bytes-shared":0,`)) {
				few++
			}
			interop.Run(t, "qemu-img", "compare", links[len(links)-1], out)
			os.Remove(out)
		}
	}
	if few == 0 || few > 16 {
		t.Errorf("%d of 24 runs shared nothing: the calls that fail are not those that share", few)
	}
	if linkSums(t, links) != before {
		t.Error("what was read has changed")
	}
}
