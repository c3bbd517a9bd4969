package streams

import "encoding/binary"

// Form says how LZ4 frames are written. The zero value is the form of the tool:
// blocks of 64 KiB that refer to those before them, a checksum for each, one for
// the content, and the content's size.
type Form struct {
	Independent  bool // blocks refer to nothing outside of them
	BlockBits    int  // 16, 18, 20 or 22; 0 means 16
	NoBlockSum   bool
	NoContentSum bool
	NoSize       bool
	Stored       bool // blocks are not compressed
}

// Frame is an LZ4 frame with that content.
func (o Form) Frame(content []byte) []byte {
	bits := o.BlockBits
	if bits == 0 {
		bits = 16
	}
	flg := byte(0x40) | flag(o.Independent, 0x20) | flag(!o.NoBlockSum, 0x10) | flag(!o.NoSize, 8) | flag(!o.NoContentSum, 4)
	descriptor := []byte{flg, byte(bits-8) / 2 << 4}
	if !o.NoSize {
		descriptor = binary.LittleEndian.AppendUint64(descriptor, uint64(len(content)))
	}
	out := append([]byte{0x04, 0x22, 0x4d, 0x18}, descriptor...)
	out = append(out, byte(XXH32(descriptor)>>8))
	for off := 0; off < len(content); off += 1 << bits {
		out = o.block(out, content, off, min(off+1<<bits, len(content)))
	}
	out = append(out, 0, 0, 0, 0)
	if !o.NoContentSum {
		out = binary.LittleEndian.AppendUint32(out, XXH32(content))
	}
	return out
}

func flag(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}

// block appends the block of content[from:to].
func (o Form) block(out, content []byte, from, to int) []byte {
	window := max(0, from-65536)
	if o.Independent {
		window = from
	}
	b := content[from:to]
	word := uint32(len(b)) | 1<<31
	if packed := compress(content[window:to], from-window); !o.Stored && len(packed) < len(b) {
		b, word = packed, uint32(len(packed))
	}
	out = binary.LittleEndian.AppendUint32(out, word)
	out = append(out, b...)
	if !o.NoBlockSum {
		out = binary.LittleEndian.AppendUint32(out, XXH32(b))
	}
	return out
}

// compress is a block of p[from:], which refers to what is before that too.
func compress(p []byte, from int) []byte {
	out := make([]byte, 0, len(p)-from)
	var seen [1 << 14]int // by hash, where four bytes were seen, plus one
	hash := func(i int) uint32 { return binary.LittleEndian.Uint32(p[i:]) * 2654435761 >> 18 }
	for i := 0; i+4 <= from; i += 3 {
		seen[hash(i)] = i + 1
	}
	literals := from
	// The last match begins 12 bytes before the end, or earlier; the last 5
	// bytes are literals.
	for i := from; i+12 <= len(p); {
		key := hash(i)
		at := seen[key] - 1
		seen[key] = i + 1
		if at < 0 || i-at > 65535 || string(p[at:at+4]) != string(p[i:i+4]) {
			i++
			continue
		}
		n := 4
		for i+n < len(p)-5 && p[at+n] == p[i+n] {
			n++
		}
		out = sequence(out, p[literals:i], i-at, n)
		i += n
		literals = i
	}
	return sequence(out, p[literals:], 0, 0)
}

// sequence appends literals and a match; a match of 0 bytes is none.
func sequence(out, literals []byte, offset, match int) []byte {
	token := byte(min(15, len(literals))) << 4
	if match > 0 {
		token |= byte(min(15, match-4))
	}
	out = append(out, token)
	out = length(out, len(literals))
	out = append(out, literals...)
	if match == 0 {
		return out
	}
	out = binary.LittleEndian.AppendUint16(out, uint16(offset))
	return length(out, match-4)
}

// length appends what a length has beyond the 15 of a token.
func length(out []byte, n int) []byte {
	if n < 15 {
		return out
	}
	for n -= 15; n >= 255; n -= 255 {
		out = append(out, 255)
	}
	return append(out, byte(n))
}

// XXH32 is the checksum of the LZ4 frame format, with seed 0.
func XXH32(p []byte) uint32 {
	const p1, p2, p3, p4, p5 = uint32(0x9E3779B1), uint32(0x85EBCA77), uint32(0xC2B2AE3D), uint32(0x27D4EB2F), uint32(0x165667B1)
	rotate := func(x uint32, n int) uint32 { return x<<n | x>>(32-n) }
	total := uint32(len(p))
	h := p5
	if len(p) >= 16 {
		zero := uint32(0)
		v := [4]uint32{zero + 606290984, p2, 0, zero - p1} // the first is p1+p2, wrapped
		for ; len(p) >= 16; p = p[16:] {
			for i := range v {
				v[i] = rotate(v[i]+binary.LittleEndian.Uint32(p[4*i:])*p2, 13) * p1
			}
		}
		h = rotate(v[0], 1) + rotate(v[1], 7) + rotate(v[2], 12) + rotate(v[3], 18)
	}
	h += total
	for ; len(p) >= 4; p = p[4:] {
		h = rotate(h+binary.LittleEndian.Uint32(p)*p3, 17) * p4
	}
	for _, c := range p {
		h = rotate(h+uint32(c)*p5, 11) * p1
	}
	h ^= h >> 15
	h *= p2
	h ^= h >> 13
	h *= p3
	return h ^ h>>16
}
