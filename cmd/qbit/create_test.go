package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
)

// Names with any bytes reach the terminal escaped.
func TestCreateEscapes(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{"-u", "-b", "\x1b[31mred", "-F", "raw", "a.qcow2", "1M"},
		{"\x1b[31mred.qcow2", "1M"},
		{"-b", "\x1b[31mgone", "-F", "raw", "b.qcow2"},
		{"-o", "data_file=\x1b[31mdata", "c.qcow2", "1M"},
		{"-o", "\x1b[31m=1", "d.qcow2", "1M"},
		{"e.qcow2", "\x1b[31m"},
	} {
		for i, a := range args {
			if strings.HasSuffix(a, ".qcow2") {
				args[i] = filepath.Join(dir, a)
			}
		}
		c, out := testConsole()
		run(context.Background(), c, append([]string{"create"}, args...))
		if s := out.String(); strings.Contains(s, "\x1b") || !strings.Contains(s, "31m") {
			t.Errorf("%q: %q", args, s)
		}
	}
}

// A context that is done, as after an interrupt, ends the writing of zeros, and
// nothing is left.
func TestCreateInterrupted(t *testing.T) {
	for _, args := range [][]string{
		{"-o", "preallocation=full", "disk.img", "64M"},
		{"-f", "raw", "-o", "preallocation=full", "disk.img", "64M"},
		{"-o", "preallocation=full,data_file=data.img", "disk.img", "64M"},
	} {
		dir := t.TempDir()
		for i, a := range args {
			if a == "disk.img" {
				args[i] = filepath.Join(dir, a)
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		c, out := testConsole()
		if status := run(ctx, c, append([]string{"create"}, args...)); status != exitFailed || !strings.Contains(out.String(), "interrupted") {
			t.Errorf("%q: status %d, %s", args, status, out)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%q: %v is left, %v", args, left, err)
		}
	}
}

// A backing file that another process writes is not read, unless -U says so.
func TestCreateLockedBacking(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "base.raw")
	writeFile(t, base, make([]byte, 1<<20))
	f, err := os.OpenFile(base, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := qcow2.Lock(f, qcow2.LockWrite); errors.Is(err, qcow2.ErrNoLocks) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	c, out := testConsole()
	args := []string{"create", "-b", base, "-F", "raw", filepath.Join(dir, "top.qcow2")}
	if status := run(context.Background(), c, args); status != exitFailed || !strings.Contains(out.String(), "in use by another process") {
		t.Errorf("status %d, %s", status, out)
	}
	args = append(args, "-U")
	if status := run(context.Background(), c, args); status != exitDone {
		t.Errorf("with -U: status %d, %s", status, out)
	}
}
