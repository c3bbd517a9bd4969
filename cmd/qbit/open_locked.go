package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/qbitkit/qbit/qcow2"
)

// openLocked opens and locks an image that is to be changed, and only then measures
// it: until it was locked, somebody else may have made it larger. End it with
// release.
func openLocked(c *console, path string, mode qcow2.LockMode, access int) (*imageFile, error) {
	file, err := openAs(path, access)
	if err != nil {
		return nil, err
	}
	if err := lockImage(c, file, mode); err != nil {
		file.Close()
		return nil, err
	}
	locked, err := measure(file.File, path)
	if err != nil {
		file.release()
	}
	return locked, err
}

// release unlocks and closes. The lock goes at once, also where a process that was
// just started still has the file open.
func (f *imageFile) release() {
	qcow2.Unlock(f.File)
	f.Close()
}

// openAs is openFile with an access of one's choice.
func openAs(path string, access int) (*imageFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, plainError(path, err)
	}
	if err := refuseKind(path, info.Mode()); err != nil {
		return nil, err
	}
	return openWith(path, func(flags int) (*os.File, error) { return os.OpenFile(path, flags|access, 0) })
}

func lockImage(c *console, f *imageFile, mode qcow2.LockMode) error {
	err := qcow2.Lock(f.File, mode)
	switch {
	case errors.Is(err, qcow2.ErrNoLocks):
		c.warn("%s: %v; nothing keeps others from using it meanwhile", escapeName(f.path), err)
		return nil
	case errors.Is(err, qcow2.ErrLocked):
		return fmt.Errorf("%s: %w; end that process first: an image is never changed while another has it open", escapeName(f.path), err)
	case err != nil:
		return fmt.Errorf("%s: %w", escapeName(f.path), err)
	}
	return nil
}
