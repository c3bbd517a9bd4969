package crash

import (
	"errors"
	"fmt"
)

// A Fault makes an operation fail. A write that fails has written Short bytes (or
// all that it had, if that is less); a truncate or sync that fails has done nothing.
type Fault struct {
	N     int   // the operation that fails: 1 is the next one, 0 none
	Err   error // what it returns; nil: an error that says so
	Short int   // bytes that a failing write writes all the same
	From  bool  // every operation after it fails too
	Reads bool  // reads count as operations, and fail
}

var errFault = errors.New("made to fail")

// A refusal is a Guard's error: unlike a failure it leaves nothing behind.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// Fail replaces the fault; the operations are counted anew.
//
// To make every operation of a program fail in turn, begin with N = 1 and go on
// until Failed says that none did.
func (f *File) Fail(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.asked, f.failed = fault, 0, 0
}

// Failed is how many operations the fault made fail.
func (f *File) Failed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// Guard has every operation, reads too, ask allow first: its error is returned by
// the operation, which then has no effect. It is called with the File locked, so
// it must not use the File. Nil removes it.
func (f *File) Guard(allow func(Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.guard = allow
}

// permit is the error that an operation must return, if any.
func (f *File) permit(op Op) error {
	if f.guard != nil {
		if err := f.guard(op); err != nil {
			return refusal{err}
		}
	}
	if op.Kind == Read && !f.fault.Reads {
		return nil
	}
	f.asked++
	if f.fault.N == 0 || f.asked < f.fault.N || f.asked > f.fault.N && !f.fault.From {
		return nil
	}
	f.failed++
	if f.fault.Err != nil {
		return f.fault.Err
	}
	return fmt.Errorf("%v: %w", op, errFault)
}

// shortBy is how many bytes a write that failed with err has written.
func (f *File) shortBy(err error) int {
	if _, refused := err.(refusal); refused {
		return 0
	}
	return f.fault.Short
}
