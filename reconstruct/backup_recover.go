package reconstruct

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/qbitkit/qbit/qcow2"
)

// A BackupRecovery says what RecoverBackup did.
type BackupRecovery struct {
	// Finished says that the backup was finished; otherwise it was undone.
	Finished bool
	Named    []string // files that got their names, finished ones only
	Removed  []string // unfinished files that were removed
	Images   []string // all images of the backup
	Bitmap   string   // that of the checkpoint in the first image
}

// RecoverBackup looks whether a backup with a checkpoint, of which the image at path is
// a disk, was interrupted, and finishes it, or undoes it: then its bitmaps go, from all
// of its images, and its unfinished files. Whoever changes or reads the bitmaps of an
// image calls it first, before locking the image. It returns nil where nothing was
// interrupted, which costs one look into the folder of the image.
//
// It locks the images for writing while it works; one that somebody uses is
// qcow2.ErrLocked, and nothing is done. limits are those for opening the images; the
// zero value is the default.
func RecoverBackup(path string, limits qcow2.Limits) (*BackupRecovery, error) {
	return recoverBackup(path, limits, func(string) error { return nil })
}

func recoverBackup(path string, limits qcow2.Limits, step func(string) error) (*BackupRecovery, error) {
	real, err := realPath(path)
	if err != nil {
		return nil, err
	}
	in, err := readIntent(intentBeside(real))
	if err != nil {
		return nil, err
	}
	if in == nil {
		return nil, removeUnwritten(real)
	}
	r := &backupRecovery{path: real, opts: &qcow2.Options{Limits: limits}, step: step}
	defer r.close()
	if err := r.lock(in); err != nil {
		return nil, fmt.Errorf("%s: a backup was interrupted, and has to be finished or undone first: %w", intentBeside(real), err)
	}
	// Somebody else may have done it until the locks were there.
	if in, err = readIntent(intentBeside(real)); in == nil || err != nil {
		return nil, err
	}
	if err := r.recover(in); err != nil {
		return nil, fmt.Errorf("%s: a backup was interrupted, and cannot be finished or undone: %w", intentBeside(real), err)
	}
	return &r.BackupRecovery, nil
}

// removeUnwritten removes a note that was never whole, unless somebody writes it now.
func removeUnwritten(image string) error {
	unwritten := intentBeside(image) + ".new"
	if _, err := os.Lstat(unwritten); err != nil {
		return nil
	}
	f, err := os.OpenFile(image, os.O_RDWR|openNonblock, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := qcow2.Lock(f, qcow2.LockWrite); err != nil {
		return nil
	}
	defer qcow2.Unlock(f)
	return os.Remove(unwritten)
}

// A backupRecovery is one RecoverBackup.
type backupRecovery struct {
	BackupRecovery
	path  string
	opts  *qcow2.Options
	files []*os.File // beside the images
	step  func(what string) error
}

func (r *backupRecovery) close() {
	for _, f := range r.files {
		qcow2.Unlock(f)
		f.Close()
	}
}

// lock opens and locks all images.
func (r *backupRecovery) lock(in *backupIntent) error {
	if !in.has(r.path) {
		return fmt.Errorf("it speaks of other images (%s …), so it was moved here; remove it if that backup is not wanted", in.Images[0].Path)
	}
	for _, image := range in.Images {
		f, err := os.OpenFile(image.Path, os.O_RDWR|openNonblock, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w; if that image is gone for good, remove its notes (.NAME.qbit-backup) by hand", err)
		}
		if err != nil {
			return err
		}
		r.files = append(r.files, f)
		if info, err := f.Stat(); err != nil || info.Mode().IsRegular() == image.Device {
			return errors.Join(err, fmt.Errorf("%s: it is not the file or device that it was", image.Path))
		}
		if err := qcow2.Lock(f, qcow2.LockWrite); err != nil && !errors.Is(err, qcow2.ErrNoLocks) {
			return fmt.Errorf("%s: %w", image.Path, err)
		}
		r.Images = append(r.Images, image.Path)
	}
	r.Bitmap = in.Images[0].Bitmap
	return nil
}

// recover decides, by the note of the first image.
func (r *backupRecovery) recover(in *backupIntent) error {
	if len(r.files) != len(in.Images) {
		return errors.New("it changed just now")
	}
	first, err := readIntent(intentBeside(in.Images[0].Path))
	switch {
	case err != nil:
		return err
	case first == nil || first.Run != in.Run:
		// The first note is written last and removed last: nothing else was done.
		return r.undo(in, false)
	case first.State == stateCommitted:
		return r.finish(in)
	}
	return r.undo(in, true)
}

// undo removes the bitmaps, then what has no name, then the notes.
func (r *backupRecovery) undo(in *backupIntent, bitmaps bool) error {
	if bitmaps {
		for i, image := range in.Images {
			if err := r.step("bitmap"); err != nil {
				return err
			}
			if !in.isBeside(image) {
				continue // it was undone there, or somebody else's note names it
			}
			if err := removeBitmap(r.files[i], r.opts, image.Bitmap); err != nil {
				return fmt.Errorf("%s: removing the bitmap %q: %w", image.Path, image.Bitmap, err)
			}
		}
	}
	for _, f := range in.Files {
		if err := r.step("remove"); err != nil {
			return err
		}
		err := os.Remove(f.Partial)
		switch {
		case err == nil:
			r.Removed = append(r.Removed, f.Partial)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return r.removeNotes(in, bitmaps)
}

// removeNotes leaves the note of the first image where it is of another run.
func (r *backupRecovery) removeNotes(in *backupIntent, first bool) error {
	if !first {
		rest := *in
		rest.Images = rest.Images[1:]
		in = &rest
	}
	return in.remove(r.step)
}

// finish gives the files their names that have none yet.
func (r *backupRecovery) finish(in *backupIntent) error {
	r.Finished = true
	for _, f := range in.Files {
		if err := r.step("name"); err != nil {
			return err
		}
		named, err := f.finish()
		if err != nil {
			return err
		}
		if named {
			r.Named = append(r.Named, f.Path)
		}
	}
	return r.removeNotes(in, true)
}

// finish gives a file its name; named says that it had none.
func (f intentFile) finish() (named bool, err error) {
	partial, err := os.Lstat(f.Partial)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(f.Path); err != nil {
			return false, fmt.Errorf("%w, and neither is %s: bring it back, or remove the note if that backup is not wanted", err, filepath.Base(f.Partial))
		}
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if old, err := os.Lstat(f.Path); err == nil && os.SameFile(old, partial) {
		// Without a rename that refuses to replace, a file gets its second name first.
		return false, errors.Join(os.Remove(f.Partial), syncFolder(filepath.Dir(f.Path)))
	}
	rename := renameNew
	if f.Replace {
		rename = os.Rename
	}
	if err := rename(f.Partial, f.Path); err != nil {
		return false, err
	}
	return true, syncFolder(filepath.Dir(f.Path))
}
