package reconstruct

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"

	"github.com/qbitkit/qbit/qcow2"
)

// OutputOptions are the options of CreateOutput.
type OutputOptions struct {
	// Overwrite allows Commit to replace a regular file. Its permissions stay.
	Overwrite bool
	// Inputs are files that must never be replaced, Overwrite or not.
	Inputs []fs.FileInfo
	// Direct has Storage write around the page cache. CreateOutput fails with an
	// error that wraps ErrNoDirect where that cannot be.
	Direct bool
}

// An Output is a new file that gets its name when it is whole. Until then it is
// hidden in the same folder, as .NAME.qbit-XXXXXXXX.partial, which is all that a
// killed process leaves. It belongs to one goroutine; its file does not.
type Output struct {
	f      *os.File // nil when done
	temp   string
	path   string
	opts   OutputOptions
	mode   fs.FileMode // what the file gets in the end
	direct *directFile // nil: all goes through the page cache
	keep   bool        // Abort leaves the file, for who goes on with it

	// The steps of Commit, which tests make fail.
	sync       func(*os.File) error
	syncFolder func(string) error
}

// CreateOutput begins a new file. It is an error, that wraps fs.ErrExist, if
// something stands at path and Overwrite is not set, and also if it is something
// else than a regular file; an image that another process has open is
// qcow2.ErrLocked. The final permissions are those that the umask leaves of 0644;
// until Commit only the owner can read the file. opts may be nil.
func CreateOutput(path string, opts *OutputOptions) (*Output, error) {
	o := newOutput(path, opts)
	if err := o.checkOld(); err != nil {
		return nil, err
	}
	if err := o.create(); err != nil {
		return nil, err
	}
	if err := o.hide(); err != nil {
		o.Abort()
		return nil, err
	}
	if err := o.openDirect(); err != nil {
		o.Abort()
		return nil, err
	}
	return o, nil
}

func newOutput(path string, opts *OutputOptions) *Output {
	o := &Output{path: path, sync: (*os.File).Sync, syncFolder: syncFolder}
	if opts != nil {
		o.opts = *opts
	}
	return o
}

// checkOld looks at what stands at the path of the result.
func (o *Output) checkOld() error {
	old, err := os.Lstat(o.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	refuse := func(why string) error {
		return &fs.PathError{Op: "create", Path: o.path, Err: fmt.Errorf("%w: %s", fs.ErrExist, why)}
	}
	switch {
	case !old.Mode().IsRegular():
		return refuse("it is no regular file and cannot be replaced")
	case isOneOf(old, o.opts.Inputs):
		return refuse("it is one of the files that are read")
	case !o.opts.Overwrite:
		return &fs.PathError{Op: "create", Path: o.path, Err: fs.ErrExist}
	}
	o.mode = old.Mode().Perm()
	return refuseInUse(o.path)
}

// refuseInUse refuses to replace an image that another process has open, as QEMU locks
// it: that would go on writing to a file without a name.
func refuseInUse(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|openNonblock, 0)
	if err != nil {
		return nil // without the right to write to it nothing can be found out
	}
	defer f.Close()
	if err := qcow2.Lock(f, qcow2.LockWrite); errors.Is(err, qcow2.ErrLocked) {
		return &fs.PathError{Op: "create", Path: path, Err: err}
	} else if err == nil {
		return qcow2.Unlock(f)
	}
	return nil
}

func isOneOf(f fs.FileInfo, all []fs.FileInfo) bool {
	for _, other := range all {
		if other != nil && os.SameFile(f, other) {
			return true
		}
	}
	return false
}

// create opens a file with a temporary name that nobody has.
func (o *Output) create() error {
	folder, name := filepath.Split(o.path)
	if name == "" {
		return o.nameless()
	}
	const longest = 200 // of the 255 bytes that a name may have
	if len(name) > longest {
		name = name[:longest]
	}
	for try := 0; ; try++ {
		o.temp = filepath.Join(folder, fmt.Sprintf(".%s.qbit-%08x.partial", name, rand.Uint32()))
		f, err := os.OpenFile(o.temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		if err == nil {
			o.f = f
			return nil
		}
		if !errors.Is(err, fs.ErrExist) || try == 100 {
			return err
		}
	}
}

func (o *Output) nameless() error {
	return &fs.PathError{Op: "create", Path: o.path, Err: errors.New("the name of a file is missing")}
}

// reopen makes the file temp, which has a mode in the end, or opens it as an earlier
// run left it. Abort will leave it too.
func (o *Output) reopen(temp string, mode fs.FileMode) error {
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|openNoFollow|openNonblock, 0o600)
	if err != nil {
		return err
	}
	o.f, o.temp, o.keep = f, temp, true
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || isOneOf(info, o.opts.Inputs) {
		return &fs.PathError{Op: "open", Path: temp, Err: errors.New("it is no regular file, or one of the files that are read")}
	}
	if o.mode == 0 {
		o.mode = mode
	}
	if err := o.hide(); err != nil {
		return err
	}
	return o.openDirect()
}

// hide keeps the file from others until it is whole. The mode that it was
// created with is the one that the umask allows.
func (o *Output) hide() error {
	info, err := o.f.Stat()
	if err != nil {
		return err
	}
	if o.mode == 0 {
		o.mode = info.Mode().Perm()
	}
	return chmod(o.f, 0o600)
}

// chmod changes permissions where there are such; filesystems without them
// refuse.
func chmod(f *os.File, mode fs.FileMode) error {
	err := f.Chmod(mode)
	if errors.Is(err, fs.ErrPermission) || unsupported(err) || runtime.GOOS == "windows" {
		return nil
	}
	return err
}

// File is the new file, empty at first, for reading and writing.
func (o *Output) File() *os.File { return o.f }

// Storage is the new file for many writes: as File, but on a system where that
// can be asked for, what is written begins to be stored at once, and Commit has
// little left to wait for. It may be used from several goroutines.
func (o *Output) Storage() qcow2.File {
	e := newEagerFile(o.f, false)
	e.direct = o.direct
	return e
}

// Path is the name that the file gets.
func (o *Output) Path() string { return o.path }

// Commit syncs the file, gives it its name, and syncs the folder. Without
// Overwrite, something that has appeared there meanwhile is not replaced. If
// Commit fails, the new file is removed, unless only the sync of the folder
// failed, after the file got its name.
func (o *Output) Commit() error {
	if o.f == nil {
		return &fs.PathError{Op: "commit", Path: o.path, Err: fs.ErrClosed}
	}
	defer o.Abort()
	if err := chmod(o.f, o.mode); err != nil {
		return err
	}
	if err := o.sync(o.f); err != nil {
		return err
	}
	f := o.f
	o.direct.close()
	if err := f.Close(); err != nil {
		return err
	}
	if err := o.rename(); err != nil {
		return err
	}
	o.f = nil
	return o.syncFolder(filepath.Dir(o.path))
}

func (o *Output) rename() error {
	if !o.opts.Overwrite {
		return renameNew(o.temp, o.path)
	}
	if err := o.checkOld(); err != nil { // it may be another thing by now
		return err
	}
	return os.Rename(o.temp, o.path)
}

// Abort closes and removes the file, or leaves it if it is to be gone on with. After
// Commit it does nothing.
func (o *Output) Abort() error {
	if o.f == nil {
		return nil
	}
	o.direct.close()
	o.f.Close() // may be closed already; what counts is that the file goes
	o.f = nil
	if o.keep {
		return nil
	}
	return os.Remove(o.temp)
}

// linkNew renames a file by making a second name, which never replaces
// another. Where there are no hard links, it looks first and then renames.
func linkNew(from, to string) error {
	err := os.Link(from, to)
	if err == nil {
		return os.Remove(from)
	}
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: fs.ErrExist}
	}
	return os.Rename(from, to)
}

// syncFolder makes the names in a folder durable, where a folder can be synced.
func syncFolder(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !unsupported(err) {
		return err
	}
	return nil
}
