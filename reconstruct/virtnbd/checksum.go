package virtnbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ErrNoChecksum reports a .chksum file that holds no number: a release of the tool
// writes the text {checksum} instead of one.
var ErrNoChecksum = errors.New("the checksum file holds no checksum")

// maxChecksumFile is more than a .chksum file can have.
const maxChecksumFile = 64

// ReadChecksum reads a .chksum file: the adler32 of the whole .data file, as a
// decimal number.
func ReadChecksum(r io.Reader) (uint32, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxChecksumFile+1))
	if err != nil {
		return 0, fmt.Errorf("reading a checksum file: %w", err)
	}
	text := strings.TrimSpace(string(b))
	if text == "{checksum}" || text == "" || text == "None" {
		return 0, ErrNoChecksum
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, formatError("checksum file", "adler32", 0, shown(b), "must be a decimal number below 2^32")
	}
	return uint32(n), nil
}

// Sum is the adler32 of the size bytes of r. Stream.VerifySum has it for less,
// where a stream is verified anyway. progress may be nil; it gets the bytes read so
// far, in the goroutine of the caller.
func Sum(ctx context.Context, r io.ReaderAt, size int64, progress func(int64)) (uint32, error) {
	sum := newAdler()
	t := tape{r: r, size: size, buf: make([]byte, verifyAhead), seen: func(p []byte) error {
		sum.write(p)
		if progress != nil {
			progress(sum.n)
		}
		return context.Cause(ctx)
	}}
	if err := t.pass(size); err != nil {
		return 0, err
	}
	return sum.sum(), nil
}
