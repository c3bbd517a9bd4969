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
	"syscall"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
)

// processArgs is the variable that makes TestQbitProcess the command: its
// arguments, one a line.
const processArgs = "QBIT_TEST_PROCESS_ARGS"

// TestQbitProcess is no test: other tests run it as a process of its own, for
// signals go to processes.
func TestQbitProcess(t *testing.T) {
	args, ok := os.LookupEnv(processArgs)
	if !ok {
		return
	}
	os.Args = append([]string{"qbit"}, strings.Split(args, "\n")...)
	main()
}

func processCommand(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^TestQbitProcess$")
	cmd.Env = append(os.Environ(), processArgs+"="+strings.Join(args, "\n"))
	return cmd
}

// emptyImage makes an image of 8 TiB, in which every byte is zero. Its sha256
// takes an hour and more.
func emptyImage(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := qcow2.Create(f, qcow2.Layout{Size: 8 << 40, ClusterSize: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// A restore that is interrupted says so, fails, and leaves nothing of its result.
func TestRestoreInterrupted(t *testing.T) {
	folder := t.TempDir()
	full := filepath.Join(folder, "full.qcow2")
	emptyImage(t, full)
	for name, sig := range map[string]os.Signal{"SIGINT": os.Interrupt, "SIGTERM": syscall.SIGTERM} {
		for _, format := range []string{"raw", "qcow2"} {
			out := filepath.Join(folder, "disk."+format+".out")
			interruptRestore(t, name, sig, full, "-o", out, "-O", format, "--cluster-size", "2M", "--digest", "sha256", "-p", "--progress=plain")
			names, err := filepath.Glob(filepath.Join(folder, "*")) // hidden ones too
			if err != nil || len(names) != 1 {
				t.Errorf("%s, %s: there is %q; %v", name, format, names, err)
			}
		}
	}
}

// interruptRestore sends a signal to a restore when it has begun, which its first
// line of progress says: by then the hidden file is there.
func interruptRestore(t *testing.T, name string, sig os.Signal, args ...string) {
	t.Helper()
	cmd := processCommand(append([]string{"restore"}, args...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(stderr)
	first, err := r.ReadString('\n')
	if err != nil || !strings.Contains(first, "restore") {
		t.Errorf("the first line is %q, %v", first, err)
	}
	if hidden, _ := filepath.Glob(filepath.Join(filepath.Dir(args[0]), ".*.partial")); len(hidden) != 1 {
		t.Errorf("while it runs there is %q", hidden)
	}
	cmd.Process.Signal(sig)
	rest, _ := io.ReadAll(r)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitFailed {
		t.Errorf("%s: it ended with %v", name, err)
	}
	if !strings.HasSuffix(string(rest), "qbit: interrupted\n") {
		t.Errorf("%s: it said %q", name, rest)
	}
}
