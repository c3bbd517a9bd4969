package qcow2

import (
	"encoding/binary"
	"fmt"
)

// An l2Table is an L2 table that a batch changes.
type l2Table struct {
	geometry Geometry
	index    int64 // of its L1 entry
	host     HostOffset
	fresh    HostOffset // where it is written anew; 0: it stays, or there is none
	private  bool       // nothing else refers to it
	words    []uint64
	dirty    map[int][]byte // sectors that change, as they stand
	l1       uint64         // its entry in the L1 table, as it stands
	dropped  bool           // the L1 entry becomes 0
}

// table is the L2 table of an L1 entry, loaded once in a batch.
func (b *batch) table(index int64) (*l2Table, error) {
	if t := b.tables[index]; t != nil {
		return t, nil
	}
	g := b.g.e.img.geometry
	host, err := b.g.disk.l2Table(index)
	if err != nil {
		return nil, err
	}
	t := &l2Table{geometry: g, index: index, host: host, words: make([]uint64, g.ClusterSize()/8), dirty: map[int][]byte{}}
	if host != 0 {
		if err := t.load(b.s.f); err != nil {
			return nil, err
		}
		if t.l1, err = b.l1Entry(index); err != nil {
			return nil, err
		}
		if t.private, err = b.s.private(host); err != nil {
			return nil, err
		}
		t.private = t.private && t.l1&entryCopied != 0
	}
	b.tables[index] = t
	return t, nil
}

func (t *l2Table) load(f File) error {
	p := make([]byte, len(t.words)*8)
	if err := readFull(f, p, t.host); err != nil {
		return fmt.Errorf("reading a table at %s: %w", t.host, err)
	}
	for i := range t.words {
		t.words[i] = binary.BigEndian.Uint64(p[i*8:])
	}
	return nil
}

func (b *batch) l1Entry(index int64) (uint64, error) {
	var p [8]byte
	err := readFull(b.s.f, p[:], b.g.e.img.header.L1TableOffset+HostOffset(index*8))
	return binary.BigEndian.Uint64(p[:]), err
}

// private reports a cluster that one reference was found to, that has the refcount 1,
// and that is nothing else besides.
func (s *session) private(host HostOffset) (bool, error) {
	c := int64(host) >> s.img.geometry.ClusterBits
	if s.x.refsTo(c) != 1 || s.kept.Test(int64(host)) || s.x.refs.Test(int64(host)) {
		return false, nil
	}
	n, err := s.refs.get(c)
	return n == 1, err
}

// set changes the entry of a guest cluster. A table that is shared, or not there, is
// written anew.
func (b *batch) set(t *l2Table, cluster int64, entry l2Entry, sub subclusterBitmap) error {
	if len(t.dirty) == 0 && !t.dropped {
		if err := b.open(t); err != nil {
			return err
		}
	}
	i := t.word(cluster)
	if sector := int(i / wordsPerSector); t.dirty[sector] == nil {
		t.dirty[sector] = t.encode(sector*wordsPerSector, (sector+1)*wordsPerSector)
	}
	t.words[i] = uint64(entry)
	if t.geometry.ExtendedL2 {
		t.words[i+1] = uint64(sub)
	}
	return nil
}

// word is where the entry of a guest cluster begins in words.
func (t *l2Table) word(cluster int64) int64 {
	return cluster % t.geometry.l2Entries() * t.geometry.l2EntryWords()
}

// entry is the entry of a guest cluster.
func (t *l2Table) entry(cluster int64) (l2Entry, subclusterBitmap) {
	i := t.word(cluster)
	if t.geometry.ExtendedL2 {
		return l2Entry(t.words[i]), subclusterBitmap(t.words[i+1])
	}
	return l2Entry(t.words[i]), 0
}

// open makes a table ready for changes.
func (b *batch) open(t *l2Table) error {
	b.order = append(b.order, t)
	if t.private {
		return nil
	}
	var err error
	if t.fresh, err = b.s.alloc.allocate(1); err != nil {
		return err
	}
	if t.host != 0 {
		b.gone = append(b.gone, hostRange{t.host, t.geometry.ClusterSize()})
	}
	return nil
}

// encode are the words [from, to).
func (t *l2Table) encode(from, to int) []byte {
	p := make([]byte, 0, (to-from)*8)
	for _, w := range t.words[from:to] {
		p = binary.BigEndian.AppendUint64(p, w)
	}
	return p
}

const wordsPerSector = atomicUnit / 8

// link writes the entries that changed, of a table in place, or the L1 entry. Each
// entry lies in one sector. It reports whether it wrote anything. What a write that
// fails may have written of an entry is put back, as far as the file allows.
func (t *l2Table) link(f File, l1 HostOffset) (bool, error) {
	if t.fresh != 0 || t.dropped {
		entry := uint64(t.fresh) | entryCopied
		if t.dropped {
			entry = 0
		}
		return true, overwrite(f, l1+HostOffset(t.index*8), binary.BigEndian.AppendUint64(nil, entry), binary.BigEndian.AppendUint64(nil, t.l1))
	}
	sectors := len(t.words) / wordsPerSector
	for from := 0; from < sectors; from++ {
		to, was := from, []byte(nil)
		for ; to < sectors && t.dirty[to] != nil; to++ {
			was = append(was, t.dirty[to]...)
		}
		if to == from {
			continue
		}
		now := t.encode(from*wordsPerSector, to*wordsPerSector)
		if err := overwrite(f, t.host+HostOffset(from*atomicUnit), now, was); err != nil {
			return true, err
		}
		from = to
	}
	return len(t.dirty) > 0, nil
}

// overwrite writes p where there is was.
func overwrite(f File, host HostOffset, p, was []byte) error {
	err := writeFull(f, p, host)
	if err != nil {
		_ = writeFull(f, was, host) // the first error is the one to tell
	}
	return err
}
