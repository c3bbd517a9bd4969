package qcow2

import (
	"errors"
	"fmt"
	"io/fs"
)

// ErrDirty reports an image whose dirty bit is set: its refcounts may be wrong, so
// nothing can be allocated.
var ErrDirty = errors.New("the image is marked dirty: its refcounts may be wrong and have to be rebuilt first")

// ErrCorrupt reports an image whose corrupt bit is set: it must not be written to.
var ErrCorrupt = errors.New("the image is marked corrupt and must not be written to before it is repaired")

// An ExistsError reports a name that is taken. It wraps fs.ErrExist.
type ExistsError struct {
	What string // "bitmap"
	Name string
}

func (e *ExistsError) Error() string { return fmt.Sprintf("there is a %s %q already", e.What, e.Name) }

func (e *ExistsError) Unwrap() error { return fs.ErrExist }

// An Editor changes an image, a transaction at a time; docs/crash-safety.md says
// what a crash can leave. It belongs to one goroutine and does not own the file.
// Nobody else may write to the file meanwhile (see Lock).
type Editor struct {
	f      File
	opts   Options
	img    *Image
	leaked int64
	failed error // an Update failed while it was writing
}

// Edit opens the image in f, a file of size bytes, for changing. It only reads.
//
// Beside the errors of Open there are ErrDirty, ErrCorrupt, and
// *UnsupportedError for version 2, which cannot hold bitmaps.
func Edit(f File, size int64, opts *Options) (*Editor, error) {
	e := &Editor{f: f}
	if opts != nil {
		e.opts = *opts
	}
	return e, e.reopen(size)
}

func (e *Editor) reopen(size int64) error {
	img, err := Open(e.f, size, &e.opts)
	if err != nil {
		return err
	}
	e.img = img
	switch {
	case img.Corrupt():
		return ErrCorrupt
	case img.Dirty():
		return ErrDirty
	case img.header.Version < 3:
		return &UnsupportedError{Feature: "bitmaps in an image of version 2 (qemu-img amend -o compat=1.1 makes it version 3)"}
	}
	return nil
}

// Image is the image as the last Update left it, for reading.
func (e *Editor) Image() *Image { return e.img }

// Leaked is how many clusters the last Update left without an owner: those of a
// bitmap or directory that was dropped and too broken to be followed, as far as
// they are known. They cost space and nothing else.
func (e *Editor) Leaked() int64 { return e.leaked }

// Update runs fn on a transaction and commits what it asked for, all or nothing.
// When fn fails, nothing is written and its error is returned.
//
// An error of the file before the link leaves the old state and at most leaks;
// what was allocated is given back as far as the file allows. An error of the link
// or of its sync leaves the old state or the new one. An error after it is one of
// giving back clusters: the new state stands, with leaks. After any of them the
// Editor refuses all further work; open the image anew to see what it holds.
func (e *Editor) Update(fn func(*Tx) error) error {
	if e.failed != nil {
		return fmt.Errorf("an earlier change failed: %w", e.failed)
	}
	tx, err := newTx(e.img)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil || !tx.changed {
		return err
	}
	c := &commit{f: e.f, img: e.img, tx: tx}
	if err := c.prepare(); err != nil {
		return err
	}
	if e.failed = c.run(); e.failed != nil {
		return e.failed
	}
	e.leaked = c.leaked
	if e.failed = e.reopen(c.alloc.fileSize()); e.failed != nil {
		return fmt.Errorf("the change is made, but reading the image again failed: %w", e.failed)
	}
	return nil
}
