package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages"
)

// A tripwire is standard error, and interrupts when something is said there.
type tripwire struct {
	bytes.Buffer
	text string
	trip func()
}

func (w *tripwire) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	if w.text != "" && strings.Contains(w.String(), w.text) {
		w.text = ""
		w.trip()
	}
	return n, err
}

// qbitUntil runs qbit, and interrupts it when it says text. Every chunk is an hour of
// work for its progress.
func qbitUntil(text string, args ...string) (stdout, stderr string, status int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	now := time.Unix(0, 0)
	out, errOut := bytes.Buffer{}, &tripwire{text: text, trip: cancel}
	c := &console{in: strings.NewReader(""), out: &out, err: errOut, errWidth: func() int { return 0 },
		now: func() time.Time { now = now.Add(time.Hour); return now }}
	status = run(ctx, c, args)
	return out.String(), errOut.String(), status
}

// A resumeChain is a raw full backup and a qcow2 increment.
type resumeChain struct {
	*testing.T
	folder, full, inc, out string
	want                   string // sha256 of the restored disk
}

func newResumeChain(t *testing.T, size int64) *resumeChain {
	t.Helper()
	folder := t.TempDir()
	r := &resumeChain{T: t, folder: folder, full: filepath.Join(folder, "full.raw"), inc: filepath.Join(folder, "inc.qcow2"), out: filepath.Join(folder, "disk.raw")}
	rng := rand.New(rand.NewPCG(1, uint64(size)))
	var content []byte
	for range size / 8 {
		content = binary.LittleEndian.AppendUint64(content, rng.Uint64())
	}
	if err := os.WriteFile(r.full, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f := must(os.Create(r.inc))
	defer f.Close()
	w := must(qcow2.Create(f, qcow2.Layout{Size: size, ClusterSize: 64 << 10}))
	for off := int64(0); off < size; off += 3 << 20 {
		must(w.WriteAt(bytes.Repeat([]byte{9}, 64<<10), off))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := qbit("restore", "-q", "raw:"+r.full, r.inc, "-o", r.out); status != exitDone {
		t.Fatal(stderr)
	}
	r.want = fileSHA256(t, r.out)
	os.Remove(r.out)
	return r
}

// args are those of a restore of the chain.
func (r *resumeChain) args(more ...string) []string {
	return append([]string{"restore", "raw:" + r.full, r.inc, "-m", "1", "--resume"}, more...)
}

func (r *resumeChain) interrupt(more ...string) {
	r.Helper()
	_, stderr, status := qbitUntil("12 MiB of 24 MiB", r.args(more...)...)
	if status != exitFailed || !strings.HasSuffix(stderr, "qbit: interrupted\n") || !strings.Contains(stderr, "what is done is kept") {
		r.Fatalf("status %d, %s", status, stderr)
	}
}

// refused wants an error with some text, and nothing changed.
func (r *resumeChain) refused(status int, text string, args ...string) {
	r.Helper()
	_, stderr, got := qbit(args...)
	if got != status || !strings.Contains(stderr, text) {
		r.Errorf("%q: status %d, %s; want %d, %s", args, got, stderr, status, text)
	}
}

// done runs to the end, and wants the true bytes.
func (r *resumeChain) done(said string, more ...string) {
	r.Helper()
	stdout, stderr, status := qbit(r.args(more...)...)
	if status != exitDone || !strings.Contains(stderr, said) || !strings.Contains(stdout, "sha256:"+r.want) {
		r.Fatalf("status %d, %s\n%s", status, stderr, stdout)
	}
	if got := fileSHA256(r.T, r.out); got != r.want {
		r.Errorf("the disk is %s, want %s", got, r.want)
	}
	if hidden, _ := filepath.Glob(filepath.Join(r.folder, ".*")); len(hidden) != 0 {
		r.Errorf("there is %q", hidden)
	}
}

// A restore that is interrupted keeps what is done, and goes on only if nothing on
// which the disk depends is another.
func TestResumeCommand(t *testing.T) {
	r := newResumeChain(t, 24<<20)
	to := []string{"-o", r.out, "--digest=sha256"}
	r.interrupt(to...)
	if names := hiddenNames(t, r.folder); names != ".disk.raw.qbit-resume.journal .disk.raw.qbit-resume.partial" {
		t.Errorf("there is %q", names)
	}
	r.refused(exitFailed, `the number of links was 2 then, and is 1 now`, "restore", "raw:"+r.full, "--resume", "-o", r.out)
	r.refused(exitFailed, `the target was a raw file, zeros as holes then, and is a raw file, zeros as stored now`, r.args("-o", r.out, "--keep-zeros")...)
	info := must(os.Stat(r.inc))
	if err := os.Chtimes(r.inc, info.ModTime(), info.ModTime().Add(time.Nanosecond)); err != nil {
		t.Fatal(err)
	}
	r.refused(exitFailed, `file 2 was "inc.qcow2" of `, r.args("-o", r.out)...)
	if err := os.Chtimes(r.inc, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	r.done(" of an earlier run were read back and kept", to...)
}

// A bit of what was kept has turned: that is said, and mended.
func TestResumeCommandDamaged(t *testing.T) {
	r := newResumeChain(t, 24<<20)
	to := []string{"-o", r.out, "--digest=sha256"}
	r.interrupt(to...)
	f := must(os.OpenFile(filepath.Join(r.folder, ".disk.raw.qbit-resume.partial"), os.O_RDWR, 0))
	must(f.WriteAt([]byte("turned"), 5<<20))
	f.Close()
	r.done("1 chunk of 4 MiB was noted as done, and did not read back as it was written", to...)
}

func TestResumeCommandOnto(t *testing.T) {
	r := newResumeChain(t, 24<<20)
	if err := os.WriteFile(r.out, bytes.Repeat([]byte{1}, 24<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	journal := filepath.Join(r.folder, "journal")
	to := []string{"--onto", r.out, "--journal", journal, "--digest=sha256"}
	r.interrupt(to...)
	r.done(" of an earlier run were read back and kept", to...)
	if _, err := os.Stat(journal); err == nil {
		t.Error("the journal is still there")
	}
}

// Of two disks the first is whole when the second is interrupted: it is only read
// again.
func TestResumeCommandSet(t *testing.T) {
	set, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	must(testimages.Extract(set, "twodisks"))
	args := []string{"restore", set, "-o", out}
	if _, stderr, status := qbit(args...); status != exitDone {
		t.Fatal(stderr)
	}
	want := fileSHA256(t, filepath.Join(out, "vda.raw")) + fileSHA256(t, filepath.Join(out, "vdb.raw"))
	os.RemoveAll(out)
	args = append(args, "--resume")
	if _, stderr, status := qbitUntil("vdb: point", args...); status != exitFailed {
		t.Fatal(status, stderr)
	}
	if names := hiddenNames(t, out); names != ".vda.raw.qbit-resume.journal" {
		t.Errorf("there is %q", names)
	}
	_, stderr, status := qbit(args...)
	if status != exitDone || !strings.Contains(stderr, "vda.raw: ") || !strings.Contains(stderr, "of an earlier run were read back and kept") {
		t.Fatal(status, stderr)
	}
	if got := fileSHA256(t, filepath.Join(out, "vda.raw")) + fileSHA256(t, filepath.Join(out, "vdb.raw")); got != want {
		t.Errorf("the disks are %s, want %s", got, want)
	}
	if names := hiddenNames(t, out); names != "" {
		t.Errorf("there is %q", names)
	}
}

// hiddenNames are the hidden files in a folder.
func hiddenNames(t *testing.T, folder string) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(folder, ".*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		all[i] = filepath.Base(all[i])
	}
	return strings.Join(all, " ")
}

func TestResumeUsage(t *testing.T) {
	folder := t.TempDir()
	full := filepath.Join(folder, "full.raw")
	if err := os.WriteFile(full, make([]byte, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ args, want string }{
		{"-o - --resume", "--resume: what went to standard output cannot be read back"},
		{"-o x -O qcow2 --resume", "convert it with: qbit restore -f raw RAW -O qcow2 -o OUT"},
		{"--onto x --resume", "name one with --journal FILE"},
		{"-o x --journal y --resume", "--journal is for --onto"},
		{"-o x --journal y", "--journal belongs to --resume"},
	} {
		_, stderr, status := qbit(append([]string{"restore", "-f", "raw", full}, strings.Fields(row.args)...)...)
		if status != exitUsage || !strings.Contains(stderr, row.want) {
			t.Errorf("%s: status %d, %s", row.args, status, stderr)
		}
	}
}
