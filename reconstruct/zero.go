package reconstruct

import (
	"bytes"
	"context"
	"io"
)

// zeroBlock is the least run of zeros that becomes a hole, in bytes.
const zeroBlock = 4096

// zeros is written and hashed where a disk is zero. Nobody changes it.
var zeros [1 << 20]byte

// allZero reports that p holds nothing but zeros.
func allZero(p []byte) bool {
	for len(p) > zeroBlock {
		if !bytes.Equal(p[:zeroBlock], zeros[:zeroBlock]) {
			return false
		}
		p = p[zeroBlock:]
	}
	return bytes.Equal(p, zeros[:len(p)])
}

// writeZeros writes n zeros to w at off. It ends early when ctx does.
func writeZeros(ctx context.Context, w io.WriterAt, off, n int64) error {
	for n > 0 {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		part := min(n, int64(len(zeros)))
		if err := writeFull(w, zeros[:part], off); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

// writeFull writes p to w. To have written less is an error.
func writeFull(w io.WriterAt, p []byte, off int64) error {
	n, err := w.WriteAt(p, off)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}
