package virtnbd

import (
	"errors"
	"slices"
)

// errLost says that a unit cannot be gone on with: its last segment was wanted for
// something else.
var errLost = errors.New("what was decoded last is gone")

// target is the segment that the next block of u goes to, held: the tail, or a new
// one; nil where there is no memory, or with errLost. The caller holds u.mu.
func (c *cache) target(u *unit, must bool) (*segment, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := u.tail
	if old == nil && u.done > 0 {
		return nil, errLost
	}
	if old != nil && len(old.buf)-old.before-int(old.end-old.start) >= c.blockRoom(u) {
		old.pins++
		return old, nil
	}
	if old != nil {
		old.pins++ // so that it stays until its end was copied
	}
	g := c.acquire(must)
	if old != nil {
		old.pins--
	}
	if g == nil {
		return nil, nil
	}
	c.clock++
	*g = segment{unit: u, start: u.done, end: u.done, pins: 1, used: c.clock, buf: g.buf}
	if old != nil {
		_, before := old.room()
		g.before = copy(g.buf, before)
	}
	u.segs = append(u.segs, g)
	u.tail = g
	return g, nil
}

// blockRoom is the most that the next block of u can need.
func (c *cache) blockRoom(u *unit) int { return int(min(int64(c.s.blockMax), u.len-u.done)) }

// acquire returns a segment that is free, or makes one free. Unless it must, it
// takes only what was read.
func (c *cache) acquire(must bool) *segment {
	var best *segment
	for _, g := range c.segs {
		if g.pins == 0 && (best == nil || g.rank() < best.rank() || g.rank() == best.rank() && g.used < best.used) {
			best = g
		}
	}
	if best != nil && best.rank() == 0 {
		return best
	}
	if len(c.segs) < c.most || must && best == nil {
		if buf := c.memory(must && best == nil); buf != nil {
			g := &segment{buf: buf}
			c.segs = append(c.segs, g)
			return g
		}
	}
	if best == nil || best.rank() > 1 && !must {
		return nil
	}
	c.evict(best)
	return best
}

// memory is that of a new segment; nil where there is none and it need not be.
func (c *cache) memory(must bool) []byte {
	if c.shared == nil {
		return make([]byte, windowSize+c.size)
	}
	return c.shared.take(c, must)
}

// rank says how little is lost with a segment, the least first: nothing, what was
// read, what was not, what a unit needs to be gone on with.
func (g *segment) rank() int {
	switch {
	case g.unit == nil:
		return 0
	case g == g.unit.tail:
		return 3
	case g.unread > 0:
		return 2
	}
	return 1
}

// evict takes a segment from its unit. One that is being read is lost to the unit,
// and free when that has ended.
func (c *cache) evict(g *segment) {
	u := g.unit
	u.segs = slices.DeleteFunc(u.segs, func(x *segment) bool { return x == g })
	if u.tail == g {
		u.tail = nil
	}
	g.unit = nil
	c.forget(u)
}

// help decodes a little of what will be wanted after u, which somebody else is
// decoding. It is false where there is nothing to do, or no memory to do it in.
func (c *cache) help(u *unit) bool {
	v := c.helpable(u)
	if v == nil {
		return false
	}
	defer c.leave(v)
	defer v.mu.Unlock()
	if _, there := c.progress(v, v.len-1); there {
		return false
	}
	if !v.begun {
		c.restart(v)
	}
	b := c.buffers.Get().(*buffer)
	defer c.buffers.Put(b)
	v.dec.equip(b)
	defer v.dec.strip(b)
	var last *segment // held, for the next block may refer to it
	defer func() { c.unhold(last) }()
	for made := 0; made < helpStep; {
		g, n, err := c.block(v, false)
		if g == nil || err != nil { // whoever needs it will be told
			return made > 0
		}
		c.unhold(last)
		last = g
		made += n
		if v.done == v.len {
			break
		}
	}
	return true
}

// helpable finds the next unit after u that nobody decodes, locks it and uses it.
// There must be memory for it and for all that will be wanted before it.
func (c *cache) helpable(u *unit) *unit {
	c.mu.Lock()
	defer c.mu.Unlock()
	spare := c.spare() - c.lacking(u.entry, u)
	for i := u.number + 1; i <= u.number+helpReach && i < c.s.index.n && spare > 0; i++ {
		e := *c.s.index.at(i)
		if e.zero() || e.len < int64(c.size) { // small ones are soon done by who needs them
			continue
		}
		v := c.open[i]
		if c.worthHelping(v) && (v == nil || v.mu.TryLock()) {
			if v == nil {
				v = &unit{entry: e, number: i}
				v.mu.Lock()
				c.open[i] = v
			}
			v.users++
			return v
		}
		spare -= c.lacking(e, v)
	}
	return nil
}

// worthHelping reports a unit that can be begun or gone on with. The tail alone
// says so, for who decodes may change the rest.
func (c *cache) worthHelping(v *unit) bool {
	return v == nil || !v.whole && v.err == nil && (v.done == 0 || v.tail != nil)
}

// spare is how many segments can be had without losing what was not read.
func (c *cache) spare() int64 {
	n := int64(c.most - len(c.segs))
	for _, g := range c.segs {
		if g.pins == 0 && g.rank() <= 1 {
			n++
		}
	}
	return n
}

// lacking is how many segments an entry still needs; v is its unit, or nil.
func (c *cache) lacking(e entry, v *unit) int64 {
	left := e.len
	if v != nil {
		left -= v.done
	}
	return (left + int64(c.size) - 1) / int64(c.size)
}
