package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/qbitkit/qbit/bitmap"
)

// Bits of a bitmap directory entry's flags.
const (
	BitmapInUse               = 1 << 0
	BitmapAuto                = 1 << 1
	BitmapExtraDataCompatible = 1 << 2

	bitmapKnownFlags = BitmapInUse | BitmapAuto | BitmapExtraDataCompatible
)

// bitmapDirtyTracking is the only bitmap type of the specification.
const bitmapDirtyTracking = 1

const (
	bitmapEntryLength    = 24
	bitmapExtLength      = 24
	bitmapEntryReserved  = 0xff000000000001fe // of a bitmap table entry
	bitmapEntryAllOnes   = 1
	minGranularityBits   = 9
	maxGranularityBits   = 31
	maxBitmaps           = 65535
	maxBitmapName        = 1023
	maxBitmapDirectory   = 64 << 20
	maxBitmapTable       = 0x8000000 // entries
	bitmapTableSliceSize = sliceBytes
)

// ErrBitmapInUse reports a bitmap that was not closed cleanly: it misses
// changes, and which is not known.
var ErrBitmapInUse = errors.New("bitmap is in use: it was not closed cleanly and is inconsistent")

// ErrBitmapsStale reports a bitmaps extension whose autoclear bit is clear: a
// program that knows no bitmaps has written to the image since.
var ErrBitmapsStale = errors.New("the bitmaps are stale: a program that knows no bitmaps has written to the image since")

// A BitmapInfo is an entry of the section "Bitmap directory". Name is the
// image's bytes.
type BitmapInfo struct {
	Name        string
	Granularity int64 // bytes; 0 where granularity_bits is out of range
	Flags       uint32
	InUse       bool // QMP: inconsistent
	Auto        bool // QMP: recording
	Type        uint8
	TableOffset HostOffset
	TableSize   uint32 // entries
	ExtraData   []byte

	index           uint32
	host            HostOffset // of the entry
	granularityBits uint8
}

type bitmapsExtension struct {
	count           uint32
	directorySize   uint64
	directoryOffset HostOffset
}

// BitmapsStale reports that there is a bitmaps extension whose autoclear bit is
// clear, so that nothing in it may be trusted.
func (img *Image) BitmapsStale() bool {
	return findExtension(img.extensions, ExtBitmaps) != nil && img.header.AutoclearFeatures&AutoclearBitmaps == 0
}

// bitmapsExtension decodes the section "Bitmaps extension"; nil without one.
func (img *Image) bitmapsExtension() (*bitmapsExtension, error) {
	var found *Extension
	for i := range img.extensions {
		e := &img.extensions[i]
		if e.Type != ExtBitmaps {
			continue
		}
		if found != nil {
			return nil, bitmapsExtError(e, "type", 0, uint64(e.Type), "the bitmaps extension appears more than once")
		}
		found = e
	}
	if found == nil {
		if img.header.AutoclearFeatures&AutoclearBitmaps != 0 {
			return nil, headerError("autoclear_features", 88, img.header.AutoclearFeatures,
				"the bitmaps bit must not be set without the bitmaps extension")
		}
		return nil, nil
	}
	return img.decodeBitmapsExtension(found)
}

func bitmapsExtError(e *Extension, field string, at int, value uint64, format string, args ...any) error {
	return &FormatError{Structure: "bitmaps extension", Field: field, Host: e.Host + HostOffset(at), Value: value,
		Msg: fmt.Sprintf(format, args...)}
}

func (img *Image) decodeBitmapsExtension(e *Extension) (*bitmapsExtension, error) {
	if len(e.Data) != bitmapExtLength {
		return nil, bitmapsExtError(e, "length", 4, uint64(len(e.Data)), "must be 24")
	}
	c := cursor{b: e.Data}
	x := &bitmapsExtension{count: c.u32()}
	reserved := c.u32()
	x.directorySize, x.directoryOffset = c.u64(), HostOffset(c.u64())
	switch {
	case x.count == 0:
		return nil, bitmapsExtError(e, "nb_bitmaps", 8, 0, "must be at least 1")
	case int64(x.count) > img.limits.Bitmaps:
		most := img.limits.Bitmaps
		return nil, limitError("bitmaps", most, bitmapsExtError(e, "nb_bitmaps", 8, uint64(x.count), "must not exceed %d", most))
	case reserved != 0:
		return nil, bitmapsExtError(e, "reserved", 12, uint64(reserved), "must be zero")
	case x.directorySize > uint64(img.limits.BitmapDirectoryBytes):
		most := img.limits.BitmapDirectoryBytes
		return nil, limitError("bitmap-directory-bytes", most, bitmapsExtError(e, "bitmap_directory_size", 16, x.directorySize,
			"must not exceed %d", most))
	case x.directorySize < uint64(x.count)*bitmapEntryLength:
		return nil, bitmapsExtError(e, "bitmap_directory_size", 16, x.directorySize, "must be at least 24 bytes an entry")
	case !img.geometry.aligned(x.directoryOffset) || x.directoryOffset == 0:
		return nil, bitmapsExtError(e, "bitmap_directory_offset", 24, uint64(x.directoryOffset),
			"must be aligned to a cluster and not 0")
	case !within(x.directoryOffset, x.directorySize, img.size):
		return nil, bitmapsExtError(e, "bitmap_directory_offset", 24, uint64(x.directoryOffset),
			"the directory (%d bytes) reaches beyond the end of the file (%d bytes)", x.directorySize, img.size)
	}
	return x, nil
}

// Bitmaps are the entries of the bitmap directory, also where BitmapsStale. It
// reads the directory anew each time; what was read before an error is
// returned with it. An error here does not keep guest data from being read.
func (img *Image) Bitmaps() ([]BitmapInfo, error) {
	var list []BitmapInfo
	for b, err := range img.EachBitmap() {
		if err != nil {
			return list, err
		}
		list = append(list, b)
	}
	return list, nil
}

// EachBitmap yields what Bitmaps lists, one at a time: a directory can have 64 MiB.
// An error is yielded once, with a zero BitmapInfo, and ends it.
func (img *Image) EachBitmap() iter.Seq2[BitmapInfo, error] {
	return func(yield func(BitmapInfo, error) bool) {
		x, err := img.bitmapsExtension()
		if err == nil && x != nil {
			err = img.eachEntry(x, yield)
		}
		if err != nil && err != errStop {
			yield(BitmapInfo{}, err)
		}
	}
}

// eachEntry yields the entries of the directory; errStop says that yield had enough.
func (img *Image) eachEntry(x *bitmapsExtension, yield func(BitmapInfo, error) bool) error {
	t := newTableReader(img, "bitmap directory", x.directoryOffset, int64(x.directorySize))
	for i := range x.count {
		b, err := t.bitmapEntry(i)
		if err != nil {
			return err
		}
		if !yield(b, nil) {
			return errStop
		}
	}
	if used := uint64(t.host - t.start); used != x.directorySize {
		return &FormatError{Structure: "bitmap directory", Field: "bitmap_directory_size", Host: t.start,
			Value: x.directorySize, Msg: fmt.Sprintf("must be the sum of its %d entries, %d bytes", x.count, used)}
	}
	return nil
}

func (t *tableReader) bitmapEntry(i uint32) (BitmapInfo, error) {
	t.entry = t.host
	b, err := t.bytes(bitmapEntryLength, i, "header")
	if err != nil {
		return BitmapInfo{}, err
	}
	c := cursor{b: b}
	info := BitmapInfo{index: i, host: t.entry, TableOffset: HostOffset(c.u64()), TableSize: c.u32(), Flags: c.u32(), Type: c.u8()}
	info.granularityBits = c.u8()
	nameSize, extraSize := int(c.u16()), c.u32()
	info.InUse, info.Auto = info.Flags&BitmapInUse != 0, info.Flags&BitmapAuto != 0
	if info.granularityBits >= minGranularityBits && info.granularityBits <= maxGranularityBits {
		info.Granularity = 1 << info.granularityBits
	}
	if nameSize == 0 || nameSize > maxBitmapName {
		return info, t.fail(i, "name_size", uint64(nameSize), "must be from 1 to 1023")
	}
	if uint64(extraSize) > uint64(t.end-t.host) { // also: it may not fit an int
		return info, t.fail(i, "extra_data_size", uint64(extraSize), "the directory ends inside it")
	}
	return info, t.bitmapStrings(&info, i, int(extraSize), nameSize)
}

// bitmapStrings reads what follows an entry's fixed part.
func (t *tableReader) bitmapStrings(info *BitmapInfo, i uint32, extra, nameSize int) error {
	var err error
	if info.ExtraData, err = t.bytes(extra, i, "extra_data_size"); err != nil {
		return err
	}
	name, err := t.bytes(nameSize, i, "name_size")
	if err != nil {
		return err
	}
	info.Name = string(name)
	t.pad()
	return nil
}

// BitmapInfo is the directory entry of a bitmap, by its name. Errors:
// *NotFoundError, *FormatError.
func (img *Image) BitmapInfo(name string) (BitmapInfo, error) {
	list, err := img.Bitmaps()
	if err != nil {
		return BitmapInfo{}, err
	}
	var found *BitmapInfo
	missing := &NotFoundError{What: "bitmap", Name: name}
	for i := range list {
		switch missing.Have = append(missing.Have, list[i].Name); {
		case list[i].Name != name:
		case found != nil:
			return BitmapInfo{}, list[i].fail("name", 0, "the name must be unique")
		default:
			found = &list[i]
		}
	}
	if found == nil {
		return BitmapInfo{}, missing
	}
	return *found, nil
}

// LoadBitmap loads a bitmap that can be trusted, by its name. Errors:
// *NotFoundError (wraps fs.ErrNotExist), ErrBitmapInUse, ErrBitmapsStale,
// *FormatError, *UnsupportedError for an unknown type or extra data.
func (img *Image) LoadBitmap(name string) (*bitmap.Bitmap, error) {
	info, err := img.BitmapInfo(name)
	if err != nil {
		return nil, err
	}
	switch {
	case img.BitmapsStale():
		return nil, fmt.Errorf("bitmap %q: %w", name, ErrBitmapsStale)
	case info.InUse:
		return nil, fmt.Errorf("bitmap %q: %w", name, ErrBitmapInUse)
	}
	return img.ReadBitmap(info)
}

// ReadBitmap reads the bits of a bitmap, whether or not they can be trusted
// (InUse, BitmapsStale). Its memory follows the dirty ranges. Errors:
// *FormatError, *UnsupportedError.
func (img *Image) ReadBitmap(info BitmapInfo) (*bitmap.Bitmap, error) {
	if err := info.readable(); err != nil {
		return nil, err
	}
	b, err := bitmap.New(img.Size(), info.Granularity)
	if err != nil {
		return nil, info.fail("granularity_bits", uint64(info.granularityBits), err.Error())
	}
	if err := img.validateBitmapTable(&info, b.WireSize()); err != nil {
		return nil, err
	}
	l := &bitmapLoader{img: img, info: &info, bitmap: b, buf: make([]byte, img.geometry.ClusterSize())}
	if err := l.load(); err != nil {
		return nil, err
	}
	return b, nil
}

// readable reports what keeps the bits of a bitmap from having a meaning.
func (b *BitmapInfo) readable() error {
	switch {
	case b.Type != bitmapDirtyTracking:
		return &UnsupportedError{Feature: fmt.Sprintf("bitmap %.100q has the unknown type %d", b.Name, b.Type)}
	case b.Flags&^bitmapKnownFlags != 0:
		return b.fail("flags", uint64(b.Flags), "reserved flags must be zero")
	case len(b.ExtraData) > 0 && b.Flags&BitmapExtraDataCompatible == 0:
		return &UnsupportedError{Feature: fmt.Sprintf("bitmap %.100q has extra data that changes its meaning", b.Name)}
	case b.Granularity == 0:
		return b.fail("granularity_bits", uint64(b.granularityBits), "must be from 9 to 31")
	}
	return nil
}

func (b *BitmapInfo) fail(field string, value uint64, msg string) error {
	return &FormatError{Structure: "bitmap directory", Field: fmt.Sprintf("entry %d %s", b.index, field),
		Host: b.host, Value: value, Msg: fmt.Sprintf("bitmap %.100q: %s", b.Name, msg)}
}

// validateBitmapTable checks where the table of a bitmap stands; wireSize is the
// length of its bits in bytes.
func (img *Image) validateBitmapTable(info *BitmapInfo, wireSize int64) error {
	cluster := img.geometry.ClusterSize()
	need := (wireSize + cluster - 1) / cluster
	most := img.limits.BitmapTableBytes
	switch {
	case int64(info.TableSize)*8 > most:
		return limitError("bitmap-table-bytes", most, info.fail("bitmap_table_size", uint64(info.TableSize),
			fmt.Sprintf("the table must not be larger than %d bytes", most)))
	case int64(info.TableSize) != need && !info.InUse:
		return info.fail("bitmap_table_size", uint64(info.TableSize),
			fmt.Sprintf("a disk of %d bytes needs %d entries", img.Size(), need))
	case !img.geometry.aligned(info.TableOffset):
		return info.fail("bitmap_table_offset", uint64(info.TableOffset), "must be aligned to a cluster")
	case !within(info.TableOffset, uint64(info.TableSize)*8, img.size):
		return info.fail("bitmap_table_offset", uint64(info.TableOffset), "the bitmap table reaches beyond the end of the file")
	}
	return nil
}

const reusedBitmapData = "more data clusters than the file has: some are used again"

// checkBitmapEntry checks an entry of a bitmap table whose cluster holds n bytes of
// bits, none or less beyond the end of the disk. The result is the rule that it
// breaks, or "".
func (img *Image) checkBitmapEntry(e uint64, n int64) string {
	host := HostOffset(e & entryOffset)
	switch {
	case e&bitmapEntryReserved != 0 || host != 0 && e&bitmapEntryAllOnes != 0:
		return "reserved bits must be zero"
	case !img.geometry.aligned(host):
		return "the data must be aligned to a cluster"
	case n > 0 && host != 0 && !within(host, uint64(n), img.size):
		return "the data lies beyond the end of the file"
	}
	return ""
}

// failEntry is the error that entry i of the bitmap's table breaks a rule.
func (b *BitmapInfo) failEntry(i int64, e uint64, rule string) error {
	return entryError("bitmap table", i, b.TableOffset+HostOffset(i*8), e, fmt.Sprintf("bitmap %.100q: %s", b.Name, rule))
}

// A bitmapLoader loads the section "Bitmap table" and its data clusters.
type bitmapLoader struct {
	img    *Image
	info   *BitmapInfo
	bitmap *bitmap.Bitmap
	buf    []byte // a cluster
	loaded int64  // data clusters so far
}

func (l *bitmapLoader) load() error {
	entries := int64(l.info.TableSize)
	table := make([]byte, min(entries*8, bitmapTableSliceSize))
	for first := int64(0); first < entries; first += int64(len(table)) / 8 {
		part := table[:min(int64(len(table)), (entries-first)*8)]
		if err := readFull(l.img.r, part, l.info.TableOffset+HostOffset(first*8)); err != nil {
			return fmt.Errorf("reading the table of bitmap %q: %w", l.info.Name, err)
		}
		for i := range int64(len(part)) / 8 {
			if err := l.entry(first+i, binary.BigEndian.Uint64(part[i*8:])); err != nil {
				return err
			}
		}
	}
	return nil
}

// entry loads what one bitmap table entry describes: a cluster of bits. Bits
// beyond the end of the disk, as in a bitmap in use of a disk that shrank, are
// passed over.
func (l *bitmapLoader) entry(i int64, e uint64) error {
	cluster := l.img.geometry.ClusterSize()
	n := min(cluster, l.bitmap.WireSize()-i*cluster)
	host := HostOffset(e & entryOffset)
	rule := l.img.checkBitmapEntry(e, n)
	switch {
	case rule == "" && n <= 0:
		return nil
	case rule == "" && host == 0:
		l.bitmap.SetWireRun(i*cluster, n, e&bitmapEntryAllOnes != 0)
		return nil
	case rule == "" && l.loaded*cluster >= l.img.size:
		rule = reusedBitmapData
	}
	if rule != "" {
		return l.info.failEntry(i, e, rule)
	}
	l.loaded++
	if err := readFull(l.img.r, l.buf[:n], host); err != nil {
		return fmt.Errorf("reading the data of bitmap %q: %w", l.info.Name, err)
	}
	_, err := l.bitmap.LoadWire(i*cluster, l.buf[:n])
	return err
}
