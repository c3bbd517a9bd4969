package virtnbd

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

const (
	// verifyAhead is how much is read at a time: so little that it is still in the
	// processor's cache when it is looked at.
	verifyAhead = 256 << 10
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
// goroutine of the caller. Verify uses a goroutine for each processor, up to eight,
// which have ended when it returns, and one or two MiB for each.
func (s *Stream) Verify(ctx context.Context, progress func(int64)) error {
	_, err := s.verify(ctx, progress, false)
	return err
}

// VerifySum is Verify, and returns the adler32 of the file besides, which the .chksum
// file should hold; it is right whenever the error is nil or has Findings.
func (s *Stream) VerifySum(ctx context.Context, progress func(int64)) (uint32, error) {
	return s.verify(ctx, progress, true)
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

// join adds what was found elsewhere.
func (f *findings) join(o *findings) {
	n := min(len(o.all), maxFindings-len(f.all))
	f.all = append(f.all, o.all[:n]...)
	f.more += o.more + len(o.all) - n
}
