package qcow2

import "fmt"

// A SpaceFile is a File that can have space set aside for a range, which then
// reads as zero and cannot fail to be written for want of space; the file grows if
// it has to. PreallocationFalloc needs one, or an *os.File on a system that can.
type SpaceFile interface {
	File
	Allocate(off, n int64) error
}

// preallocate allocates all clusters and, where asked for, the space for them.
func (w *Writer) preallocate() error {
	mode := w.layout.Preallocation
	if mode == PreallocationOff {
		return nil
	}
	if clusters := w.clusters(w.size); w.layout.DataFile == nil && clusters > w.maxClusters() {
		return fmt.Errorf("preallocating %d clusters of %d bytes: larger clusters are needed", clusters, w.geometry.ClusterSize())
	}
	for off := int64(0); off < w.size; {
		end := min(w.size, off-off%w.geometry.l2Coverage()+w.geometry.l2Coverage())
		ranges, err := w.preallocateTable(off, end)
		if err != nil {
			return err
		}
		for _, r := range ranges {
			if err := w.setAside(r, mode); err != nil {
				return fmt.Errorf("preallocating %d bytes: %w", w.size, err)
			}
		}
		off = end
	}
	return nil
}

// preallocateTable gives every cluster of a table its place. With extended L2
// entries it stays absent, but in a raw data file: what somebody writes into that
// is seen at once.
func (w *Writer) preallocateTable(off, end int64) ([]hostRange, error) {
	var ranges []hostRange
	raw := w.layout.DataFile != nil && w.layout.DataFile.Raw
	size := w.geometry.ClusterSize()
	for ; off < end; off += size {
		host, err := w.cluster(off)
		if err != nil {
			return nil, err
		}
		if e, err := w.entry(off); err != nil {
			return nil, err
		} else if len(e) == 2 && !raw {
			e[1] = 0
		}
		n := size
		if w.layout.DataFile != nil {
			n = min(size, w.size-off)
		}
		ranges = appendRange(ranges, host, n)
	}
	return ranges, nil
}

// setAside has the filesystem store a range of guest bytes.
func (w *Writer) setAside(r hostRange, mode Preallocation) error {
	switch mode {
	case PreallocationFalloc:
		return allocateSpace(w.data, int64(r.host), r.n)
	case PreallocationFull:
		return w.writeZeros(r.host, r.n)
	}
	return nil
}

func allocateSpace(f File, off, n int64) error {
	if s, ok := f.(SpaceFile); ok {
		return s.Allocate(off, n)
	}
	return fallocate(f, off, n)
}
