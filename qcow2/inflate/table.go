package inflate

import "math/bits"

// How many bits of a code the first step of a look-up takes. Longer codes need a second
// one, in a table of its own for each beginning.
const (
	litBits  = 11
	distBits = 8
	preBits  = 7 // the longest code of a code length
	maxBits  = 15
)

const (
	maxLit  = 288 // symbols; of a dynamic block at most 286
	maxDist = 32  // of a dynamic block at most 30

	// A second table has at least two symbols, and as many entries as the code with
	// the most bits asks for.
	litTableSize  = 1<<litBits + maxLit/2<<(maxBits-litBits)
	distTableSize = 1<<distBits + maxDist/2<<(maxBits-distBits)
)

// An entry of a table is
//
//	bits 0-5    how many bits the symbol takes, those that follow its code included
//	bit 6       it is special
//	bit 7       it is one literal or two
//	bits 8-11   how many bits the code of the (first) symbol has
//	bits 12-13  how many literals; for a special entry, what is special
//	bits 16-31  the literals, the first one lowest; the base of a length or distance;
//	            where the second table begins
//
// A special entry that leads to a second table has the bits of its index in 8-11.
const (
	entrySpecial = 1 << 6
	entryLiteral = 1 << 7

	entryBits   = 1<<6 - 1
	entryKind   = 3 << 12
	kindBad     = entrySpecial
	kindEnd     = entrySpecial | 1<<12
	kindSecond  = entrySpecial | 2<<12
	entryLength = 1 | 1<<8 // times the length of a code
)

func codeBits(e uint32) uint { return uint(e >> 8 & 15) }

// The entries of symbols, without the lengths of their codes: section 3.2.5,
// "Compressed blocks".
var (
	litSymbols  = makeLitSymbols()
	distSymbols = makeDistSymbols()
	preSymbols  = makePreSymbols()
)

func makeLitSymbols() (s [maxLit]uint32) {
	for i := range uint32(256) {
		s[i] = entryLiteral | 1<<12 | i<<16
	}
	s[256] = kindEnd
	base := uint32(3)
	for i := range uint32(28) { // 257 to 284
		extra := max(i/4, 1) - 1
		s[257+i] = base<<16 | extra
		base += 1 << extra
	}
	s[285] = 258 << 16
	s[286], s[287] = kindBad, kindBad
	return s
}

func makeDistSymbols() (s [maxDist]uint32) {
	base := uint32(1)
	for i := range uint32(30) {
		extra := max(i/2, 1) - 1
		s[i] = base<<16 | extra
		base += 1 << extra
	}
	s[30], s[31] = kindBad, kindBad
	return s
}

func makePreSymbols() (s [19]uint32) {
	for i := range s {
		s[i] = uint32(i) << 16
	}
	return s
}

// A builder makes the table of one code.
type builder struct {
	table   []uint32 // of the first step, and behind it those of the second
	width   uint     // bits of the first step
	symbols []uint32 // their entries without lengths
	counts  [maxBits + 1]int
	sorted  [maxLit]uint16 // symbols by length, and among equals in order

	code    uint // the next one, its first bit lowest, as it is in the stream
	longest uint
	used    int // of table
	second  int // where the current table of the second step begins
}

// build makes a table of the lengths of the codes, as in section 3.2.2. It reports false
// for lengths that leave codes without a symbol or give one to two symbols. Two such
// codes are taken all the same, as other decoders do: the one of a single symbol with
// one bit, and the one without a symbol, which fails when it is used.
func build(table []uint32, width uint, symbols []uint32, lens []uint8) bool {
	b := builder{table: table, width: width, symbols: symbols, used: 1 << width}
	b.sort(lens)
	if !b.complete() && (b.longest > 1 || b.counts[1] > 1) {
		return false
	}
	table[0] = kindBad // stays where a code is missing
	at := b.counts[0]
	for l := uint(1); l <= max(b.longest, width); l++ {
		if l <= width {
			half := 1 << (l - 1)
			copy(table[half:2*half], table[:half])
		}
		for range b.counts[l] {
			b.put(b.sorted[at], l)
			at++
		}
	}
	return true
}

// sort sorts the symbols by the lengths of their codes.
func (b *builder) sort(lens []uint8) {
	for _, l := range lens {
		b.counts[l]++
	}
	var at [maxBits + 1]int
	for l := 1; l <= maxBits; l++ {
		at[l] = at[l-1] + b.counts[l-1]
		if b.counts[l] > 0 {
			b.longest = uint(l)
		}
	}
	for i, l := range lens {
		b.sorted[at[l]] = uint16(i)
		at[l]++
	}
}

// complete reports that each sequence of bits is a code, and of one symbol.
func (b *builder) complete() bool {
	sum := 0
	for l := 1; l <= maxBits; l++ {
		sum += b.counts[l] << (maxBits - l)
	}
	return sum == 1<<maxBits
}

// put gives the next code, of length l, to a symbol. Up to the width of the first step
// the table has 1<<l entries at that time, and grows by copying itself.
func (b *builder) put(symbol uint16, l uint) {
	e := b.symbols[symbol] + uint32(l)*entryLength
	if l <= b.width {
		b.table[b.code] = e
	} else {
		b.putSecond(e, l)
	}
	ones := uint(1)<<l - 1
	if b.code == ones {
		return // it was the last one
	}
	carry := uint(1) << (bits.Len(b.code^ones) - 1) // adds one at the other end
	b.code = b.code&(carry-1) | carry
}

func (b *builder) putSecond(e uint32, l uint) {
	index := b.longest - b.width
	first := &b.table[b.code&(1<<b.width-1)]
	if b.code>>b.width == 0 { // the first code of this beginning
		b.second, b.used = b.used, b.used+1<<index
		*first = kindSecond | uint32(index)<<8 | uint32(b.second)<<16
	}
	t := b.table[b.second:b.used]
	for i := b.code >> b.width; i < 1<<index; i += 1 << (l - b.width) {
		t[i] = e
	}
}

// pair makes entries of two literals where the bits of the first step hold both.
func (d *Decoder) pair() {
	if d.paired {
		return
	}
	d.paired = true
	t := d.lit[:1<<litBits]
	for i := len(t) - 1; i >= 0; i-- { // downwards: what is below has one literal yet
		a := t[i]
		if a&entryLiteral == 0 {
			continue
		}
		b := t[i>>codeBits(a)]
		if b&entryLiteral != 0 && codeBits(a)+codeBits(b) <= litBits {
			t[i] = a + b&entryBits + 1<<12 + b>>16<<24
		}
	}
}
