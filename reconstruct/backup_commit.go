package reconstruct

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// A BackupCommit gives all files of a backup their names, and adds the bitmaps of its
// checkpoint to the images, as one act: after a crash at any moment RecoverBackup leaves
// both or neither. docs/crash-safety.md has the states.
//
// It belongs to one goroutine. The images are locked for writing by the caller from
// before they are read until after Commit, so that backup and checkpoint are of the same
// moment.
type BackupCommit struct {
	targets []Target // that have no name of their own, such as devices
	files   []*commitFile
	images  []*commitImage
	intent  *backupIntent // nil: no bitmap is added
	// committed says that nothing is undone any more.
	committed bool

	step func(what string) error // called before each step; tests fail in it
}

// A commitFile is a new file that is whole but for its name.
type commitFile struct {
	out     *Output
	content Content // nil: all is written
	named   bool
}

// A commitImage is an image that gets a bitmap.
type commitImage struct {
	path   string // without symbolic links
	device bool
	file   *os.File
	opts   *qcow2.Options
	editor *qcow2.Editor
	name   string
	bits   *bitmap.Bitmap
	added  bool // or tried
}

// NewBackupCommit is a commit of nothing so far.
func NewBackupCommit() *BackupCommit {
	return &BackupCommit{step: func(string) error { return nil }}
}

// AddTarget adds what a backup was written to. It belongs to the commit from then on.
func (b *BackupCommit) AddTarget(t Target) {
	if f, ok := t.(*FileTarget); ok {
		b.files = append(b.files, &commitFile{out: f.out, content: f.Content})
		return
	}
	b.targets = append(b.targets, t)
}

// AddDocument adds a small new file. opts may be nil.
func (b *BackupCommit) AddDocument(path string, content []byte, opts *OutputOptions) error {
	out, err := CreateOutput(path, opts)
	if err != nil {
		return err
	}
	b.files = append(b.files, &commitFile{out: out})
	_, err = out.File().WriteAt(content, 0)
	return err
}

// AddCheckpoint has a clean, recording bitmap added to an image, which file has open for
// writing and locked. Nothing is written yet, but that the bitmap can be added is sure
// as far as it can be known.
//
// Errors: those of qcow2.Edit, and of Tx.AddBitmap.
func (b *BackupCommit) AddCheckpoint(path string, file *os.File, opts *qcow2.Options, name string, granularity int64) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	image := &commitImage{file: file, opts: opts, name: name, device: !info.Mode().IsRegular()}
	if image.path, err = realPath(path); err != nil {
		return err
	}
	if image.editor, err = editFile(file, opts); err != nil {
		return err
	}
	if image.bits, err = bitmap.New(image.editor.Image().Size(), granularity); err != nil {
		return err
	}
	if err := image.try(); err != nil {
		return err
	}
	b.images = append(b.images, image)
	return nil
}

func editFile(file *os.File, opts *qcow2.Options) (*qcow2.Editor, error) {
	size, err := file.Seek(0, 2) // of a device too
	if err != nil {
		return nil, err
	}
	return qcow2.Edit(file, size, opts)
}

// errOnlyTried ends a transaction that shall change nothing.
var errOnlyTried = errors.New("nothing is to be changed")

// try finds what forbids the bitmap, before the work is done for nothing.
func (i *commitImage) try() error {
	err := i.editor.Update(func(tx *qcow2.Tx) error {
		if err := tx.AddBitmap(i.name, i.bits, true); err != nil {
			return err
		}
		return errOnlyTried
	})
	if errors.Is(err, errOnlyTried) {
		return nil
	}
	return err
}

func (i *commitImage) add() error {
	i.added = true
	return i.editor.Update(func(tx *qcow2.Tx) error { return tx.AddBitmap(i.name, i.bits, true) })
}

// Commit does it all. After an error nothing has its name and no image its bitmap, or
// the error is one of finishing: then the bitmaps are in and some files have no name
// yet, and RecoverBackup finishes that (see Committed).
func (b *BackupCommit) Commit() error {
	err := b.commit()
	if err == nil || b.committed {
		return err
	}
	return errors.Join(err, b.undo())
}

// Committed says that bitmaps and backup stand, whatever Commit returned: what failed
// is giving files their names.
func (b *BackupCommit) Committed() bool { return b.committed }

// commit is Commit without undoing anything.
func (b *BackupCommit) commit() error {
	for _, do := range []func() error{b.distinct, b.settle, b.prepare, b.addBitmaps, b.decide, b.name, b.forget} {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// distinct refuses two files that would get one name: the second could not have it when
// there is no way back any more.
func (b *BackupCommit) distinct() error {
	seen := map[string]bool{}
	for _, f := range b.files {
		dir, err := realPath(filepath.Dir(f.out.path))
		if err != nil {
			return err
		}
		path := filepath.Join(dir, filepath.Base(f.out.path))
		if seen[path] {
			return fmt.Errorf("%s: two files of the backup have this name", f.out.path)
		}
		seen[path] = true
	}
	return nil
}

// settle makes the files whole and durable under the names that they have now.
func (b *BackupCommit) settle() error {
	for _, t := range b.targets {
		if err := t.Commit(); err != nil {
			return err
		}
	}
	for _, f := range b.files {
		if err := b.step("settle"); err != nil {
			return err
		}
		if err := f.settle(); err != nil {
			return fmt.Errorf("%s: %w", f.out.path, err)
		}
	}
	return nil
}

func (f *commitFile) settle() error {
	if f.content != nil {
		if err := f.content.Close(); err != nil {
			return err
		}
	}
	return f.out.settle()
}

// settle is the part of Commit before the name: the file is durable and closed.
func (o *Output) settle() error {
	if err := o.checkOld(); err != nil {
		return err
	}
	if err := chmod(o.f, o.mode); err != nil {
		return err
	}
	if err := o.sync(o.f); err != nil {
		return err
	}
	o.direct.close()
	if err := o.f.Close(); err != nil {
		return err
	}
	return o.syncFolder(filepath.Dir(o.path))
}

// prepare writes the notes, that of the first image last.
func (b *BackupCommit) prepare() error {
	in, err := b.plan()
	if err != nil || in == nil {
		return err
	}
	b.intent = in
	for i := len(in.Images) - 1; i >= 0; i-- {
		if in.Images[i].Device {
			continue
		}
		if err := b.step("note"); err != nil {
			return err
		}
		if err := in.write(in.Images[i].Path); err != nil {
			return err
		}
	}
	return nil
}

// plan is the note to be; nil where there is no image, or none that a note can stand
// beside.
func (b *BackupCommit) plan() (*backupIntent, error) {
	in := newIntent()
	for _, device := range []bool{false, true} {
		for _, image := range b.images {
			if image.device == device {
				in.Images = append(in.Images, intentImage{Path: image.path, Bitmap: image.name, Device: device})
			}
		}
	}
	if len(in.Images) == 0 || in.Images[0].Device {
		return nil, nil
	}
	for _, f := range b.files {
		path, err := filepath.Abs(f.out.path)
		if err != nil {
			return nil, err
		}
		partial := filepath.Join(filepath.Dir(path), filepath.Base(f.out.temp))
		in.Files = append(in.Files, intentFile{Partial: partial, Path: path, Replace: f.out.opts.Overwrite})
	}
	return in, in.validate()
}

func (b *BackupCommit) addBitmaps() error {
	for _, image := range b.images {
		if err := b.step("bitmap"); err != nil {
			return err
		}
		if err := image.add(); err != nil {
			return fmt.Errorf("%s: adding the bitmap %q: %w", image.path, image.name, err)
		}
	}
	return nil
}

// decide makes the run one that is finished, and no longer undone.
func (b *BackupCommit) decide() error {
	if b.intent == nil {
		b.committed = len(b.images) > 0
		return nil
	}
	if err := b.step("decide"); err != nil {
		return err
	}
	b.intent.State = stateCommitted
	if err := b.intent.write(b.intent.Images[0].Path); err != nil {
		return b.undecided(err)
	}
	b.committed = true
	return nil
}

// undecided looks what the note says, where writing it failed half way.
func (b *BackupCommit) undecided(err error) error {
	now, readErr := readIntent(intentBeside(b.intent.Images[0].Path))
	if readErr != nil || now == nil || now.State == stateCommitted {
		b.committed = true
	}
	b.intent.State = statePrepared
	return err
}

// name gives the files their names.
func (b *BackupCommit) name() error {
	for _, f := range b.files {
		if err := b.step("name"); err != nil {
			return err
		}
		if err := f.out.rename(); err != nil {
			return err
		}
		f.named, f.out.f = true, nil
		if err := f.out.syncFolder(filepath.Dir(f.out.path)); err != nil {
			return err
		}
	}
	return nil
}

// forget removes the notes.
func (b *BackupCommit) forget() error {
	if b.intent == nil {
		return nil
	}
	return b.intent.remove(b.step)
}

// undo takes back what was done, before it was decided.
func (b *BackupCommit) undo() error {
	for _, image := range b.images {
		if !image.added {
			continue
		}
		if err := removeBitmap(image.file, image.opts, image.name); err != nil {
			return fmt.Errorf("%s: removing the bitmap %q again: %w; the next run tries once more", image.path, image.name, err)
		}
	}
	err := b.Abort()
	if b.intent == nil {
		return err
	}
	return errors.Join(err, b.intent.remove(func(string) error { return nil }))
}

// removeBitmap removes a bitmap, if it is there.
func removeBitmap(file *os.File, opts *qcow2.Options, name string) error {
	e, err := editFile(file, opts)
	if err != nil {
		return err
	}
	err = e.Update(func(tx *qcow2.Tx) error { return tx.RemoveBitmap(name) })
	if errors.As(err, new(*qcow2.NotFoundError)) {
		return nil
	}
	return err
}

// Abort removes the files that have no name yet. After a Commit that committed it does
// nothing, so that it can be deferred.
func (b *BackupCommit) Abort() error {
	if b.committed {
		return nil
	}
	var errs []error
	for _, t := range b.targets {
		errs = append(errs, t.Abort())
	}
	for _, f := range b.files {
		errs = append(errs, f.out.Abort())
	}
	return errors.Join(errs...)
}
