package virtnbd

import (
	"fmt"
	"io"
)

// A verifier verifies one stretch after the other.
type verifier struct {
	s      *Stream
	t      tape
	lz4    lz4Reader
	st     *stretch
	parts  []int64 // sizes of the LZ4 frames of the data frames of st
	memory []byte  // what was decoded last, windowSize of it at least, and room for a block
}

// verify verifies a stretch. seen gets all of its bytes, if they are of interest.
func (v *verifier) verify(st *stretch, seen func([]byte) error) error {
	v.begin(st)
	if st.bytes {
		v.t.seen = seen
	}
	if !st.frames {
		return v.t.pass(v.t.left())
	}
	err := v.frames()
	if err == nil {
		return nil
	}
	st.broken = true
	if err := st.found.add(err); err != nil || !st.bytes {
		return err
	}
	return v.t.pass(v.t.left())
}

// begin goes to a stretch. Where payloads are passed over, little is read ahead.
func (v *verifier) begin(st *stretch) {
	buf := v.t.buf[:cap(v.t.buf)]
	if !st.bytes {
		buf = buf[:walkAhead]
	}
	v.st, v.parts = st, nil
	v.t = tape{r: v.s.r, pos: st.from, size: st.to, buf: buf}
}

// frames verifies all frames of a stretch. An error in the structure, which Open would
// have found before, ends it.
func (v *verifier) frames() error {
	if v.st.from == 0 {
		if _, err := readMeta(&v.t); err != nil {
			return err
		}
	}
	for v.t.left() > 0 {
		h, err := readHeader(&v.t)
		switch {
		case err != nil:
			return err
		case h.kind == kindStop:
			return v.stop(h)
		case h.kind == kindData:
			err = v.payload(h)
		case h.kind != kindZero:
			err = formatError("frame header", "kind", h.host, h.kind, "only data, zero and stop may follow the meta frame")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stop finds the stop frame where it was before.
func (v *verifier) stop(h header) error {
	if v.t.pos == v.s.end {
		return nil
	}
	return formatError("stop frame", "kind", h.host, "", "it stood elsewhere when the stream was opened: somebody writes to the file")
}

// payload verifies what follows the header of a data frame.
func (v *verifier) payload(h header) error {
	v.st.data += h.length
	first, begin := len(v.parts), v.t.pos
	if err := v.content(h); err != nil {
		return err
	}
	if v.s.tally.Trailer {
		v.st.payloads = append(v.st.payloads, payload{v.t.pos - begin, v.parts[first:]})
	}
	return readLineEnd(&v.t, "data frame")
}

// content verifies or passes over the payload of a data frame.
func (v *verifier) content(h header) error {
	if v.s.meta.Compressed {
		return v.lz4Payload(h)
	}
	if err := v.t.check(h.length, "data frame", "payload"); err != nil {
		return err
	}
	v.t.skip(h.length)
	return nil
}

// lz4Payload decodes the LZ4 frames of a data frame.
func (v *verifier) lz4Payload(h header) error {
	left, sure := h.length, true
	for {
		begin := v.t.pos
		found, err := v.lz4.open()
		if err != nil {
			return err
		}
		if !found {
			break
		}
		err = v.lz4Frame(left)
		sure = sure && err == nil
		if err := v.st.found.add(err); err != nil {
			return err
		}
		if !v.lz4.ended {
			if _, err := v.lz4.pass(); err != nil {
				return err
			}
		}
		left -= v.lz4.made
		v.parts = append(v.parts, v.t.pos-begin)
	}
	if sure && left > 0 {
		return v.st.found.add(formatError("data frame", "length", h.host+22, number(h.length),
			fmt.Sprintf("its LZ4 frames have %d bytes less", left)))
	}
	return nil
}

// lz4Frame decodes a frame of at most so many bytes.
func (v *verifier) lz4Frame(most int64) error {
	if n := windowSize + max(v.lz4.blockMax, verifyAhead); len(v.memory) < n {
		v.memory = make([]byte, n)
	}
	end := 0 // of what was decoded in memory
	for {
		if len(v.memory)-end < v.lz4.blockMax {
			end = copy(v.memory, v.memory[end-windowSize:end])
		}
		room := min(most-v.lz4.made, int64(len(v.memory)-end))
		n, err := v.lz4.next(v.memory[end:][:room], v.memory[:end])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		end += n
	}
}
