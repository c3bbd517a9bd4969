package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

// TestInteropInjected makes system calls of the command itself fail, one after the
// other: what qbit bitmap says it did is done, and what it could not do is an error,
// with the old bitmaps or the new ones in a sound image.
func TestInteropInjected(t *testing.T) {
	interop.Need(t, "strace", "qemu-img")
	binary, dir := buildQbit(t), t.TempDir()
	sound := filepath.Join(dir, "sound.qcow2")
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", sound, "64M")
	interop.Run(t, "qemu-img", "bitmap", "--add", sound, "old")
	content, err := os.ReadFile(sound)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "image.qcow2")
	failed := 0
	for _, call := range []string{"pwrite64:error=ENOSPC", "pwrite64:error=EIO", "fsync:error=EIO", "pread64:error=EIO", "ftruncate:error=ENOSPC"} {
		for n := 1; n <= 12; n++ {
			writeFile(t, path, content)
			status, out := runInjected(t, fmt.Sprintf("%s:when=%d+100", call, n),
				binary, "bitmap", "--add", "--set", "1M+1M", path, "new")
			if status != 0 {
				failed++
			}
			judgeInjected(t, fmt.Sprintf("%s, call %d: status %d: %s", call, n, status, out), path, status)
		}
	}
	if failed < 12 {
		t.Errorf("only %d runs failed: the calls that were made to fail are not those that qbit makes", failed)
	}
}

// runInjected runs a command with one of its system calls failing.
func runInjected(t *testing.T, inject string, args ...string) (status int, out []byte) {
	t.Helper()
	cmd := exec.Command("strace", append([]string{"-f", "-qq", "-o", os.DevNull, "-e", "inject=" + inject}, args...)...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if bytes.Contains(out, []byte("ptrace")) {
		t.Skipf("strace may not trace here: %s", out)
	}
	return cmd.ProcessState.ExitCode(), out
}

// judgeInjected wants a sound image with the new bitmap, if that was said, and else
// with the old ones or the new.
func judgeInjected(t *testing.T, what, path string, status int) {
	t.Helper()
	if err := exec.Command("qemu-img", "check", "-q", path).Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 3 {
			t.Errorf("%s\nqemu-img check: %v", what, err)
		}
	}
	list, stderr, listed := qbit("bitmap", "--output=json", path)
	if listed != 0 || !strings.Contains(list, `"old"`) || strings.Contains(list, `"consistent": false`) {
		t.Errorf("%s\nthe old bitmap is not there: %s%s", what, list, stderr)
	}
	if status == 0 && !strings.Contains(list, `"new"`) {
		t.Errorf("%s\nthe new bitmap is not there: %s", what, list)
	}
}
