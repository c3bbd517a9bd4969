package qcow2

import (
	"fmt"

	"github.com/qbitkit/qbit/bitmap"
)

// maxHostOffset bounds host offsets: entries have 56 bits for them.
const maxHostOffset = 1 << 56

// An allocator finds clusters that are free beyond doubt: their refcount is 0 and
// nothing refers to them. It changes refcounts in memory only.
type allocator struct {
	geometry Geometry
	refs     *refcounts
	used     *bitmap.Bitmap // every cluster of the file that something refers to
	atEnd    bool           // take clusters behind the end of the file alone

	next int64 // where to look for a single free cluster
	file int64 // clusters of the file as it is
	end  int64 // clusters of the file to be
	size int64 // bytes of the file as it is

	taken  map[int64]bool // allocated here
	counts []int64        // allocated here, refcount structures left out; in order
}

func newAllocator(img *Image, refs *refcounts, used *bitmap.Bitmap, atEnd bool) *allocator {
	size := img.geometry.ClusterSize()
	file := (img.size + size - 1) / size
	return &allocator{geometry: img.geometry, refs: refs, used: used, atEnd: atEnd,
		file: file, end: file, size: img.size, taken: map[int64]bool{}}
}

// sizeOr is the size of the file as it is, or size before there is an allocator.
func (a *allocator) sizeOr(size int64) int64 {
	if a == nil {
		return size
	}
	return a.size
}

// fileSize is the size of the file when all that was allocated is written. The
// last cluster of a file may be cut, until it is allocated anew.
func (a *allocator) fileSize() int64 {
	if a.end == a.file && !a.taken[a.file-1] {
		return a.size
	}
	return a.end * a.geometry.ClusterSize()
}

// owns reports that all of [host, host+n) was allocated here.
func (a *allocator) owns(host HostOffset, n int64) bool {
	size := a.geometry.ClusterSize()
	for c := int64(host) / size; c*size < int64(host)+n; c++ {
		if !a.taken[c] {
			return false
		}
	}
	return true
}

// allocate takes n clusters that follow each other and gives them a refcount of 1.
func (a *allocator) allocate(n int64) (HostOffset, error) {
	first, err := a.take(n)
	if err != nil {
		return 0, err
	}
	for c := first; c < first+n; c++ {
		a.counts = append(a.counts, c)
		if err := a.count(c); err != nil {
			return 0, err
		}
	}
	return HostOffset(first * a.geometry.ClusterSize()), nil
}

// allocateRun is allocate for up to n clusters, as many as follow each other in the
// first place that is free; it tells how many.
func (a *allocator) allocateRun(n int64) (HostOffset, int64, error) {
	first, err := a.take(1)
	if err != nil {
		return 0, 0, err
	}
	got := int64(1)
	for ; got < n; got++ {
		if free, err := a.freeAt(first + got); err != nil {
			return 0, 0, err
		} else if !free {
			break
		}
		a.taken[first+got] = true
	}
	a.end = max(a.end, first+got)
	if first+got <= a.file {
		a.next = max(a.next, first+got)
	}
	for c := first; c < first+got; c++ {
		a.counts = append(a.counts, c)
		if err := a.count(c); err != nil {
			return 0, 0, err
		}
	}
	return HostOffset(first * a.geometry.ClusterSize()), got, nil
}

// freeAt is free, for a cluster that may be in used.
func (a *allocator) freeAt(c int64) (bool, error) {
	if a.used.Test(c*a.geometry.ClusterSize()) || (c+1)*a.geometry.ClusterSize() > maxHostOffset {
		return false, nil
	}
	return a.free(c)
}

// take finds n free clusters that follow each other.
func (a *allocator) take(n int64) (int64, error) {
	first, err := a.findInside(n)
	if first < 0 && err == nil {
		first, err = a.findEnd(n)
	}
	if err != nil {
		return 0, err
	}
	for c := first; c < first+n; c++ {
		a.taken[c] = true
	}
	a.end = max(a.end, first+n)
	if a.end*a.geometry.ClusterSize() > maxHostOffset {
		return 0, fmt.Errorf("the image file would grow beyond %d bytes", int64(maxHostOffset))
	}
	return first, nil
}

// findInside finds n free clusters before the end of the file, or gives -1.
func (a *allocator) findInside(n int64) (int64, error) {
	if a.atEnd {
		return -1, nil
	}
	run := int64(0)
	for c := a.next; c < a.file; c++ {
		off, ok := a.used.NextClean(c * a.geometry.ClusterSize())
		if !ok {
			break
		}
		if next := off / a.geometry.ClusterSize(); next != c {
			c, run = next, 0
		}
		free, err := a.free(c)
		if err != nil {
			return 0, err
		}
		if run++; !free {
			run = 0
		}
		if run == n {
			if n == 1 {
				a.next = c + 1
			}
			return c - n + 1, nil
		}
	}
	if n == 1 {
		a.next = a.file
	}
	return -1, nil
}

// findEnd finds n free clusters from the end of the file on.
func (a *allocator) findEnd(n int64) (int64, error) {
	run := int64(0)
	for c := a.end; ; c++ {
		free, err := a.free(c)
		if err != nil {
			return 0, err
		}
		if run++; !free {
			run = 0
		}
		if run == n {
			return c - n + 1, nil
		}
	}
}

// free reports a cluster, not in used, that has the refcount 0 and was not taken.
func (a *allocator) free(c int64) (bool, error) {
	if a.taken[c] {
		return false, nil
	}
	n, err := a.refs.get(c)
	return n == 0, err
}

// count gives a cluster that was taken a refcount of 1. A block that is missing is
// made, of a cluster that is taken for it.
func (a *allocator) count(c int64) error {
	index := c / a.geometry.refcountsPerBlock()
	b, err := a.refs.block(index)
	if err != nil {
		return err
	}
	if b == nil {
		own, err := a.take(1)
		if err != nil {
			return err
		}
		if index >= maxRefTableBytes/8 {
			return fmt.Errorf("the refcount table would grow beyond %d bytes", maxRefTableBytes)
		}
		a.refs.add(index, HostOffset(own*a.geometry.ClusterSize()))
		if err := a.count(own); err != nil {
			return err
		}
	}
	a.refs.set(c, 1)
	return nil
}

// growTable finds a place for a refcount table that has no room for its entries
// any more; 0 clusters where it has. Counting the new table's own clusters can
// make it longer still.
func (a *allocator) growTable() (host HostOffset, clusters int64, err error) {
	size := a.geometry.ClusterSize()
	need := func() int64 { return (int64(len(a.refs.table))*8 + size - 1) / size }
	for int64(len(a.refs.table)) > a.refs.room && clusters < need() {
		clusters = need()
		first, err := a.take(clusters)
		if err != nil {
			return 0, 0, err
		}
		host = HostOffset(first * size)
		for c := first; c < first+clusters; c++ {
			if err := a.count(c); err != nil {
				return 0, 0, err
			}
		}
	}
	return host, clusters, nil
}
