package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

// A createJob is one run of create.
type createJob struct {
	v        *createCommand
	c        *console
	path     string
	size     int64 // of the disk; -1: not known yet
	layout   qcow2.Layout
	dataPath string // of the external data file; "": there is none

	opener *opener // of the backing file; nil: it is not looked at
	inputs []fs.FileInfo
}

func (j *createJob) close() {
	if j.opener != nil {
		j.opener.close()
	}
}

// openBacking finds out what format the backing file has, and its size. Of the files
// that it names itself nothing is needed, so none is opened.
func (j *createJob) openBacking() error {
	if j.v.backing == "" {
		return nil
	}
	if j.v.unsafe {
		return j.refuseItself()
	}
	path, err := plainPath(j.v.backing, j.path)
	if err != nil {
		return usagef("-b %s: %w; -u only writes the name", escapeName(j.v.backing), err)
	}
	flags := sourceFlags{format: j.v.backingFmt, share: j.v.share, limits: j.v.limits}
	if j.opener, err = flags.newOpener(j.c); err != nil {
		return err
	}
	l, err := j.opener.open(linkArg{name: j.v.backing, path: path}, refsOwn)
	if err != nil {
		return j.explain(path, err)
	}
	j.v.backingFmt = l.format
	if j.size < 0 {
		j.size = l.disk.Size()
	}
	j.tellRecording(l)
	j.inputs, err = j.opener.inputs()
	return err
}

// explain says what can be done where a backing file cannot be opened.
func (j *createJob) explain(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the backing file %w (it is found from the folder of %s); -u makes an overlay all the same", err, escapeName(j.path))
	case errors.Is(err, qcow2.ErrNotQcow2) && j.v.backingFmt == "":
		return fmt.Errorf("the backing file %s has no qcow2 magic; if it is a raw disk, say so with -F raw", escapeName(path))
	}
	return fmt.Errorf("the backing file %w", err)
}

// refuseItself refuses an overlay on the file that it would replace, where the backing
// file is not opened.
func (j *createJob) refuseItself() error {
	path, err := plainPath(j.v.backing, j.path)
	if err != nil {
		return nil // a name with a protocol: it is only written
	}
	own, ownErr := os.Stat(j.path)
	below, belowErr := os.Stat(path)
	if ownErr == nil && belowErr == nil && os.SameFile(own, below) || filepath.Clean(path) == filepath.Clean(j.path) {
		return fmt.Errorf("%s: an image cannot be its own backing file", escapeName(j.path))
	}
	return nil
}

// tellRecording says that checkpoints end at an overlay without a bitmap.
func (j *createJob) tellRecording(l *layer) {
	if l.image == nil || l.image.BitmapsStale() {
		return
	}
	list, err := l.image.Bitmaps()
	if err != nil {
		return // of no use for the overlay, and told by qbit bitmap
	}
	for _, b := range list {
		if b.Auto && !b.InUse {
			j.c.note("%s has bitmaps that record changes, as %s; the overlay has none, so what is written into it is not recorded (qbit bitmap --add adds one)",
				escapeName(j.v.backing), quote(escapeName(b.Name)))
			return
		}
	}
}

// make makes the files. The external data file gets its name before the image does.
func (j *createJob) make(ctx context.Context) error {
	image, err := j.createOutput(j.path)
	if err != nil {
		return err
	}
	defer image.Abort()
	if j.dataPath == "" {
		if err := j.fill(ctx, image, nil); err != nil {
			return fmt.Errorf("%s: %w", escapeName(j.path), err)
		}
		return j.named(j.path, image.Commit())
	}
	data, err := j.createOutput(j.dataPath)
	if err != nil {
		return err
	}
	defer data.Abort()
	if err := j.fill(ctx, image, data); err != nil {
		return fmt.Errorf("%s: %w", escapeName(j.path), err)
	}
	if err := j.named(j.dataPath, data.Commit()); err != nil {
		return err
	}
	return j.named(j.path, image.Commit())
}

func (j *createJob) named(path string, err error) error {
	if err == nil {
		return nil
	}
	return plainError(path, err)
}

func (j *createJob) createOutput(path string) (*reconstruct.Output, error) {
	out, err := reconstruct.CreateOutput(path, &reconstruct.OutputOptions{Overwrite: j.v.force, Inputs: j.inputs})
	if info, statErr := os.Lstat(path); errors.Is(err, fs.ErrExist) && !j.v.force && statErr == nil && info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w; --force replaces it", plainError(path, err))
	}
	return out, j.named(path, err)
}

// fill writes an empty disk.
func (j *createJob) fill(ctx context.Context, image, data *reconstruct.Output) error {
	m := newMeter(j.c, &j.v.progressFlags, "create", j.size)
	defer m.clearLine()
	file := &createdFile{File: image.File(), ctx: ctx, m: m}
	if j.v.format == formatRaw {
		return j.fillRaw(file)
	}
	if data != nil {
		j.layout.DataFile.File = &createdFile{File: data.File(), ctx: ctx, m: m}
	}
	w, err := qcow2.Create(file, j.layout)
	if err != nil {
		return err
	}
	return w.Close()
}

// fillRaw makes a raw disk.
func (j *createJob) fillRaw(f *createdFile) error {
	if err := f.Truncate(j.size); err != nil {
		return err
	}
	switch {
	case j.size == 0:
		return nil
	case j.layout.Preallocation == qcow2.PreallocationFalloc:
		return allocate(f.File, j.size)
	case j.layout.Preallocation == qcow2.PreallocationFull:
		return f.writeZeros(j.size)
	}
	return nil
}

// A createdFile is a new file; an interrupt ends what is written to it.
type createdFile struct {
	*os.File
	ctx  context.Context
	m    *meter
	done int64
}

func (f *createdFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.ctx.Err(); err != nil {
		return 0, err
	}
	f.done += int64(len(p))
	f.m.Set(min(f.done, f.m.total))
	return f.File.WriteAt(p, off)
}

func (f *createdFile) writeZeros(n int64) error {
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < n; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), n-off)], off); err != nil {
			return err
		}
	}
	return nil
}
