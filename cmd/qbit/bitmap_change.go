package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/qbitkit/qbit/qcow2"
)

// errNothing ends a transaction that shall change nothing.
var errNothing = errors.New("nothing is to be changed")

// change runs the operations of the command line in one transaction.
func (b *bitmapCommand) change(ctx context.Context, c *console, arg, name string) error {
	if err := checkImageArg(arg); err != nil {
		return err
	}
	file, err := b.openImage(c, arg)
	if err != nil {
		return err
	}
	defer file.release()
	editor, err := qcow2.Edit(file.File, file.size, &qcow2.Options{Limits: b.limits.limits})
	if err != nil || editor.Image().Header().Version < 3 { // which has a way out to name
		return explainEdit(arg, file, err)
	}
	e := &bitmapEditor{c: c, b: b, name: name, path: arg, img: editor.Image(), report: b.dry || b.json()}
	if e.source, err = b.openSource(c, file); err != nil {
		return err
	}
	defer e.close()
	var refused error
	err = editor.Update(func(tx *qcow2.Tx) error {
		refused = e.run(ctx, tx)
		return refused
	})
	switch {
	case errors.Is(err, errNothing):
	case refused != nil:
		return refused
	case err != nil:
		return fmt.Errorf("%s: %w", escapeName(arg), err)
	default:
		e.tellLeaked(editor)
	}
	return e.tell()
}

// openImage opens and locks the image that is to be changed. What would be changed
// needs reading only.
func (b *bitmapCommand) openImage(c *console, path string) (*imageFile, error) {
	mode, access := qcow2.LockWrite, os.O_RDWR
	if b.dry {
		mode, access = qcow2.LockRead, os.O_RDONLY
	}
	file, err := openLocked(c, path, mode, access)
	if err != nil {
		return nil, err
	}
	ours, err := isQcow2(file)
	switch {
	case err != nil:
		err = plainError(path, err)
	case !ours:
		err = notQcow2(file)
	}
	if err != nil {
		file.release()
		return nil, err
	}
	return file, nil
}

// explainEdit says why an image cannot be changed. That it is marked dirty or
// corrupt is a fault of the image.
func explainEdit(path string, file *imageFile, err error) error {
	if img, openErr := qcow2.Open(file, file.size, nil); openErr == nil && img.Header().Version < 3 {
		loss := lossOfImage(stateVersion2, path, nil)
		return fmt.Errorf("%s: the image is of version 2, which cannot hold bitmaps; %s", escapeName(path), loss.todo)
	}
	err = explainBitmap(path, err)
	if errors.Is(err, qcow2.ErrDirty) || errors.Is(err, qcow2.ErrCorrupt) {
		return badData{err}
	}
	return err
}

// openSource opens the image of -b; nil: the bitmaps of the image itself are meant.
func (b *bitmapCommand) openSource(c *console, image *imageFile) (*bitmapSource, error) {
	if b.source == "" {
		return nil, nil
	}
	if info, err := os.Stat(b.source); err == nil && os.SameFile(info, image.info) {
		return nil, nil
	}
	s := &bitmapSource{o: b.opener(c)}
	s.o.format = b.sourceFormat
	var err error
	if s.l, err = openBitmaps(s.o, b.source); err != nil {
		s.o.close()
		return nil, err
	}
	return s, nil
}

// A bitmapSource is the image of -b.
type bitmapSource struct {
	o *opener
	l *layer
}

// tellLeaked says what a directory that could not be read left behind.
func (e *bitmapEditor) tellLeaked(editor *qcow2.Editor) {
	n := editor.Leaked()
	if n == 0 && !e.dropsBroken {
		return
	}
	amount := ""
	if n > 0 {
		amount = fmt.Sprintf(" (%d clusters, %s)", n, formatSize(n*editor.Image().Geometry().ClusterSize()))
	}
	e.c.note("%s: what could not be followed stays allocated and unused%s; qbit check -r leaks %s frees it",
		escapeName(e.path), amount, shellWord(e.path))
}
