package reconstruct

import (
	"fmt"
	"io"
	"iter"
	"math"

	"github.com/qbitkit/qbit/qcow2"
)

// extentsFunc is the method Extents of a disk, or a view of it.
type extentsFunc func(off, n int64) iter.Seq2[qcow2.Extent, error]

// checked yields the extents of [off, off+n) and an error, instead of nonsense,
// where a disk does not cover exactly that.
func checked(walk extentsFunc, off, n int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		end := off + n
		for e, err := range walk(off, n) {
			if err == nil && (e.Off != off || e.Len <= 0 || e.Len > end-off || e.Depth < 0) {
				err = fmt.Errorf("the disk breaks its contract: extent [%d, +%d) of depth %d where one from %d to at most %d is due",
					e.Off, e.Len, e.Depth, off, end)
			}
			if !yield(e, err) || err != nil {
				return
			}
			off = e.End()
		}
		if off != end {
			yield(qcow2.Extent{}, fmt.Errorf("the disk breaks its contract: its extents end at %d and not at %d", off, end))
		}
	}
}

// Batches of extents that a cursor fetches: few where a walk jumps, more where
// it goes on.
const (
	minBatch = 4
	maxBatch = 128
)

// A cursor walks extents forward and can be asked for one at a time. It fetches
// them in batches, and so needs no goroutine and pays little for what a walk
// leaves out.
type cursor struct {
	walk  extentsFunc
	most  int // of a batch; 0 means maxBatch
	batch []qcow2.Extent
	at    int   // index into batch
	want  int   // length of the last batch
	next  int64 // the end of batch
}

// extent returns the extent that holds off; it may begin before off and never
// reaches past end. Neither may go down from call to call.
func (c *cursor) extent(off, end int64) (qcow2.Extent, error) {
	for c.at < len(c.batch) && c.batch[c.at].End() <= off {
		c.at++
	}
	if c.at == len(c.batch) {
		if err := c.fetch(off, end); err != nil {
			return qcow2.Extent{}, err
		}
	}
	return c.batch[c.at], nil
}

// fetch replaces the batch by the extents from off on, at least one.
func (c *cursor) fetch(off, end int64) error {
	c.want = max(minBatch, min(2*c.want, max(c.most, maxBatch)))
	if off != c.next {
		c.want = minBatch
	}
	c.batch, c.at, c.next = c.batch[:0], 0, off
	for e, err := range checked(c.walk, off, end-off) {
		if err != nil {
			return err
		}
		c.batch = append(c.batch, e)
		c.next = e.End()
		if len(c.batch) == c.want {
			break
		}
	}
	return nil
}

// reset makes c a new cursor that keeps its memory.
func (c *cursor) reset() {
	clear(c.batch) // it holds on to storages
	*c = cursor{walk: c.walk, most: c.most, batch: c.batch[:0]}
}

// A merger joins extents that follow each other and gives them to emit.
type merger struct {
	emit func(qcow2.Extent) bool
	cur  qcow2.Extent
}

// add takes the next extent; false means that nobody wants more.
func (m *merger) add(e qcow2.Extent) bool {
	if m.cur.Len > 0 && follows(m.cur, e) {
		m.cur.Len += e.Len
		return true
	}
	ok := m.flush()
	m.cur = e
	return ok
}

func (m *merger) flush() bool {
	e := m.cur
	m.cur = qcow2.Extent{}
	return e.Len == 0 || m.emit(e)
}

// follows reports that one extent can describe both a and b.
func follows(a, b qcow2.Extent) bool {
	if a.Kind != b.Kind || a.Depth != b.Depth || a.End() != b.Off || a.HasHost != b.HasHost {
		return false
	}
	if located(a) && a.Host+qcow2.HostOffset(a.Len) != b.Host {
		return false
	}
	return sameValue(a.Storage, b.Storage)
}

// located reports an extent whose Host means something.
func located(e qcow2.Extent) bool { return e.HasHost || e.Kind == qcow2.Data }

// zeroish reports an extent that reads as zero without being read.
func zeroish(e qcow2.Extent) bool { return e.Kind == qcow2.Zero || e.Kind == qcow2.Absent }

// checkRange refuses a range that is not in a disk of size bytes.
func checkRange(off, n, size int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("range [%d, +%d) is outside of the disk (%d bytes)", off, n, size)
	}
	return nil
}

// diskReadAt makes an io.ReaderAt of fill, which fills the whole of a buffer
// that lies in a disk of size bytes, or says how many bytes it could.
func diskReadAt(p []byte, off, size int64, fill func(p []byte, off int64) (int, error)) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading at a negative offset (%d)", off)
	}
	if off >= size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), size-off))
	if done, err := fill(p[:n], off); err != nil {
		return done, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readFull fills p from r. A storage that ends early is an error, never zeros.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readExtent fills p with the bytes of e, an extent of d as long as p. Absent
// ranges are read through d too, for d alone knows whether they are zero.
func readExtent(d qcow2.Disk, e qcow2.Extent, p []byte) error {
	switch {
	case e.Kind == qcow2.Zero:
		clear(p)
		return nil
	case e.Kind != qcow2.Data || e.Storage == nil:
		return readFull(d, p, e.Off)
	case e.Host > math.MaxInt64-qcow2.HostOffset(len(p)):
		return io.ErrUnexpectedEOF
	}
	return readFull(e.Storage, p, int64(e.Host))
}

// checkAbsent reports an error where an absent extent of d does not read as
// zero because its bytes are elsewhere. It costs two reads of a byte.
func checkAbsent(d qcow2.Disk, e qcow2.Extent) error {
	if c, ok := d.(interface{ checkAbsent(qcow2.Extent) error }); ok {
		return c.checkAbsent(e)
	}
	var b [1]byte
	if err := readFull(d, b[:], e.Off); err != nil {
		return err
	}
	return readFull(d, b[:], e.End()-1)
}
