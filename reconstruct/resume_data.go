package reconstruct

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/qbitkit/qbit/qcow2"
)

// A resumeData is the disk that is being restored. It may be used from several
// goroutines.
type resumeData interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	// zero makes a range zero that holds no kept chunk.
	zero(ctx context.Context, off, n int64) error
	// clear gets a chunk ready to be written anew that is not what it should be.
	clear(ctx context.Context, off, n int64) error
	// shareFile is the file, if it may share blocks with others.
	shareFile() *os.File
}

// A resumeFile is a new sparse file, in which what is neither kept nor written is a
// hole: cut saw to that.
type resumeFile struct {
	qcow2.File
	os *os.File // to punch holes into; nil: that cannot be done
}

func (f resumeFile) shareFile() *os.File { return f.os }

func (f resumeFile) zero(context.Context, int64, int64) error { return nil }

func (f resumeFile) clear(ctx context.Context, off, n int64) error {
	if f.os != nil && len(zeroModes) > 0 {
		if err := zeroRange(f.os, zeroModes[0], off, n); !unsupported(err) {
			return err
		}
	}
	return clearData(ctx, f.File, off, n)
}

// clearData writes zeros where there are none, and allocates nothing else.
func clearData(ctx context.Context, f qcow2.File, off, n int64) error {
	buf := make([]byte, len(zeros))
	for n > 0 {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		p := buf[:min(n, int64(len(buf)))]
		if err := readFull(f, p, off); err != nil || !allZero(p) {
			if err := writeFull(f, zeros[:len(p)], off); err != nil {
				return err
			}
		}
		off, n = off+int64(len(p)), n-int64(len(p))
	}
	return nil
}

// cut makes holes of all that is in the file beside the recorded chunks, and gives
// it the size of the disk: what a crash left there is not known to be anything.
func (f resumeFile) cut(ctx context.Context, sums []ResumeSum, size int64) error {
	end := int64(0) // of the chunks so far
	for _, s := range sums {
		if off := s.Chunk * ChunkSize; off > end {
			if err := f.clear(ctx, end, off-end); err != nil {
				return err
			}
		}
		end = min((s.Chunk+1)*ChunkSize, size)
	}
	if err := f.Truncate(end); err != nil {
		return err
	}
	return f.Truncate(size)
}

// A resumeOnto is a device or file that is written over: its zeros are real ones.
type resumeOnto struct{ *OntoTarget }

func (t resumeOnto) ReadAt(p []byte, off int64) (int, error) { return t.f.ReadAt(p, off) }
func (t resumeOnto) Sync() error                             { return t.f.Sync() }
func (t resumeOnto) zero(ctx context.Context, off, n int64) error {
	return t.zeroContext(ctx, off, n)
}
func (t resumeOnto) clear(context.Context, int64, int64) error { return nil }

// A resumeWhole is a result that got its name already. It is only looked at.
type resumeWhole struct{ f *os.File }

var errNotWhole = errors.New("it is not, or no longer, what the journal beside it says")

func (w resumeWhole) ReadAt(p []byte, off int64) (int, error) { return w.f.ReadAt(p, off) }

func (w resumeWhole) WriteAt(p []byte, off int64) (int, error) {
	return 0, fmt.Errorf("%w: bytes %d to %d differ", errNotWhole, off, off+int64(len(p)))
}

func (w resumeWhole) Sync() error         { return w.f.Sync() }
func (w resumeWhole) shareFile() *os.File { return nil }

func (w resumeWhole) clear(_ context.Context, off, n int64) error {
	return fmt.Errorf("%w: bytes %d to %d differ", errNotWhole, off, off+n)
}

// zero looks whether all is zero, without reading holes.
func (w resumeWhole) zero(ctx context.Context, off, n int64) error {
	buf := make([]byte, len(zeros))
	disk := NewRaw(w.f, off+n, nil)
	for e, err := range walkRange(ctx, disk.Extents, off, off+n) {
		if err != nil {
			return err
		}
		for e.Kind == qcow2.Data && e.Len > 0 {
			p := buf[:min(e.Len, int64(len(buf)))]
			if err := readFull(w.f, p, e.Off); err != nil {
				return err
			}
			if !bytes.Equal(p, zeros[:len(p)]) {
				return w.clear(ctx, e.Off, int64(len(p)))
			}
			e = advance(e, int64(len(p)))
		}
	}
	return context.Cause(ctx)
}
