package reconstruct

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
)

// A backupIntent is the note beside an image that gets a bitmap together with a backup:
// what a later run needs to finish the two, or to undo them. docs/crash-safety.md says
// how it is used. Every image of the run has the same note, but for State: that counts
// only in the note of the first.
type backupIntent struct {
	Format  string        `json:"format"`
	Version int           `json:"version"`
	Run     string        `json:"run"` // which run it was: 16 hex digits
	State   string        `json:"state"`
	Images  []intentImage `json:"images"` // the first has the note that counts
	Files   []intentFile  `json:"files"`
}

// An intentImage is an image and the bitmap that it gets.
type intentImage struct {
	Path   string `json:"path"` // absolute, without symbolic links
	Bitmap string `json:"bitmap"`
	Device bool   `json:"device,omitempty"` // it has no note of its own
}

// An intentFile is a file that is whole, and its name to be.
type intentFile struct {
	Partial string `json:"partial"` // absolute
	Path    string `json:"path"`    // in the same folder
	Replace bool   `json:"replace,omitempty"`
}

const (
	intentFormat  = "qbit-backup-intent"
	intentVersion = 1
	// statePrepared: bitmaps are being added. A crash is undone.
	statePrepared = "prepared"
	// stateCommitted: all bitmaps are in. A crash is finished.
	stateCommitted = "committed"

	// maxIntent bounds the note, in bytes: thousands of disks.
	maxIntent = 16 << 20
)

func newIntent() *backupIntent {
	return &backupIntent{Format: intentFormat, Version: intentVersion, Run: fmt.Sprintf("%016x", rand.Uint64()), State: statePrepared}
}

// BackupIntentPath is where the note about an interrupted backup of an image stands:
// beside the image itself, also where path is a symbolic link to it.
func BackupIntentPath(image string) (string, error) {
	real, err := realPath(image)
	if err != nil {
		return "", err
	}
	return intentBeside(real), nil
}

func intentBeside(real string) string {
	dir, name := filepath.Split(real)
	return dir + "." + name + ".qbit-backup"
}

// realPath is the absolute path of a file that is there, without symbolic links.
func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// readIntent reads a note; nil: there is none.
func readIntent(path string) (*backupIntent, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openNoFollow|openNonblock, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxIntent+1))
	if err != nil {
		return nil, err
	}
	in, err := decodeIntent(b)
	if err != nil {
		return nil, fmt.Errorf("%s: the note of an interrupted backup: %w", path, err)
	}
	return in, nil
}

func decodeIntent(b []byte) (*backupIntent, error) {
	if len(b) > maxIntent {
		return nil, fmt.Errorf("it is longer than %d bytes", maxIntent)
	}
	in := &backupIntent{}
	if err := json.Unmarshal(b, in); err != nil {
		return nil, err
	}
	return in, in.validate()
}

// partialName is what CreateOutput calls a file that has no name yet. Nothing else is
// ever renamed or removed because of a note.
var partialName = regexp.MustCompile(`(?s)^\..+\.qbit-[0-9a-f]{8}\.partial$`)

func (in *backupIntent) validate() error {
	switch {
	case in.Format != intentFormat || in.Version != intentVersion:
		return fmt.Errorf("it is %q version %d, and should be %q version %d", in.Format, in.Version, intentFormat, intentVersion)
	case in.State != statePrepared && in.State != stateCommitted:
		return fmt.Errorf("the state %q is neither %s nor %s", in.State, statePrepared, stateCommitted)
	case len(in.Images) == 0 || in.Images[0].Device:
		return errors.New("it names no image that it belongs to")
	}
	for _, image := range in.Images {
		if !filepath.IsAbs(image.Path) || filepath.Clean(image.Path) != image.Path || image.Bitmap == "" {
			return fmt.Errorf("image %q with bitmap %q: the path must be absolute, and the bitmap named", image.Path, image.Bitmap)
		}
	}
	for _, f := range in.Files {
		if !filepath.IsAbs(f.Path) || filepath.Clean(f.Path) != f.Path || filepath.Clean(f.Partial) != f.Partial ||
			filepath.Dir(f.Partial) != filepath.Dir(f.Path) || !partialName.MatchString(filepath.Base(f.Partial)) {
			return fmt.Errorf("file %q, to be named %q: not what qbit calls an unfinished file there", f.Partial, f.Path)
		}
	}
	return nil
}

// has says that a note is also that of the image with a path.
func (in *backupIntent) has(path string) bool {
	for _, image := range in.Images {
		if image.Path == path && !image.Device {
			return true
		}
	}
	return false
}

// isBeside says that an image has the note of this run, as all have while bitmaps are
// added and removed. On a device there is none.
func (in *backupIntent) isBeside(image intentImage) bool {
	if image.Device {
		return true
	}
	note, err := readIntent(intentBeside(image.Path))
	return err == nil && note != nil && note.Run == in.Run
}

// write puts the note beside an image, whole or not at all, and durable.
func (in *backupIntent) write(image string) error {
	b, err := json.MarshalIndent(in, "", "  ")
	if err != nil {
		return err
	}
	path := intentBeside(image)
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// remove takes the notes away, that of the first image last: while it is there the
// others mean nothing without it. Folders are synced in between.
func (in *backupIntent) remove(step func(string) error) error {
	for i := len(in.Images) - 1; i >= 0; i-- {
		if in.Images[i].Device {
			continue
		}
		if err := step("forget"); err != nil {
			return err
		}
		path := intentBeside(in.Images[i].Path)
		if other, err := readIntent(path); err == nil && other != nil && other.Run != in.Run {
			continue
		}
		for _, p := range []string{path + ".new", path} {
			if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := syncFolder(filepath.Dir(path)); err != nil {
			return err
		}
	}
	return nil
}
