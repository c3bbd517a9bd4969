package reconstruct

import (
	"context"
	"fmt"
	"io"
)

// A StreamTarget writes a disk to a stream, such as standard output: zeros are
// written out, in order.
type StreamTarget struct {
	w   io.Writer
	pos int64
}

// NewStream makes a target of w. It never closes w.
func NewStream(w io.Writer) *StreamTarget { return &StreamTarget{w: w} }

// Traits implements the optional method of Target. Zeros cost what data costs, so
// there is nothing to gain in looking for them.
func (t *StreamTarget) Traits() Traits { return Traits{Sequential: true, Block: ChunkSize} }

// WriteAt implements Target; off must be the end of what was written before.
func (t *StreamTarget) WriteAt(p []byte, off int64) (int, error) {
	if off != t.pos {
		return 0, fmt.Errorf("writing a stream at %d, which is at %d", off, t.pos)
	}
	n, err := t.w.Write(p)
	t.pos += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return n, err
}

// Zero implements Target.
func (t *StreamTarget) Zero(off, n int64) error { return t.zeroContext(context.Background(), off, n) }

func (t *StreamTarget) zeroContext(ctx context.Context, off, n int64) error {
	return writeZeros(ctx, t, off, n)
}

// Commit implements Target.
func (t *StreamTarget) Commit() error { return nil }

// Abort implements Target. What is out cannot be taken back.
func (t *StreamTarget) Abort() error { return nil }
