package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/qbitkit/qbit/qcow2"
)

// An editable is a qcow2 image that is open and locked for changing. What lies below it
// is open for reading, as far as that was wanted.
type editable struct {
	*layer
	editor *qcow2.Editor
	// refs is what each file that the image names was opened as: the Editor asks again
	// when it has changed the image.
	refs map[qcow2.Ref]qcow2.Disk
	// written is the external data file, locked for writing; nil: there is none.
	written *imageFile
}

// unlock frees the locks at once, also where a process that was just started has the
// files open.
func (e *editable) unlock() {
	qcow2.Unlock(e.file.File)
	if e.written != nil {
		qcow2.Unlock(e.written.File)
	}
}

// dataFile is what the Editor writes guest bytes to, where that is another file.
func (e *editable) dataFile() (f qcow2.File, size int64) {
	if e.written == nil {
		return nil, 0
	}
	return e.written.File, e.written.size
}

// openData opens the external data file for writing.
func (e *editable) openData(o *opener, ref qcow2.Ref) (qcow2.Disk, error) {
	target, err := o.policy.resolve(ref, e.path)
	if err != nil {
		return nil, err
	}
	file, err := openTargetLocked(o.c, target)
	if err != nil {
		return nil, fmt.Errorf("%s: its %s: %w", escapeName(e.path), ref.Kind, err)
	}
	o.files = append(o.files, file.File)
	e.written = file
	return o.rawDisk(file, false), nil
}

// openEditable opens and locks the image that the user names, and its external data file
// if guest bytes may be written.
func (o *opener) openEditable(path string, openRef refOpener, withData bool) (*editable, error) {
	file, err := openLocked(o.c, path, qcow2.LockWrite, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	return o.edit(&layer{name: path, path: path, file: file}, openRef, withData)
}

// A refOpener opens a file that the image of a layer names; nil: it stays closed.
type refOpener func(l *layer, ref qcow2.Ref) (qcow2.Disk, error)

// byMode opens the files that an image names as the mode says.
func (o *opener) byMode(mode refMode) refOpener {
	return func(l *layer, ref qcow2.Ref) (qcow2.Disk, error) { return o.openRef(l, ref, mode) }
}

// edit makes the image in the file of l, which is locked, one that can be changed. From
// now on the file belongs to the opener, also if there is an error.
func (o *opener) edit(l *layer, openRef refOpener, withData bool) (*editable, error) {
	o.files = append(o.files, l.file.File)
	ours, err := isQcow2(l.file)
	switch {
	case err != nil:
		return nil, plainError(l.path, err)
	case !ours:
		return nil, notQcow2(l.file)
	}
	l.format = formatQcow2
	e := &editable{layer: l, refs: map[qcow2.Ref]qcow2.Disk{}}
	var below error // of a file that the image names: it speaks for itself
	e.editor, err = qcow2.Edit(l.file.File, l.file.size, &qcow2.Options{
		Limits: o.limits.limits,
		OpenRef: func(ref qcow2.Ref) (qcow2.Disk, error) {
			if d, ok := e.refs[ref]; ok {
				return d, nil
			}
			var d qcow2.Disk
			switch {
			case ref.Kind == qcow2.RefBacking:
				d, below = openRef(l, ref)
			case withData:
				d, below = e.openData(o, ref)
			}
			if below == nil {
				e.refs[ref] = d
			}
			return d, below
		},
	})
	switch {
	case below != nil:
		return nil, below
	case err != nil:
		return nil, explainChange(l.path, err)
	}
	l.data = e.written
	l.image = e.editor.Image()
	l.disk = namedDisk{l.image, l.path}
	return e, nil
}

// explainChange says why an image cannot be changed. That it is marked dirty or
// corrupt is a fault of the image.
func explainChange(path string, err error) error {
	err = explainBitmap(path, err)
	if errors.Is(err, qcow2.ErrDirty) || errors.Is(err, qcow2.ErrCorrupt) {
		return badData{err}
	}
	return err
}

// openAlone opens the image of a layer once more, without what lies below it: what it
// does not hold is absent. refs has its data file.
func openAlone(l *layer, refs map[qcow2.Ref]qcow2.Disk, limits qcow2.Limits) (*qcow2.Image, error) {
	img, err := qcow2.Open(l.file, l.file.size, &qcow2.Options{
		Limits: limits,
		OpenRef: func(ref qcow2.Ref) (qcow2.Disk, error) {
			if ref.Kind == qcow2.RefData {
				return refs[ref], nil
			}
			return nil, nil
		},
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", escapeName(l.path), err)
	}
	return img, nil
}

// checkChangeArg refuses what is no plain image: a raw file, a snapshot.
func checkChangeArg(verb, arg string) error {
	link := parseLink(arg, pathExists)
	switch {
	case link.raw:
		return usagef("%s: a raw disk has no backing file; %s takes a qcow2 image", escapeName(arg), verb)
	case link.snapshot != "":
		return usagef("%s: %s takes an image, not a snapshot of it", escapeName(arg), verb)
	}
	return nil
}

// snapshotsAlone are the disks of the internal snapshots of an image that was opened
// without its backing file, and their names.
func snapshotsAlone(img *qcow2.Image) (disks []qcow2.Disk, names []string, err error) {
	for s, err := range img.EachSnapshot() {
		if err != nil {
			return nil, nil, err
		}
		d, err := img.OpenSnapshot(s)
		if err != nil {
			return nil, nil, err
		}
		disks, names = append(disks, d), append(names, s.Name)
	}
	return disks, names, nil
}
