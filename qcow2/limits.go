package qcow2

import (
	"fmt"
	"strings"
)

// Limits bound what an image can make this package read, keep or follow. An image
// is a stranger: whatever it claims costs nothing until it was compared with these
// and with the size of the file. The zero value is the safe choice; a field that is
// 0 or less has the default that stands beside it. Every default is at least what
// QEMU 7.2 accepts, where QEMU has a limit at all, unless it says otherwise.
//
// What goes beyond is a *LimitError, which names the limit as Set does.
type Limits struct {
	// L1Bytes is the largest L1 table, of the disk or of a snapshot, in bytes.
	// Default 32 MiB, as in QEMU: 2 PiB of disk with clusters of 64 KiB. It also
	// bounds the virtual size. Tables are read in slices and never held whole.
	L1Bytes int64
	// L2Bytes is how many bytes of L2 tables one walk (Disk.Extents, one ReadAt)
	// reads. Default 64 GiB, the tables of 512 TiB of mapped disk with clusters
	// of 64 KiB: a sparse file of some KiB can name millions of tables in its
	// holes, all different, and reading them would take hours. QEMU has no limit.
	L2Bytes int64
	// RefcountTableBytes is the largest refcount table. Default 8 MiB, as in
	// QEMU: it is held whole where something is written.
	RefcountTableBytes int64
	// Snapshots is how many internal snapshots a table may have. Default 65536,
	// as in QEMU.
	Snapshots int64
	// SnapshotTableBytes is how far a snapshot table is read. Default 64 MiB, as
	// in QEMU; a table of 65536 usual entries has 5 MiB.
	SnapshotTableBytes int64
	// SnapshotExtraBytes is the most extra data of one snapshot. Default 1024,
	// as in QEMU; 24 bytes of it have a meaning.
	SnapshotExtraBytes int64
	// Bitmaps is how many bitmaps a directory may have. Default 65535, as in QEMU.
	Bitmaps int64
	// BitmapDirectoryBytes is the largest bitmap directory. Default 64 MiB, as in
	// QEMU: 65535 names of the greatest length.
	BitmapDirectoryBytes int64
	// BitmapTableBytes is the largest table of one bitmap. Default 1 GiB, as in
	// QEMU. It is read in slices.
	BitmapTableBytes int64
	// BitmapWork is how many bytes of tables and data one DirtyCounter reads;
	// a read of less than 2 KiB counts as 2 KiB, which is what it costs. Default
	// 2 GiB, about half a second: thousands of bitmaps can share one table, or
	// lie in the holes of a sparse file. QEMU has no limit, and takes minutes.
	BitmapWork int64
	// Extensions is how many header extensions there may be. Default 4096: there
	// are five kinds, and each unknown one costs more memory than its 8 bytes.
	// QEMU has no limit.
	Extensions int64
	// FeatureNames is how many entries of the feature name table are read; the
	// others are passed over, for they only serve messages. Default 1024; there
	// are 192 feature bits.
	FeatureNames int64
	// ZstdWindow is the largest window that a zstd frame may ask for, in bytes.
	// Default 128 MiB, as in libzstd. Nothing is allocated for it: whatever a
	// stream claims, no more than one cluster (2 MiB) is ever decompressed of it.
	ZstdWindow int64
	// Depth is how many backing files may stand on each other, for who opens
	// them (Options.OpenRef): this package opens none. Default 256.
	Depth int64
}

// defaultDepth is deeper than any chain that a person made; QEMU has no limit.
const defaultDepth = 256

// A limit is a row of the table of limits.
type limit struct {
	name  string
	field func(*Limits) *int64
	safe  int64
}

var limitTable = []limit{
	{"l1-bytes", func(l *Limits) *int64 { return &l.L1Bytes }, maxL1Bytes},
	{"l2-bytes", func(l *Limits) *int64 { return &l.L2Bytes }, 64 << 30},
	{"refcount-table-bytes", func(l *Limits) *int64 { return &l.RefcountTableBytes }, maxRefTableBytes},
	{"snapshots", func(l *Limits) *int64 { return &l.Snapshots }, maxSnapshots},
	{"snapshot-table-bytes", func(l *Limits) *int64 { return &l.SnapshotTableBytes }, maxSnapshotTable},
	{"snapshot-extra-bytes", func(l *Limits) *int64 { return &l.SnapshotExtraBytes }, maxSnapshotExtra},
	{"bitmaps", func(l *Limits) *int64 { return &l.Bitmaps }, maxBitmaps},
	{"bitmap-directory-bytes", func(l *Limits) *int64 { return &l.BitmapDirectoryBytes }, maxBitmapDirectory},
	{"bitmap-table-bytes", func(l *Limits) *int64 { return &l.BitmapTableBytes }, maxBitmapTable * 8},
	{"bitmap-work", func(l *Limits) *int64 { return &l.BitmapWork }, 2 << 30},
	{"extensions", func(l *Limits) *int64 { return &l.Extensions }, 4096},
	{"feature-names", func(l *Limits) *int64 { return &l.FeatureNames }, 1024},
	{"zstd-window", func(l *Limits) *int64 { return &l.ZstdWindow }, maxZstdWindow},
	{"depth", func(l *Limits) *int64 { return &l.Depth }, defaultDepth},
}

// LimitNames are the names that Set takes.
func LimitNames() []string {
	names := make([]string, len(limitTable))
	for i, row := range limitTable {
		names[i] = row.name
	}
	return names
}

// Set sets a limit by the name that a *LimitError has.
func (l *Limits) Set(name string, n int64) error {
	for _, row := range limitTable {
		if row.name == name {
			if n <= 0 {
				return fmt.Errorf("limit %s: it must be above 0, is %d", name, n)
			}
			*row.field(l) = n
			return nil
		}
	}
	return fmt.Errorf("there is no limit %q; there are %s", name, strings.Join(LimitNames(), ", "))
}

// WithDefaults is l with the defaults in the place of what is 0 or less.
func (l Limits) WithDefaults() Limits {
	for _, row := range limitTable {
		if n := row.field(&l); *n <= 0 {
			*n = row.safe
		}
	}
	return l
}

// A LimitError reports bytes of an image that ask for more than a limit allows. The
// image may be sound; who trusts it can raise the limit. It wraps a *FormatError,
// which says where these bytes stand.
type LimitError struct {
	Limit  string // the limit, as Limits.Set names it
	Max    int64  // its value
	Format *FormatError
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%v (the limit %s is %d; raise it if you trust the image)", e.Format, e.Limit, e.Max)
}

func (e *LimitError) Unwrap() error { return e.Format }

// limitError makes a LimitError of a *FormatError; other errors stay what they are.
func limitError(name string, maximum int64, err error) error {
	if format, ok := err.(*FormatError); ok {
		return &LimitError{Limit: name, Max: maximum, Format: format}
	}
	return err
}
