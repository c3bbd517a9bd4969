package qcow2

import (
	"encoding/binary"
	"io"
	"slices"
	"sort"
	"sync"
)

// salvageSector is the least that is read again on its own where a read fails.
const salvageSector = 512

// maxBadRanges is how many ranges that could not be read are kept apart. Beyond it
// neighbours are joined: more counts as lost than was.
const maxBadRanges = 1 << 18

// A tolerantReader reads what can be read and gives zeros for the rest. It remembers
// where that was. It may be used from several goroutines.
type tolerantReader struct {
	r io.ReaderAt

	mu  sync.Mutex
	bad []byteRange // ascending, apart from each other
}

// A byteRange is [off, end).
type byteRange struct{ off, end int64 }

// ReadAt always fills p.
func (t *tolerantReader) ReadAt(p []byte, off int64) (int, error) {
	t.fill(p, off)
	return len(p), nil
}

// fill halves what cannot be read down to sectors.
func (t *tolerantReader) fill(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	known := t.badIn(off, off+int64(len(p)))
	if known == nil && readFull(t.r, p, HostOffset(off)) == nil {
		return
	}
	half := (off+int64(len(p))/2)&^(salvageSector-1) - off
	if half <= 0 || half >= int64(len(p)) {
		half = (off+salvageSector)&^(salvageSector-1) - off
	}
	if half >= int64(len(p)) { // it lies in one sector
		clear(p)
		t.add(off&^(salvageSector-1), alignUp(off+int64(len(p)), salvageSector))
		return
	}
	t.fill(p[:half], off)
	t.fill(p[half:], off+half)
}

// badIn are the ranges in [off, end) that could not be read so far.
func (t *tolerantReader) badIn(off, end int64) []byteRange {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := sort.Search(len(t.bad), func(i int) bool { return t.bad[i].end > off })
	var in []byteRange
	for ; i < len(t.bad) && t.bad[i].off < end; i++ {
		in = append(in, byteRange{max(off, t.bad[i].off), min(end, t.bad[i].end)})
	}
	return in
}

func (t *tolerantReader) add(off, end int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	lo := sort.Search(len(t.bad), func(i int) bool { return t.bad[i].end >= off })
	hi := lo
	for hi < len(t.bad) && t.bad[hi].off <= end {
		off, end = min(off, t.bad[hi].off), max(end, t.bad[hi].end)
		hi++
	}
	if lo == hi && len(t.bad) >= maxBadRanges {
		lo, off, end = t.nearest(lo, off, end)
		hi = lo + 1
	}
	t.bad = slices.Replace(t.bad, lo, hi, byteRange{off, end})
}

// nearest joins a range to the one before it, or to the first.
func (t *tolerantReader) nearest(i int, off, end int64) (int, int64, int64) {
	i = max(0, i-1)
	return i, min(off, t.bad[i].off), max(end, t.bad[i].end)
}

// A tablePart is a piece of an L1 or L2 table of which some sectors may be missing.
type tablePart struct {
	words   []uint64
	missing map[int]Reason // by sector of the part
}

// why is the reason for which word i is not known; "" where it is.
func (t *tablePart) why(i int) Reason { return t.missing[i/(salvageSector/8)] }

// A partLoader loads parts of tables, whatever state they are in.
type partLoader struct {
	img *Image

	mu     sync.Mutex
	broken map[HostOffset]*tablePart // those that were hard to get
}

// maxBrokenParts bounds how many parts with missing sectors are kept: 64 KiB each.
const maxBrokenParts = 128

// load is like tableCache.load, and never fails.
func (l *partLoader) load(host HostOffset, n int) tablePart {
	inside := within(host, uint64(n)*8, l.img.size)
	if inside {
		if t := l.known(host, n); t != nil {
			return *t
		}
		if words, err := l.img.tables.load(host, n); err == nil {
			return tablePart{words: words}
		}
	}
	t := l.bySector(host, n)
	if inside {
		l.keep(host, &t)
	}
	return t
}

func (l *partLoader) known(host HostOffset, n int) *tablePart {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.broken[host]; t != nil && len(t.words) == n {
		return t
	}
	return nil
}

func (l *partLoader) keep(host HostOffset, t *tablePart) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil || len(l.broken) >= maxBrokenParts {
		l.broken = map[HostOffset]*tablePart{}
	}
	l.broken[host] = t
}

// bySector reads a part sector by sector.
func (l *partLoader) bySector(host HostOffset, n int) tablePart {
	t := tablePart{words: make([]uint64, n), missing: map[int]Reason{}}
	b := make([]byte, salvageSector)
	for i := 0; i < n; i += len(b) / 8 {
		part := b[:min(len(b), (n-i)*8)]
		at := host + HostOffset(i*8)
		switch {
		case !within(at, uint64(len(part)), l.img.size):
			t.missing[i/(salvageSector/8)] = ReasonBeyondEnd
			continue
		case readFull(l.img.r, part, at) != nil:
			t.missing[i/(salvageSector/8)] = ReasonUnreadable
			continue
		}
		for j := range len(part) / 8 {
			t.words[i+j] = binary.BigEndian.Uint64(part[j*8:])
		}
	}
	return t
}
