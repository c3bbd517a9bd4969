package virtnbd

import (
	"fmt"
	"io"
)

// A tape reads a file forwards, some bytes ahead.
type tape struct {
	r    io.ReaderAt
	size int64
	pos  int64 // of the next byte
	buf  []byte
	at   int64 // buf[:have] holds the bytes from at on
	have int

	// seen gets every byte that is read, in order, where it is not nil. Nothing
	// may be skipped that was not peeked at.
	seen func(p []byte) error
}

// left is how many bytes the file has from pos on.
func (t *tape) left() int64 { return t.size - t.pos }

func (t *tape) skip(n int64) { t.pos += n }

// seek goes elsewhere.
func (t *tape) seek(pos int64) { t.pos = pos }

// peek returns the next n bytes, which the file must have, without moving. They
// are valid until the next call.
func (t *tape) peek(n int) ([]byte, error) {
	if t.pos < t.at || t.pos+int64(n) > t.at+int64(t.have) {
		if err := t.fill(n); err != nil {
			return nil, err
		}
	}
	return t.buf[t.pos-t.at:][:n], nil
}

// fill reads on, so that buf begins at pos and has n bytes at least.
func (t *tape) fill(n int) error {
	kept := 0
	if old := t.pos - t.at; old >= 0 && old < int64(t.have) {
		kept = copy(t.buf, t.buf[old:t.have])
	}
	if n > len(t.buf) {
		grown := make([]byte, n)
		copy(grown, t.buf[:kept])
		t.buf = grown
	}
	t.at, t.have = t.pos, kept
	want := int(min(int64(len(t.buf)), t.left()))
	if err := readFull(t.r, t.buf[kept:want], t.at+int64(kept)); err != nil {
		return err
	}
	t.have = want
	if t.seen != nil {
		return t.seen(t.buf[kept:want])
	}
	return nil
}

// take returns the next n bytes of a structure and moves past them. A file that
// ends before is a FormatError.
func (t *tape) take(n int, structure, field string) ([]byte, error) {
	if err := t.check(int64(n), structure, field); err != nil {
		return nil, err
	}
	b, err := t.peek(n)
	if err != nil {
		return nil, err
	}
	t.skip(int64(n))
	return b, nil
}

// check reports a file that has fewer than n more bytes.
func (t *tape) check(n int64, structure, field string) error {
	if n <= t.left() {
		return nil
	}
	return formatError(structure, field, t.pos, "",
		fmt.Sprintf("it has %d bytes, and the file ends after %d: it was cut", n, t.left()))
}

// pass reads n bytes, which the file must have.
func (t *tape) pass(n int64) error {
	for n > 0 {
		part := min(n, int64(len(t.buf)))
		if _, err := t.peek(int(part)); err != nil {
			return err
		}
		t.skip(part)
		n -= part
	}
	return nil
}

// readFull fills p from r. A file that ends earlier than its size said is an
// error, never zeros.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading %d bytes of a stream at host offset %#x: %w", len(p), off, err)
}
