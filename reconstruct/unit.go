package reconstruct

import (
	"context"
	"iter"

	"github.com/qbitkit/qbit/qcow2"
)

const (
	// window is how much of a disk is walked before looking whether to stop.
	window = 64 << 30
	// zeroUnit is the most that one unit zeroes: a multiple of ChunkSize.
	zeroUnit = 256 << 20
)

// A unit is a chunk of the disk, a piece of one, or several chunks that are all
// zero, or that one extent holds whose blocks are to be shared.
type unit struct {
	off, len int64
	zero     bool           // no extent needs reading; buf is not valid
	extents  []qcow2.Extent // of a chunk or piece; cover it
	buf      []byte         // its content; nil for a chunk of which nobody wants it as a whole
	memory   []byte         // what buf is a part of
	holes    []bool         // which blocks of it are zero
	sum      uint64         // hash of the chunk, for Tree and Expect
	differ   []*ChunkError  // chunks that are not what Expect says
	broken   []*RangeError  // what could not be read, where the copy goes on
}

func (u *unit) end() int64 { return u.off + u.len }

// begin makes u an empty chunk at off.
func (u *unit) begin(off int64) {
	clear(u.extents) // they hold on to storages
	*u = unit{off: off, extents: u.extents[:0], memory: u.memory, holes: u.holes}
}

// add appends e, which fits into the chunk.
func (u *unit) add(e qcow2.Extent) {
	u.extents = append(u.extents, e)
	u.len += e.Len
}

// complete finds out whether u is zero, and otherwise gives it a buffer if its
// bytes are to be kept.
func (u *unit) complete(keep bool) {
	u.zero = true
	for _, e := range u.extents {
		u.zero = u.zero && zeroish(e)
	}
	if keep && !u.zero {
		u.buf = u.buffer(ChunkSize)
	}
}

// buffer is memory for u, which is at most size long.
func (u *unit) buffer(size int64) []byte {
	if int64(len(u.memory)) < size {
		u.memory = make([]byte, size)
	}
	return u.memory[:u.len]
}

// cut makes p the piece [off, end) of the chunk u, in u's memory if that has any.
func (p *unit) cut(u *unit, off, end int64) {
	p.begin(off)
	for _, e := range u.extents {
		if e.Off < end && off < e.End() {
			p.add(e.Slice(off, end))
		}
	}
	if u.buf != nil {
		p.buf = u.buf[off-u.off : end-u.off]
	} else {
		p.buf = p.buffer(p.len)
	}
}

// cutZeros makes p the piece [off, end) of the chunk u, where nothing of it is stored. It
// has bytes only if u has.
func (p *unit) cutZeros(u *unit, off, end int64) {
	p.begin(off)
	p.add(qcow2.Extent{Off: off, Len: end - off, Kind: qcow2.Zero})
	p.zero = true
	if u.buf != nil {
		p.buf = u.buf[off-u.off : end-u.off]
	}
}

// walkRange yields the extents of [off, to), with cuts after every window.
func walkRange(ctx context.Context, walk extentsFunc, off, to int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		for off := off; off < to; {
			end := min(off+window, to)
			for e, err := range checked(walk, off, end-off) {
				err = rangeError("map", nil, qcow2.Extent{Off: off, Len: end - off}, err)
				if err == nil {
					err = context.Cause(ctx)
				}
				if !yield(e, err) || err != nil {
					return
				}
				off = e.End()
			}
		}
	}
}

// A cutter cuts a walk into units.
type cutter struct {
	feed *feed[unit]
	size int64
	keep bool // the bytes of a chunk are wanted as a whole
	// whole reports an extent of which many chunks are one unit; nil: none is.
	whole func(qcow2.Extent) bool
	open  *job[unit] // the chunk that is being filled
}

// add takes the next extent of the walk.
func (c *cutter) add(e qcow2.Extent) error {
	for e.Len > 0 {
		n, err := c.addZeros(e)
		if n == 0 && err == nil {
			n, err = c.addShared(e)
		}
		if n == 0 && err == nil {
			n, err = c.addPart(e)
		}
		if err != nil {
			return err
		}
		e = advance(e, n)
	}
	return nil
}

// advance is e without its first n bytes.
func advance(e qcow2.Extent, n int64) qcow2.Extent {
	if n == e.Len {
		return qcow2.Extent{}
	}
	return e.Slice(e.Off+n, e.End())
}

// addZeros makes a unit of the whole chunks with which e begins, where it is
// zero, and returns how many bytes that is. A short chunk at the end of the disk
// is left to addPart.
func (c *cutter) addZeros(e qcow2.Extent) (int64, error) {
	if c.open != nil || !zeroish(e) {
		return 0, nil
	}
	n := min(e.Len, zeroUnit)
	if n -= n % ChunkSize; n == 0 {
		return 0, nil
	}
	j, err := c.feed.get()
	if err != nil {
		return 0, err
	}
	j.unit.begin(e.Off)
	j.unit.add(e.Slice(e.Off, e.Off+n))
	c.submit(j)
	return n, nil
}

// addPart puts the beginning of e into the open chunk.
func (c *cutter) addPart(e qcow2.Extent) (int64, error) {
	if c.open == nil {
		j, err := c.feed.get()
		if err != nil {
			return 0, err
		}
		j.unit.begin(e.Off)
		c.open = j
	}
	u := &c.open.unit
	end := min(u.off+ChunkSize, e.End())
	u.add(e.Slice(e.Off, end))
	if u.len == ChunkSize || end == c.size {
		c.submit(c.open)
		c.open = nil
	}
	return end - e.Off, nil
}

func (c *cutter) submit(j *job[unit]) {
	j.unit.complete(c.keep)
	c.feed.submit(j)
}
