package inflate

import "encoding/binary"

// Where the fast loop ends, for lack of room: what one turn of it reads, and what it
// writes, the bytes behind a match included that are copied along with it.
const (
	inputSlack  = 3 * 8
	outputSlack = 3*2 + 258 + overrun
)

// overrun is how many bytes are written at a time behind the end of a match.
const overrun = 32

// firstLeg is how many bytes a block must give before it is worth to look for pairs of
// literals in its table.
const firstLeg = 1 << 10

// Why the fast loop ended.
type leg int

const (
	legDone        leg = iota // it decoded what it was asked for
	legRoom                   // the rest has to be done with care
	legEnd                    // of the block
	legBadSymbol              // see badSymbol
	legBadDistance            // see badDistance
)

// fast decodes symbols until about n more bytes are there, without looking at each step
// whether input or output end.
func (d *Decoder) fast(n int) leg {
	last := len(d.dst) - outputSlack
	why := legRoom
	if n < last-d.out {
		last, why = d.out+n, legDone
	}
	if stopped := d.symbols(last, len(d.src)-inputSlack); stopped != legDone {
		return stopped
	}
	if d.out <= last {
		return legRoom // the input is short
	}
	return why
}

// symbols is the loop of fast; it goes on while the output is not beyond lastOut nor the
// input beyond lastPos.
func (d *Decoder) symbols(lastOut, lastPos int) leg {
	dst, src := d.dst, d.src
	out, pos, b, n := d.out, d.pos, d.bits, d.n
	why := legDone
	if out > lastOut || pos > lastPos {
		return legDone
	}
	// Fill up to 56 bits or more. Those above n are the next ones of the stream
	// already, and are read once more.
	b |= binary.LittleEndian.Uint64(src[pos:]) << (n & 63)
	pos += int((63 - n) >> 3)
	n |= 56
	e := d.lit[b&(1<<litBits-1)]
	for {
		if e&entryLiteral != 0 {
			binary.LittleEndian.PutUint16(dst[out:], uint16(e>>16))
			out += int(e >> 12 & 3)
			b >>= e & entryBits
			n -= uint(e & entryBits)
			e = d.lit[b&(1<<litBits-1)]
			if e&entryLiteral != 0 {
				binary.LittleEndian.PutUint16(dst[out:], uint16(e>>16))
				out += int(e >> 12 & 3)
				b >>= e & entryBits
				n -= uint(e & entryBits)
				e = d.lit[b&(1<<litBits-1)]
				if e&entryLiteral != 0 {
					binary.LittleEndian.PutUint16(dst[out:], uint16(e>>16))
					out += int(e >> 12 & 3)
					b >>= e & entryBits
					n -= uint(e & entryBits)
					if out > lastOut || pos > lastPos {
						break
					}
					b |= binary.LittleEndian.Uint64(src[pos:]) << (n & 63)
					pos += int((63 - n) >> 3)
					n |= 56
					e = d.lit[b&(1<<litBits-1)]
					continue
				}
			}
			b |= binary.LittleEndian.Uint64(src[pos:]) << (n & 63)
			pos += int((63 - n) >> 3)
			n |= 56
		}

		if e&entrySpecial != 0 {
			if e&(entrySpecial|entryKind) == kindSecond {
				e = d.lit[e>>16+uint32(b>>litBits)&(1<<(e>>8&15)-1)]
				if e&entryLiteral != 0 {
					dst[out] = byte(e >> 16)
					out++
					b >>= e & entryBits
					n -= uint(e & entryBits)
					if out > lastOut || pos > lastPos {
						break
					}
					b |= binary.LittleEndian.Uint64(src[pos:]) << (n & 63)
					pos += int((63 - n) >> 3)
					n |= 56
					e = d.lit[b&(1<<litBits-1)]
					continue
				}
			}
			if e&entrySpecial != 0 {
				if why = legBadSymbol; e&entryKind == kindEnd&entryKind {
					why = legEnd
					b >>= e & entryBits
					n -= uint(e & entryBits)
				}
				break
			}
		}
		bits := b
		b >>= e & entryBits
		n -= uint(e & entryBits)
		length := int(e>>16) + int(bits&(1<<(e&entryBits)-1)>>(e>>8&15))

		e = d.dist[b&(1<<distBits-1)]
		if e&entrySpecial != 0 {
			if e&entryKind == kindSecond&entryKind {
				e = d.dist[e>>16+uint32(b>>distBits)&(1<<(e>>8&15)-1)]
			}
			if e&entrySpecial != 0 {
				why = legBadSymbol
				break
			}
		}
		bits = b
		b >>= e & entryBits
		n -= uint(e & entryBits)
		from := out - int(e>>16) - int(bits&(1<<(e&entryBits)-1)>>(e>>8&15))
		if from < 0 {
			why = legBadDistance
			break
		}
		// The next symbol is looked up before the match is copied: they take their
		// time side by side.
		b |= binary.LittleEndian.Uint64(src[pos:]) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56
		e = d.lit[b&(1<<litBits-1)]

		end := out + length
		if out-from < 8 {
			repeat(dst, out, out-from, end)
		} else {
			for {
				p, q := (*[16]byte)(dst[out:]), (*[16]byte)(dst[from:])
				binary.LittleEndian.PutUint64(p[:], binary.LittleEndian.Uint64(q[:]))
				binary.LittleEndian.PutUint64(p[8:], binary.LittleEndian.Uint64(q[8:]))
				out, from = out+16, from+16
				if out >= end {
					break
				}
			}
		}
		out = end
		if out > lastOut || pos > lastPos {
			break
		}
	}
	d.out, d.pos, d.bits, d.n = out, pos, b, n
	return why
}

// repeat fills dst from out to end, and up to overrun more, with the distance bytes
// before out, fewer than 8, over and over.
func repeat(dst []byte, out, distance, end int) {
	word := binary.LittleEndian.Uint64(dst[out-distance:])
	width := uint(distance) * 8
	word &= 1<<width - 1
	for ; width < 64; width *= 2 {
		word |= word << width
	}
	step := 8 - 8%distance // after so many bytes the word is the same again
	for ; step < 8 && out < end; out += step {
		binary.LittleEndian.PutUint64(dst[out:], word)
	}
	for ; out < end; out += overrun {
		p := (*[overrun]byte)(dst[out:])
		binary.LittleEndian.PutUint64(p[0:], word)
		binary.LittleEndian.PutUint64(p[8:], word)
		binary.LittleEndian.PutUint64(p[16:], word)
		binary.LittleEndian.PutUint64(p[24:], word)
	}
}
