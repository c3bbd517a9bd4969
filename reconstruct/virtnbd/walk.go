package virtnbd

import "fmt"

// walkAhead is how much is read at once when only headers are wanted.
const walkAhead = 4 << 10

// A walker reads the headers of a stream, those of LZ4 blocks too, and makes the
// index.
type walker struct {
	t     tape
	lz4   lz4Reader
	s     *Stream
	limit int64 // of entries and LZ4 frames
	found int64 // LZ4 frames
}

func (w *walker) walk() error {
	w.lz4.t = &w.t
	var err error
	if w.s.meta, err = readMeta(&w.t); err != nil {
		return err
	}
	for {
		if err := w.notCut(); err != nil {
			return err
		}
		h, err := readHeader(&w.t)
		if err != nil {
			return err
		}
		if h.kind == kindStop {
			return w.stop(h)
		}
		if err := w.frame(h); err != nil {
			return err
		}
	}
}

// notCut reports a file that ends where a frame should begin.
func (w *walker) notCut() error {
	if w.t.left() > 0 {
		return nil
	}
	return formatError("stop frame", "kind", w.t.pos, "",
		"the file ends without one: it was cut, or the backup that wrote it did not end")
}

func (w *walker) frame(h header) error {
	if h.kind != kindData && h.kind != kindZero {
		return formatError("frame header", "kind", h.host, h.kind, "only data, zero and stop may follow the meta frame")
	}
	if size := w.s.meta.VirtualSize; h.start > size || h.length > size-h.start {
		return formatError(h.kind+" frame", "length", h.host+22, number(h.length),
			fmt.Sprintf("a frame from %d on with so many bytes leaves the disk of %d bytes", h.start, size))
	}
	if h.kind == kindZero {
		w.s.tally.ZeroFrames++
		w.s.tally.ZeroBytes += h.length
		return w.add(entry{off: h.start, len: h.length, host: ^h.host})
	}
	w.mark(h)
	w.s.tally.DataFrames++
	w.s.tally.DataBytes += h.length
	begin := w.t.pos
	if err := w.payload(h); err != nil {
		return err
	}
	w.s.tally.StoredBytes += w.t.pos - begin
	return readLineEnd(&w.t, "data frame")
}

// mark keeps where a frame begins, every so often, so that several goroutines can
// verify the stream.
func (w *walker) mark(h header) {
	last := int64(0)
	if n := len(w.s.marks); n > 0 {
		last = w.s.marks[n-1]
	}
	if h.host-last >= stretchSize {
		w.s.marks = append(w.s.marks, h.host)
	}
}

func (w *walker) payload(h header) error {
	if w.s.meta.Compressed {
		return w.lz4Payload(h)
	}
	if err := w.t.check(h.length, "data frame", "payload"); err != nil {
		return err
	}
	err := w.add(entry{off: h.start, len: h.length, host: w.t.pos})
	w.t.skip(h.length)
	return err
}

// add adds an entry to the index, which is bounded.
func (w *walker) add(e entry) error {
	if e.len == 0 {
		return nil
	}
	w.s.index.add(e)
	return w.bound(w.s.index.n, e.place())
}

func (w *walker) bound(n, host int64) error {
	if n <= w.limit {
		return nil
	}
	return &LimitError{Limit: "MaxFrames", Max: w.limit,
		Format: formatError("stream", "frames", host, "", fmt.Sprintf("more than %d", w.limit))}
}

// lz4Payload walks the LZ4 frames of a data frame. Those that say how much they
// hold make an entry each. From the first that does not, the rest is one entry: it
// can only be read from its beginning.
func (w *walker) lz4Payload(h header) error {
	rest := entry{off: h.start, len: h.length}
	blind, most := false, int64(0) // rest has no known end; the most that it can hold
	for {
		found, err := w.lz4.open()
		if err != nil {
			return err
		}
		if !found {
			break
		}
		if !blind {
			rest.host = w.lz4.host
			blind = !w.lz4.sized
		}
		holds, err := w.lz4Frame()
		if err != nil {
			return err
		}
		if blind && rest.len == 0 && holds > 0 {
			return formatError("data frame", "payload", w.lz4.host, "",
				fmt.Sprintf("an LZ4 frame follows those that hold all of the %d bytes", h.length))
		}
		if blind {
			most = min(most+holds, h.length)
			continue
		}
		if rest, err = w.cut(rest); err != nil {
			return err
		}
	}
	if most < rest.len {
		return formatError("data frame", "payload", w.t.pos, "",
			fmt.Sprintf("its LZ4 frames cannot hold the %d bytes that the header tells of, and end here %d bytes short", h.length, rest.len-most))
	}
	return w.add(rest)
}

// lz4Frame passes over an LZ4 frame and returns the most that it can hold.
func (w *walker) lz4Frame() (int64, error) {
	w.found++
	w.s.tally.LZ4Frames++
	if err := w.bound(w.found, w.lz4.host); err != nil {
		return 0, err
	}
	most, err := w.lz4.pass()
	if err != nil {
		return 0, err
	}
	w.s.blockMax = max(w.s.blockMax, w.lz4.blockMax)
	if w.lz4.sized && (w.lz4.content > most || w.lz4.content == 0 && w.lz4.blocks > 0) {
		return 0, w.lz4.fail("content size", w.lz4.host+6, number(w.lz4.content),
			fmt.Sprintf("%d blocks cannot hold that; they hold at most %d bytes", w.lz4.blocks, most))
	}
	return most, nil
}

// cut adds the LZ4 frame that was just passed to the index, and returns what
// remains of rest.
func (w *walker) cut(rest entry) (entry, error) {
	n := w.lz4.content
	if n > rest.len {
		return rest, w.lz4.fail("content size", w.lz4.host+6, number(n),
			fmt.Sprintf("only %d bytes of the data frame are left", rest.len))
	}
	err := w.add(entry{off: rest.off, len: n, host: rest.host})
	return entry{off: rest.off + n, len: rest.len - n}, err
}

// stop checks the end of the stream and what follows it.
func (w *walker) stop(h header) error {
	if h.start != 0 || h.length != 0 {
		return formatError("stop frame", "length", h.host+5, fmt.Sprintf("%d, %d", h.start, h.length), "start and length must be 0")
	}
	w.s.tally.Stop = true
	w.s.end = w.t.pos
	if err := w.s.index.sort(); err != nil || w.t.left() == 0 {
		return err
	}
	return w.trailer()
}
