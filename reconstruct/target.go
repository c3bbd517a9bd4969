package reconstruct

import (
	"context"
	"io"
)

// A Target is where Copy puts the content of a disk. Copy writes or zeroes every
// byte of the disk exactly once; then the caller calls Commit, or Abort. What was
// not committed never looks like a result.
//
// WriteAt and Zero are called from several goroutines, for ranges that do not
// overlap, unless Traits say that they have to come in order. WriteAt must not
// keep the slice.
type Target interface {
	io.WriterAt
	// Zero makes a range read as zero. A target that is new and sparse has
	// nothing to do for it.
	Zero(off, n int64) error
	// Commit makes the content durable and gives it its name. It is called once,
	// after all writes.
	Commit() error
	// Abort gives up: what was made anew is removed. After Commit it does
	// nothing, so that it can be deferred.
	Abort() error
}

// Traits say how a Target, or a Content, wants to be written. A target says them
// with a method Traits() Traits; without one it takes anything.
type Traits struct {
	// Sequential: ranges come one after the other, from 0 up, without gaps.
	Sequential bool
	// Block, in bytes, is a power of two up to ChunkSize: ranges begin at
	// multiples of it, and end at one or at the end of the disk. Zeros are looked
	// for in blocks of this size. 0 means 4 KiB. A cluster size belongs here.
	Block int64
}

// traitsOf returns what t says of itself, with defaults filled in.
func traitsOf(t any) Traits {
	var traits Traits
	if said, ok := t.(interface{ Traits() Traits }); ok {
		traits = said.Traits()
	}
	if traits.Block <= 0 {
		traits.Block = zeroBlock
	}
	traits.Block = min(traits.Block, ChunkSize)
	return traits
}

// A contextZeroer is a target that may have to write zeros, and can be stopped
// while it does.
type contextZeroer interface {
	zeroContext(ctx context.Context, off, n int64) error
}

// zero has a target zero a range.
func zero(ctx context.Context, t Target, off, n int64) error {
	if z, ok := t.(contextZeroer); ok {
		return z.zeroContext(ctx, off, n)
	}
	return t.Zero(off, n)
}

// A Content writes the content of a disk in some format into a file: raw, or
// qcow2. Close writes what the format needs at the end (for qcow2 the header),
// and leaves the file open. It may have Traits.
type Content interface {
	io.WriterAt
	Zero(off, n int64) error
	Close() error
}

// A FileTarget is a Target that writes a Content into a new file.
type FileTarget struct {
	Content
	out *Output
}

// NewFileTarget makes a Target of a new file and of what writes it. Commit
// closes the content and commits the file.
func NewFileTarget(out *Output, content Content) *FileTarget {
	return &FileTarget{Content: content, out: out}
}

// CreateRaw makes a new sparse raw file of size bytes as a target. Nothing stands
// at path before Commit. opts may be nil.
func CreateRaw(path string, size int64, opts *OutputOptions) (*FileTarget, error) {
	out, err := CreateOutput(path, opts)
	if err != nil {
		return nil, err
	}
	if err := out.File().Truncate(size); err != nil {
		out.Abort()
		return nil, err
	}
	return NewFileTarget(out, rawContent{out.Storage()}), nil
}

// Traits are those of the content.
func (t *FileTarget) Traits() Traits { return traitsOf(t.Content) }

// Commit implements Target.
func (t *FileTarget) Commit() error {
	if err := t.Content.Close(); err != nil {
		t.out.Abort()
		return err
	}
	return t.out.Commit()
}

// Abort implements Target.
func (t *FileTarget) Abort() error { return t.out.Abort() }

// rawContent is a new raw file: what is not written is a hole.
type rawContent struct{ io.WriterAt }

func (rawContent) Zero(off, n int64) error { return nil }
func (rawContent) Close() error            { return nil }
