package qcow2

import (
	"errors"
	"fmt"
)

// Severity says how bad a Finding is.
type Severity string

const (
	// SeverityCorruption: data is lost, or a program that writes to the image can
	// lose it, or QEMU refuses the image.
	SeverityCorruption Severity = "corruption"
	// SeverityLeak costs space and nothing else.
	SeverityLeak Severity = "leak"
	// SeverityNotice is worth knowing; the disk and the image are sound.
	SeverityNotice Severity = "notice"
)

// FindingKind is a stable word for what is wrong.
type FindingKind string

// The kinds of findings. Explain says more about each.
const (
	FindHeader          FindingKind = "header"
	FindDirty           FindingKind = "dirty-bit"
	FindCorruptBit      FindingKind = "corrupt-bit"
	FindUnreadable      FindingKind = "unreadable"
	FindRefcountLow     FindingKind = "refcount-low"
	FindRefcountHigh    FindingKind = "refcount-high"
	FindRefcountWidth   FindingKind = "refcount-overflow"
	FindOverlap         FindingKind = "overlap"
	FindCopied          FindingKind = "copied"
	FindCopiedPacked    FindingKind = "copied-compressed"
	FindReserved        FindingKind = "reserved-bits"
	FindUnaligned       FindingKind = "unaligned"
	FindBeyondEnd       FindingKind = "beyond-end"
	FindZeroFlag        FindingKind = "zero-flag"
	FindSubclusters     FindingKind = "subclusters"
	FindDataFile        FindingKind = "data-file"
	FindEntry           FindingKind = "entry"
	FindSnapshotTable   FindingKind = "snapshot-table"
	FindSnapshotExtra   FindingKind = "snapshot-extra-data"
	FindTablesOverlap   FindingKind = "tables-overlap"
	FindEncryption      FindingKind = "encryption-header"
	FindBitmapsStale    FindingKind = "bitmaps-stale"
	FindBitmapsExt      FindingKind = "bitmaps-extension"
	FindBitmapDirectory FindingKind = "bitmap-directory"
	FindBitmapInUse     FindingKind = "bitmap-in-use"
	FindBitmapFlags     FindingKind = "bitmap-flags"
	FindBitmapType      FindingKind = "bitmap-type"
	FindBitmapExtra     FindingKind = "bitmap-extra-data"
	FindBitmapName      FindingKind = "bitmap-name"
	FindBitmapTable     FindingKind = "bitmap-table"
	FindBitmapEntry     FindingKind = "bitmap-table-entry"
	FindBitmapTail      FindingKind = "bitmap-tail"
	FindBitmapPadding   FindingKind = "bitmap-padding"
)

// What mends a kind: the verb of qbit with its options.
const (
	mendLeaks   = "check -r leaks"
	mendAll     = "check -r all"
	mendBitmaps = "check -r bitmaps"
	mendInUse   = "bitmap --remove --inconsistent"
)

// A meaning is what a kind of finding means for the data, and what mends it.
type meaning struct {
	means, mend string
}

var meanings = map[FindingKind]meaning{
	FindHeader:          {"the header breaks the format; the rest of the image was not checked", ""},
	FindDirty:           {"the image was not closed cleanly and its refcounts may be wrong; the guest's data is not affected", mendAll},
	FindCorruptBit:      {"a program found the image broken and marked it; QEMU does not write to it any more", mendAll},
	FindUnreadable:      {"the file could not be read here; what stands there is not known, and was not checked", ""},
	FindRefcountLow:     {"a cluster in use counts as free, or as less shared than it is: the next program that writes can overwrite it", mendAll},
	FindRefcountHigh:    {"clusters are kept that nothing refers to, or that are counted more often than they are referred to; no data is at risk", mendLeaks},
	FindRefcountWidth:   {"a cluster has more references than its refcount can count: a program that drops one of them frees it for all", mendAll},
	FindOverlap:         {"two structures share a cluster: what is written to one destroys the other; copy the disk before anything writes to it", ""},
	FindCopied:          {"with the bit set wrongly a write changes a cluster that a snapshot shares; cleared wrongly it only costs a copy", mendAll},
	FindCopiedPacked:    {"the copied bit must not be set for a compressed cluster; its data reads fine", mendAll},
	FindReserved:        {"QEMU refuses the entry when it meets it", mendAll},
	FindUnaligned:       {"the entry does not point at a cluster: what it led to is lost to the disk", mendAll},
	FindBeyondEnd:       {"the file ends before what the entry points at: these bytes are lost, and QEMU reads zeros without a word", mendAll},
	FindZeroFlag:        {"QEMU refuses the entry when it meets it: the guest gets an error", mendAll},
	FindSubclusters:     {"the subcluster bits contradict each other: the guest gets an error", mendAll},
	FindDataFile:        {"the entry does not fit an external data file: the guest gets an error or wrong bytes", mendAll},
	FindEntry:           {"the entry breaks the format: the guest gets an error", mendAll},
	FindSnapshotTable:   {"snapshots cannot be read, and their clusters show up as leaks: do not free them", ""},
	FindSnapshotExtra:   {"the entry lacks fields that version 3 requires", ""},
	FindTablesOverlap:   {"there are more tables than the file has room for: they overlap, and not all were followed", ""},
	FindEncryption:      {"without its encryption header the disk cannot be decrypted", ""},
	FindBitmapsStale:    {"a program that knows no bitmaps wrote to the image: no bitmap in it may be trusted, and their clusters are leaks", mendBitmaps},
	FindBitmapsExt:      {"the bitmaps cannot be read, and QEMU may refuse the image for it; the guest's data is not affected", mendBitmaps},
	FindBitmapDirectory: {"the bitmaps cannot be read, and QEMU refuses the whole image for it; the guest's data is not affected", mendBitmaps},
	FindBitmapInUse:     {"the bitmap was not closed cleanly: it misses changes, so the next backup must be a full one", mendInUse},
	FindBitmapFlags:     {"QEMU refuses the whole image for it; the guest's data is not affected", mendBitmaps},
	FindBitmapType:      {"the bitmap is of a kind that is not known; QEMU refuses the whole image for it", mendBitmaps},
	FindBitmapExtra:     {"the entry is legal, but QEMU refuses the whole image for it; the guest's data is not affected", mendBitmaps},
	FindBitmapName:      {"two bitmaps have one name: nobody can tell which is meant, and QEMU refuses the image", mendBitmaps},
	FindBitmapTable:     {"the bitmap does not fit the disk; QEMU refuses the whole image for it", mendBitmaps},
	FindBitmapEntry:     {"a part of the bitmap is lost; QEMU may refuse the image or read the part as clean", mendBitmaps},
	FindBitmapTail:      {"bits behind the end of the disk are set; they mean nothing now, but would if the disk grew", mendBitmaps},
	FindBitmapPadding:   {"bytes that should be zero are not; nobody reads them", ""},
}

// Explain says what findings of a kind mean for the data, and which verb of
// qbit, with its options, mends them; "" where none can.
func Explain(kind FindingKind) (means, mend string) {
	m := meanings[kind]
	return m.means, m.mend
}

// A Finding is something wrong inside an image. Strings may hold bytes of the image
// (names of snapshots and bitmaps).
type Finding struct {
	Kind     FindingKind
	Severity Severity

	// Structure and Field are the specification's words for the place, Host is
	// where in the file the wrong bytes stand.
	Structure, Field string
	Host             HostOffset

	// Clusters is how many host clusters are concerned, Cluster the first of them.
	// 0 where the finding is not about clusters.
	Cluster  HostOffset
	Clusters int64

	// The guest's bytes that are concerned, of the snapshot with that ID ("" for
	// the active disk); GuestLen is 0 where there are none.
	Snapshot           string
	GuestOff, GuestLen int64

	// Found and Wanted are values or rules, for people.
	Found, Wanted string
}

func (f Finding) String() string {
	return fmt.Sprintf("%s: %s: %s %s at %s: found %s, wanted %s",
		f.Severity, f.Kind, f.Structure, f.Field, f.Host, f.Found, f.Wanted)
}

// findingOf makes a finding of a broken rule.
func findingOf(kind FindingKind, e *FormatError) Finding {
	return Finding{Kind: kind, Severity: SeverityCorruption, Structure: e.Structure, Field: e.Field, Host: e.Host,
		Found: fmt.Sprintf("%#x", e.Value), Wanted: e.Msg}
}

// broken reports an error as a finding where it is a broken rule or bytes that
// could not be read; other errors are given back.
func (c *checker) broken(kind FindingKind, structure string, host HostOffset, err error) error {
	c.res.Incomplete = true
	var format *FormatError
	if errors.As(err, &format) && (!errors.As(err, new(*LimitError)) || beyondQEMU(err)) {
		return c.structural(findingOf(kind, format))
	}
	var unsupported *UnsupportedError
	if errors.As(err, &unsupported) {
		return c.structural(Finding{Kind: kind, Severity: SeverityCorruption, Structure: structure, Host: host,
			Found: unsupported.Feature, Wanted: "something that can be read"})
	}
	return c.unreadable(structure, host, err)
}

// beyondQEMU reports bitmaps that go beyond a limit of QEMU 7.2, which refuses the image
// for it; a limit that the user set lower says nothing about the image.
func beyondQEMU(err error) bool {
	var limit *LimitError
	if !errors.As(err, &limit) {
		return false
	}
	usual := Limits{}.WithDefaults()
	return limit.Limit == "bitmaps" && limit.Max >= usual.Bitmaps ||
		limit.Limit == "bitmap-directory-bytes" && limit.Max >= usual.BitmapDirectoryBytes
}

// unreadable reports bytes that the file did not give, once where every pass reads
// them.
func (c *checker) unreadable(structure string, host HostOffset, err error) error {
	if !c.first {
		return nil
	}
	return c.failedRead(structure, host, err)
}

// failedRead reports bytes that the file did not give.
func (c *checker) failedRead(structure string, host HostOffset, err error) error {
	c.res.Incomplete = true
	c.res.CheckErrors++
	return c.report(Finding{Kind: FindUnreadable, Severity: SeverityCorruption, Structure: structure, Host: host,
		Found: err.Error(), Wanted: "bytes"})
}
