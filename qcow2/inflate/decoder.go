package inflate

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrEnd is the error of a whole stream that gives less than the output has room for, and
// ErrCut that of one whose end is missing.
var (
	ErrEnd = errors.New("the deflate stream ends before the output is full")
	ErrCut = errors.New("the deflate stream is cut off before the output is full")
)

// A CorruptError is a stream that breaks a rule of RFC 1951.
type CorruptError struct {
	Off  int64  // bytes of the stream up to the one in which it was found
	Rule string // that is broken
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("corrupt deflate stream at byte %d: %s", e.Off, e.Rule)
}

// A Decoder holds the tables of a stream, 21 KiB, for the next one to use again. The
// zero value is ready. It belongs to one goroutine at a time.
type Decoder struct {
	lit  [litTableSize]uint32
	dist [distTableSize]uint32
	pre  [1 << preBits]uint32
	lens [maxLit + maxDist]uint8

	fixed  bool // lit and dist are those of section 3.2.6
	paired bool // lit has entries of two literals

	dst, src []byte
	out, pos int    // what of them is done
	bits     uint64 // read and not yet used, the next one lowest
	n        uint   // how many; the bits above them are zero between blocks
}

// Decode fills dst from the raw deflate stream that src begins with and returns
// len(dst), nil when it is full: what comes then in src is not looked at, and the stream
// need not have ended. Otherwise n bytes of dst could be decoded, the bytes behind them
// are undefined, and the error is ErrEnd, ErrCut or a *CorruptError. Nothing is allocated but
// for a *CorruptError. The time is bounded by the lengths of dst and src.
func (d *Decoder) Decode(dst, src []byte) (n int, err error) {
	d.dst, d.src = dst, src
	d.out, d.pos, d.bits, d.n = 0, 0, 0, 0
	for last := false; err == nil && d.out < len(dst); {
		if last {
			err = ErrEnd
			break
		}
		last, err = d.block()
	}
	d.dst, d.src = nil, nil // somebody else's
	return d.out, err
}

// block decodes one block: section 3.2.3, "Details of block format".
func (d *Decoder) block() (last bool, err error) {
	header, err := d.take(3)
	if err != nil {
		return false, err
	}
	switch header >> 1 {
	case 0:
		return header&1 != 0, d.stored()
	case 1:
		d.fixedTables()
	case 2:
		if err := d.dynamicTables(); err != nil {
			return false, err
		}
	default:
		return false, d.corrupt("a block must be of type 0, 1 or 2")
	}
	return header&1 != 0, d.compressed()
}

// stored copies a block of section 3.2.4, "Non-compressed blocks".
func (d *Decoder) stored() error {
	d.giveBack()
	d.bits, d.n = 0, 0
	rest := d.src[d.pos:]
	if len(rest) < 4 {
		d.pos = len(d.src)
		return ErrCut
	}
	length := binary.LittleEndian.Uint16(rest)
	if length != ^binary.LittleEndian.Uint16(rest[2:]) {
		return d.corrupt("the length of a stored block must be followed by its complement")
	}
	rest = rest[4:]
	short := len(rest) < int(length)
	if !short {
		rest = rest[:length]
	}
	n := copy(d.dst[d.out:], rest)
	d.pos, d.out = d.pos+4+n, d.out+n
	if short && d.out < len(d.dst) {
		return ErrCut
	}
	return nil
}

// compressed decodes the symbols of a block whose tables are made. It leaves with the
// output full, at the end of the block, or with an error.
func (d *Decoder) compressed() error {
	why := d.fast(firstLeg)
	if why == legDone {
		d.pair()
		why = d.fast(len(d.dst))
	}
	d.giveBack()
	switch why {
	case legEnd:
		return nil
	case legBadSymbol:
		return d.corrupt(badSymbol)
	case legBadDistance:
		return d.corrupt(badDistance)
	}
	return d.careful()
}

// giveBack returns whole bytes that were read and not used.
func (d *Decoder) giveBack() {
	d.pos -= int(d.n >> 3)
	d.n &= 7
	d.bits &= 1<<d.n - 1
}

// refill reads what is left of the stream, so that there are 56 bits or more, or all.
func (d *Decoder) refill() {
	for d.n <= 56 && d.pos < len(d.src) {
		d.bits |= uint64(d.src[d.pos]) << d.n
		d.pos++
		d.n += 8
	}
}

// take reads n bits, at most 32.
func (d *Decoder) take(n uint) (uint32, error) {
	if d.n < n {
		d.refill()
		if d.n < n {
			return 0, ErrCut
		}
	}
	v := uint32(d.bits & (1<<n - 1))
	d.bits >>= n
	d.n -= n
	return v, nil
}

const (
	badSymbol   = "the bits are not the code of a symbol that may stand here"
	badDistance = "a distance must not reach before the beginning of the output"
)

func (d *Decoder) corrupt(rule string) error {
	return &CorruptError{Off: int64(d.pos) - int64(d.n>>3), Rule: rule}
}
