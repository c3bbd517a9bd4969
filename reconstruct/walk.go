package reconstruct

import (
	"iter"

	"github.com/qbitkit/qbit/qcow2"
)

// A step is a run of the chain that one link decides.
type step struct {
	qcow2.Extent            // Depth is that in the chain
	disk         qcow2.Disk // that of the link
}

// A walker goes over a chain once, upwards. It asks a link only for ranges that
// no newer link holds, and remembers where each is absent: a step costs a
// comparison a link, and the disks are asked once for what they hold.
type walker struct {
	chain   *Chain
	cursors []cursor
	absent  []int64 // each level is absent up to here
}

func newWalker(c *Chain) *walker {
	w := &walker{chain: c, cursors: make([]cursor, len(c.levels)), absent: make([]int64, len(c.levels))}
	for i := range w.cursors {
		w.cursors[i].walk = c.levels[i].extents
	}
	return w
}

func (w *walker) reset() {
	clear(w.absent)
	for i := range w.cursors {
		w.cursors[i].reset()
	}
}

// steps yields the steps that cover [off, off+n).
func (c *Chain) steps(off, n int64) iter.Seq2[step, error] {
	return func(yield func(step, error) bool) {
		if err := checkRange(off, n, c.Size()); err != nil {
			yield(step{}, err)
			return
		}
		w := c.walkers.Get().(*walker)
		defer c.walkers.Put(w)
		w.reset()
		for end := off + n; off < end; {
			s, err := w.step(off, end)
			if !yield(s, err) || err != nil {
				return
			}
			off = s.End()
		}
	}
}

// step returns the step that begins at off and ends no later than end.
func (w *walker) step(off, end int64) (step, error) {
	oldest := len(w.cursors) - 1
	bound := end // up to here all newer links are absent
	for i := range w.cursors {
		if w.absent[i] > off {
			bound = min(bound, w.absent[i])
			continue
		}
		v := &w.chain.levels[i]
		if off >= v.size {
			return w.decided(v, qcow2.Extent{Off: off, Len: bound - off, Kind: qcow2.Zero}), nil
		}
		e, err := w.cursors[i].extent(off, min(end, v.size))
		if err != nil {
			return step{}, w.mapError(v, off, bound, err)
		}
		if e.Kind != qcow2.Absent || i == oldest {
			return w.decided(v, e.Slice(off, bound)), nil
		}
		w.absent[i] = e.End()
		bound = min(bound, e.End())
	}
	panic("reconstruct: a chain without links") // Point makes none
}

// decided is the step of an extent of a link.
func (w *walker) decided(v *level, e qcow2.Extent) step {
	e.Depth = v.base + max(0, min(e.Depth, v.layers-1))
	return step{Extent: e, disk: w.chain.links[v.link].Disk}
}

func (w *walker) mapError(v *level, off, end int64, err error) error {
	return &RangeError{Op: "map", Off: off, Len: end - off, Link: w.chain.links[v.link].Name, Err: err}
}
