package qcow2

import (
	"fmt"
	"io"
	"iter"
)

// A Disk is a virtual disk that can be read and asked where its bytes live.
// Offsets and sizes are in bytes of the guest. A Disk may be used from several
// goroutines at once.
type Disk interface {
	// ReadAt reads guest bytes. Absent ranges read as zero where the disk
	// stands alone; where they belong to a reference that was not opened,
	// reading them is an error (a *RefError).
	io.ReaderAt

	// Size is the virtual size in bytes; any value from 0 up, of any alignment.
	Size() int64

	// Extents yields ascending runs without gaps, neighbours of one kind
	// merged, that cover exactly [off, off+n). The range must lie in the disk.
	// An error is yielded once, with a zero Extent, and ends the walk.
	Extents(off, n int64) iter.Seq2[Extent, error]
}

// Kind says how the bytes of an Extent are stored.
type Kind uint8

const (
	// Absent: no layer that was opened holds these bytes. In an increment this
	// means "unchanged".
	Absent Kind = iota
	// Zero: recorded as reading zero. It hides what lies below.
	Zero
	// Data: stored as they are, at Storage and Host.
	Data
	// Compressed: stored in compressed clusters; only Disk.ReadAt gives them.
	Compressed
)

var kindNames = [...]string{"absent", "zero", "data", "compressed"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// HostOffset is an offset in bytes into the file that holds an image, never
// into the virtual disk. It prints in hex.
type HostOffset uint64

func (h HostOffset) String() string { return fmt.Sprintf("%#x", uint64(h)) }

// An Extent is a run of guest bytes that are stored the same way.
type Extent struct {
	// Off and Len are guest bytes.
	Off, Len int64
	Kind     Kind
	// Storage holds the bytes of a Data extent at Host; all Data extents of one
	// Depth have the same.
	Storage io.ReaderAt
	// Host is where the extent begins in Storage, where HasHost is set: for
	// Data always; for Zero and Absent where a cluster is allocated all the
	// same, whose content does not count.
	Host    HostOffset
	HasHost bool
	// Depth is the layer that decided: 0 is the disk itself, 1 the one below.
	// For Absent it is the lowest layer that was asked.
	Depth int
}

// End is the guest offset of the first byte after e.
func (e Extent) End() int64 { return e.Off + e.Len }

// follows reports that b continues a: one extent can describe both.
func (a Extent) follows(b Extent) bool {
	if a.Kind != b.Kind || a.Depth != b.Depth || a.Off+a.Len != b.Off || a.HasHost != b.HasHost {
		return false
	}
	return !a.HasHost || a.Host+HostOffset(a.Len) == b.Host
}

// Slice returns the part of e that lies in [off, end); it must not be empty.
func (e Extent) Slice(off, end int64) Extent {
	if off > e.Off {
		if e.HasHost {
			e.Host += HostOffset(off - e.Off)
		}
		e.Len -= off - e.Off
		e.Off = off
	}
	if e.End() > end {
		e.Len = end - e.Off
	}
	return e
}
