package qcow2

// newRefcounts are the refcounts of a new image. A refcount block is written as
// soon as none of its clusters can change any more, so that few of them are in
// memory: section "Host cluster management".
type newRefcounts struct {
	geometry Geometry
	table    []uint64 // of the blocks that are written
	live     [][]byte // the blocks that follow them
	spare    [][]byte // that were written
}

// most is the highest refcount of the width.
func (r *newRefcounts) most() uint64 { return 1<<(r.geometry.RefcountBits()-1)<<1 - 1 }

// block is the block that counts a cluster, and where in it.
func (r *newRefcounts) block(cluster int64) ([]byte, int64) {
	per := r.geometry.refcountsPerBlock()
	index := cluster/per - int64(len(r.table))
	for int64(len(r.live)) <= index {
		r.live = append(r.live, r.empty())
	}
	return r.live[index], cluster % per
}

func (r *newRefcounts) empty() []byte {
	if n := len(r.spare); n > 0 {
		b := r.spare[n-1]
		r.spare = r.spare[:n-1]
		clear(b)
		return b
	}
	return make([]byte, r.geometry.ClusterSize())
}

// use gives n clusters a refcount of 1.
func (r *newRefcounts) use(cluster, n int64) {
	for i := range n {
		b, at := r.block(cluster + i)
		r.geometry.putRefcount(b, at, 1)
	}
}

// get is the refcount of a cluster whose block is not written yet.
func (r *newRefcounts) get(cluster int64) uint64 {
	b, at := r.block(cluster)
	return r.geometry.refcountAt(b, at)
}

// share adds one to a refcount that is below most.
func (r *newRefcounts) share(cluster int64) {
	b, at := r.block(cluster)
	r.geometry.putRefcount(b, at, r.geometry.refcountAt(b, at)+1)
}

// written says that the first live block stands at host.
func (r *newRefcounts) written(host HostOffset) {
	r.table = append(r.table, uint64(host))
	r.spare = append(r.spare, r.live[0])
	r.live = r.live[1:]
}

// settleRefcounts writes the blocks whose clusters were all allocated, and packed
// with compressed data as far as they will be.
func (w *Writer) settleRefcounts() error {
	per := w.geometry.refcountsPerBlock()
	for {
		settled := int64(w.next >> w.geometry.ClusterBits)
		if w.packed.at < w.packed.end {
			settled = int64(w.packed.at >> w.geometry.ClusterBits)
		}
		if settled < (int64(len(w.refs.table))+1)*per || len(w.refs.live) == 0 {
			return nil
		}
		host, err := w.reserve(1)
		if err != nil {
			return err
		}
		w.refs.use(int64(host>>w.geometry.ClusterBits), 1)
		if err := writeFull(w.f, w.refs.live[0], host); err != nil {
			return err
		}
		w.refs.written(host)
	}
}

// writeRefcounts writes the table and the blocks that are left, which count
// themselves, behind all else.
func (w *Writer) writeRefcounts(h *Header) error {
	tableClusters, blocks := w.refcountRoom()
	h.RefcountTableOffset = w.next
	h.RefcountTableClusters = uint32(tableClusters)
	w.refs.use(int64(w.next>>w.geometry.ClusterBits), tableClusters+blocks)
	w.next += HostOffset((tableClusters + blocks) << w.geometry.ClusterBits)
	host := h.RefcountTableOffset + HostOffset(tableClusters<<w.geometry.ClusterBits)
	for range blocks {
		if err := writeFull(w.f, w.refs.live[0], host); err != nil {
			return err
		}
		w.refs.written(host)
		host += HostOffset(w.geometry.ClusterSize())
	}
	table := make([]uint64, tableClusters<<w.geometry.ClusterBits/8)
	copy(table, w.refs.table)
	return w.writeWords(h.RefcountTableOffset, table)
}

// refcountRoom is how many clusters the refcount table takes, and how many blocks
// are still to be written: enough to count those too.
func (w *Writer) refcountRoom() (tableClusters, blocks int64) {
	used, written := int64(w.next>>w.geometry.ClusterBits), int64(len(w.refs.table))
	per := w.geometry.refcountsPerBlock()
	for {
		total := used + tableClusters + blocks
		b := (total+per-1)/per - written
		t := w.clusters((written + b) * 8)
		if t == tableClusters && b == blocks {
			return t, b
		}
		tableClusters, blocks = t, b
	}
}
