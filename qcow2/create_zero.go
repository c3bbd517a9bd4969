package qcow2

import "fmt"

// Zero makes guest bytes zero. In a layout that is not Sparse it does nothing,
// because what is not written reads as zero already; it must not be called there
// for what was written. In a Sparse one, a cluster that is not written yet becomes
// one that reads as zero as a whole, even if the range ends inside it, and in one
// that was written the range is overwritten. Version 2 has no clusters that read as
// zero: with a backing file they become data, of holes, and without one it is an
// error, because what is absent could not be told from what is zero.
func (w *Writer) Zero(off, n int64) error {
	if !w.layout.Sparse {
		return nil
	}
	if err := w.checkRange("zeroing", off, n); err != nil {
		return err
	}
	if n > 0 && w.geometry.Version < 3 && w.layout.Backing == nil {
		return fmt.Errorf("zeroing [%d, +%d): version 2 cannot say that a range is zero and not unchanged, version 3 is needed", off, n)
	}
	err := w.zero(off, off+n)
	if err != nil {
		w.fail(err)
	}
	return err
}

// zero goes from table to table, so that others come in between.
func (w *Writer) zero(off, end int64) error {
	cover := w.geometry.l2Coverage()
	for off < end {
		part := min(end, off-off%cover+cover)
		written, err := w.zeroTable(off, part)
		if err != nil {
			return err
		}
		for _, r := range written {
			if err := w.writeZeros(r.host, r.n); err != nil {
				return err
			}
		}
		off = part
	}
	return nil
}

// zeroTable marks the clusters of [off, end), which one L2 table maps. The result
// is where data stands that has to be overwritten.
func (w *Writer) zeroTable(off, end int64) ([]hostRange, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.err
	}
	var written []hostRange
	size := w.geometry.ClusterSize()
	for off < end {
		in := off & (size - 1)
		n := min(size-in, end-off)
		e, err := w.entry(off - in)
		if err != nil {
			return nil, err
		}
		switch {
		case e.zero():
		case e.absent() && w.geometry.Version >= 3:
			e.setZero()
		case e.absent():
			_, err = w.cluster(off - in) // nothing was ever written to its place
		case e.compressed():
			err = fmt.Errorf("zeroing the cluster at %d: it was written compressed already", off-in)
		default:
			written = appendRange(written, l2Entry(e[0]).offset()+HostOffset(in), n)
		}
		if err != nil {
			return nil, err
		}
		off += n
	}
	return written, nil
}

// appendRange adds a range, joined with the last one where it follows it.
func appendRange(list []hostRange, host HostOffset, n int64) []hostRange {
	if i := len(list) - 1; i >= 0 && list[i].host+HostOffset(list[i].n) == host {
		list[i].n += n
		return list
	}
	return append(list, hostRange{host, n})
}

// zeroChunk is the most that is written at a time, in bytes.
const zeroChunk = 1 << 20

// writeZeros writes zeros where guest bytes stand.
func (w *Writer) writeZeros(host HostOffset, n int64) error {
	buf := make([]byte, min(n, zeroChunk))
	for n > 0 {
		part := buf[:min(n, int64(len(buf)))]
		if err := writeFull(w.data, part, host); err != nil {
			return err
		}
		host += HostOffset(len(part))
		n -= int64(len(part))
	}
	return nil
}
