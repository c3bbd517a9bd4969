package reconstruct

import (
	"fmt"
	"strings"
	"sync"

	"github.com/qbitkit/qbit/qcow2"
)

// A ChunkError is a chunk of a disk whose content is not what it should be.
type ChunkError struct {
	Chunk     int64  // from 0
	Off, Len  int64  // guest bytes
	Want, Got uint64 // 64-bit xxHash
	// Held says which links hold bytes of the chunk, ascending, as far as maxHeld;
	// empty where no link does and the chunk is zero.
	Held []Holding
}

// A Holding is a range of guest bytes that a link holds.
type Holding struct {
	Link     string // empty where the disk is no chain
	Off, Len int64
}

// maxHeld is how many ranges a ChunkError names at the most.
const maxHeld = 64

func (e *ChunkError) Error() string {
	return fmt.Sprintf("guest bytes %d to %d (chunk %d) are not what was sealed: xxh64 is %016x and should be %016x; %s",
		e.Off, e.Off+e.Len, e.Chunk, e.Got, e.Want, e.holders())
}

// holders says which links hold the chunk, each with the bytes from its first
// range to its last.
func (e *ChunkError) holders() string {
	links := e.Links()
	if len(links) == 0 {
		return "no link holds any of it"
	}
	var parts []string
	for _, l := range links {
		name := "the disk"
		if l.Link != "" {
			name = fmt.Sprintf("link %q", l.Link)
		}
		parts = append(parts, fmt.Sprintf("%s (bytes %d to %d)", name, l.Off, l.Off+l.Len))
	}
	return "what is there comes from " + strings.Join(parts, ", ")
}

// Links is Held with one range a link: from its first byte to its last.
func (e *ChunkError) Links() []Holding {
	var links []Holding
next:
	for _, h := range e.Held {
		for i := range links {
			if links[i].Link == h.Link {
				links[i].Len = h.Off + h.Len - links[i].Off
				continue next
			}
		}
		links = append(links, h)
	}
	return links
}

// zeroSums are the hashes of a chunk of zeros and of the short one at the end of
// the disk.
type zeroSums struct {
	once         sync.Once
	whole, short uint64
}

func (z *zeroSums) of(n, size int64) uint64 {
	z.once.Do(func() { z.whole, z.short = hashZeros(ChunkSize), hashZeros(size%ChunkSize) })
	if n == ChunkSize {
		return z.whole
	}
	return z.short
}

// expect compares the hash of a unit that is a chunk with what it should be.
func (c *copier) expect(u *unit) error {
	if c.opts.Expect == nil {
		return nil
	}
	return c.compare(u, u.off, u.len, u.sum)
}

// expectZeros compares the chunks of a unit that is zero, which is not read.
func (c *copier) expectZeros(u *unit) error {
	if c.opts.Expect == nil {
		return nil
	}
	for off := u.off; off < u.end(); off += ChunkSize {
		n := min(ChunkSize, u.end()-off)
		if err := c.compare(u, off, n, c.zeros.of(n, c.src.Size())); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) compare(u *unit, off, n int64, got uint64) error {
	want, known := c.opts.Expect(off / ChunkSize)
	if !known || want == got {
		return nil
	}
	e := &ChunkError{Chunk: off / ChunkSize, Off: off, Len: n, Want: want, Got: got, Held: c.held(u, off, off+n)}
	if c.opts.Differs == nil {
		return e
	}
	u.differ = append(u.differ, e)
	return nil
}

// held is which links hold what of [off, end) of a unit.
func (c *copier) held(u *unit, off, end int64) []Holding {
	var held []Holding
	chain, _ := c.src.(*Chain)
	for _, e := range u.extents {
		if e.Kind == qcow2.Absent || e.End() <= off || e.Off >= end {
			continue
		}
		e = e.Slice(max(off, e.Off), min(end, e.End()))
		h := Holding{Off: e.Off, Len: e.Len}
		if chain != nil {
			h.Link = chain.linkName(e.Depth)
		}
		if n := len(held); n > 0 && held[n-1].Link == h.Link && held[n-1].Off+held[n-1].Len == h.Off {
			held[n-1].Len += h.Len
		} else if n < maxHeld {
			held = append(held, h)
		}
	}
	return held
}

// takeSums reports what is wrong with a unit, and gives it to who wants it.
func (c *copier) takeSums(u *unit) error {
	for _, e := range u.broken {
		if err := c.broken(e); err != nil {
			return err
		}
	}
	for _, e := range u.differ {
		if err := c.opts.Differs(e); err != nil {
			return err
		}
	}
	if c.each == nil {
		return nil
	}
	return c.each(u)
}
