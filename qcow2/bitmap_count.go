package qcow2

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// leastRead is what the smallest read counts for in Limits.BitmapWork: about as many
// bytes can be counted in the time that a call of the system takes.
const leastRead = 2 << 10

// A DirtyCounter counts the dirty bytes of the bitmaps of an image without loading
// them. Its memory is two small buffers, whatever the bitmaps claim; all that it
// reads together is bounded by Limits.BitmapWork. It belongs to one goroutine.
type DirtyCounter struct {
	img   *Image
	left  int64 // bytes that may be read
	table []byte
	data  []byte
}

// DirtyCounter is a counter with the whole of Limits.BitmapWork to spend.
func (img *Image) DirtyCounter() *DirtyCounter {
	return &DirtyCounter{img: img, left: img.limits.BitmapWork}
}

// CountDirty is Count of a counter of its own.
func (img *Image) CountDirty(info BitmapInfo) (int64, error) { return img.DirtyCounter().Count(info) }

// Count is the number of dirty bytes in a bitmap, whether or not it can be trusted
// (InUse, BitmapsStale): what bitmap.Bitmap's Count gives after ReadBitmap. Bits
// beyond the end of the disk do not count, and of the last granule only what lies
// in the disk. Errors: *FormatError, *UnsupportedError, and *LimitError when the
// work is used up; no bitmap is counted after that.
func (c *DirtyCounter) Count(info BitmapInfo) (int64, error) {
	if err := info.readable(); err != nil {
		return 0, err
	}
	size := c.img.Size()
	granules := (size-1)/info.Granularity + 1
	if size == 0 {
		granules = 0
	}
	if err := c.img.validateBitmapTable(&info, (granules+7)/8); err != nil {
		return 0, err
	}
	run := countRun{c: c, info: &info, granules: granules}
	if err := run.countTable(); err != nil {
		return 0, err
	}
	dirty := run.ones * info.Granularity
	if run.last {
		dirty -= granules*info.Granularity - size
	}
	return dirty, nil
}

// spend takes the cost of a read of n bytes from what is left.
func (c *DirtyCounter) spend(info *BitmapInfo, n int64) error {
	c.left -= max(n, leastRead)
	if c.left >= 0 {
		return nil
	}
	c.left = 0 // it stays used up
	most := c.img.limits.BitmapWork
	return limitError("bitmap-work", most, &FormatError{Structure: "bitmap table", Field: "bitmap_table_size", Host: info.TableOffset,
		Value: uint64(info.TableSize), Msg: "not counted: the bitmaps of the image are too many and too large"})
}

// A countRun is the counting of one bitmap.
type countRun struct {
	c        *DirtyCounter
	info     *BitmapInfo
	granules int64
	ones     int64
	last     bool  // the last granule is dirty
	loaded   int64 // data clusters so far
}

// countTable follows the section "Bitmap table".
func (r *countRun) countTable() error {
	total := int64(r.info.TableSize) * 8
	if r.c.table == nil {
		r.c.table, r.c.data = make([]byte, bitmapTableSliceSize), make([]byte, bitmapTableSliceSize)
	}
	for done := int64(0); done < total; done += bitmapTableSliceSize {
		part := r.c.table[:min(bitmapTableSliceSize, total-done)]
		if err := r.read(part, r.info.TableOffset+HostOffset(done), "table"); err != nil {
			return err
		}
		for i := 0; i < len(part); i += 8 {
			e := binary.BigEndian.Uint64(part[i:])
			if e == 0 {
				continue
			}
			if err := r.entry((done+int64(i))/8, e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *countRun) read(p []byte, host HostOffset, what string) error {
	if err := r.c.spend(r.info, int64(len(p))); err != nil {
		return err
	}
	if err := readFull(r.c.img.r, p, host); err != nil {
		return fmt.Errorf("reading the %s of bitmap %.100q: %w", what, r.info.Name, err)
	}
	return nil
}

// entry counts what one bitmap table entry describes: a cluster of bits.
func (r *countRun) entry(i int64, e uint64) error {
	img := r.c.img
	cluster := img.geometry.ClusterSize()
	first := i * cluster * 8
	n := min(cluster*8, r.granules-first) // bits; none beyond the end of the disk
	rule := img.checkBitmapEntry(e, (n+7)/8)
	host := HostOffset(e & entryOffset)
	switch {
	case rule != "":
	case n <= 0:
		return nil
	case host == 0: // all ones: what is 0 as a whole is not asked about
		r.ones += n
		r.last = r.last || first+n == r.granules
		return nil
	case r.loaded*cluster >= img.size:
		rule = reusedBitmapData
	}
	if rule != "" {
		return r.info.failEntry(i, e, rule)
	}
	r.loaded++
	return r.countData(host, first, n)
}

// countData counts n bits at host; the first of them is bit first of the bitmap.
func (r *countRun) countData(host HostOffset, first, n int64) error {
	for n > 0 {
		part := r.c.data[:min(int64(len(r.c.data)), (n+7)/8)]
		if err := r.read(part, host, "data"); err != nil {
			return err
		}
		here := min(int64(len(part))*8, n)
		if spare := int64(len(part))*8 - here; spare > 0 {
			part[len(part)-1] &= 0xff >> spare
		}
		r.ones += onesIn(part)
		first, n, host = first+here, n-here, host+HostOffset(len(part))
		if first == r.granules {
			bit := (r.granules - 1) % 8
			r.last = part[len(part)-1]>>bit&1 != 0
		}
	}
	return nil
}

// onesIn counts the bits of p that are one, a word at a time.
func onesIn(p []byte) int64 {
	n := 0
	for ; len(p) >= 8; p = p[8:] {
		n += bits.OnesCount64(binary.LittleEndian.Uint64(p))
	}
	for _, v := range p {
		n += bits.OnesCount8(v)
	}
	return int64(n)
}
