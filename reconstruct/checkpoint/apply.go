package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// Documents keeps the documents of checkpoints. Each call is whole or has not happened,
// and what it did survives a crash once it returned.
type Documents interface {
	// Put stores the document of a checkpoint, in the place of the one with its name.
	Put(cp *libvirt.Checkpoint) error
	// Remove removes the document of a checkpoint. That there is none is no error.
	Remove(name string) error
}

// Images gives the images of a plan for changing. It is called once for each transaction;
// after an error the next call for the same place opens the image anew.
type Images func(Place) (*qcow2.Editor, error)

// An ApplyError reports a plan that was not applied to its end.
type ApplyError struct {
	Err error
	// Changed says that something was changed and stays so: documents, or bitmaps.
	Changed bool
	// Undo is what kept what was done from being taken back; nil: it was, or that was
	// not to be done.
	Undo error
}

func (e *ApplyError) Unwrap() []error {
	if e.Undo != nil {
		return []error{e.Err, e.Undo}
	}
	return []error{e.Err}
}

func (e *ApplyError) Error() string {
	switch {
	case e.Undo != nil:
		return fmt.Sprintf("%v; and what was done before could not be taken back: %v", e.Err, e.Undo)
	case e.Changed:
		return fmt.Sprintf("%v; what was done before stays, and no checkpoint that is left needs anything else", e.Err)
	}
	return e.Err.Error()
}

// Apply does what the plan says, in its order. docs may be nil where the plan is about
// no documents. Every transaction is all or nothing; see Plan for what stands between
// them. The error is an *ApplyError.
func (p *Plan) Apply(disks []Disk, images Images, docs Documents) error {
	a := &application{plan: p, disks: disks, images: images, docs: docs}
	err := a.run()
	if err == nil {
		return nil
	}
	if !p.Undo {
		return &ApplyError{Err: err, Changed: a.changed}
	}
	undo := a.undo()
	return &ApplyError{Err: err, Undo: undo, Changed: undo != nil}
}

type application struct {
	plan    *Plan
	disks   []Disk
	images  Images
	docs    Documents
	changed bool
	begun   []Step // of the first part, to be taken back
	written []string
}

func (a *application) run() error {
	for _, s := range a.plan.First {
		begun, err := a.step(s)
		if begun && !errors.Is(err, fs.ErrExist) { // else what is there is not ours
			a.begun = append(a.begun, s)
		}
		if err != nil {
			return err
		}
	}
	for _, cp := range a.plan.Write {
		a.written = append(a.written, cp.ResolvedName())
		if err := a.docs.Put(cp); err != nil {
			return fmt.Errorf("writing the document of checkpoint %.100q: %w", cp.ResolvedName(), err)
		}
		a.changed = true
	}
	for _, name := range a.plan.Remove {
		if err := a.docs.Remove(name); err != nil {
			return fmt.Errorf("removing the document of checkpoint %.100q: %w", name, err)
		}
		a.changed = true
	}
	for _, s := range a.plan.Last {
		if _, err := a.step(s); err != nil {
			return err
		}
	}
	return nil
}

// step does one transaction; begun says that it may have written.
func (a *application) step(s Step) (begun bool, err error) {
	if len(s.Put) == 0 && len(s.Remove) == 0 {
		return false, nil
	}
	e, err := a.images(s.Place)
	begun = err == nil
	if err == nil {
		err = e.Update(func(tx *qcow2.Tx) error { return s.do(tx, e.Image().Size()) })
	}
	if err != nil {
		return begun, &PlaceError{Target: a.disks[s.Disk].Target, Layer: s.Layer, Err: err}
	}
	a.changed = true
	return begun, nil
}

// do does the step in a transaction of an image with a disk of that size.
func (s Step) do(tx *qcow2.Tx, size int64) error {
	for _, put := range s.Put {
		if err := put.do(tx, size); err != nil {
			return err
		}
	}
	for _, name := range s.Remove {
		if err := tx.RemoveBitmap(name); err != nil {
			return err
		}
	}
	return nil
}

func (p Put) do(tx *qcow2.Tx, size int64) error {
	bits, err := p.target(tx, size)
	if err != nil {
		return err
	}
	for _, name := range p.From {
		more, err := tx.LoadBitmap(name)
		if err == nil {
			err = bits.Union(more)
		}
		if err != nil {
			return err
		}
	}
	if p.New {
		return tx.AddBitmap(p.Bitmap, bits, p.Auto)
	}
	if err := tx.ReplaceBitmap(p.Bitmap, bits); err != nil || !p.Auto {
		return err
	}
	return tx.SetBitmapAuto(p.Bitmap, true)
}

func (p Put) target(tx *qcow2.Tx, size int64) (*bitmap.Bitmap, error) {
	if p.New {
		return bitmap.New(size, p.Granularity)
	}
	return tx.LoadBitmap(p.Bitmap)
}

// undo takes back what the first part, which only made bitmaps and documents, made. An
// image whose transaction failed has them or not.
func (a *application) undo() error {
	var failed []error
	for _, name := range a.written {
		if err := a.docs.Remove(name); err != nil {
			failed = append(failed, err)
		}
	}
	for _, s := range a.begun {
		if err := a.undoStep(s); err != nil {
			failed = append(failed, &PlaceError{Target: a.disks[s.Disk].Target, Layer: s.Layer, Err: err})
		}
	}
	return errors.Join(failed...)
}

func (a *application) undoStep(s Step) error {
	e, err := a.images(s.Place)
	if err != nil {
		return err
	}
	var made []string
	for _, put := range s.Put {
		if _, err := e.Image().BitmapInfo(put.Bitmap); err == nil {
			made = append(made, put.Bitmap)
		}
	}
	if len(made) == 0 {
		return nil
	}
	return e.Update(func(tx *qcow2.Tx) error { return Step{Remove: made}.do(tx, 0) })
}
