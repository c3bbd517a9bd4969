package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/qbitkit/qbit/qcow2"
)

// isMissing says that a file is not there.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// openNew opens the new backing file and all below it, and finds its format.
func (j *rebasing) openNew() error {
	if j.r.backing == "" {
		j.newDisk = emptyDisk
		return nil
	}
	j.ref = &qcow2.Ref{Kind: qcow2.RefBacking, Name: j.r.backing, Format: j.r.backingFormat}
	target, err := j.newTarget()
	if err != nil {
		return err
	}
	file, err := openFile(target.path)
	if err != nil {
		return j.hintFolder(err)
	}
	below := &layer{name: j.ref.Name, path: target.path, file: file, above: j.image.layer}
	if err = j.o.refuseLoop(j.image.layer, *j.ref, file); err == nil {
		below.format, err = j.newFormat(target, file)
	}
	if err != nil {
		file.Close()
		return err
	}
	j.ref.Format, j.newPath = below.format, target.path
	if err := j.o.load(below, refsNeeded); err != nil {
		return err
	}
	j.newDisk = below.disk
	return nil
}

// newTarget is the file that NEW names. It needs no permission: the user names it.
func (j *rebasing) newTarget() (refTarget, error) {
	if target, ok := j.o.policy.mapped(j.r.backing); ok {
		return target, nil
	}
	path, err := plainPath(j.r.backing, j.image.path)
	if err != nil {
		return refTarget{}, fmt.Errorf("-b %s: %w; give a file in its place with --ref '%s=PATH'",
			escapeName(j.r.backing), err, escapeName(j.r.backing))
	}
	return refTarget{path: path}, nil
}

// newFormat is the format of NEW: the user's word, or what the magic of qcow2 says.
func (j *rebasing) newFormat(target refTarget, file *imageFile) (string, error) {
	switch {
	case target.raw && j.r.backingFormat == "":
		return formatRaw, nil
	case j.r.backingFormat == formatRaw:
		return formatRaw, nil
	}
	ours, err := isQcow2(file)
	switch {
	case err != nil:
		return "", plainError(file.path, err)
	case ours:
		return formatQcow2, nil
	}
	if format := foreignFormat(file, file.size); format != "" {
		return "", &foreignError{file.path, format}
	}
	return "", fmt.Errorf("%s: it has no qcow2 magic; if it is a raw disk, say so with -F raw", escapeName(file.path))
}

// hintFolder says where a relative name is looked for, if it was meant otherwise.
func (j *rebasing) hintFolder(err error) error {
	if isMissing(err) && pathExists(j.r.backing) {
		return fmt.Errorf("%w; a relative name is one as seen from the folder of %s", err, escapeName(j.image.path))
	}
	return err
}

// views are the disks in IMAGE alone, without what lies below: the active one first,
// then its snapshots, unless they do not count.
func (j *rebasing) views() (disks []qcow2.Disk, names []string, err error) {
	img, err := openAlone(j.image.layer, j.image.refs, j.r.limits.limits)
	if err != nil {
		return nil, nil, err
	}
	disks, names = []qcow2.Disk{img}, []string{""}
	if j.r.ignoreSnapshots {
		return disks, names, nil
	}
	snapshots, ids, err := snapshotsAlone(img)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", escapeName(j.image.path), err)
	}
	return append(disks, snapshots...), append(names, ids...), nil
}
