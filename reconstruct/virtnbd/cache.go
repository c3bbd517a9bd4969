package virtnbd

import (
	"errors"
	"io"
	"sync"
)

const (
	// segmentSize is how much memory is taken and given back at a time. Where
	// blocks are larger, segments are as large as they are.
	segmentSize = 1 << 20
	// minSegments is how many there are at least.
	minSegments = 4
	// helpStep is how much a waiting reader decodes for later ones before it
	// looks again whether what it waits for is there.
	helpStep = 512 << 10
	// helpReach is how many entries ahead it looks for work.
	helpReach = 64
)

// A cache keeps what was decoded of the entries of a compressed stream.
//
// An entry that is wanted whole is decoded right into the reader's buffer. Any
// other is opened as a unit: one reader at a time decodes it, as far as it needs,
// and what it decodes is kept in segments for the others. Memory that was read once
// is used again first, which is right for a copy; then what was longest not used.
type cache struct {
	s      *Stream
	size   int     // of a segment
	most   int     // segments
	shared *Memory // where they come from; nil: the cache's own

	buffers  sync.Pool // of *buffer
	decoders sync.Pool // of *decoder, for entries that are wanted whole

	mu    sync.Mutex
	open  map[int64]*unit
	segs  []*segment // all there are
	clock uint64

	decoded int64 // bytes decoded into segments, for tests
}

func newCache(s *Stream, o *Options) *cache {
	c := &cache{s: s, size: max(segmentSize, s.blockMax), open: map[int64]*unit{}}
	if o.Shared != nil {
		c.shared, c.size = o.Shared, max(o.Shared.segment, s.blockMax)
		c.shared.join(c)
	}
	c.most = int(min(max(minSegments, o.Memory/int64(c.size)), 1<<20))
	c.buffers.New = newBuffer
	c.decoders.New = func() any { return new(decoder) }
	return c
}

// A segment holds decoded bytes of a unit.
type segment struct {
	// Under the cache's lock:
	unit       *unit // nil: free
	start, end int64 // bytes of the entry; only who decodes the unit moves end
	unread     int64
	pins       int
	used       uint64

	// buf begins with what is before start, windowSize bytes at most, and goes
	// on with what is from start on.
	buf    []byte
	before int
}

// room is where the next block goes, and what is before that.
func (g *segment) room() (dst, before []byte) {
	at := g.before + int(g.end-g.start)
	return g.buf[at:], g.buf[max(0, at-windowSize):at]
}

// A unit is an entry that is being decoded, or of which something is kept.
type unit struct {
	entry
	number int64

	// Under the cache's lock:
	users int
	segs  []*segment // by start
	tail  *segment   // the last one, while there is more to decode
	done  int64      // decoded so far
	whole bool       // all is decoded

	// mu is held by who decodes. It is taken before the cache's lock.
	mu    sync.Mutex
	dec   decoder
	begun bool  // dec can go on
	err   error // why it cannot be decoded further; changed under both locks
}

// read fills p with the bytes of an entry from at on.
func (c *cache) read(number int64, p []byte, at int64) error {
	u := c.use(number, at == 0 && int64(len(p)) == c.s.index.at(number).len)
	if u == nil {
		return c.readWhole(number, p)
	}
	defer c.leave(u)
	for len(p) > 0 {
		n := c.copyOut(u, p, at)
		if n == 0 {
			if !u.mu.TryLock() {
				if c.help(u) {
					continue
				}
				u.mu.Lock()
			}
			var err error
			n, err = c.advance(u, p, at)
			u.mu.Unlock()
			if err != nil {
				return err
			}
		}
		p, at = p[n:], at+int64(n)
	}
	return nil
}

func (c *cache) readWhole(number int64, p []byte) error {
	d, b := c.decoders.Get().(*decoder), c.buffers.Get().(*buffer)
	d.begin(c.s, *c.s.index.at(number))
	d.equip(b)
	err := d.whole(p)
	d.strip(b)
	c.buffers.Put(b)
	c.decoders.Put(d)
	return err
}

// use opens the unit of an entry, or returns nil where there is none and none is
// needed because the entry is wanted whole.
func (c *cache) use(number int64, whole bool) *unit {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.open[number]
	if u == nil {
		if whole {
			return nil
		}
		u = &unit{entry: *c.s.index.at(number), number: number}
		c.open[number] = u
	}
	u.users++
	return u
}

// leave is the end of use.
func (c *cache) leave(u *unit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u.users--
	c.forget(u)
}

// forget closes a unit that nobody uses and of which nothing is kept.
func (c *cache) forget(u *unit) {
	if u.users == 0 && len(u.segs) == 0 {
		delete(c.open, u.number)
	}
}

// copyOut copies what there is of the bytes from at on.
func (c *cache) copyOut(u *unit, p []byte, at int64) int {
	g, n := c.pin(u, at)
	if g == nil {
		return 0
	}
	n = copy(p, g.buf[g.before+int(at-g.start):][:n])
	c.unpin(g, n)
	return n
}

// pin finds the segment that holds at, and how many bytes it has from there on.
func (c *cache) pin(u *unit, at int64) (*segment, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range u.segs {
		if g.start <= at && at < g.end {
			g.pins++
			return g, int(g.end - at)
		}
	}
	return nil, 0
}

// unpin lets go of a segment of which n bytes were read.
func (c *cache) unpin(g *segment, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock++
	g.pins--
	g.unread -= int64(n)
	g.used = c.clock
}

// advance decodes until p is full of the bytes from at on, and returns how many
// there are; 0 where somebody else has decoded them. The caller holds u.mu.
func (c *cache) advance(u *unit, p []byte, at int64) (int, error) {
	done, there := c.progress(u, at)
	if there {
		return 0, nil
	}
	if !u.begun || at < done {
		c.restart(u)
		done = 0
	}
	b := c.buffers.Get().(*buffer)
	defer c.buffers.Put(b)
	u.dec.equip(b)
	defer u.dec.strip(b)
	filled := 0
	var last *segment // held, for the next block may refer to it
	defer func() { c.unhold(last) }()
	for end := at + int64(len(p)); done < end; {
		g, n, err := c.block(u, true)
		if err == errLost {
			c.restart(u)
			done = 0
			continue
		}
		if err != nil {
			return filled, err
		}
		c.unhold(last)
		last = g
		done += int64(n)
		if from := at + int64(filled) - (done - int64(n)); from < int64(n) {
			content := g.buf[g.before+int(done-g.start)-n:][:n]
			got := copy(p[filled:], content[max(0, from):])
			filled += got
			c.touch(g, got)
		}
	}
	return filled, nil
}

func (c *cache) touch(g *segment, read int) {
	c.mu.Lock()
	g.unread -= int64(read)
	c.mu.Unlock()
}

// unhold lets go of a segment that was held, if there is one.
func (c *cache) unhold(g *segment) {
	if g == nil {
		return
	}
	c.mu.Lock()
	g.pins--
	c.mu.Unlock()
}

// progress says how far u is, and whether at is in memory.
func (c *cache) progress(u *unit, at int64) (done int64, there bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if u.tail == nil && !u.whole && u.err == nil && u.done > 0 {
		u.begun = false // what it would go on from is gone
	}
	for _, g := range u.segs {
		there = there || g.start <= at && at < g.end
	}
	return u.done, there
}

// restart begins a unit anew.
func (c *cache) restart(u *unit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(u.segs) > 0 {
		c.evict(u.segs[0])
	}
	u.dec.begin(c.s, u.entry)
	u.begun, u.done, u.whole, u.err = true, 0, false, nil
}

// block decodes the next block of u into a segment, which is held. Unless it must,
// it returns nil where there is no memory to spare, and errLost where what the block
// may refer to is gone. The last block is given only
// when the end of the entry was found to be right. The caller holds u.mu.
func (c *cache) block(u *unit, must bool) (*segment, int, error) {
	if u.err != nil {
		return nil, 0, u.err
	}
	g, err := c.target(u, must)
	if g == nil {
		return nil, 0, err
	}
	n, err := u.dec.next(g.room())
	if err == nil && u.dec.left == 0 {
		err = c.checkEnd(u)
	}
	if err != nil {
		c.failed(u, g, err)
		return nil, 0, err
	}
	c.publish(u, g, n)
	return g, n, nil
}

// checkEnd reads what is behind the last block.
func (c *cache) checkEnd(u *unit) error {
	n, err := u.dec.next(nil, nil)
	if err == io.EOF {
		return nil
	}
	if err == nil {
		err = formatError("data frame", "payload", u.dec.t.pos, "", number(int64(n))+" bytes too many")
	}
	return err
}

// failed keeps an error of the format. After any other, the next reader tries again
// from the beginning.
func (c *cache) failed(u *unit, g *segment, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g.pins--
	if bad := (*FormatError)(nil); errors.As(err, &bad) {
		u.err = err
		return
	}
	u.begun = false
}

// publish lets others read n more bytes of the tail.
func (c *cache) publish(u *unit, g *segment, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g.end += int64(n)
	g.unread += int64(n)
	u.done += int64(n)
	c.decoded += int64(n)
	if u.done == u.len {
		u.whole, u.tail = true, nil
	}
}
