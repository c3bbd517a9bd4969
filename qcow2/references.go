package qcow2

import (
	"encoding/binary"
	"fmt"

	"github.com/qbitkit/qbit/bitmap"
)

// references are the host clusters that something in an image refers to. QEMU
// believes refcounts that it has not checked, and overwrites a cluster that is in
// use with refcount 0; what is allocated here is known to be referred to by nothing.
type references struct {
	img      *Image
	used     *bitmap.Bitmap // all but bitmaps and refcounts; a bit a cluster
	l2       *bitmap.Bitmap // L2 tables that were walked
	refs     *bitmap.Bitmap // refcount table and blocks
	unknown  bool           // something refers to clusters in a way that is not known
	run, end HostOffset     // data clusters that follow each other, not yet in used
	words    []uint64       // of the slice that was loaded last
	bytes    []byte

	counts *extraCounts   // nil: only whether a cluster is used is asked
	tables *references    // to L2 tables alone, counted first
	twice  *bitmap.Bitmap // clusters that the active disk refers to more than once
	active bool           // it is walked
	weight uint64         // how many L1 entries refer to the L2 table that is walked
}

// findReferences follows every reference but those of bitmaps. What breaks the
// format is an error: it could be hit by an allocation. counted also finds out how
// many references there are to each cluster.
func findReferences(img *Image, r *refcounts, counted bool) (*references, error) {
	x := &references{img: img, weight: 1}
	if counted {
		x.counts = &extraCounts{pages: map[int64]*[extraPage]uint16{}}
		if err := x.countTables(); err != nil {
			return nil, err
		}
	}
	for _, b := range []**bitmap.Bitmap{&x.used, &x.l2, &x.refs} {
		var err error
		if *b, err = newClusterSet(img.geometry, img.size); err != nil {
			return nil, err
		}
	}
	x.used.Set(0, img.geometry.ClusterSize())
	steps := []func() error{x.addViews, x.addEncryption, func() error { return x.addRefcounts(r) }}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	for _, e := range img.extensions {
		x.unknown = x.unknown || e.Name() == "unknown"
	}
	x.tables = nil // it has served
	return x, nil
}

// newClusterSet is a set of the clusters of a file of size bytes.
func newClusterSet(g Geometry, size int64) (*bitmap.Bitmap, error) {
	return bitmap.New(alignUp(size, g.ClusterSize()), g.ClusterSize())
}

// add adds the clusters of n bytes at host. The last cluster of the file may be cut.
func (x *references) add(structure string, host HostOffset, n int64) error {
	size := x.img.geometry.ClusterSize()
	rule := ""
	switch {
	case int64(host) < size:
		rule = "points at the header"
	case !within(host, uint64(n), alignUp(x.img.size, size)):
		rule = "lies beyond the end of the file"
	}
	if rule != "" {
		return &FormatError{Structure: structure, Field: "offset", Host: host, Value: uint64(n), Msg: rule}
	}
	x.mark(int64(host), n)
	return nil
}

// addData is add for data clusters, of which many follow each other.
func (x *references) addData(host HostOffset) error {
	if host == x.end {
		x.end += HostOffset(x.img.geometry.ClusterSize())
		return nil
	}
	err := x.flush()
	x.run, x.end = host, host+HostOffset(x.img.geometry.ClusterSize())
	return err
}

func (x *references) flush() error {
	if x.run == x.end {
		return nil
	}
	run := x.run
	x.run = x.end
	if x.counts != nil && x.active {
		x.markTwice(int64(run), int64(x.end-run))
	}
	return x.add("L2 table", run, int64(x.end-run))
}

// addViews adds the active disk, the snapshot table, and the snapshots.
func (x *references) addViews() error {
	x.active = true
	if err := x.addView(&x.img.active); err != nil {
		return err
	}
	x.active = false
	list, length, err := x.img.loadSnapshots()
	if err != nil || len(list) == 0 {
		return err
	}
	if err := x.add("snapshot table", x.img.header.SnapshotsOffset, length); err != nil {
		return err
	}
	for i := range list {
		d, err := x.img.snapshotView(&list[i])
		if err == nil {
			err = x.addView(&d.view)
		}
		if err != nil {
			return fmt.Errorf("snapshot %q: %w", list[i].Name, err)
		}
	}
	return nil
}

// addView adds the L1 table of a disk and all below it. The table goes beyond the
// end of the disk where the state of a virtual machine is stored.
func (x *references) addView(v *view) error {
	if v.l1Size == 0 {
		return nil
	}
	if err := x.add("L1 table", v.l1, v.l1Size*8); err != nil {
		return err
	}
	for i := range v.l1Size {
		l2, err := v.l2Table(i)
		if err != nil {
			return err
		}
		if l2 == 0 || x.l2.Test(int64(l2)) {
			continue
		}
		x.l2.Set(int64(l2), 1)
		if err := x.addWeighted(v, l2); err != nil {
			return err
		}
	}
	return x.flush()
}

// addTable adds an L2 table and the clusters that it maps.
func (x *references) addTable(v *view, l2 HostOffset) error {
	g := x.img.geometry
	if err := x.add("L2 table", l2, g.ClusterSize()); err != nil {
		return err
	}
	for off := int64(0); off < g.l2Coverage(); {
		s := g.l2SliceAt(l2, off)
		if err := x.load(&s); err != nil {
			return err
		}
		for ; off < s.end; off += g.ClusterSize() {
			if err := x.addEntry(v, &s, off); err != nil {
				return err
			}
		}
	}
	return nil
}

// load reads a slice into a buffer that the next one overwrites: a walk of the whole
// image is no use to the table cache, nor the cache to it.
func (x *references) load(s *l2Slice) error {
	if x.words == nil {
		x.words = make([]uint64, x.img.geometry.l2SliceWords())
		x.bytes = make([]byte, 8*len(x.words))
	}
	if err := readFull(x.img.r, x.bytes, s.host); err != nil {
		return fmt.Errorf("reading a table at %s: %w", s.host, err)
	}
	for i := range x.words {
		x.words[i] = binary.BigEndian.Uint64(x.bytes[i*8:])
	}
	s.words = x.words
	return nil
}

func (x *references) addEntry(v *view, s *l2Slice, off int64) error {
	entry, _ := s.entry(off)
	if entry == 0 {
		return nil
	}
	if entry.compressed() {
		return x.addCompressed(v, s, off, entry)
	}
	if rule := checkStandard(entry, x.img.geometry, x.img.dataFile != nil); rule != "" {
		return s.fail(off, rule)
	}
	if entry.offset() == 0 || x.img.dataFile != nil {
		return nil
	}
	if end := min(s.clusterEnd(off), v.size); off < end && !within(entry.offset(), uint64(x.img.geometry.ClusterSize()), x.img.size) {
		// What the file lacks of its last cluster would read as zeros once it grows.
		if err := v.walkCluster(*s, off, end, func(Extent) bool { return true }); err != nil {
			return err
		}
	}
	return x.addData(entry.offset())
}

func (x *references) addCompressed(v *view, s *l2Slice, off int64, entry l2Entry) error {
	if rule := v.checkCompressed(entry); rule != "" {
		return s.fail(off, rule)
	}
	host, length := entry.compressedRange(x.img.geometry)
	return x.add("L2 table", host, min(length, x.img.size-int64(host)))
}

// addEncryption adds the encryption header.
func (x *references) addEncryption() error {
	e := findExtension(x.img.extensions, ExtEncryption)
	if e == nil {
		return nil
	}
	c := cursor{b: e.Data}
	host, length := HostOffset(c.u64()), c.u64()
	if !within(host, length, x.img.size) {
		return &FormatError{Structure: "header extension", Field: "length", Host: e.Host, Value: length,
			Msg: "the full disk encryption header reaches beyond the end of the file"}
	}
	return x.add("full disk encryption header", host, int64(length))
}

// addRefcounts adds the refcount structures. They are written in place, so they
// must share no cluster with anything, nor with each other.
func (x *references) addRefcounts(r *refcounts) error {
	size := x.img.geometry.ClusterSize()
	claim := func(host HostOffset, n int64, field string) error {
		for at := host; at < host+HostOffset(n); at += HostOffset(size) {
			if x.used.Test(int64(at)) || x.refs.Test(int64(at)) {
				return &FormatError{Structure: "refcount table", Field: field, Host: r.tableOffset, Value: uint64(at),
					Msg: "the cluster is in use for something else"}
			}
			x.refs.Set(int64(at), size)
		}
		return nil
	}
	if err := claim(r.tableOffset, r.room*8, "offset"); err != nil {
		return err
	}
	for i, e := range r.table {
		if e == 0 {
			continue
		}
		if err := claim(HostOffset(e), size, fmt.Sprintf("entry %d", i)); err != nil {
			return err
		}
	}
	return nil
}

// A hostRange is a run of bytes of the file.
type hostRange struct {
	host HostOffset
	n    int64
}

// bitmapRanges are the table of a bitmap and its data; with an error, what could
// be followed of them.
func (img *Image) bitmapRanges(info *BitmapInfo) ([]hostRange, error) {
	n := int64(info.TableSize) * 8
	if info.TableSize > maxBitmapTable || !img.geometry.aligned(info.TableOffset) || !within(info.TableOffset, uint64(n), img.size) {
		return nil, info.fail("bitmap_table_offset", uint64(info.TableOffset), "the bitmap table does not lie in the file")
	}
	if n == 0 {
		return nil, nil
	}
	ranges := []hostRange{{info.TableOffset, n}}
	var broken error
	buf := make([]byte, min(n, bitmapTableSliceSize))
	for done := int64(0); done < n; done += int64(len(buf)) {
		part := buf[:min(int64(len(buf)), n-done)]
		if err := readFull(img.r, part, info.TableOffset+HostOffset(done)); err != nil {
			return ranges, err
		}
		for ; len(part) > 0; part = part[8:] {
			e := binary.BigEndian.Uint64(part)
			host := HostOffset(e & entryOffset)
			switch {
			case e == 0 || e == bitmapEntryAllOnes:
			case e&(bitmapEntryReserved|bitmapEntryAllOnes) != 0 || !img.geometry.aligned(host) || !within(host, 1, img.size):
				broken = info.fail("table", e, "an entry of the bitmap table breaks the format")
			default:
				ranges = append(ranges, hostRange{host, img.geometry.ClusterSize()})
			}
		}
	}
	return ranges, broken
}
