package virtnbd

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/adler32"
	"io"
	"slices"
)

const (
	// verifyAhead is how much is read at a time.
	verifyAhead = 1 << 20
	// maxFindings is how many errors are told one by one.
	maxFindings = 1000
)

// Verify reads the whole file once, in order, and decodes every payload. It checks
// headers and line ends, the checksums that LZ4 frames have of their headers, their
// blocks and their content, what they say that they hold, what the data frames'
// headers say, the meta frame's dataSize, and the trailer where there is one. Bit
// rot in the payload of a plain stream is seen by VerifySum alone.
//
// The error joins a *FormatError for each thing that is wrong, at most one for each
// LZ4 frame, and up to a thousand in all; Findings takes it apart. Any other error,
// of reading or of ctx, ends it.
//
// progress may be nil; it gets the bytes of the file that were read so far, in the
// goroutine of the caller. Verify starts no goroutine, and needs some MiB.
func (s *Stream) Verify(ctx context.Context, progress func(int64)) error {
	_, err := s.verify(ctx, progress, nil)
	return err
}

// VerifySum is Verify, and returns the adler32 of the file besides, which the .chksum
// file should hold; it is right whenever the error is nil or has Findings.
func (s *Stream) VerifySum(ctx context.Context, progress func(int64)) (uint32, error) {
	return s.verify(ctx, progress, adler32.New())
}

// Findings takes an error of Verify apart. It is empty for nil, and for an error
// that kept Verify from its work.
func Findings(err error) []*FormatError {
	var f *findings
	if !errors.As(err, &f) {
		return nil
	}
	return slices.Clone(f.all)
}

// findings is what Verify found.
type findings struct {
	all  []*FormatError
	more int // beyond those
}

func (f *findings) Error() string {
	text := errors.Join(f.Unwrap()...).Error()
	if f.more > 0 {
		text += fmt.Sprintf("\nand %d more", f.more)
	}
	return text
}

func (f *findings) Unwrap() []error {
	list := make([]error, len(f.all))
	for i, e := range f.all {
		list[i] = e
	}
	return list
}

// add keeps an error of the format, and returns any other.
func (f *findings) add(err error) error {
	var bad *FormatError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &bad):
		return err
	case len(f.all) < maxFindings:
		f.all = append(f.all, bad)
	default:
		f.more++
	}
	return nil
}

// A watcher sees what is read of a file, in order.
type watcher struct {
	ctx      context.Context
	progress func(int64)
	sum      hash.Hash32 // nil: not wanted
	read     int64
}

func (w *watcher) seen(p []byte) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	if w.sum != nil {
		w.sum.Write(p)
	}
	w.read += int64(len(p))
	if w.progress != nil {
		w.progress(w.read)
	}
	return nil
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

func (s *Stream) verify(ctx context.Context, progress func(int64), sum hash.Hash32) (uint32, error) {
	w := watcher{ctx: ctx, progress: progress, sum: sum}
	v := verifier{s: s, t: tape{r: s.r, size: s.size, buf: make([]byte, verifyAhead), seen: w.seen}}
	v.lz4.t = &v.t
	v.trailer = trailerReader{t: tape{r: s.r, size: s.size, buf: make([]byte, walkAhead), pos: s.end},
		end: s.size - headerLen - 2, done: !s.tally.Trailer}
	err := v.found.add(v.stream())
	if err == nil {
		err = v.t.pass(v.t.left())
	}
	if err != nil {
		return 0, fmt.Errorf("verifying a stream: %w", err)
	}
	if len(v.found.all) > 0 {
		err = &v.found
	}
	if sum == nil {
		return 0, err
	}
	return sum.Sum32(), err
}

// A verifier is one Verify.
type verifier struct {
	s       *Stream
	t       tape
	lz4     lz4Reader
	found   findings
	trailer trailerReader
	data    int64   // lengths of all data frames
	parts   []int64 // sizes of the LZ4 frames of a data frame
	memory  []byte  // what was decoded last, windowSize of it at least, and room for a block
}

// stream verifies all frames. An error in the structure, which Open would have
// found before, ends it.
func (v *verifier) stream() error {
	if _, err := readMeta(&v.t); err != nil {
		return err
	}
	for {
		h, err := readHeader(&v.t)
		switch {
		case err != nil:
			return err
		case h.kind == kindStop:
			return v.end(h)
		case h.kind == kindData:
			err = v.payload(h)
		case h.kind != kindZero:
			err = formatError("frame header", "kind", h.host, h.kind, "only data, zero and stop may follow the meta frame")
		}
		if err != nil {
			return err
		}
	}
}

// payload verifies what follows the header of a data frame.
func (v *verifier) payload(h header) error {
	v.data += h.length
	v.parts = v.parts[:0]
	begin := v.t.pos
	var err error
	if v.s.meta.Compressed {
		err = v.lz4Payload(h)
	} else if err = v.t.check(h.length, "data frame", "payload"); err == nil {
		err = v.t.pass(h.length)
	}
	if err != nil {
		return err
	}
	if err := v.found.add(v.trailer.compare(v.t.pos-begin, v.parts)); err != nil {
		return err
	}
	return readLineEnd(&v.t, "data frame")
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
		if err := v.found.add(err); err != nil {
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
		return v.found.add(formatError("data frame", "length", h.host+22, number(h.length),
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

// end verifies what belongs to the stream as a whole.
func (v *verifier) end(h header) error {
	if want := v.s.meta.DataSize; want >= 0 && want != v.data {
		err := formatError("meta frame", "dataSize", headerLen, number(want),
			fmt.Sprintf("the data frames have %d bytes", v.data))
		if err := v.found.add(err); err != nil {
			return err
		}
	}
	if v.s.tally.Trailer {
		return v.trailer.finish()
	}
	if n := v.t.left(); n > 0 {
		return formatError("trailer", "frame", h.host+headerLen, "",
			fmt.Sprintf("%d bytes follow the stop frame that are no whole trailer", n))
	}
	return nil
}
