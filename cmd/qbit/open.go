package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// An imageFile is a file or block device, open for reading.
type imageFile struct {
	*os.File
	path string
	size int64
	info os.FileInfo
	// member is set where the image is a member of the archive that File is.
	member *io.SectionReader
}

// SysFile implements reconstruct.FileStorage. A member of an archive is no file.
func (f *imageFile) SysFile() *os.File {
	if f.member != nil {
		return nil
	}
	return f.File
}

// openFlags never wait for the other end of a FIFO, and leave the access time alone.
const openFlags = os.O_RDONLY | nonBlock | noAccessTime

// openFile opens what the user names.
func openFile(path string) (*imageFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, plainError(path, err)
	}
	// Before it is opened: opening alone can rewind a tape.
	if err := refuseKind(path, info.Mode()); err != nil {
		return nil, err
	}
	return openWith(path, func(flags int) (*os.File, error) { return os.OpenFile(path, flags, 0) })
}

// openBelow opens a file below an allowed folder; a symbolic link that leads out
// of it is not followed, whenever it was made.
func openBelow(target refTarget) (*imageFile, error) {
	rel, err := filepath.Rel(target.root, target.real)
	if err != nil {
		return nil, err
	}
	dir, err := os.OpenRoot(target.root)
	if err != nil {
		return nil, plainError(target.root, err)
	}
	defer dir.Close()
	return openWith(target.path, func(flags int) (*os.File, error) { return dir.OpenFile(rel, flags, 0) })
}

func openWith(path string, open func(flags int) (*os.File, error)) (*imageFile, error) {
	f, err := open(openFlags)
	if errors.Is(err, fs.ErrPermission) {
		// Only the owner may leave the access time alone.
		f, err = open(openFlags &^ noAccessTime)
	}
	if err != nil {
		return nil, plainError(path, err)
	}
	file, err := measure(f, path)
	if err != nil {
		f.Close()
		return nil, err
	}
	return file, nil
}

// measure finds the size of a file and refuses what is neither a file nor a disk.
func measure(f *os.File, path string) (*imageFile, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, plainError(path, err)
	}
	if err := refuseKind(path, info.Mode()); err != nil {
		return nil, err
	}
	size := info.Size()
	if !info.Mode().IsRegular() {
		if size, err = f.Seek(0, io.SeekEnd); err != nil {
			return nil, plainError(path, err)
		}
	}
	return &imageFile{File: f, path: path, size: size, info: info}, nil
}

// refuseKind refuses whatever is neither a regular file nor a block device.
func refuseKind(path string, mode fs.FileMode) error {
	kind := ""
	switch {
	case mode.IsRegular(), mode.Type() == fs.ModeDevice:
		return nil
	case mode.IsDir():
		kind = "a directory"
	case mode&fs.ModeNamedPipe != 0:
		kind = "a FIFO"
	case mode&fs.ModeSocket != 0:
		kind = "a socket"
	case mode&fs.ModeCharDevice != 0:
		kind = "a character device"
	default:
		kind = "a file of the kind " + mode.Type().String()
	}
	return fmt.Errorf("%s: %s; an image is a regular file or a block device", escapeName(path), kind)
}

// plainError is "PATH: what went wrong", whatever the system call was.
func plainError(path string, err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	return fmt.Errorf("%s: %w", escapeName(path), err)
}
