package qcow2

import (
	"encoding/binary"
	"fmt"
)

// l2TableBudget is how many bytes of unwritten L2 tables a Writer holds.
const l2TableBudget = 16 << 20

// A newTable is an L2 table that is being filled.
type newTable struct {
	host    HostOffset
	entries []uint64 // words: extended entries have two
}

// allSubclusters is the half of a subclusterBitmap that speaks of one state.
const allSubclusters = 1<<subclustersPerCluster - 1

// A newEntry is an L2 entry of a Writer, of one word or, extended, of two.
type newEntry []uint64

func (e newEntry) compressed() bool { return l2Entry(e[0]).compressed() }

// allocated reports that a cluster is set aside, for one guest cluster alone.
func (e newEntry) allocated() bool { return l2Entry(e[0]).copied() }

// zero reports a cluster that reads as zero, whatever lies below.
func (e newEntry) zero() bool {
	if len(e) == 2 {
		return e[1]>>subclustersPerCluster != 0
	}
	return !e.compressed() && l2Entry(e[0]).zero()
}

// absent reports a cluster that was not written; extended entries can say so of
// one that is set aside.
func (e newEntry) absent() bool {
	if len(e) == 2 {
		return !e.compressed() && e[1] == 0
	}
	return e[0] == 0
}

func (e newEntry) setData(host HostOffset) {
	e[0] = uint64(host) | entryCopied
	if len(e) == 2 {
		e[1] = allSubclusters
	}
}

// setZero marks an absent cluster, in version 3.
func (e newEntry) setZero() {
	if len(e) == 2 {
		e[1] = allSubclusters << subclustersPerCluster
	} else {
		e[0] = entryZero
	}
}

// entry is the L2 entry of the guest offset off; nobody must keep it.
func (w *Writer) entry(off int64) (newEntry, error) {
	t, err := w.table(off / w.geometry.l2Coverage())
	if err != nil {
		return nil, err
	}
	words := w.geometry.l2EntryWords()
	i := off >> w.geometry.ClusterBits % w.geometry.l2Entries() * words
	return t.entries[i : i+words : i+words], nil
}

// table is the L2 table of an L1 entry, read back if it was written out.
func (w *Writer) table(index int64) (*newTable, error) {
	if t := w.tables[index]; t != nil {
		return t, nil
	}
	if err := w.makeRoom(); err != nil {
		return nil, err
	}
	t := &newTable{entries: make([]uint64, w.geometry.ClusterSize()/8)}
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
	return writeFull(w.f, b, host)
}

// writeL1 writes the L1 table. A disk without bytes has none: a cluster for it
// would leak.
func (w *Writer) writeL1(h *Header) error {
	if len(w.l1) == 0 {
		return nil
	}
	var err error
	if h.L1TableOffset, err = w.allocate(w.clusters(int64(len(w.l1)) * 8)); err != nil {
		return err
	}
	return w.writeWords(h.L1TableOffset, w.l1)
}

// clusters is how many clusters n bytes take.
func (w *Writer) clusters(n int64) int64 {
	return (n + w.geometry.ClusterSize() - 1) >> w.geometry.ClusterBits
}
