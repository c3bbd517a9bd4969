package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/qbitkit/qbit/testimages"
	"github.com/qbitkit/qbit/testimages/build"
)

// refuses wants restore, digest and compare to fail because of bad data: status 2,
// a message, and no result.
func refuses(t *testing.T, what string, links []string) {
	t.Helper()
	dir := t.TempDir()
	disk := strings.Join(links, "+")
	for _, args := range [][]string{
		append([]string{"restore", "-o", filepath.Join(dir, "out")}, links...),
		append([]string{"restore", "-O", "qcow2", "-o", filepath.Join(dir, "out")}, links...),
		append([]string{"digest"}, links...),
		{"compare", disk, disk},
	} {
		_, stderr, status := qbit(args...)
		if status != exitBad || !strings.HasPrefix(stderr, "qbit: ") || strings.Contains(stderr, "panic") {
			t.Errorf("%s: qbit %q: status %d: %s", what, args, status, stderr)
		}
	}
	wantNothing(t, dir)
}

// extract gives the links of a frozen chain, as copies that may be broken.
func extract(t *testing.T, name string) []string {
	t.Helper()
	chain, err := testimages.Extract(t.TempDir(), name)
	if err != nil {
		t.Fatal(err)
	}
	return chain.Disks[0].Files()
}

// TestCutLinks cuts files of a chain. What is no longer there must never come
// back as zeros. A cut that loses nothing that is needed may restore, but then
// rightly.
func TestCutLinks(t *testing.T) {
	links := extract(t, "plain64k")
	good, _, status := qbit(append([]string{"digest", "--digest=sha256"}, links...)...)
	if status != 0 {
		t.Fatal("the chain is bad already")
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for i, path := range links {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, cut := range []int{0, 3, 50, 103, 1 << 16, 2 << 16, 3 << 16, 4 << 16, 5 << 16, 1 + rng.IntN(len(whole)), 1 + rng.IntN(len(whole))} {
			if cut >= len(whole) {
				continue
			}
			writeFile(t, path, whole[:cut])
			stdout, stderr, status := qbit(append([]string{"digest", "--digest=sha256"}, links...)...)
			if status == 0 && stdout == good && cut >= 5<<16 {
				continue
			}
			if status != exitBad || stdout != "" {
				t.Errorf("link %d cut to %d of %d bytes: status %d, %s%s", i, cut, len(whole), status, stdout, stderr)
			}
			if cut == 5<<16 || cut == 3 {
				refuses(t, fmt.Sprintf("link %d cut to %d bytes", i, cut), links)
			}
		}
		writeFile(t, path, whole)
	}
}

// TestGarbageLinks puts something else in the place of a link.
func TestGarbageLinks(t *testing.T) {
	links := extract(t, "plain64k")
	garbage := make([]byte, 100_000)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range garbage {
		garbage[i] = byte(rng.Uint32())
	}
	for _, place := range []int{0, 3} {
		broken := append([]string(nil), links...)
		broken[place] = filepath.Join(t.TempDir(), "garbage")
		writeFile(t, broken[place], garbage)
		refuses(t, "garbage", broken)
		writeFile(t, broken[place], append([]byte("QFI\xfb\x00\x00\x00\x03"), garbage...))
		refuses(t, "garbage with the magic", broken)
	}
	refuses(t, "the same link twice", append(links, links[2]))
	refuses(t, "no full backup", links[1:])
}

// TestBrokenImagesNeedLittle runs the command on every broken image that we know,
// as a process of its own: no panic, bounded memory, and an end.
func TestBrokenImagesNeedLittle(t *testing.T) {
	binary := buildQbit(t)
	const limit = 100 << 20
	dir := t.TempDir()
	path := filepath.Join(dir, "image")
	for _, r := range build.Recipes() {
		writeFile(t, path, r.Image)
		for _, args := range [][]string{{"info", path}, {"restore", "--memory=16M", "-o", filepath.Join(dir, "out"), path}} {
			cmd := exec.Command(binary, args...)
			out, _ := cmd.CombinedOutput()
			if strings.Contains(string(out), "goroutine ") {
				t.Errorf("%s: qbit %s panics:\n%s", r.Name, args[0], out)
			}
			os.Remove(filepath.Join(dir, "out"))
			// What is counted here may be the memory of this process.
			if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok && int64(usage.Maxrss)<<10 > limit {
				if used := runMeasured(t, io.Discard, append([]string{binary}, args...)...); used.memory > limit {
					t.Errorf("%s: qbit %s used %d MiB", r.Name, args[0], used.memory>>20)
				}
				os.Remove(filepath.Join(dir, "out"))
			}
		}
	}
}
