package main

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	second "github.com/lima-vm/go-qcow2reader/image/qcow2"
	secondlog "github.com/lima-vm/go-qcow2reader/log"

	"github.com/qbitkit/qbit/qcow2"
)

// The second reader is go-qcow2reader. It trusts what it reads: it panics, takes
// what memory an image asks for, and opens whatever the backing name says. So it
// sees only images that our own check found sound, without the name of the backing
// file, and only through ReadAt inside of the disk; and a panic is caught.

var prepareSecond = sync.OnceFunc(func() {
	secondlog.SetWarnFunc(func(string) {})
	second.SetDecompressor(second.CompressionTypeZlib, func(r io.Reader) (io.ReadCloser, error) {
		return fillingReader{flate.NewReader(r)}, nil
	})
	second.SetDecompressor(second.CompressionTypeZstd, func(r io.Reader) (io.ReadCloser, error) {
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			return nil, err
		}
		return fillingReader{d.IOReadCloser()}, nil
	})
})

// A fillingReader fills the buffer of every Read: the second reader reads only once.
type fillingReader struct{ io.ReadCloser }

func (f fillingReader) Read(p []byte) (int, error) { return io.ReadFull(f.ReadCloser, p) }

// A hiddenBacking is the file of an image that names no backing file: the two fields
// of the header that lead to its name are zero.
type hiddenBacking struct{ io.ReaderAt }

func (h hiddenBacking) ReadAt(p []byte, off int64) (int, error) {
	n, err := h.ReaderAt.ReadAt(p, off)
	for i := max(off, 8); i < min(off+int64(n), 20); i++ {
		p[i-off] = 0
	}
	return n, err
}

// notForSecond says why the second reader cannot be asked about an image; "": it
// can.
func notForSecond(img *qcow2.Image) string {
	switch {
	case img.DataFile() != nil:
		return "it has an external data file"
	case img.Encryption() != "":
		return "it is encrypted"
	case img.Header().L1Size == 0:
		return "it has no L1 table"
	}
	return ""
}

// openSecond opens the image in a file with the second reader.
func openSecond(file io.ReaderAt) (disk *second.Qcow2, err error) {
	prepareSecond()
	defer catchSecond(&err)
	disk, err = second.Open(hiddenBacking{file}, nil)
	if err == nil {
		err = disk.Readable()
	}
	return disk, err
}

// catchSecond makes an error of a panic.
func catchSecond(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("it panics: %v", p)
	}
}

// errDiffers: the second reader reads other bytes.
var errDiffers = errors.New("the second reader reads other bytes")

// secondReader reads all that an image holds with the second reader, and compares.
// What it says is a doubt: nobody knows which of the two is right.
func (r *fileReader) secondReader(ctx context.Context) error {
	img := r.layer.image
	if r.state() == fileDamaged {
		return nil
	}
	if why := notForSecond(img); why != "" {
		r.note("the second reader was not asked: %s", why)
		return nil
	}
	disk, err := openSecond(r.layer.file)
	if err != nil {
		r.note("the second reader does not read it: %v", err)
		return nil
	}
	if disk.Size() != img.Size() {
		r.find(fileDoubt, "its disk has %d bytes; the second reader says %d", img.Size(), disk.Size())
		return nil
	}
	return r.compareSecond(ctx, disk)
}

// secondPiece is how much is compared at a time.
const secondPiece = 1 << 20

// compareSecond compares all stored bytes, and of what is zero without being stored
// both ends.
func (r *fileReader) compareSecond(ctx context.Context, disk io.ReaderAt) error {
	img, buf := r.layer.image, make([]byte, 2*secondPiece)
	for e, err := range img.Extents(0, img.Size()) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			r.find(fileDamaged, "%v", err)
			return nil
		}
		step := int64(secondPiece)
		switch e.Kind {
		case qcow2.Absent:
			continue
		case qcow2.Zero:
			step = max(step, e.Len-secondPiece)
		}
		if !r.compareExtent(disk, e, step, buf) {
			return nil
		}
	}
	return nil
}

// compareExtent compares a piece of an extent after every step. It says what
// differs, and returns false.
func (r *fileReader) compareExtent(disk io.ReaderAt, e qcow2.Extent, step int64, buf []byte) bool {
	ours, theirs := buf[:secondPiece], buf[secondPiece:]
	for off := e.Off; off < e.End(); off += step {
		n := min(secondPiece, e.End()-off)
		err := compareAt(r.layer.image, disk, ours[:n], theirs[:n], off)
		if errors.Is(err, errDiffers) {
			r.find(fileDoubt, "guest bytes %d to %d: %v", off, off+n, err)
			return false
		}
		if err != nil {
			r.find(fileDoubt, "guest bytes %d to %d cannot be compared with the second reader: %v", off, off+n, err)
			return false
		}
	}
	return true
}

// compareAt reads a range with both readers.
func compareAt(ours, theirs io.ReaderAt, a, b []byte, off int64) (err error) {
	defer catchSecond(&err)
	if n, err := ours.ReadAt(a, off); n < len(a) {
		return err
	}
	if n, err := theirs.ReadAt(b, off); n < len(b) {
		return fmt.Errorf("the second reader: %d of %d bytes: %w", n, len(b), err)
	}
	if !bytes.Equal(a, b) {
		return errDiffers
	}
	return nil
}
