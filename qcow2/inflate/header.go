package inflate

// fixedTables makes the tables of section 3.2.6, "Compression with fixed Huffman codes".
func (d *Decoder) fixedTables() {
	if d.fixed {
		return
	}
	lens := d.lens[:]
	for i := range maxLit {
		switch {
		case i < 144:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		case i < 280:
			lens[i] = 7
		default:
			lens[i] = 8
		}
	}
	for i := range maxDist {
		lens[maxLit+i] = 5
	}
	build(d.lit[:], litBits, litSymbols[:], lens[:maxLit])
	build(d.dist[:], distBits, distSymbols[:], lens[maxLit:])
	d.fixed, d.paired = true, false
}

// preOrder is the order in which the lengths of the codes of code lengths come.
var preOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// dynamicTables reads the tables of section 3.2.7, "Compression with dynamic Huffman
// codes".
func (d *Decoder) dynamicTables() error {
	d.fixed, d.paired = false, false
	counts, err := d.take(5 + 5 + 4)
	if err != nil {
		return err
	}
	lits, dists, pres := int(counts&31)+257, int(counts>>5&31)+1, int(counts>>10)+4
	if lits > 286 || dists > 30 {
		return d.corrupt("a block must not have more than 286 literals and lengths, and 30 distances")
	}
	if err := d.preTable(pres); err != nil {
		return err
	}
	lens := d.lens[:lits+dists]
	if err := d.readLens(lens); err != nil {
		return err
	}
	if !build(d.lit[:], litBits, litSymbols[:], lens[:lits]) || !build(d.dist[:], distBits, distSymbols[:], lens[lits:]) {
		return d.corrupt("the lengths of codes must make a complete code")
	}
	return nil
}

// preTable reads the code in which the lengths of the other codes are written.
func (d *Decoder) preTable(n int) error {
	var lens [len(preOrder)]uint8
	for _, symbol := range preOrder[:n] {
		l, err := d.take(3)
		if err != nil {
			return err
		}
		lens[symbol] = uint8(l)
	}
	if !build(d.pre[:], preBits, preSymbols[:], lens[:]) {
		return d.corrupt("the lengths of the codes of code lengths must make a complete code")
	}
	return nil
}

// readLens reads the lengths of the codes of literals, lengths and distances, which are
// one sequence.
func (d *Decoder) readLens(lens []uint8) error {
	for i := 0; i < len(lens); {
		symbol, err := d.preSymbol()
		if err != nil {
			return err
		}
		if symbol < 16 {
			lens[i] = uint8(symbol)
			i++
			continue
		}
		if symbol == 16 && i == 0 {
			return d.corrupt("the first length of a code cannot repeat one before it")
		}
		n, err := d.repeats(symbol)
		if err != nil {
			return err
		}
		if n > len(lens)-i {
			return d.corrupt("there must not be more lengths of codes than codes")
		}
		l := uint8(0)
		if symbol == 16 {
			l = lens[i-1]
		}
		for range n {
			lens[i] = l
			i++
		}
	}
	return nil
}

// repeats reads how often a length is repeated.
func (d *Decoder) repeats(symbol uint32) (int, error) {
	width, least := uint(2), 3
	switch symbol {
	case 17:
		width = 3
	case 18:
		width, least = 7, 11
	}
	n, err := d.take(width)
	return least + int(n), err
}

func (d *Decoder) preSymbol() (uint32, error) {
	d.refill()
	e := d.pre[d.bits&(1<<preBits-1)]
	if e&entrySpecial != 0 {
		return 0, d.corrupt(badSymbol)
	}
	if _, err := d.take(codeBits(e)); err != nil {
		return 0, err
	}
	return e >> 16, nil
}
