package reconstruct

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"

	"github.com/qbitkit/qbit/qcow2"
)

// An OntoTarget writes over a block device or a regular file that is there. What
// is zero or absent is really zeroed, whatever stood there before. Bytes beyond
// the end of the disk are left alone (see Beyond).
type OntoTarget struct {
	f      *eagerFile
	size   int64 // of the file
	beyond int64
	way    atomic.Int32 // index into zeroModes; len(zeroModes): write zeros
}

// OpenOnto opens the device or file at path for a disk of size bytes. It is an
// error if that is larger than the file, if path is neither a block device nor a
// regular file, if it is one of inputs, or if a device is mounted or in use.
// Nothing is changed yet.
func OpenOnto(path string, size int64, inputs []fs.FileInfo) (*OntoTarget, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	refuse := func(why string) error {
		return &fs.PathError{Op: "write onto", Path: path, Err: errors.New(why)}
	}
	if isOneOf(info, inputs) {
		return nil, refuse("it is one of the files that are read")
	}
	if !ontoAble(info) {
		return nil, refuse("it is neither a block device nor a regular file")
	}
	f, err := openOnto(path, info)
	if err != nil {
		return nil, err
	}
	held, err := f.Seek(0, io.SeekEnd)
	if err == nil && held < size {
		err = refuse(fmt.Sprintf("it holds %d bytes, the disk has %d", held, size))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &OntoTarget{f: newEagerFile(f, isBlock(info)), size: held, beyond: held - size}, nil
}

func ontoAble(info fs.FileInfo) bool {
	return info.Mode().IsRegular() || isBlock(info)
}

func isBlock(info fs.FileInfo) bool {
	return info.Mode()&(fs.ModeDevice|fs.ModeCharDevice) == fs.ModeDevice
}

// openOnto opens what info describes, and nothing that took its place.
func openOnto(path string, info fs.FileInfo) (*os.File, error) {
	flags := os.O_RDWR | openNonblock
	if isBlock(info) {
		flags |= openExclusive
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	if now, err := f.Stat(); err != nil || !os.SameFile(now, info) {
		f.Close()
		return nil, &fs.PathError{Op: "write onto", Path: path, Err: errors.New("it changed while it was opened")}
	}
	return f, nil
}

// Beyond is how many bytes of the device or file lie beyond the end of the disk.
func (t *OntoTarget) Beyond() int64 { return t.beyond }

// WriteAt implements Target.
func (t *OntoTarget) WriteAt(p []byte, off int64) (int, error) { return t.f.WriteAt(p, off) }

// Zero implements Target. It deallocates where that is sure to read as zero, or
// has the system zero the range, or writes zeros.
func (t *OntoTarget) Zero(off, n int64) error { return t.zeroContext(context.Background(), off, n) }

func (t *OntoTarget) zeroContext(ctx context.Context, off, n int64) error {
	const align = 4096 // no device wants more
	end := off + n
	first, last := min(end, (off+align-1)&^(align-1)), end&^(align-1)
	if first >= last {
		return writeZeros(ctx, t.f, off, n)
	}
	if err := writeZeros(ctx, t.f, off, first-off); err != nil {
		return err
	}
	if err := t.zeroAligned(ctx, first, last-first); err != nil {
		return err
	}
	return writeZeros(ctx, t.f, last, end-last)
}

func (t *OntoTarget) zeroAligned(ctx context.Context, off, n int64) error {
	for way := t.way.Load(); int(way) < len(zeroModes); way++ {
		err := zeroRange(t.f.File, zeroModes[way], off, n)
		if !unsupported(err) {
			return err
		}
		t.way.CompareAndSwap(way, way+1)
	}
	return writeZeros(ctx, t.f, off, n)
}

// Commit implements Target: it syncs and closes the file.
func (t *OntoTarget) Commit() error {
	t.f.direct.close()
	err := t.f.Sync()
	if closed := t.f.Close(); err == nil {
		err = closed
	}
	return err
}

// Abort implements Target: it closes the file. What was written over is gone.
func (t *OntoTarget) Abort() error {
	t.f.direct.close()
	if err := t.f.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}

// Disk is what the first size bytes of the device or file hold now, as they are
// stored: what the system only remembers is read anew. It may be read until Commit or
// Abort.
func (t *OntoTarget) Disk(size int64) (qcow2.Disk, error) {
	if err := checkRange(0, size, t.size); err != nil {
		return nil, err
	}
	return NewRaw(t.f.File, size, nil), freshen(t.f.File)
}

// Size is that of the device or file, in bytes.
func (t *OntoTarget) Size() int64 { return t.size }
