package qcow2

import (
	"bufio"
	"fmt"
	"io"
	"iter"
	"math"
	"time"
)

const (
	snapshotHeaderLength = 40
	maxSnapshotExtra     = 1024     // QEMU 7.2
	maxSnapshotTable     = 64 << 20 // QEMU 7.2
	noICount             = math.MaxUint64
)

// A Snapshot is an entry of the section "Snapshot table". ID and Name are the
// image's bytes.
type Snapshot struct {
	ID, Name      string
	L1TableOffset HostOffset
	L1Size        uint32 // entries
	Date          time.Time
	VMClock       uint64  // nanoseconds that the guest had run
	VMStateSize   uint64  // bytes; 0: the disk alone
	DiskSize      uint64  // bytes; the image's own size where the entry does not say it
	ICount        *uint64 // instructions executed; nil where not recorded
	ExtraData     []byte  // as it stands, known fields included
}

// Snapshots are the internal snapshots, in the order of their table. It reads
// the table anew each time. An error here does not keep the active state from
// being read.
func (img *Image) Snapshots() ([]Snapshot, error) {
	list, _, err := img.loadSnapshots()
	return list, err
}

// loadSnapshots also gives the length of the table in bytes, without the padding
// of the last entry.
func (img *Image) loadSnapshots() ([]Snapshot, int64, error) {
	h := &img.header
	if h.NbSnapshots == 0 {
		return nil, 0, nil
	}
	if err := img.validateSnapshots(); err != nil {
		return nil, 0, err
	}
	var list []Snapshot
	t := img.snapshotReader()
	for s, err := range t.snapshots(h.NbSnapshots, h.Size) {
		if err != nil {
			return list, 0, err
		}
		list = append(list, s)
	}
	return list, int64(t.host - t.start), nil
}

// EachSnapshot yields what Snapshots lists, one at a time: a table can have 64 MiB.
// An error is yielded once, with a zero Snapshot, and ends it.
func (img *Image) EachSnapshot() iter.Seq2[Snapshot, error] {
	return func(yield func(Snapshot, error) bool) {
		if img.header.NbSnapshots == 0 {
			return
		}
		if err := img.validateSnapshots(); err != nil {
			yield(Snapshot{}, err)
			return
		}
		for s, err := range img.snapshotReader().snapshots(img.header.NbSnapshots, img.header.Size) {
			if !yield(s, err) {
				return
			}
		}
	}
}

func (img *Image) snapshotReader() *tableReader {
	most := img.limits.SnapshotTableBytes
	t := newTableReader(img, "snapshot table", img.header.SnapshotsOffset, most)
	t.limit, t.max = "snapshot-table-bytes", most
	t.extra = img.limits.SnapshotExtraBytes
	return t
}

// snapshots yields n entries; size is the disk size of those that do not say theirs.
func (t *tableReader) snapshots(n uint32, size uint64) iter.Seq2[Snapshot, error] {
	return func(yield func(Snapshot, error) bool) {
		for i := range n {
			s, err := t.snapshot(i)
			if err != nil {
				yield(Snapshot{}, err)
				return
			}
			if len(s.ExtraData) < 16 {
				s.DiskSize = size
			}
			if !yield(s, nil) {
				return
			}
		}
	}
}

// validateSnapshots checks the header fields of the snapshot table. Open does not
// need them: what is wrong with snapshots must not keep the active state from
// being read.
func (img *Image) validateSnapshots() error {
	h := &img.header
	switch {
	case int64(h.NbSnapshots) > img.limits.Snapshots:
		most := img.limits.Snapshots
		return limitError("snapshots", most, headerError("nb_snapshots", 60, uint64(h.NbSnapshots), "must not exceed %d", most))
	case img.dataFile != nil:
		return headerError("nb_snapshots", 60, uint64(h.NbSnapshots), "must be 0 with an external data file")
	case !img.geometry.aligned(h.SnapshotsOffset):
		return headerError("snapshots_offset", 64, uint64(h.SnapshotsOffset), "must be aligned to a cluster")
	case !within(h.SnapshotsOffset, snapshotHeaderLength, img.size):
		return headerError("snapshots_offset", 64, uint64(h.SnapshotsOffset),
			"the snapshot table reaches beyond the end of the file (%d bytes)", img.size)
	}
	return nil
}

// A tableReader reads a table of entries of varying length in order.
type tableReader struct {
	structure string
	host      HostOffset // of what is read next
	start     HostOffset
	end       HostOffset // of the file, or of what is allowed
	entry     HostOffset // of the entry that is being read
	r         *bufio.Reader
	limit     string // what ends the table before the file does; "": the table's own size
	max       int64  // of limit
	extra     int64  // the most extra data that an entry may have
}

func newTableReader(img *Image, structure string, host HostOffset, limit int64) *tableReader {
	size := min(limit, img.size-int64(host))
	section := io.NewSectionReader(img.r, int64(host), size)
	return &tableReader{structure: structure, host: host, start: host, end: host + HostOffset(size), r: bufio.NewReaderSize(section, 32<<10)}
}

// bytes reads the next n bytes, which belong to a field of entry i.
func (t *tableReader) bytes(n int, i uint32, field string) ([]byte, error) {
	if uint64(n) > uint64(t.end-t.host) { // before anything is allocated
		return nil, t.short(i, field, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(t.r, b); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil, t.short(i, field, n)
		}
		return nil, fmt.Errorf("reading the %s: %w", t.structure, err)
	}
	t.host += HostOffset(n)
	return b, nil
}

// short is the error that a table ends inside of entry i.
func (t *tableReader) short(i uint32, field string, n int) error {
	err := t.fail(i, field, uint64(n), "the table ends inside it, at the end of the file or of what is allowed")
	if t.limit != "" && int64(t.end-t.start) == t.max {
		return limitError(t.limit, t.max, err)
	}
	return err
}

// pad skips to the next multiple of 8 from the table's start. The last entry's
// padding may be missing at the end of the file.
func (t *tableReader) pad() {
	n := alignUp(t.host-t.start, 8) - (t.host - t.start)
	skipped, _ := t.r.Discard(int(n))
	t.host += HostOffset(skipped)
}

func (t *tableReader) fail(i uint32, field string, value uint64, msg string) error {
	return &FormatError{Structure: t.structure, Field: fmt.Sprintf("entry %d %s", i, field), Host: t.entry, Value: value, Msg: msg}
}

func (t *tableReader) snapshot(i uint32) (Snapshot, error) {
	t.entry = t.host
	b, err := t.bytes(snapshotHeaderLength, i, "header")
	if err != nil {
		return Snapshot{}, err
	}
	c := cursor{b: b}
	s := Snapshot{L1TableOffset: HostOffset(c.u64()), L1Size: c.u32()}
	idLen, nameLen := int(c.u16()), int(c.u16())
	sec, nsec := c.u32(), c.u32()
	s.Date = time.Unix(int64(sec), int64(nsec))
	s.VMClock = c.u64()
	s.VMStateSize = uint64(c.u32())
	extra := c.u32()
	if int64(extra) > t.extra {
		err := t.fail(i, "extra_data_size", uint64(extra), fmt.Sprintf("must not exceed %d", t.extra))
		return s, limitError("snapshot-extra-bytes", t.extra, err)
	}
	return s, t.snapshotStrings(&s, i, int(extra), idLen, nameLen)
}

// snapshotStrings reads what follows an entry's fixed part.
func (t *tableReader) snapshotStrings(s *Snapshot, i uint32, extra, idLen, nameLen int) error {
	var id, name []byte
	var err error
	if s.ExtraData, err = t.bytes(extra, i, "extra_data_size"); err != nil {
		return err
	}
	if id, err = t.bytes(idLen, i, "id_size"); err != nil {
		return err
	}
	if name, err = t.bytes(nameLen, i, "name_size"); err != nil {
		return err
	}
	t.pad()
	s.ID, s.Name = string(id), string(name)
	s.decodeExtra()
	return nil
}

// decodeExtra decodes the known fields of the extra data, as far as it goes:
// version 2 may lack them, and so may images that were version 2 once.
func (s *Snapshot) decodeExtra() {
	c := cursor{b: s.ExtraData}
	if len(s.ExtraData) >= 8 {
		s.VMStateSize = c.u64()
	}
	if len(s.ExtraData) >= 16 {
		s.DiskSize = c.u64()
	}
	if len(s.ExtraData) >= 24 {
		if n := c.u64(); n != noICount {
			s.ICount = &n
		}
	}
}

// SnapshotDisk is the disk as of an internal snapshot, by ID or, where no ID is
// the same, by name. Its backing file is the image's. Errors: *NotFoundError
// (wraps fs.ErrNotExist), *FormatError.
func (img *Image) SnapshotDisk(idOrName string) (Disk, error) {
	list, err := img.Snapshots()
	if err != nil {
		return nil, err
	}
	for _, byID := range []bool{true, false} {
		for i := range list {
			if byID && list[i].ID == idOrName || !byID && list[i].Name == idOrName {
				d, err := img.snapshotView(&list[i])
				if err != nil {
					return nil, err
				}
				return d, nil
			}
		}
	}
	missing := &NotFoundError{What: "snapshot", Name: idOrName}
	for i := range list {
		missing.Have = append(missing.Have, list[i].Name)
	}
	return nil, missing
}

// OpenSnapshot is the disk as of a snapshot that Snapshots or EachSnapshot gave. It
// checks where the L1 table stands. Errors: *FormatError, *LimitError.
func (img *Image) OpenSnapshot(s Snapshot) (Disk, error) {
	d, err := img.snapshotView(&s)
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (img *Image) snapshotView(s *Snapshot) (*snapshotDisk, error) {
	fail := func(field string, value uint64, msg string) error {
		return &FormatError{Structure: "snapshot table", Field: fmt.Sprintf("snapshot %.100q %s", s.Name, field),
			Host: img.header.SnapshotsOffset, Value: value, Msg: msg}
	}
	g, most := img.geometry, img.limits.L1Bytes
	switch {
	case uint64(s.L1Size)*8 > uint64(most):
		return nil, limitError("l1-bytes", most, fail("l1_size", uint64(s.L1Size), fmt.Sprintf("the L1 table must not be larger than %d bytes", most)))
	case !g.aligned(s.L1TableOffset) || s.L1TableOffset == 0 && s.L1Size > 0:
		return nil, fail("l1_table_offset", uint64(s.L1TableOffset), "must be aligned to a cluster and not 0")
	case !within(s.L1TableOffset, uint64(s.L1Size)*8, img.size):
		return nil, fail("l1_table_offset", uint64(s.L1TableOffset), "the L1 table reaches beyond the end of the file")
	case s.DiskSize > math.MaxInt64:
		return nil, fail("disk_size", s.DiskSize, "too large for any image")
	case g.l1EntriesFor(s.DiskSize) > uint64(most)/8:
		return nil, limitError("l1-bytes", most, fail("disk_size", s.DiskSize, fmt.Sprintf("too large: the L1 table would exceed %d bytes", most)))
	case len(s.ExtraData) >= 16 && g.l1EntriesFor(s.DiskSize) > uint64(s.L1Size):
		return nil, fail("l1_size", uint64(s.L1Size), fmt.Sprintf("a disk_size of %d bytes needs %d entries", s.DiskSize, g.l1EntriesFor(s.DiskSize)))
	}
	return &snapshotDisk{view: view{img: img, l1: s.L1TableOffset, l1Size: int64(s.L1Size), size: int64(s.DiskSize)}}, nil
}

// A snapshotDisk is the disk as of a snapshot.
type snapshotDisk struct{ view }

// Unopened is the image's.
func (d *snapshotDisk) Unopened() *Ref { return d.img.Unopened() }

// BackingDisk is the image's.
func (d *snapshotDisk) BackingDisk() Disk { return d.img.backing }
