package virtnbd

import "fmt"

// trailer looks at what follows the stop frame. It is not needed, so damage in it
// is for Verify to tell; but what does not even begin or end like one may be
// anything, a second stream even.
func (w *walker) trailer() error {
	begin := w.t.pos
	err := checkTrailer(&w.t, begin)
	bad, ok := err.(*FormatError)
	switch {
	case err == nil:
		w.s.tally.Trailer = true
		return nil
	case !ok:
		return err
	}
	w.t.seek(begin)
	first, err := w.t.peek(1)
	if err != nil {
		return err
	}
	if first[0] == '[' || bad.Structure == "trailer" {
		return nil
	}
	return formatError("stop frame", "end", begin, shown(first),
		fmt.Sprintf("%d bytes follow it that are no trailer", w.t.size-begin))
}

// checkTrailer checks the frame around the JSON that begins at begin. Where the
// file ends like a trailer, the error is one of the structure "trailer".
func checkTrailer(t *tape, begin int64) error {
	t.seek(max(begin, t.size-headerLen))
	h, err := readHeader(t)
	if err != nil {
		return err
	}
	if h.kind != kindComp {
		return formatError("frame header", "kind", h.host, h.kind, "must be comp")
	}
	n := h.host - begin - 2
	if h.start != 0 || h.length != n {
		return formatError("trailer", "length", h.host+22, number(h.length),
			fmt.Sprintf("%d bytes stand between it and the stop frame", n))
	}
	t.seek(begin + n)
	return readLineEnd(t, "trailer")
}

// A trailerReader compares the trailer with the payloads, as they come. The
// trailer is a JSON list with an item for each data frame: the length of its
// payload, or {"length": [lengths of its LZ4 frames]}.
type trailerReader struct {
	t     tape
	end   int64 // of the JSON
	items int64
	done  bool // no comparison any more: an error was found, or there is no trailer
}

// compare compares the next item with a payload of total bytes in parts.
func (r *trailerReader) compare(total int64, parts []int64) error {
	if r.done {
		return nil
	}
	err := r.item(total, parts)
	r.items++
	r.done = err != nil
	return err
}

func (r *trailerReader) fail(value, msg string) error {
	return formatError("trailer", fmt.Sprintf("item %d", r.items), r.t.pos, value, msg)
}

func (r *trailerReader) item(total int64, parts []int64) error {
	open := byte('[')
	if r.items > 0 {
		open = ','
	}
	if err := r.expect(open); err != nil {
		return err
	}
	c, err := r.peek()
	if err != nil {
		return err
	}
	if c != '{' {
		return r.size(total)
	}
	if err := r.sequence('{', '"', total, '"', ':', '['); err != nil {
		return err
	}
	for i, part := range parts {
		if i > 0 {
			err = r.expect(',')
		}
		if err == nil {
			err = r.size(part)
		}
		if err != nil {
			return err
		}
	}
	return r.sequence(']', '}')
}

// finish expects the end of the list.
func (r *trailerReader) finish() error {
	if r.done {
		return nil
	}
	r.done = true
	if r.items == 0 {
		if err := r.expect('['); err != nil {
			return err
		}
	}
	if err := r.expect(']'); err != nil {
		return err
	}
	c, err := r.peek()
	if err == nil && r.t.pos < r.end {
		err = r.fail(shown([]byte{c}), "the list must end here")
	}
	return err
}

// sequence expects punctuation (rune) and numbers (int64).
func (r *trailerReader) sequence(tokens ...any) error {
	for _, token := range tokens {
		var err error
		switch token := token.(type) {
		case int64:
			err = r.size(token)
		case rune:
			err = r.expect(byte(token))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// peek is the next byte that is no space; 0 at the end.
func (r *trailerReader) peek() (byte, error) {
	for r.t.pos < r.end {
		b, err := r.t.peek(1)
		if err != nil {
			return 0, err
		}
		if c := b[0]; c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return c, nil
		}
		r.t.skip(1)
	}
	return 0, nil
}

func (r *trailerReader) expect(want byte) error {
	c, err := r.peek()
	if err != nil {
		return err
	}
	if c != want {
		return r.fail(shown([]byte{c}), fmt.Sprintf("%q must stand here", want))
	}
	r.t.skip(1)
	return nil
}

// size expects a number.
func (r *trailerReader) size(want int64) error {
	c, err := r.peek()
	n, at := int64(0), r.t.pos
	for ; err == nil && c >= '0' && c <= '9' && n < 1<<59 && r.t.pos < r.end; c, err = r.digit() {
		n = 10*n + int64(c-'0')
		r.t.skip(1)
	}
	if err != nil {
		return err
	}
	if n != want || r.t.pos == at {
		return r.fail(number(n), fmt.Sprintf("the payload has %d bytes", want))
	}
	return nil
}

// digit is the next byte; 0 at the end.
func (r *trailerReader) digit() (byte, error) {
	if r.t.pos >= r.end {
		return 0, nil
	}
	b, err := r.t.peek(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}
