package reconstruct

import (
	"iter"
	"slices"
	"sort"
	"sync"

	"github.com/qbitkit/qbit/qcow2"
)

// Point is the disk as of the last of links, the full backup first. It is a
// *Chain.
//
// Each byte comes from the newest link that holds it as data or as zero. The
// disk has the size of the newest link; what lay beyond the end of a smaller
// link reads as zero in all later ones that do not hold it, whatever older links
// hold there. What no link holds is read through the oldest one, so that it can
// refuse.
//
// Point reads nothing. A chain that cannot be right is a *ChainError: no link, a
// link without a disk, one disk twice, a Changed bitmap of another size, an
// oldest link with an unopened backing file (which its method Unopened()
// *qcow2.Ref tells), an increment that was opened with its backing file.
func Point(links []Link) (qcow2.Disk, error) {
	if err := validate(links); err != nil {
		return nil, err
	}
	c := &Chain{links: slices.Clone(links)}
	for i := len(links) - 1; i >= 0; i-- {
		if err := c.addLevel(i); err != nil {
			return nil, err
		}
	}
	c.walkers.New = func() any { return newWalker(c) }
	return c, nil
}

// A Chain is the disk that Point makes of links. It may be used from several
// goroutines, and starts none.
type Chain struct {
	links   []Link
	levels  []level // newest first
	walkers sync.Pool
}

// A level is a link, seen from above.
type level struct {
	link    int // index into links
	size    int64
	extents extentsFunc
	base    int // depth of the link's own disk in the chain
	layers  int // how many depths belong to the link
}

func (c *Chain) addLevel(i int) error {
	l := c.links[i]
	v := level{link: i, size: l.Disk.Size(), extents: l.Disk.Extents, base: c.Layers(), layers: Layers(l.Disk)}
	if i > 0 {
		var err error
		if v.extents, err = linkExtents(l); err != nil {
			return &ChainError{Link: l.Name, Index: i, Msg: err.Error()}
		}
	}
	c.levels = append(c.levels, v)
	return nil
}

// Links returns the links of the chain, oldest first.
func (c *Chain) Links() []Link { return slices.Clone(c.links) }

// Size implements qcow2.Disk.
func (c *Chain) Size() int64 { return c.levels[0].size }

// Layers is the number of depths that extents of the chain can have: one a
// link, and one more for each disk that was opened below that of the oldest.
func (c *Chain) Layers() int {
	if len(c.levels) == 0 {
		return 0
	}
	last := c.levels[len(c.levels)-1]
	return last.base + last.layers
}

// LinkOf says to which link an extent of the chain with this depth belongs, 0
// for the oldest, and the depth within that link's own disk.
func (c *Chain) LinkOf(depth int) (link, inner int) {
	i := sort.Search(len(c.levels), func(i int) bool { return c.levels[i].base > depth })
	v := c.levels[max(0, i-1)]
	return v.link, depth - v.base
}

// linkName is the name of the link with this depth.
func (c *Chain) linkName(depth int) string {
	i, _ := c.LinkOf(depth)
	return c.links[i].Name
}

// ByLink adds up tallies by depth, as Result has them, to one a link, oldest
// first.
func (c *Chain) ByLink(layers []Tally) []Tally {
	sums := make([]Tally, len(c.links))
	for depth, t := range layers {
		i, _ := c.LinkOf(depth)
		sums[i].add(t)
	}
	return sums
}

// Extents implements qcow2.Disk. Depth counts from the newest link, 0; of a link
// that has layers of its own, from there on down. An Absent extent is one that
// no link holds, and belongs to the oldest; a Zero extent that begins where a
// link ends belongs to that link.
func (c *Chain) Extents(off, n int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		m := merger{emit: func(e qcow2.Extent) bool { return yield(e, nil) }}
		for s, err := range c.steps(off, n) {
			if err != nil {
				if m.flush() {
					yield(qcow2.Extent{}, err)
				}
				return
			}
			if !m.add(s.Extent) {
				return
			}
		}
		m.flush()
	}
}

// ReadAt implements qcow2.Disk. Errors are of type *RangeError and name the link.
func (c *Chain) ReadAt(p []byte, off int64) (int, error) {
	return diskReadAt(p, off, c.Size(), c.fill)
}

func (c *Chain) fill(p []byte, off int64) (int, error) {
	for s, err := range c.steps(off, int64(len(p))) {
		if err != nil {
			return 0, err
		}
		at := s.Off - off
		if err := readExtent(s.disk, s.Extent, p[at:at+s.Len]); err != nil {
			return int(at), c.rangeError("read", s.Extent, err)
		}
	}
	return len(p), nil
}

func (c *Chain) rangeError(op string, e qcow2.Extent, err error) error {
	return &RangeError{Op: op, Off: e.Off, Len: e.Len, Link: c.linkName(e.Depth),
		Host: e.Host, HasHost: located(e), Err: err}
}

// checkAbsent asks the oldest link whether an absent extent is zero.
func (c *Chain) checkAbsent(e qcow2.Extent) error {
	if err := checkAbsent(c.links[0].Disk, e); err != nil {
		return c.rangeError("read", e, err)
	}
	return nil
}
