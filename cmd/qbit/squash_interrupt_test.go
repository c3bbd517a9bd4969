//go:build unix

package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A squash and a convert that are interrupted say so, fail, and leave nothing, also of
// an external data file.
func TestSquashInterrupted(t *testing.T) {
	folder := t.TempDir()
	full := filepath.Join(folder, "full.qcow2")
	emptyImage(t, full)
	out := filepath.Join(folder, "out")
	slow := []string{"--digest=sha256", "-p", "--progress=plain"}
	for name, args := range map[string][]string{
		"squash":         {"squash", full, "-o", out, "--compress"},
		"convert":        {"convert", full, out},
		"convert -c":     {"convert", "-O", "qcow2", "-c", "-o", "cluster_size=2M", full, out},
		"convert to two": {"convert", "-O", "qcow2", "-o", "data_file=out.data,cluster_size=2M", full, out},
	} {
		interruptVerb(t, name, folder, append(args, slow...)...)
		names, err := filepath.Glob(filepath.Join(folder, "*"))
		hidden, _ := filepath.Glob(filepath.Join(folder, ".*.partial"))
		if err != nil || len(names) != 1 || len(hidden) > 0 {
			t.Errorf("%s: there is %q, %q; %v", name, names, hidden, err)
		}
	}
}

// interruptVerb sends a signal to a run when it has begun.
func interruptVerb(t *testing.T, name, folder string, args ...string) {
	t.Helper()
	cmd := processCommand(args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(stderr)
	first, err := r.ReadString('\n')
	if err != nil || !strings.Contains(first, args[0]) {
		t.Errorf("%s: the first line is %q, %v", name, first, err)
	}
	if hidden, _ := filepath.Glob(filepath.Join(folder, ".*.partial")); len(hidden) == 0 {
		t.Errorf("%s: while it runs there is nothing", name)
	}
	cmd.Process.Signal(os.Interrupt)
	rest, _ := io.ReadAll(r)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitFailed {
		t.Errorf("%s: it ended with %v", name, err)
	}
	if !strings.HasSuffix(string(rest), "qbit: interrupted\n") {
		t.Errorf("%s: it said %q", name, rest)
	}
}
