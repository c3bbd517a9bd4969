package virtnbd

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/pierrec/lz4/v4"
	"github.com/qbitkit/qbit/qcow2"
)

// The magic numbers of the LZ4 frame format.
const (
	magicFrame    = 0x184D2204
	magicLegacy   = 0x184C2102
	magicSkip     = 0x184D2A50 // to 0x184D2A5F
	magicSkipMask = 0xFFFFFFF0
)

// windowSize is how far back a block may refer.
const windowSize = 64 << 10

// maxRatio bounds what a compressed byte can become: a match grows by 255 with
// each byte of its length.
const maxRatio = 255

// A lz4Reader reads one LZ4 frame, block by block.
type lz4Reader struct {
	t *tape

	linked     bool // blocks refer to what is before them
	blockSums  bool
	contentSum bool
	sized      bool  // content is known
	content    int64 // bytes of the whole frame
	blockMax   int   // the most that a block holds

	host   int64 // where the frame begins
	blocks int64 // read so far
	made   int64 // bytes decoded so far
	ended  bool  // its end was read
	sum    xxh32
}

func (f *lz4Reader) fail(field string, host int64, value, msg string) error {
	return formatError("LZ4 frame", field, host, value, msg)
}

// peekMagic is the magic number of what follows; 0 where that is too short.
func peekMagic(t *tape) (uint32, error) {
	if t.left() < 4 {
		return 0, nil
	}
	b, err := t.peek(4)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

// open moves to the first block of the frame that follows, past skippable frames.
// It is false where no frame follows.
func (f *lz4Reader) open() (bool, error) {
	for {
		magic, err := peekMagic(f.t)
		switch {
		case err != nil:
			return false, err
		case magic&magicSkipMask == magicSkip:
			if err := skipFrame(f.t); err != nil {
				return false, err
			}
		case magic == magicLegacy:
			return false, &qcow2.UnsupportedError{Feature: "LZ4 frames of the legacy format"}
		case magic != magicFrame:
			return false, nil
		default:
			return true, f.readHeader()
		}
	}
}

func skipFrame(t *tape) error {
	b, err := t.take(8, "LZ4 frame", "skippable frame")
	if err != nil {
		return err
	}
	n := int64(binary.LittleEndian.Uint32(b[4:]))
	if err := t.check(n, "LZ4 frame", "skippable frame"); err != nil {
		return err
	}
	for n > 0 { // in parts, for all is to be seen
		part := min(n, int64(len(t.buf)))
		if _, err := t.take(int(part), "LZ4 frame", "skippable frame"); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

// readHeader reads the magic number and the frame descriptor.
func (f *lz4Reader) readHeader() error {
	*f = lz4Reader{t: f.t, host: f.t.pos}
	f.sum.reset()
	b, err := f.t.take(6, "LZ4 frame", "descriptor")
	if err != nil {
		return err
	}
	flg, bd := b[4], b[5]
	if err := f.readFlags(flg, bd); err != nil {
		return err
	}
	descriptor := append(make([]byte, 0, 14), flg, bd)
	if f.sized {
		if b, err = f.t.take(8, "LZ4 frame", "content size"); err != nil {
			return err
		}
		descriptor = append(descriptor, b...)
	}
	at := f.t.pos
	if b, err = f.t.take(1, "LZ4 frame", "header checksum"); err != nil {
		return err
	}
	if want := byte(checksum(descriptor) >> 8); b[0] != want {
		return f.fail("header checksum", at, fmt.Sprintf("%#02x", b[0]), fmt.Sprintf("that of the header is %#02x", want))
	}
	return f.setContent(descriptor[2:])
}

func (f *lz4Reader) readFlags(flg, bd byte) error {
	bad := func(field string, value byte, msg string) error {
		return f.fail(field, f.host+4, fmt.Sprintf("%#02x", value), msg)
	}
	switch {
	case flg>>6 != 1:
		return bad("version", flg>>6, "must be 1")
	case flg&2 != 0 || bd&0x8f != 0:
		return bad("reserved bits", flg&2|bd&0x8f, "must be 0")
	case flg&1 != 0:
		return &qcow2.UnsupportedError{Feature: "LZ4 frames with a dictionary"}
	case bd>>4 < 4:
		return bad("block maximum size", bd>>4, "must be from 4 to 7")
	}
	f.linked, f.blockSums, f.sized, f.contentSum = flg&0x20 == 0, flg&0x10 != 0, flg&8 != 0, flg&4 != 0
	f.blockMax = 1 << (8 + 2*(bd>>4))
	return nil
}

func (f *lz4Reader) setContent(size []byte) error {
	if !f.sized {
		return nil
	}
	n := binary.LittleEndian.Uint64(size)
	if n > math.MaxInt64 {
		return f.fail("content size", f.host+6, fmt.Sprint(n), "must be below 2^63")
	}
	f.content = int64(n)
	return nil
}

// peekBlock is the word before the next block and its length, which the file has,
// checksum included.
func (f *lz4Reader) peekBlock() (word uint32, n int, err error) {
	if err := f.t.check(4, "LZ4 frame", "end mark"); err != nil {
		return 0, 0, err
	}
	b, err := f.t.peek(4)
	if err != nil {
		return 0, 0, err
	}
	word = binary.LittleEndian.Uint32(b)
	n = int(word &^ (1 << 31))
	if n > f.blockMax {
		return 0, 0, f.fail(f.block(), f.t.pos, number(int64(n)),
			fmt.Sprintf("a block must not be longer than %d bytes", f.blockMax))
	}
	whole := 4 + int64(n)
	if f.blockSums && word != 0 {
		whole += 4
	}
	if whole > f.t.left() {
		return 0, 0, f.t.check(whole, "LZ4 frame", f.block())
	}
	return word, n, nil
}

func (f *lz4Reader) block() string { return fmt.Sprintf("block %d", f.blocks) }

// next decodes the next block into dst, of which it uses what it needs; a block
// that does not fit is an error. before is what precedes dst, where that is in
// memory: 64 KiB are enough. At the end of the frame it returns io.EOF. After a
// FormatError in a block, the rest can still be passed over.
func (f *lz4Reader) next(dst, before []byte) (int, error) {
	word, n, err := f.peekBlock()
	if err != nil {
		return 0, err
	}
	if word == 0 {
		f.t.skip(4)
		f.ended = true
		return 0, f.end()
	}
	whole := 4 + n
	if f.blockSums {
		whole += 4
	}
	b, err := f.t.peek(whole)
	if err != nil {
		return 0, err
	}
	made, err := f.decode(b, word, n, dst, before)
	if err != nil {
		return 0, err
	}
	f.t.skip(int64(whole))
	f.blocks++
	f.made += int64(made)
	if f.contentSum {
		f.sum.write(dst[:made])
	}
	return made, nil
}

// decode decodes one block of n bytes, which b holds with what is around it.
func (f *lz4Reader) decode(b []byte, word uint32, n int, dst, before []byte) (int, error) {
	block := b[4:][:n]
	if f.blockSums {
		have, want := binary.LittleEndian.Uint32(b[4+n:]), checksum(block)
		if have != want {
			return 0, f.fail("checksum of "+f.block(), f.t.pos+4+int64(n), fmt.Sprintf("%#08x", have),
				fmt.Sprintf("that of the block is %#08x", want))
		}
	}
	dst = dst[:min(len(dst), f.blockMax)]
	if word>>31 != 0 {
		if n > len(dst) {
			return 0, f.fail(f.block(), f.t.pos, "", f.tooLong(dst))
		}
		return copy(dst, block), nil
	}
	if !f.linked {
		before = nil
	}
	if keep := min(windowSize, f.made); int64(len(before)) > keep {
		before = before[int64(len(before))-keep:]
	}
	made, err := lz4.UncompressBlockWithDict(block, dst, before)
	if err != nil {
		return 0, f.fail(f.block(), f.t.pos, "", "the compressed data is broken, or "+f.tooLong(dst))
	}
	return made, nil
}

func (f *lz4Reader) tooLong(dst []byte) string {
	return fmt.Sprintf("gives more than the %d bytes that there can be", len(dst))
}

// end reads what follows the end mark.
func (f *lz4Reader) end() error {
	if f.contentSum {
		at := f.t.pos
		b, err := f.t.take(4, "LZ4 frame", "content checksum")
		if err != nil {
			return err
		}
		if have, want := binary.LittleEndian.Uint32(b), f.sum.sum(); have != want {
			return f.fail("content checksum", at, fmt.Sprintf("%#08x", have), fmt.Sprintf("that of the content is %#08x", want))
		}
	}
	if f.sized && f.made != f.content {
		return f.fail("content size", f.host+6, number(f.content), fmt.Sprintf("the frame has %d bytes of content", f.made))
	}
	return io.EOF
}

// pass moves to the end of the frame without decoding, and returns the most that
// the blocks on the way can hold.
func (f *lz4Reader) pass() (most int64, err error) {
	for {
		word, n, err := f.peekBlock()
		if err != nil {
			return most, err
		}
		f.t.skip(4)
		if word == 0 {
			break
		}
		f.blocks++
		most += f.mostOf(word, n)
		if f.blockSums {
			n += 4
		}
		if err := f.passBytes(n); err != nil {
			return most, err
		}
	}
	if !f.contentSum {
		return most, nil
	}
	_, err = f.t.take(4, "LZ4 frame", "content checksum")
	return most, err
}

// passBytes skips bytes that the file has. Whoever watches the tape sees them.
func (f *lz4Reader) passBytes(n int) error {
	if f.t.seen != nil {
		if _, err := f.t.peek(n); err != nil {
			return err
		}
	}
	f.t.skip(int64(n))
	return nil
}

// mostOf is the most that a block of n bytes can hold.
func (f *lz4Reader) mostOf(word uint32, n int) int64 {
	if word>>31 != 0 {
		return int64(n)
	}
	return min(int64(f.blockMax), maxRatio*int64(n))
}
