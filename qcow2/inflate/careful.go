package inflate

// careful decodes the symbols of a block one at a time and looks at each step whether
// input or output end.
func (d *Decoder) careful() error {
	for d.out < len(d.dst) {
		d.refill()
		e := lookUp(d.lit[:], litBits, d.bits)
		switch {
		case codeBits(e) > d.n:
			return ErrCut
		case e&entryLiteral != 0:
			d.skip(codeBits(e)) // of two literals, one
			d.dst[d.out] = byte(e >> 16)
			d.out++
		case e&(entrySpecial|entryKind) == kindEnd:
			d.skip(codeBits(e))
			return nil
		default:
			if err := d.match(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// match copies the match whose length the entry e begins.
func (d *Decoder) match(e uint32) error {
	length, err := d.value(e)
	if err != nil {
		return err
	}
	d.refill()
	distance, err := d.value(lookUp(d.dist[:], distBits, d.bits))
	if err != nil {
		return err
	}
	if distance > d.out {
		return d.corrupt(badDistance)
	}
	to := d.dst[d.out:min(d.out+length, len(d.dst))]
	from := d.dst[d.out-distance:]
	for i := range to { // in order: they may overlap
		to[i] = from[i]
	}
	d.out += len(to)
	return nil
}

// value reads the length or distance of the entry e.
func (d *Decoder) value(e uint32) (int, error) {
	all, code := uint(e&entryBits), codeBits(e)
	switch {
	case code > d.n:
		return 0, ErrCut
	case e&entrySpecial != 0:
		return 0, d.corrupt(badSymbol)
	case all > d.n:
		return 0, ErrCut
	}
	v := int(e>>16) + int(d.bits&(1<<all-1)>>code)
	d.skip(all)
	return v, nil
}

// lookUp finds the entry of the symbol that bits begin with.
func lookUp(table []uint32, width uint, bits uint64) uint32 {
	e := table[bits&(1<<width-1)]
	if e&(entrySpecial|entryKind) == kindSecond {
		e = table[e>>16+uint32(bits>>width)&(1<<codeBits(e)-1)]
	}
	return e
}

func (d *Decoder) skip(n uint) {
	d.bits >>= n
	d.n -= n
}
