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
	failed error  // a change failed while it was written
	guest  *Guest // is open
}

// Edit opens the image in f, a file of size bytes, for changing. It only reads.
//
// Beside the errors of Open there are ErrDirty and ErrCorrupt. Version 2 cannot hold
// bitmaps: there Update is an *UnsupportedError.
func Edit(f File, size int64, opts *Options) (*Editor, error) {
	e := &Editor{f: f}
	if opts != nil {
		e.opts = *opts
	}
	return e, e.reopen(size)
}

// reopen reads the image anew. Files that it refers to as before stay open.
func (e *Editor) reopen(size int64) error {
	opts := e.opts
	if old := e.img; old != nil {
		opts.OpenRef = old.keepRefs(e.opts.OpenRef)
	}
	img, err := Open(e.f, size, &opts)
	if err != nil {
		return err
	}
	if e.img == nil {
		e.img = img
	} else { // who holds it goes on with the image as it is now
		*e.img = *img
		e.img.active.img = e.img
	}
	switch {
	case img.Corrupt():
		return ErrCorrupt
	case img.Dirty():
		return ErrDirty
	}
	return nil
}

// keepRefs is open, for all but what img has opened already.
func (img *Image) keepRefs(open func(Ref) (Disk, error)) func(Ref) (Disk, error) {
	if open == nil {
		return nil
	}
	return func(ref Ref) (Disk, error) {
		if d, ok := img.storage.(Disk); ok && img.dataFile != nil && ref == *img.dataFile {
			return d, nil
		}
		if img.backing != nil && ref == *img.backingRef {
			return img.backing, nil
		}
		return open(ref)
	}
}

// Image is the image as the last change left it, for reading. It stays the same one,
// and must not be read while a method of the Editor or its Guest runs.
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
	if err := e.ready(); err != nil {
		return err
	}
	if e.img.header.Version < 3 {
		return &UnsupportedError{Feature: "bitmaps in an image of version 2 (qemu-img amend -o compat=1.1 makes it version 3)"}
	}
	tx, err := newTx(e.img)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil || !tx.changed {
		return err
	}
	s, err := newSession(e.f, e.img, false)
	if err != nil {
		return err
	}
	c := &commit{session: s, tx: tx}
	if err := c.prepare(); err != nil {
		return err
	}
	if e.failed = c.run(); e.failed != nil {
		return e.failed
	}
	e.leaked = c.leaked
	return e.changed(c.alloc.fileSize())
}

// ready reports what forbids a change.
func (e *Editor) ready() error {
	switch {
	case e.failed != nil:
		return fmt.Errorf("an earlier change failed: %w", e.failed)
	case e.guest != nil:
		return errors.New("the guest is being changed: close it first")
	}
	return nil
}

// changed reads the image after a change; the file has size bytes now.
func (e *Editor) changed(size int64) error {
	if e.failed = e.reopen(size); e.failed != nil {
		return fmt.Errorf("the change is made, but reading the image again failed: %w", e.failed)
	}
	return nil
}
