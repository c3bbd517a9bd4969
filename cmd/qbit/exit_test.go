package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/testimages/build"
)

func TestStatus(t *testing.T) {
	format := &qcow2.FormatError{Structure: "header"}
	for _, test := range []struct {
		err  error
		want int
	}{
		{nil, exitDone},
		{fs.ErrNotExist, exitFailed},
		{fmt.Errorf("x: %w", qcow2.ErrLocked), exitFailed},
		{&qcow2.UnsupportedError{}, exitFailed},
		{&refusedError{}, exitFailed},
		{context.Canceled, exitFailed},
		{fmt.Errorf("x: %w", format), exitBad},
		{fmt.Errorf("x: %w", qcow2.ErrNotQcow2), exitBad},
		{&reconstruct.ChainError{}, exitBad},
		{badData{errors.New("loop")}, exitBad},
		{usagef("wrong"), exitUsage},
		{errors.Join(nil, nil), exitDone},
		{errors.Join(format, fs.ErrNotExist), exitBad},
		{errors.Join(fs.ErrNotExist, format, fs.ErrNotExist), exitBad},
		{errors.Join(errors.Join(usagef("wrong")), format), exitUsage},
	} {
		if got := statusOf(test.err); got != test.want {
			t.Errorf("%v: status is %d, want %d", test.err, got, test.want)
		}
	}
}

func TestFail(t *testing.T) {
	c, out := testConsole()
	c.fail(errors.Join(errors.New("one\nline"), silent{errors.New("said")}, fmt.Errorf("x: %w", context.Canceled), errors.New("esc \x1b")), statusOf)
	if want := "qbit: one\\x0aline\nqbit: interrupted\nqbit: esc \\x1b\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}

// A signal ends a run with a status and no whole result.
func TestInterrupted(t *testing.T) {
	path := t.TempDir() + "/image"
	writeImage(t, path, build.Spec{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, args := range [][]string{{"map", "--output=json", path}, {"info", "--output=json", path}} {
		c, out := testConsole()
		if status := run(ctx, c, args); status != exitFailed || !strings.Contains(out.String(), "qbit: interrupted") || strings.Contains(out.String(), "]") {
			t.Errorf("%v: status %d, output %q", args, status, out.String())
		}
	}
}
