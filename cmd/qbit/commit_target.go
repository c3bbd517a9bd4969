package main

import (
	"fmt"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// A commitTarget is the base of a commit. Grow comes first, then writes, then Finish.
type commitTarget interface {
	Size() int64
	// Grow makes the disk that large, if it is smaller; what is added reads as zero.
	Grow(size int64) error
	WriteAt(p []byte, off int64) (int, error)
	Zero(off, n int64) error
	// Finish has all that was written stored.
	Finish() error
	// edit is the image, for its bitmaps; nil: it has none and can have none.
	edit() *editable
	// Changes says what will be written at most; it comes after Grow.
	Changes(held *bitmap.Bitmap)
}

// An imageBase is a base that is a qcow2 image.
type imageBase struct {
	*editable
	guest   *qcow2.Guest
	changes *bitmap.Bitmap
}

// Changes implements commitTarget.
func (b *imageBase) Changes(held *bitmap.Bitmap) { b.changes = held }

func (b *imageBase) edit() *editable {
	if b.editor.Image().Header().Version < 3 {
		return nil
	}
	return b.editable
}

// Size is that of the disk now.
func (b *imageBase) Size() int64 { return b.editor.Image().Size() }

// Grow implements commitTarget.
func (b *imageBase) Grow(size int64) error {
	if size <= b.Size() {
		return nil
	}
	opts := qcow2.ResizeOptions{}
	opts.DataFile, opts.DataSize = b.dataFile()
	err := b.editor.Resize(size, &opts)
	if err == nil {
		err = b.measureData()
	}
	if err != nil {
		return b.explain(fmt.Errorf("making its disk as large as that of the overlay: %w", err))
	}
	return nil
}

func (b *imageBase) explain(err error) error {
	if err == nil {
		return nil
	}
	return explainChange(b.path, err)
}

// measureData finds the size of the data file anew, which may have grown.
func (e *editable) measureData() error {
	if e.written == nil {
		return nil
	}
	file, err := measure(e.written.File, e.written.path)
	if err == nil {
		e.written.size = file.size
	}
	return err
}

// begin begins to write guest bytes.
func (b *imageBase) begin() (err error) {
	if b.guest == nil {
		opts := qcow2.GuestOptions{Changes: b.changes}
		opts.DataFile, opts.DataSize = b.dataFile()
		b.guest, err = b.editor.Guest(&opts)
	}
	return b.explain(err)
}

// WriteAt implements commitTarget.
func (b *imageBase) WriteAt(p []byte, off int64) (int, error) {
	if err := b.begin(); err != nil {
		return 0, err
	}
	n, err := b.guest.WriteAt(p, off)
	return n, b.explain(err)
}

// Zero implements commitTarget.
func (b *imageBase) Zero(off, n int64) error {
	if err := b.begin(); err != nil {
		return err
	}
	return b.explain(b.guest.Zero(off, n))
}

// Finish implements commitTarget.
func (b *imageBase) Finish() error {
	if b.guest == nil {
		return nil
	}
	err := b.guest.Close()
	b.guest = nil
	return b.explain(err)
}

// A rawBase is a base that is a raw file or a block device.
type rawBase struct {
	file *imageFile
	size int64 // after Grow; 0: not yet
}

func (b *rawBase) edit() *editable { return nil }

// Changes implements commitTarget.
func (b *rawBase) Changes(*bitmap.Bitmap) {}

// Size implements commitTarget.
func (b *rawBase) Size() int64 { return max(b.file.size, b.size) }

// Grow implements commitTarget.
func (b *rawBase) Grow(size int64) error {
	if size <= b.Size() {
		return nil
	}
	if !b.file.info.Mode().IsRegular() {
		return fmt.Errorf("%s: the block device holds %d bytes, and the disk of the overlay has %d", escapeName(b.file.path), b.file.size, size)
	}
	if err := b.file.Truncate(size); err != nil {
		return plainError(b.file.path, err)
	}
	b.size = size
	return nil
}

// WriteAt implements commitTarget.
func (b *rawBase) WriteAt(p []byte, off int64) (int, error) {
	n, err := b.file.File.WriteAt(p, off)
	if err != nil {
		err = plainError(b.file.path, err)
	}
	return n, err
}

// Zero implements commitTarget: it makes a hole, or writes zeros where there are none.
func (b *rawBase) Zero(off, n int64) error {
	if punchHole(b.file.File, off, n) == nil {
		return nil
	}
	zeros := make([]byte, min(n, moveUnit))
	for n > 0 {
		part := min(n, int64(len(zeros)))
		if _, err := b.WriteAt(zeros[:part], off); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

// Finish implements commitTarget.
func (b *rawBase) Finish() error {
	if err := b.file.Sync(); err != nil {
		return plainError(b.file.path, err)
	}
	return nil
}
