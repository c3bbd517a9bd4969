package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/plan"
	"github.com/qbitkit/qbit/reconstruct/virtnbd"
)

// What a run tells the shell. compare and check have qemu-img's own.
const (
	exitDone   = 0
	exitFailed = 1 // could not: a file is missing, locked, not allowed, not supported
	exitBad    = 2 // the bytes of an image break the format, or the chain does not hold
	exitUsage  = 3 // the command line is wrong
)

const usualExits = `0  done
1  could not: a file is missing, unreadable, in use, not allowed, or uses
   a feature that is not supported
2  the data or the chain is bad
3  the command line is wrong`

// A usageError is a mistake in the command line.
type usageError struct {
	error
}

func (e usageError) Unwrap() error { return e.error }

// usagef is a mistake in the command line.
func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// A badData is a fault of an image or a chain that has no type of its own.
type badData struct {
	error
}

func (e badData) Unwrap() error { return e.error }

// statusOf maps an error to an exit status; of several problems the worst.
func statusOf(err error) int {
	status := exitDone
	for _, problem := range problems(err) {
		status = max(status, statusOfOne(problem))
	}
	return status
}

// badErrors say that data is bad; a file that ends too early among them.
var badErrors = []error{qcow2.ErrNotQcow2, qcow2.ErrBitmapInUse, qcow2.ErrBitmapsStale, qcow2.ErrDamaged, io.ErrUnexpectedEOF}

func statusOfOne(err error) int {
	var (
		usage  usageError
		bad    badData
		format *qcow2.FormatError
		chain  *reconstruct.ChainError
		stream *virtnbd.FormatError
		route  *plan.RouteError
	)
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &bad), errors.As(err, &format), errors.As(err, &chain), errors.As(err, &stream):
		return exitBad
	case errors.As(err, &route):
		if route.Problem.Kind == plan.ProblemNoBackup {
			return exitFailed // the point is not there
		}
		return exitBad
	}
	for _, e := range badErrors {
		if errors.Is(err, e) {
			return exitBad
		}
	}
	return exitFailed
}

// problems takes apart what errors.Join put together.
func problems(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, problems(e)...)
	}
	return all
}

// fail prints one line a problem and returns the exit status. Whatever bytes an
// image put into a message, they reach the terminal escaped. A silent error
// has a status and nothing to print.
func (c *console) fail(err error, status func(error) int) int {
	if err == nil {
		return exitDone
	}
	for _, problem := range problems(err) {
		switch {
		case errors.As(problem, new(silent)):
		case errors.Is(problem, context.Canceled):
			fmt.Fprintln(c.err, "qbit: interrupted")
		default:
			fmt.Fprintf(c.err, "qbit: %s\n", escapeText(problem.Error()))
		}
	}
	return status(err)
}

// silent is the failure of a run that already said all there is to say.
type silent struct {
	error
}

func (e silent) Unwrap() error { return e.error }
