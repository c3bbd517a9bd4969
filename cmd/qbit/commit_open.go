package main

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/qbitkit/qbit/qcow2"
)

// A commitChain is what a commit works on: the images above a base, and the base.
type commitChain struct {
	*layer  // IMAGE
	overlay *editable
	refs    map[qcow2.Ref]qcow2.Disk // what IMAGE names, as far as it was opened
	between []*layer                 // below IMAGE and above the base, from the top
	// disk is IMAGE and those between: what they do not hold is absent.
	disk   qcow2.Disk
	base   *layer
	target commitTarget
	edited []*editable
	raw    *imageFile // the base, where it is raw
}

// unlock frees the locks of what may have been written to, also where a process that
// was just started has inherited it.
func (ch *commitChain) unlock() {
	for _, e := range ch.edited {
		e.unlock()
	}
	if ch.raw != nil {
		qcow2.Unlock(ch.raw.File)
	}
}

// openCommit opens IMAGE, the images down to the base, and the base for writing. IMAGE
// is opened for writing if it is to be emptied.
func openCommit(o *opener, path, base string, drop bool) (*commitChain, error) {
	w := commitWalk{o: o, want: wantedBase{name: base}, ch: &commitChain{}}
	if base != "" {
		w.want.info, _ = os.Stat(strings.TrimPrefix(base, "raw:"))
	}
	err := w.openImage(path, base != "" || drop)
	if err == nil && w.found == nil {
		err = w.notFound()
	}
	if err == nil {
		err = w.openBase()
	}
	if err != nil {
		w.ch.unlock()
		return nil, err
	}
	if len(w.ch.between) == 0 && base != "" && !drop {
		// It was the immediate backing file after all: IMAGE can be emptied.
		w.ch.unlock()
		o.close()
		return openCommit(o, path, "", false)
	}
	w.ch.disk = aboveBase{w.ch.disk, len(w.ch.between)}
	return w.ch, nil
}

// aboveBase is a disk of so many layers below the first. What a layer does not hold is
// absent only if the base shows there: behind the end of a layer in between it is zero,
// whatever the base has.
type aboveBase struct {
	qcow2.Disk
	layers int
}

// Extents implements qcow2.Disk.
func (d aboveBase) Extents(off, n int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		for e, err := range d.Disk.Extents(off, n) {
			if err == nil && e.Kind == qcow2.Absent && e.Depth < d.layers {
				e.Kind = qcow2.Zero
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// A commitWalk opens a chain from the top.
type commitWalk struct {
	o    *opener
	want wantedBase
	ch   *commitChain

	found  *layer // the base; its file is closed
	target refTarget
}

// A wantedBase is what -b names; without a name it is the first backing file.
type wantedBase struct {
	name string
	info os.FileInfo
}

// is says whether a backing file, which the image by names, is the base.
func (b *wantedBase) is(ref qcow2.Ref, by string, file *imageFile) bool {
	if b.name == "" || b.info != nil && os.SameFile(b.info, file.info) {
		return true
	}
	return b.info == nil && (b.name == ref.Name || b.name == fullRefName(by, ref.Name))
}

// openImage opens IMAGE and, through what it names, those below it.
func (w *commitWalk) openImage(path string, readOnly bool) error {
	if readOnly {
		file, err := openFile(path)
		if err != nil {
			return err
		}
		w.ch.layer = &layer{name: path, path: path, file: file}
		w.ch.refs, err = w.openOverlay(w.ch.layer)
		w.ch.disk = w.ch.layer.disk
		return err
	}
	file, err := openLocked(w.o.c, path, qcow2.LockWrite, os.O_RDWR)
	if err != nil {
		return err
	}
	w.ch.layer = &layer{name: path, path: path, file: file}
	if w.ch.overlay, err = w.o.edit(w.ch.layer, w.openRef, true); err != nil {
		qcow2.Unlock(file.File)
		return err
	}
	w.ch.edited = append(w.ch.edited, w.ch.overlay)
	w.ch.refs, w.ch.disk = w.ch.overlay.refs, w.ch.layer.disk
	return nil
}

// openOverlay opens the image of a layer for reading.
func (w *commitWalk) openOverlay(l *layer) (map[qcow2.Ref]qcow2.Disk, error) {
	w.o.files = append(w.o.files, l.file.File)
	if err := w.o.lock(l.file); err != nil {
		return nil, lockedHint(err)
	}
	ours, err := isQcow2(l.file)
	switch {
	case err != nil:
		return nil, plainError(l.path, err)
	case !ours:
		return nil, notQcow2(l.file)
	}
	l.format = formatQcow2
	refs := map[qcow2.Ref]qcow2.Disk{}
	var below error
	img, err := qcow2.Open(l.file, l.file.size, &qcow2.Options{
		Limits: w.o.limits.limits,
		OpenRef: func(ref qcow2.Ref) (d qcow2.Disk, err error) {
			d, below = w.openRef(l, ref)
			refs[ref] = d
			return d, below
		},
	})
	switch {
	case below != nil:
		return nil, below
	case err != nil:
		return nil, fmt.Errorf("%s: %w", escapeName(l.path), err)
	}
	l.image, l.disk = img, namedDisk{img, l.path}
	return refs, nil
}

// lockedHint takes the advice back to read an image that others write: commit does not.
func lockedHint(err error) error {
	if !errors.Is(err, qcow2.ErrLocked) {
		return err
	}
	return errors.New(strings.TrimSuffix(err.Error(), ", or read all the same with -U"))
}

// openRef opens what an image above the base names. The base itself stays closed: what
// is not held above it is absent.
func (w *commitWalk) openRef(l *layer, ref qcow2.Ref) (qcow2.Disk, error) {
	if ref.Kind == qcow2.RefData {
		return w.o.openRef(l, ref, refsNeeded)
	}
	file, target, err := w.o.openTarget(l, ref)
	if err != nil {
		return nil, err
	}
	below := &layer{name: ref.Name, path: target.path, file: file, above: l}
	if err = w.o.refuseLoop(l, ref, file); err == nil {
		below.format, err = refFormat(l, ref, target, file)
	}
	switch {
	case err != nil:
		file.Close()
		return nil, err
	case w.want.is(ref, l.path, file):
		w.found, w.target = below, target
		return nil, file.Close()
	case below.format == formatRaw:
		w.ch.between = append(w.ch.between, below)
		file.Close()
		return nil, w.notFound()
	}
	l.backing = below
	w.ch.between = append(w.ch.between, below)
	if _, err = w.openOverlay(below); err != nil {
		return nil, err
	}
	return below.disk, nil
}

// notFound says that there is no such base in the chain.
func (w *commitWalk) notFound() error {
	if len(w.ch.between) == 0 {
		return fmt.Errorf("%s: it has no backing file to write into", escapeName(w.ch.path))
	}
	var names []string
	for _, l := range w.ch.between {
		names = append(names, quote(escapeName(l.path)))
	}
	return usagef("-b %s: it is no backing file of %s, whose chain is %s",
		escapeName(w.want.name), escapeName(w.ch.path), strings.Join(names, ", "))
}

// openBase opens the base for writing: the file that was found, and no other.
func (w *commitWalk) openBase() error {
	file, err := openTargetLocked(w.o.c, w.target)
	if err != nil {
		return err
	}
	base := w.found
	if !os.SameFile(file.info, base.file.info) {
		file.Close()
		return fmt.Errorf("%s: another file took its place meanwhile", escapeName(base.path))
	}
	base.file, w.ch.base = file, base
	if base.format == formatRaw {
		w.o.files = append(w.o.files, file.File)
		w.ch.raw, w.ch.target = file, &rawBase{file: file}
		return nil
	}
	edited, err := w.o.edit(base, w.o.byMode(refsNeeded), true)
	if err != nil {
		return err
	}
	w.ch.edited = append(w.ch.edited, edited)
	w.ch.target = &imageBase{editable: edited}
	return nil
}

// openTargetLocked opens a file that the policy allows for writing, and locks it.
func openTargetLocked(c *console, target refTarget) (*imageFile, error) {
	if target.root == "" {
		return openLocked(c, target.path, qcow2.LockWrite, os.O_RDWR)
	}
	rel, err := filepath.Rel(target.root, target.real)
	if err != nil {
		return nil, err
	}
	dir, err := os.OpenRoot(target.root)
	if err != nil {
		return nil, plainError(target.root, err)
	}
	defer dir.Close()
	file, err := openWith(target.path, func(flags int) (*os.File, error) { return dir.OpenFile(rel, flags|os.O_RDWR, 0) })
	if err != nil {
		return nil, err
	}
	if err := lockImage(c, file, qcow2.LockWrite); err != nil {
		file.Close()
		return nil, err
	}
	locked, err := measure(file.File, target.path)
	if err != nil {
		file.release()
	}
	return locked, err
}
