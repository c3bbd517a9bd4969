package virtnbd

import "sort"

// An entry is a run of guest bytes that a stream holds.
type entry struct {
	off, len int64
	// host is where the payload begins (of a compressed stream: an LZ4 frame), or
	// for zeros the complement of where the header stands.
	host int64
}

func (e entry) end() int64 { return e.off + e.len }

func (e entry) zero() bool { return e.host < 0 }

// place is where to look for it in the file.
func (e entry) place() int64 {
	if e.zero() {
		return ^e.host
	}
	return e.host
}

// perChunk is how many entries are allocated at a time.
const perChunk = 1 << 12

// An index holds the entries of a stream, ascending by off once it is sorted. It
// grows without copying: 24 bytes an entry.
type index struct {
	chunks [][]entry
	n      int64
	mixed  bool // entries were added out of order
}

func (x *index) at(i int64) *entry { return &x.chunks[i/perChunk][i%perChunk] }

// add appends an entry, or joins zeros with those before them.
func (x *index) add(e entry) {
	if x.n > 0 {
		last := x.at(x.n - 1)
		if last.zero() && e.zero() && last.end() == e.off {
			last.len += e.len
			return
		}
		x.mixed = x.mixed || e.off < last.end()
	}
	if x.n%perChunk == 0 {
		size := perChunk
		if x.n == 0 {
			size = 16 // most increments are small
		}
		x.chunks = append(x.chunks, make([]entry, 0, size))
	}
	c := &x.chunks[len(x.chunks)-1]
	*c = append(*c, e)
	x.n++
}

// Len, Less and Swap implement sort.Interface.
func (x *index) Len() int           { return int(x.n) }
func (x *index) Less(i, j int) bool { return x.at(int64(i)).off < x.at(int64(j)).off }
func (x *index) Swap(i, j int) {
	a, b := x.at(int64(i)), x.at(int64(j))
	*a, *b = *b, *a
}

// sort brings the entries in order and reports two that overlap.
func (x *index) sort() error {
	if !x.mixed {
		return nil
	}
	sort.Stable(x)
	for i := int64(1); i < x.n; i++ {
		a, b := x.at(i-1), x.at(i)
		if a.end() <= b.off {
			continue
		}
		later := max(a.place(), b.place())
		return formatError("stream", "frames", later, "", overlapRule(*a, *b))
	}
	return nil
}

func overlapRule(a, b entry) string {
	return "frames must not overlap: guest bytes " + number(b.off) + " to " + number(min(a.end(), b.end())) + " are told of twice"
}

// search returns the first entry that ends after off.
func (x *index) search(off int64) int64 {
	return int64(sort.Search(int(x.n), func(i int) bool { return x.at(int64(i)).end() > off }))
}
