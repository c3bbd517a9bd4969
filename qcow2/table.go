package qcow2

import (
	"container/list"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// sliceBytes is the most that is read of a table at once: reading a table of
// 2 MiB for one entry would cost more than the entry's data.
const sliceBytes = 64 << 10

// defaultTableCache holds four slices: a walk in order needs one of the L1
// table and one of an L2 table, and readers run a little behind it.
const defaultTableCache = 4 * sliceBytes

// A tableCache loads slices of L1 and L2 tables and keeps the last ones used,
// up to a number of bytes, whatever the image claims. It may be used from
// several goroutines; slices are never written after loading.
type tableCache struct {
	r   io.ReaderAt
	max int

	buffers sync.Pool // of *[]byte, for reading

	mu    sync.Mutex
	used  int
	order *list.List // of *tableSlice, last used first
	at    map[HostOffset]*list.Element
}

type tableSlice struct {
	host  HostOffset
	words []uint64
}

func newTableCache(r io.ReaderAt, maxBytes int) *tableCache {
	return &tableCache{r: r, max: maxBytes, order: list.New(), at: map[HostOffset]*list.Element{}}
}

// load returns n words at host. The caller asks for the same slices each time
// and has checked that they lie in the file.
func (c *tableCache) load(host HostOffset, n int) ([]uint64, error) {
	if words := c.cached(host, n); words != nil {
		return words, nil
	}
	p, _ := c.buffers.Get().(*[]byte)
	if p == nil || len(*p) < n*8 {
		p = new(make([]byte, n*8))
	}
	defer c.buffers.Put(p)
	b := (*p)[:n*8]
	if err := readFull(c.r, b, host); err != nil {
		return nil, fmt.Errorf("reading a table at %s: %w", host, err)
	}
	words := make([]uint64, n)
	for i := range words {
		words[i] = binary.BigEndian.Uint64(b[i*8:])
	}
	c.keep(&tableSlice{host: host, words: words})
	return words, nil
}

func (c *tableCache) cached(host HostOffset, n int) []uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.at[host]
	if el == nil {
		return nil
	}
	s := el.Value.(*tableSlice)
	if len(s.words) != n {
		return nil // one offset used as two kinds of table, in a hostile image
	}
	c.order.MoveToFront(el)
	return s.words
}

func (c *tableCache) keep(s *tableSlice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.at[s.host]; el != nil {
		c.drop(el)
	}
	c.at[s.host] = c.order.PushFront(s)
	c.used += len(s.words) * 8
	for c.used > c.max && c.order.Len() > 1 {
		c.drop(c.order.Back())
	}
}

func (c *tableCache) drop(el *list.Element) {
	s := c.order.Remove(el).(*tableSlice)
	delete(c.at, s.host)
	c.used -= len(s.words) * 8
}

// readFull reads len(p) bytes at host. A file that ends before is
// io.ErrUnexpectedEOF: what a file does not hold never reads as zero.
func readFull(r io.ReaderAt, p []byte, host HostOffset) error {
	n, err := r.ReadAt(p, int64(host))
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
