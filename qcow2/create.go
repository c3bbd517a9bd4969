package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"
)

// DefaultClusterSize is qemu-img's, in bytes.
const DefaultClusterSize = 64 << 10

// l2TableBudget is how many bytes of unwritten L2 tables a Writer holds.
const l2TableBudget = 16 << 20

// A Layout says what image to create: version 3, 16-bit refcounts, no backing
// file.
type Layout struct {
	Size        int64 // bytes of the virtual disk
	ClusterSize int64 // bytes, a power of two from 512 to 2 MiB; 0: DefaultClusterSize
}

// A Writer fills a new image. Clusters that are never written stay
// unallocated and read as zero.
//
// WriteAt and Zero may be called from several goroutines for ranges that do
// not overlap. Its memory is bounded: the L1 table (32 MiB at the most) and
// 16 MiB of L2 tables.
type Writer struct {
	f        File
	geometry Geometry
	size     int64
	budget   int64 // bytes of L2 tables

	mu     sync.Mutex // guards all below; never held while data is written
	next   HostOffset // the next free cluster
	l1     []uint64
	tables map[int64]*newTable
	order  []int64 // of tables, oldest first
	err    error   // the first failure, or errWriterClosed: nothing is done after it
}

// A newTable is an L2 table that is being filled.
type newTable struct {
	host    HostOffset
	entries []uint64
}

// errWriterClosed is what a Writer answers after Close.
var errWriterClosed = errors.New("the image is finished already")

// Create begins an image in f, which should be empty: what it holds is cut away.
// The header is written by Close, so until then f is no qcow2 image.
func Create(f File, l Layout) (*Writer, error) {
	if l.ClusterSize == 0 {
		l.ClusterSize = DefaultClusterSize
	}
	g := Geometry{ClusterBits: uint32(bits.TrailingZeros64(uint64(l.ClusterSize))), RefcountOrder: 4, Version: 3}
	if g.ClusterBits < minClusterBits || g.ClusterBits > maxClusterBits || g.ClusterSize() != l.ClusterSize {
		return nil, fmt.Errorf("cluster size %d: must be a power of two from 512 bytes to 2 MiB", l.ClusterSize)
	}
	if l.Size < 0 || g.l1EntriesFor(uint64(l.Size)) > maxL1Bytes/8 {
		return nil, fmt.Errorf("a disk of %d bytes is too large for clusters of %d bytes", l.Size, l.ClusterSize)
	}
	w := &Writer{f: f, geometry: g, size: l.Size, budget: l2TableBudget, next: HostOffset(l.ClusterSize), tables: map[int64]*newTable{}}
	w.l1 = make([]uint64, g.l1EntriesFor(uint64(l.Size)))
	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	// The header of an older image must be gone before anything is written.
	return w, f.Sync()
}

// WriteAt writes guest bytes. A cluster that is written in part reads as zero
// elsewhere. After an error of the file every later call, and Close, is an error.
func (w *Writer) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > w.size || int64(len(p)) > w.size-off {
		return 0, fmt.Errorf("writing [%d, +%d): outside of the disk (%d bytes)", off, len(p), w.size)
	}
	n, err := w.write(p, off)
	if err != nil {
		w.fail(err)
	}
	return n, err
}

// fail keeps the first failure.
func (w *Writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = fmt.Errorf("an earlier write failed: %w", err)
	}
}

// write writes p, which lies in the disk.
func (w *Writer) write(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		host, n, err := w.place(off+int64(done), int64(len(p)-done))
		if err != nil {
			return done, err
		}
		m, err := w.f.WriteAt(p[done:done+int(n)], int64(host))
		done += m
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// Zero does nothing: what is not written reads as zero already. It must not be
// called for what was written.
func (w *Writer) Zero(off, n int64) error { return nil }

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

// cluster finds or allocates the cluster of the guest offset off.
func (w *Writer) cluster(off int64) (HostOffset, error) {
	t, err := w.table(off / w.geometry.l2Coverage())
	if err != nil {
		return 0, err
	}
	entry := &t.entries[off>>w.geometry.ClusterBits%w.geometry.l2Entries()]
	if *entry == 0 {
		host, err := w.allocate(1)
		if err != nil {
			return 0, err
		}
		*entry = uint64(host) | entryCopied
	}
	return l2Entry(*entry).offset(), nil
}

// allocate takes n clusters at the end of the image.
func (w *Writer) allocate(n int64) (HostOffset, error) {
	host := w.next
	w.next += HostOffset(n << w.geometry.ClusterBits)
	if clusters := int64(w.next >> w.geometry.ClusterBits); clusters > w.maxClusters() {
		return 0, fmt.Errorf("the image would need more than %d clusters of %d bytes: larger clusters are needed",
			w.maxClusters(), w.geometry.ClusterSize())
	}
	return host, nil
}

// maxClusters is what the largest refcount table can count, less room for the
// refcount structures and the L1 table themselves.
func (w *Writer) maxClusters() int64 {
	blocks := int64(maxRefTableBytes / 8)
	return blocks*w.geometry.refcountsPerBlock() - blocks - (maxRefTableBytes+maxL1Bytes)>>w.geometry.ClusterBits
}

// table is the L2 table of an L1 entry, read back if it was written out.
func (w *Writer) table(index int64) (*newTable, error) {
	if t := w.tables[index]; t != nil {
		return t, nil
	}
	if err := w.makeRoom(); err != nil {
		return nil, err
	}
	t := &newTable{entries: make([]uint64, w.geometry.l2Entries())}
	var err error
	if w.l1[index] == 0 {
		t.host, err = w.allocate(1)
		w.l1[index] = uint64(t.host) | entryCopied
	} else {
		t.host = l1Entry(w.l1[index]).offset()
		err = w.readTable(t)
	}
	if err != nil {
		return nil, err
	}
	w.tables[index] = t
	w.order = append(w.order, index)
	return t, nil
}

// makeRoom writes the oldest table out when the budget is used up.
func (w *Writer) makeRoom() error {
	if len(w.order) == 0 || int64(len(w.order)+1)<<w.geometry.ClusterBits <= w.budget {
		return nil
	}
	oldest := w.order[0]
	if err := w.writeWords(w.tables[oldest].host, w.tables[oldest].entries); err != nil {
		return err
	}
	delete(w.tables, oldest)
	w.order = w.order[1:]
	return nil
}

func (w *Writer) readTable(t *newTable) error {
	b := make([]byte, w.geometry.ClusterSize())
	if err := readFull(w.f, b, t.host); err != nil {
		return fmt.Errorf("reading an L2 table back: %w", err)
	}
	for i := range t.entries {
		t.entries[i] = binary.BigEndian.Uint64(b[i*8:])
	}
	return nil
}

func (w *Writer) writeWords(host HostOffset, words []uint64) error {
	b := make([]byte, 0, len(words)*8)
	for _, x := range words {
		b = binary.BigEndian.AppendUint64(b, x)
	}
	_, err := w.f.WriteAt(b, int64(host))
	return err
}

// Close finishes the image: tables and refcounts first, then, after a sync, the
// header. It does not close the file. After an error f holds no image; or, where
// only the last sync failed, perhaps the whole one.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.err = w.writeOut()
	if w.err != nil {
		return w.err
	}
	w.err = errWriterClosed
	return nil
}

// writeOut writes all that is not yet in the file.
func (w *Writer) writeOut() error {
	for _, index := range w.order {
		if err := w.writeWords(w.tables[index].host, w.tables[index].entries); err != nil {
			return err
		}
	}
	h, err := w.finish()
	if err != nil {
		return err
	}
	if err := w.f.Truncate(int64(w.next)); err != nil {
		return err
	}
	if err := w.f.Sync(); err != nil {
		return err
	}
	return w.writeHeader(h)
}

// writeHeader makes the file an image.
func (w *Writer) writeHeader(h *Header) error {
	b := appendHeader(nil, h)
	names := appendFeatureNames(nil, ourFeatureNames)
	if int64(len(b)+8+len(names)+8) <= w.geometry.ClusterSize() {
		b = appendExtension(b, ExtFeatureNames, names)
	}
	b = appendExtension(b, extEnd, nil)
	if _, err := w.f.WriteAt(b, 0); err != nil {
		return err
	}
	return w.f.Sync()
}

// finish writes the L1 table and the refcounts; the result is the header that
// points to them.
func (w *Writer) finish() (*Header, error) {
	h := &Header{Version: 3, ClusterBits: w.geometry.ClusterBits, Size: uint64(w.size), L1Size: uint32(len(w.l1)),
		RefcountOrder: w.geometry.RefcountOrder, HeaderLength: headerLengthFull}
	if len(w.l1) == 0 { // a disk without bytes has no table, and a cluster for it would leak
		return h, w.writeRefcounts(h)
	}
	var err error
	if h.L1TableOffset, err = w.allocate(w.clusters(int64(len(w.l1)) * 8)); err != nil {
		return nil, err
	}
	if err := w.writeWords(h.L1TableOffset, w.l1); err != nil {
		return nil, err
	}
	return h, w.writeRefcounts(h)
}

// clusters is how many clusters n bytes take.
func (w *Writer) clusters(n int64) int64 {
	return (n + w.geometry.ClusterSize() - 1) >> w.geometry.ClusterBits
}

// writeRefcounts gives every cluster before the end of the image, those of the
// refcounts included, a refcount of 1.
func (w *Writer) writeRefcounts(h *Header) error {
	used := int64(w.next >> w.geometry.ClusterBits)
	tableClusters, blocks := int64(0), int64(0)
	for {
		total := used + tableClusters + blocks
		b := (total + w.geometry.refcountsPerBlock() - 1) / w.geometry.refcountsPerBlock()
		t := w.clusters(b * 8)
		if t == tableClusters && b == blocks {
			break
		}
		tableClusters, blocks = t, b
	}
	h.RefcountTableOffset = w.next
	h.RefcountTableClusters = uint32(tableClusters)
	w.next += HostOffset((tableClusters + blocks) << w.geometry.ClusterBits)
	return w.writeRefcountBlocks(h, blocks)
}

func (w *Writer) writeRefcountBlocks(h *Header, blocks int64) error {
	table := make([]uint64, int64(h.RefcountTableClusters)<<w.geometry.ClusterBits/8)
	total := int64(w.next >> w.geometry.ClusterBits)
	perBlock := w.geometry.refcountsPerBlock()
	host := h.RefcountTableOffset + HostOffset(int64(h.RefcountTableClusters)<<w.geometry.ClusterBits)
	for i := range blocks {
		table[i] = uint64(host)
		block := make([]byte, w.geometry.ClusterSize())
		for j := range min(perBlock, total-i*perBlock) {
			block[2*j+1] = 1
		}
		if _, err := w.f.WriteAt(block, int64(host)); err != nil {
			return err
		}
		host += HostOffset(w.geometry.ClusterSize())
	}
	return w.writeWords(h.RefcountTableOffset, table)
}

var _ io.WriterAt = (*Writer)(nil)
