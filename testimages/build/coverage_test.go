package build

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/qbitkit/qbit/testimages/interop"
)

var update = flag.Bool("update", false, "write the table of recipes into docs/coverage.md")

const (
	coverageFile  = "../../docs/coverage.md"
	coverageBegin = "<!-- The table below is made by: go test ./testimages/build -run InteropCoverage -update -->\n"
)

// TestInteropCoverage runs qemu-img on the image of every recipe, or of a part of them,
// and wants it to do what the table in docs/coverage.md says. With -update it writes the
// table; QEMU 7.2 is the one it speaks of.
func TestInteropCoverage(t *testing.T) {
	interop.Need(t, "qemu-img")
	if v := interop.Run(t, "qemu-img", "--version"); !bytes.Contains(v, []byte("version 7.2.")) {
		t.Skipf("the table is about QEMU 7.2, this is %s", v)
	}
	doc, err := os.ReadFile(coverageFile)
	if err != nil {
		t.Fatal(err)
	}
	text, table, ok := strings.Cut(string(doc), coverageBegin)
	if !ok {
		t.Fatal("docs/coverage.md has no table")
	}
	if *update {
		writeCoverage(t, text)
		return
	}
	for i, r := range Recipes() {
		if !strings.Contains(table, "| "+r.Name+" |") {
			t.Errorf("%s is not in the table: run the test with -update", r.Name)
		}
		if os.Getenv("QBIT_FULL") == "" && (i%4 != 0 && r.CVE == "" || r.Endless) {
			continue
		}
		if row := r.row(judgedByQEMU(t, r)); !strings.Contains(table, row) {
			t.Errorf("the table does not say, or not any more:\n%s", row)
		}
	}
}

func writeCoverage(t *testing.T, text string) {
	table := CoverageTable("qemu-img", func(r Recipe) Verdict { return judgedByQEMU(t, r) })
	if err := os.WriteFile(coverageFile, []byte(text+coverageBegin+table), 0o644); err != nil {
		t.Fatal(err)
	}
}

// judgedByQEMU is what qemu-img does with a recipe.
func judgedByQEMU(t *testing.T, r Recipe) Verdict {
	dir := t.TempDir()
	files := map[string][]byte{SelfName: r.Image}
	for name, b := range r.Files {
		files[name] = b
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	format := []string{"-f", "qcow2"}
	if r.Format != "" {
		format = nil
	}
	run := func(verb string, more ...string) qemuRun {
		return runQEMU(t, dir, append(append([]string{verb}, format...), append([]string{SelfName}, more...)...)...)
	}
	return Verdict{
		Info:    run("info").word(map[int]string{0: "opens", 1: "refuses"}),
		Check:   run("check").word(map[int]string{0: "clean", 1: "refuses", 2: "corruptions", 3: "leaks", 63: "not this format"}),
		Convert: converted(r, dir, run("convert", "-O", "raw", "out")),
	}
}

// A qemuRun is how a qemu-img ended.
type qemuRun struct {
	status int
	signal syscall.Signal
	hangs  bool
	output string
}

// The limits within which qemu-img has to come to an end: CPU seconds and KiB of address
// space. A sound image of a few KiB takes a hundredth of each.
const limits = "ulimit -t 4; ulimit -v 2000000; ulimit -c 0; "

// runQEMU runs qemu-img in a folder, with a limit on what it may use.
func runQEMU(t *testing.T, dir string, args ...string) qemuRun {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", limits + `exec qemu-img "$@"`, "sh"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	run := qemuRun{output: string(out), hangs: ctx.Err() != nil}
	if err != nil && !errors.As(err, new(*exec.ExitError)) && !run.hangs {
		t.Fatal(err)
	}
	run.status = cmd.ProcessState.ExitCode()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		run.signal = ws.Signal()
	}
	return run
}

// word is a word for how it ended.
func (q qemuRun) word(byStatus map[int]string) string {
	switch {
	case q.hangs, q.signal == syscall.SIGXCPU, q.signal == syscall.SIGKILL:
		return "**hangs**"
	case strings.Contains(q.output, "failed to allocate"):
		return "**out of memory**"
	case q.signal != 0:
		return "**crashes**"
	}
	return byStatus[q.status]
}

// converted is a word for what convert gave.
func converted(r Recipe, dir string, q qemuRun) string {
	if w := q.word(map[int]string{0: "reads", 1: "refuses"}); w != "reads" {
		return w
	}
	f, err := os.Open(filepath.Join(dir, "out"))
	if err != nil {
		return "nothing"
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "nothing"
	}
	got, err := io.ReadAll(io.LimitReader(f, 64<<20))
	switch {
	case err != nil:
		return "nothing"
	case r.Sound != nil:
		return likeBefore(got, info.Size(), r.Sound.Bytes())
	case bytes.Contains(got, Secret[:32]):
		return "**gives away the file**"
	case bytes.Count(got, []byte{0}) == len(got):
		return "zeros"
	}
	return "reads"
}

// likeBefore compares what was read with what the guest read before the image was broken.
func likeBefore(got []byte, size int64, want []byte) string {
	if size != int64(len(want)+511)&^511 && size != int64(len(want)) {
		return "**another size**"
	}
	word := "as before"
	for i := range min(len(got), len(want)) {
		switch {
		case got[i] == want[i]:
		case got[i] == 0:
			if word == "as before" {
				word = "**zeros**"
			}
		default:
			word = "**other bytes**"
		}
	}
	return word
}
