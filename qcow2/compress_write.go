package qcow2

import "fmt"

// WriteCompressed writes whole clusters of guest bytes, compressed: off is that of
// a cluster, and p ends with one or with the disk. A cluster that does not shrink
// is stored plain; one that is all zero stays unallocated, or becomes one that
// reads as zero where the layout is Sparse. It compresses in the goroutine of its
// caller, and may be called from several. A cluster that is stored compressed
// cannot be written again; one that was written plain is overwritten where it is.
// An image with an external data file holds no compressed clusters.
func (w *Writer) WriteCompressed(p []byte, off int64) error {
	if err := w.checkCompressible(p, off); err != nil {
		return err
	}
	err := w.compress(p, off)
	if err != nil {
		w.fail(err)
	}
	return err
}

func (w *Writer) checkCompressible(p []byte, off int64) error {
	if err := w.checkRange("writing", off, int64(len(p))); err != nil {
		return err
	}
	size := w.geometry.ClusterSize()
	end := off + int64(len(p))
	switch {
	case w.layout.DataFile != nil:
		return fmt.Errorf("writing [%d, +%d) compressed: an image with an external data file holds no compressed clusters", off, len(p))
	case off%size != 0 || end%size != 0 && end != w.size:
		return fmt.Errorf("writing [%d, +%d) compressed: must be whole clusters of %d bytes", off, len(p), size)
	}
	return nil
}

// compress writes p cluster by cluster.
func (w *Writer) compress(p []byte, off int64) error {
	enc, err := w.encoders.get(w.layout.Compression, w.geometry.ClusterSize())
	if err != nil {
		return err
	}
	defer w.encoders.put(enc)
	for len(p) > 0 {
		n := min(int64(len(p)), w.geometry.ClusterSize())
		if err := w.compressCluster(enc, p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (w *Writer) compressCluster(enc *clusterEncoder, p []byte, off int64) error {
	if isZero(p) {
		return w.compressZeros(p, off)
	}
	if packed, ok := enc.encode(p); ok {
		host, ok, err := w.placeCompressed(off, int64(len(packed)))
		if err != nil {
			return err
		}
		if ok {
			return writeFull(w.f, packed, host)
		}
	}
	_, err := w.write(p, off)
	return err
}

// compressZeros leaves a cluster alone that reads as zero already.
func (w *Writer) compressZeros(p []byte, off int64) error {
	if w.layout.Sparse && w.geometry.Version >= 3 {
		return w.zero(off, off+int64(len(p)))
	}
	w.mu.Lock()
	e, err := w.entry(off)
	skip := err == nil && w.err == nil && !w.layout.Sparse && e.absent()
	w.mu.Unlock()
	if skip || err != nil {
		return err
	}
	_, err = w.write(p, off)
	return err
}

// placeCompressed finds room for the n bytes of a compressed cluster and maps it
// there: section "Compressed Clusters Descriptor". It reports false where the
// cluster has a place of its own already, or a descriptor cannot reach the room.
func (w *Writer) placeCompressed(off, n int64) (HostOffset, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, false, w.err
	}
	e, err := w.entry(off)
	switch {
	case err != nil:
		return 0, false, err
	case e.compressed():
		return 0, false, fmt.Errorf("writing the cluster at %d: it was written compressed already", off)
	case e.allocated():
		return 0, false, nil
	}
	shift := 62 - (w.geometry.ClusterBits - 8)
	if max(w.next, w.packed.end) >= 1<<shift-maxPackChunk {
		return 0, false, nil
	}
	host, err := w.pack(n)
	if err != nil {
		return 0, false, err
	}
	sectors := (int64(host&511) + n - 1) / 512
	e[0] = entryCompressed | uint64(sectors)<<shift | uint64(host)
	if len(e) == 2 {
		e[1] = 0
	}
	return host, true, nil
}

// maxPackChunk is the most that is reserved at a time for compressed clusters, in
// bytes: what lies between plain clusters is seldom filled to its end.
const maxPackChunk = 4 << 20

// A packer puts compressed clusters one behind the other, at any byte, so that
// they share host clusters.
type packer struct {
	at, end HostOffset // what is free of the clusters reserved
	total   int64      // bytes packed so far
}

// pack takes n bytes, fewer than a cluster. Each compressed cluster counts as one
// reference to every host cluster that it touches, and no refcount must get higher
// than its width holds.
func (w *Writer) pack(n int64) (HostOffset, error) {
	p, clusterBits := &w.packed, w.geometry.ClusterBits
	if in := p.at & HostOffset(w.geometry.ClusterSize()-1); in != 0 && w.refs.get(int64(p.at>>clusterBits)) == w.refs.most() {
		p.at += HostOffset(w.geometry.ClusterSize()) - in
	}
	if p.at+HostOffset(n) > p.end {
		if err := p.extend(w, n); err != nil {
			return 0, err
		}
	}
	host := p.at
	for c := host >> clusterBits; c <= (host+HostOffset(n)-1)>>clusterBits; c++ {
		w.refs.share(int64(c))
	}
	p.at += HostOffset(n)
	p.total += n
	return host, w.settleRefcounts()
}

// extend reserves more clusters; where they do not follow those that there are,
// what is left of those is lost, which is less than n bytes.
func (p *packer) extend(w *Writer, n int64) error {
	chunk := min(p.total/16, maxPackChunk-w.geometry.ClusterSize())
	clusters := max(w.clusters(n), w.clusters(chunk))
	host, err := w.reserve(clusters)
	if err != nil {
		return err
	}
	if host != p.end {
		p.at = host
	}
	p.end = host + HostOffset(clusters<<w.geometry.ClusterBits)
	return nil
}

// giveBack gives the clusters back that nothing was packed into. Where others
// follow them in the file they stay as free ones.
func (p *packer) giveBack(w *Writer) {
	used := HostOffset(w.clusters(int64(p.at)) << w.geometry.ClusterBits)
	if p.end == w.next && p.end > 0 {
		w.next = used
	}
	p.at, p.end = 0, 0
}

// isZero reports that all bytes are zero.
func isZero(p []byte) bool {
	for len(p) >= 64 {
		if [64]byte(p[:64]) != [64]byte{} {
			return false
		}
		p = p[64:]
	}
	for _, x := range p {
		if x != 0 {
			return false
		}
	}
	return true
}
