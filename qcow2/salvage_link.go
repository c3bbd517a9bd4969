package qcow2

import "fmt"

// MarkZero records the clusters of [off, off+n) as reading zero, which in a link of a
// chain is not the same as writing nothing. The range must begin with a cluster, and end
// with one or with the disk; it must not have been written.
func (w *Writer) MarkZero(off, n int64) error {
	size := w.geometry.ClusterSize()
	if off < 0 || n < 0 || off > w.size || n > w.size-off || off%size != 0 || n%size != 0 && off+n != w.size {
		return fmt.Errorf("marking [%d, +%d) zero: no whole clusters of a disk of %d bytes", off, n, w.size)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	for end := off + n; off < end; off += size {
		t, err := w.table(off / w.geometry.l2Coverage())
		if err != nil {
			w.err = fmt.Errorf("an earlier write failed: %w", err)
			return err
		}
		entry := &t.entries[off>>w.geometry.ClusterBits%w.geometry.l2Entries()]
		if *entry != 0 {
			return fmt.Errorf("marking the cluster at %d zero: it was written", off)
		}
		*entry = entryZero
	}
	return nil
}
