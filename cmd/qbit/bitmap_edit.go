package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// A bitmapEditor does the operations of one command line in a transaction.
type bitmapEditor struct {
	b      *bitmapCommand
	c      *console
	path   string
	img    *qcow2.Image
	source *bitmapSource // of -b; nil: the image itself
	tx     *qcow2.Tx
	name   string // of the bitmap that the next operation is about

	// bits is the bitmap as the operations left it, while the transaction does
	// not have it yet; nil: it has.
	bits *bitmap.Bitmap
	// created says that an operation made a bitmap, for which -g counts.
	created bool
	// dropsBroken says that a directory goes which could not be read.
	dropsBroken bool
	report      bool
	steps       []bitmapStep
}

func (e *bitmapEditor) close() {
	if e.source != nil {
		e.source.o.close()
	}
}

// run does all operations. Its error, and that of a run that shall only tell, leaves
// the image as it was.
func (e *bitmapEditor) run(ctx context.Context, tx *qcow2.Tx) error {
	e.tx = tx
	if err := e.all(ctx); err != nil {
		return err
	}
	if e.b.given("granularity") && !e.created {
		return usagef("-g: no operation makes a bitmap; the granularity of one that is there does not change")
	}
	if e.b.dry {
		return errNothing
	}
	return ctx.Err()
}

func (e *bitmapEditor) all(ctx context.Context) error {
	switch {
	case e.b.dropAll:
		return e.dropAll()
	case e.b.inconsistent:
		return e.removeInconsistent()
	}
	for _, op := range e.b.operations {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := e.step(op); err != nil {
			return err
		}
	}
	return e.put()
}

// step does one operation, and notes what it changed.
func (e *bitmapEditor) step(op bitmapOp) error {
	before, err := e.state(e.name)
	if err == nil {
		err = op.kind.do(e, op)
	}
	var after *bitmapState
	about := e.name
	if op.kind.name == "copy" {
		before, about = nil, op.arg
	}
	if err == nil {
		after, err = e.state(about)
	}
	if err != nil {
		return e.explain(op, err)
	}
	e.note(op.kind.name, op.arg, before, after)
	return nil
}

// explain says which operation failed, and what can be done.
func (e *bitmapEditor) explain(op bitmapOp, err error) error {
	if errors.As(err, new(usageError)) || errors.Is(err, context.Canceled) {
		return err
	}
	hint := bitmapHint(e.path, err)
	if hint != "" {
		hint = "; " + hint
	}
	return fmt.Errorf("%s: %s: %w%s", escapeName(e.path), op, err, hint)
}

// load is the bitmap, to be changed.
func (e *bitmapEditor) load() (*bitmap.Bitmap, error) {
	if e.bits != nil {
		return e.bits, nil
	}
	var err error
	e.bits, err = e.tx.LoadBitmap(e.name)
	return e.bits, err
}

// put gives the transaction what was changed.
func (e *bitmapEditor) put() error {
	if e.bits == nil {
		return nil
	}
	bits := e.bits
	e.bits = nil
	return e.tx.ReplaceBitmap(e.name, bits)
}

// info is the bitmap's entry in the directory to be. Where the entry's name is there
// twice it is the first.
func (e *bitmapEditor) info(name string) (qcow2.BitmapInfo, error) {
	list, err := e.tx.Bitmaps()
	if err != nil {
		return qcow2.BitmapInfo{}, err
	}
	missing := &qcow2.NotFoundError{What: "bitmap", Name: name}
	for _, info := range list {
		if info.Name == name {
			return info, nil
		}
		missing.Have = append(missing.Have, info.Name)
	}
	return qcow2.BitmapInfo{}, missing
}

func (e *bitmapEditor) add(bitmapOp) error {
	return e.create(qcow2.DefaultGranularity(e.img.Geometry().ClusterSize(), e.img.Size()), true)
}

// create makes the bitmap, of another granularity if -g says so.
func (e *bitmapEditor) create(granularity int64, recording bool) error {
	if e.b.granularity != 0 {
		granularity = int64(e.b.granularity)
	}
	bits, err := bitmap.New(e.img.Size(), granularity)
	if err != nil {
		return err
	}
	e.created = true
	return e.tx.AddBitmap(e.name, bits, recording)
}

func (e *bitmapEditor) remove(bitmapOp) error {
	e.bits = nil
	return e.tx.RemoveBitmap(e.name)
}

// clear needs none of the bits that were there.
func (e *bitmapEditor) clear(bitmapOp) error {
	info, err := e.info(e.name)
	if err != nil {
		return err
	}
	if info.Granularity == 0 { // the transaction says what is wrong
		_, err := e.load()
		return err
	}
	bits, err := bitmap.New(e.img.Size(), info.Granularity)
	if err != nil {
		return err
	}
	e.bits = nil
	return e.tx.ReplaceBitmap(e.name, bits)
}

func (e *bitmapEditor) enable(bitmapOp) error { return e.tx.SetBitmapAuto(e.name, true) }

func (e *bitmapEditor) disable(bitmapOp) error { return e.tx.SetBitmapAuto(e.name, false) }

func (e *bitmapEditor) merge(op bitmapOp) error {
	bits, err := e.load()
	if err != nil {
		return err
	}
	var other *bitmap.Bitmap
	switch {
	case e.source != nil:
		if other, err = e.source.l.image.LoadBitmap(op.arg); err != nil {
			return fmt.Errorf("%s: %w", escapeName(e.source.l.path), err)
		}
	case op.arg == e.name:
		return nil
	default:
		if other, err = e.tx.LoadBitmap(op.arg); err != nil {
			return err
		}
	}
	return bits.Union(other)
}

func (e *bitmapEditor) rename(op bitmapOp) error {
	if err := e.put(); err != nil {
		return err
	}
	if err := e.tx.RenameBitmap(e.name, op.arg); err != nil {
		return err
	}
	e.name = op.arg
	return nil
}

func (e *bitmapEditor) copy(op bitmapOp) error {
	if err := e.put(); err != nil {
		return err
	}
	info, err := e.info(e.name)
	if err != nil {
		return err
	}
	bits, err := e.tx.LoadBitmap(e.name)
	if err != nil {
		return err
	}
	return e.tx.AddBitmap(op.arg, bits, info.Auto)
}

func (e *bitmapEditor) set(op bitmapOp) error { return e.mark(op.span, (*bitmap.Bitmap).Set) }

func (e *bitmapEditor) unset(op bitmapOp) error { return e.mark(op.span, (*bitmap.Bitmap).Unset) }

func (e *bitmapEditor) mark(s span, mark func(b *bitmap.Bitmap, off, n int64)) error {
	if s.end > e.img.Size() {
		return usagef("the range %d-%d ends behind the end of the disk, which has %d bytes", s.off, s.end, e.img.Size())
	}
	bits, err := e.load()
	if err == nil {
		mark(bits, s.off, s.end-s.off)
	}
	return err
}

// imports marks what a file says.
func (e *bitmapEditor) imports(op bitmapOp) error {
	in, name := e.c.in, "standard input"
	if op.arg != "-" {
		f, err := os.Open(op.arg)
		if err != nil {
			return plainError(op.arg, err)
		}
		defer f.Close()
		in, name = f, escapeName(op.arg)
	}
	return e.importFrom(in, name)
}

func (e *bitmapEditor) importFrom(in io.Reader, name string) error {
	err := readRanges(in, e.img.Size(), func(head rangesHead) (*bitmap.Bitmap, error) {
		if err := e.importInto(head); err != nil {
			return nil, err
		}
		return e.load()
	})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// importInto makes the bitmap if it is not there. What is known to be incomplete
// makes no bitmap: it would look like one that can be trusted.
func (e *bitmapEditor) importInto(head rangesHead) error {
	var missing *qcow2.NotFoundError
	switch _, err := e.info(e.name); {
	case !errors.As(err, &missing):
		return err
	case !head.complete:
		return badData{fmt.Errorf("it says that it is not complete: an increment made by it would miss changes; " +
			"to have its ranges all the same, add them to a bitmap that is there (--add --import)")}
	case head.nbdinfo:
		head.granularity = qcow2.DefaultGranularity(e.img.Geometry().ClusterSize(), e.img.Size())
	}
	return e.create(head.granularity, head.recording)
}

// removeInconsistent is --remove --inconsistent.
func (e *bitmapEditor) removeInconsistent() error {
	list, err := e.tx.Bitmaps()
	if err != nil {
		return explainBitmap(e.path, err)
	}
	for _, info := range list {
		if !info.InUse {
			continue
		}
		before, err := e.state(info.Name)
		if err == nil {
			err = e.tx.RemoveBitmap(info.Name)
		}
		if err != nil {
			return explainBitmap(e.path, err)
		}
		e.note("remove", "", before, nil)
	}
	return nil
}
