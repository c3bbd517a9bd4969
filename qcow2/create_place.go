package qcow2

import "fmt"

// Place allocates the clusters of guest bytes for a caller that fills them in the
// file itself, as where a filesystem shares extents between files. The result is
// where the byte at off stands in the file (the external data file, where there is
// one), and how many bytes from there on
// belong to the range: at least one, and at most n, which must be positive. What
// is placed and not filled has to be written with WriteAt, or reads as what the
// file holds there. It may be called from several goroutines, as WriteAt may.
func (w *Writer) Place(off, n int64) (host HostOffset, run int64, err error) {
	if off < 0 || n <= 0 || off > w.size || n > w.size-off {
		return 0, 0, fmt.Errorf("placing [%d, +%d): empty, or outside of the disk (%d bytes)", off, n, w.size)
	}
	host, run, err = w.place(off, n)
	if err != nil {
		w.fail(err)
	}
	return host, run, err
}

// place finds or allocates the clusters of [off, off+n), as many as follow each
// other in the file; the result is where the first byte stands and how many
// bytes follow there.
func (w *Writer) place(off, n int64) (HostOffset, int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, 0, w.err
	}
	size := w.geometry.ClusterSize()
	in := off & (size - 1)
	host, err := w.cluster(off - in)
	if err != nil {
		return 0, 0, err
	}
	run := size - in
	for run < n {
		next, err := w.cluster(off + run)
		if err != nil {
			return 0, 0, err
		}
		if next != host+HostOffset(in+run) {
			break
		}
		run += size
	}
	return host + HostOffset(in), min(run, n), nil
}

// cluster finds or allocates the cluster of the guest offset off, which is that of
// a cluster; guest bytes stand at their own offset in an external data file.
func (w *Writer) cluster(off int64) (HostOffset, error) {
	e, err := w.entry(off)
	if err != nil {
		return 0, err
	}
	host := l2Entry(e[0]).offset()
	switch {
	case e.compressed():
		return 0, fmt.Errorf("writing the cluster at %d: it was written compressed already", off)
	case e.allocated():
	case w.layout.DataFile != nil:
		host = HostOffset(off)
	default:
		if host, err = w.allocate(1); err != nil {
			return 0, err
		}
	}
	e.setData(host)
	return host, nil
}

// allocate takes n clusters at the end of the image and gives them a refcount of 1.
func (w *Writer) allocate(n int64) (HostOffset, error) {
	host, err := w.reserve(n)
	if err != nil {
		return 0, err
	}
	w.refs.use(int64(host>>w.geometry.ClusterBits), n)
	return host, w.settleRefcounts()
}

// reserve takes n clusters at the end of the image, and leaves their refcounts at 0.
func (w *Writer) reserve(n int64) (HostOffset, error) {
	host := w.next
	clusters := int64(w.next>>w.geometry.ClusterBits) + n
	if clusters > w.maxClusters() {
		return 0, fmt.Errorf("the image would need more than %d clusters of %d bytes: larger clusters are needed",
			w.maxClusters(), w.geometry.ClusterSize())
	}
	w.next += HostOffset(n << w.geometry.ClusterBits)
	return host, nil
}

// maxClusters is what the largest refcount table can count, and host offsets can
// reach, less room for the refcount structures and the L1 table themselves.
func (w *Writer) maxClusters() int64 {
	blocks := int64(maxRefTableBytes / 8)
	most := min(blocks*w.geometry.refcountsPerBlock(), maxHostOffset>>w.geometry.ClusterBits)
	return most - blocks - (maxRefTableBytes+maxL1Bytes)>>w.geometry.ClusterBits
}
