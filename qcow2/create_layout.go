package qcow2

import (
	"errors"
	"fmt"
	"math/bits"
)

// DefaultClusterSize is qemu-img's, in bytes.
const DefaultClusterSize = 64 << 10

// Defaults and bounds of a Layout.
const (
	defaultVersion      = 3
	defaultRefcountBits = 16
	maxRefcountOrder    = 6
	minExtendedL2Bits   = 14
)

// A Layout says what image to create. The zero value of all but Size is what
// qemu-img makes when nothing is asked for: version 3, 16-bit refcounts, no
// backing file.
type Layout struct {
	Size          int64           // bytes of the virtual disk
	ClusterSize   int64           // bytes, a power of two from 512 to 2 MiB; 0: DefaultClusterSize
	Version       int             // 2 or 3; 0: 3
	RefcountBits  int             // 1, 2, 4, 8, 16, 32 or 64; 0: 16, the only width of version 2
	ExtendedL2    bool            // L2 entries of 16 bytes with 32 subclusters: version 3, clusters from 16 KiB
	LazyRefcounts bool            // only the header bit, for QEMU: what a Writer leaves is always right
	Compression   CompressionType // of compressed clusters; zstd needs version 3
	Backing       *Ref            // written into the header with its format, never opened; nil: none
	DataFile      *DataFileLayout // where guest bytes are kept; nil: in the image

	// Sparse says that what is not written means something, as in an increment or
	// an overlay: Zero then marks zero clusters. Otherwise what is not written
	// reads as zero, and Zero does nothing. With Backing it is always true.
	Sparse bool

	Preallocation Preallocation
}

// A DataFileLayout is an external data file: every guest byte stands in it where
// it stands on the disk. QEMU 7.2 takes a relative name from the folder that it
// runs in, and not, as that of a backing file, from the folder of the image.
type DataFileLayout struct {
	File File   // holds the guest bytes; what is in it is cut away
	Name string // for the header
	Raw  bool   // the file is also a raw disk by itself (data_file_raw): all is allocated; no Sparse, no Backing
}

// Preallocation says what is allocated before the guest writes.
type Preallocation uint8

// The preallocations, as qemu-img names them.
const (
	PreallocationOff      Preallocation = iota // nothing
	PreallocationMetadata                      // all tables and clusters; the file has holes
	PreallocationFalloc                        // and space on the filesystem
	PreallocationFull                          // and zeros written everywhere
)

var preallocationNames = [...]string{"off", "metadata", "falloc", "full"}

func (p Preallocation) String() string {
	if int(p) < len(preallocationNames) {
		return preallocationNames[p]
	}
	return fmt.Sprintf("preallocation %d", uint8(p))
}

// geometry checks the shape of the tables.
func (l *Layout) geometry() (Geometry, error) {
	g := Geometry{ClusterBits: uint32(bits.TrailingZeros64(uint64(l.ClusterSize))), Version: uint32(l.Version),
		RefcountOrder: uint32(bits.TrailingZeros64(uint64(l.RefcountBits))), ExtendedL2: l.ExtendedL2}
	switch {
	case l.Version != 2 && l.Version != 3:
		return g, fmt.Errorf("version %d: must be 2 or 3", l.Version)
	case g.ClusterBits < minClusterBits || g.ClusterBits > maxClusterBits || g.ClusterSize() != l.ClusterSize:
		return g, fmt.Errorf("cluster size %d: must be a power of two from 512 bytes to 2 MiB", l.ClusterSize)
	case g.RefcountOrder > maxRefcountOrder || g.RefcountBits() != l.RefcountBits:
		return g, fmt.Errorf("refcounts of %d bits: must be a power of two from 1 to 64", l.RefcountBits)
	case l.ExtendedL2 && g.ClusterBits < minExtendedL2Bits:
		return g, fmt.Errorf("clusters of %d bytes: extended L2 entries need clusters of at least %d", l.ClusterSize, 1<<minExtendedL2Bits)
	case l.Size < 0 || g.l1EntriesFor(uint64(l.Size)) > maxL1Bytes/8:
		return g, fmt.Errorf("a disk of %d bytes is too large for clusters of %d bytes", l.Size, l.ClusterSize)
	}
	return g, nil
}

// Validate says why Create would not make such an image, or nil. The file of
// DataFile may still be missing.
func (l Layout) Validate() error {
	_, err := l.plan()
	return err
}

// plan checks a layout and has its defaults filled in; the result is the Writer of
// an image of which nothing is there yet.
func (l Layout) plan() (*Writer, error) {
	l.setDefaults()
	g, err := l.geometry()
	if err != nil {
		return nil, err
	}
	if err := l.validate(); err != nil {
		return nil, err
	}
	w := &Writer{layout: l, geometry: g, size: l.Size, budget: l2TableBudget}
	_, err = w.firstCluster(w.header(), nil)
	return w, err
}

// validate checks all but the shape of the tables and the room for the header.
func (l *Layout) validate() error {
	for _, rule := range []func() error{l.validateVersion, l.validateBacking, l.validateDataFile, l.validatePreallocation} {
		if err := rule(); err != nil {
			return err
		}
	}
	return nil
}

// validateVersion checks what version 2 does not know.
func (l *Layout) validateVersion() error {
	if l.Compression > CompressionZstd {
		return fmt.Errorf("%s: must be zlib or zstd", l.Compression)
	}
	if l.Version >= 3 {
		return nil
	}
	for _, f := range []struct {
		asked bool
		name  string
	}{
		{l.RefcountBits != defaultRefcountBits, fmt.Sprintf("refcounts of %d bits", l.RefcountBits)},
		{l.ExtendedL2, "extended L2 entries"},
		{l.LazyRefcounts, "lazy refcounts"},
		{l.Compression != CompressionZlib, "compression with " + l.Compression.String()},
		{l.DataFile != nil, "an external data file"},
	} {
		if f.asked {
			return fmt.Errorf("%s: version 2 does not know it, version 3 is needed", f.name)
		}
	}
	return nil
}

func (l *Layout) validateBacking() error {
	switch b := l.Backing; {
	case b == nil:
	case b.Name == "" || len(b.Name) > maxBackingFileName:
		return fmt.Errorf("the name of a backing file must have 1 to %d bytes, %.40q has %d", maxBackingFileName, b.Name, len(b.Name))
	case b.Format == "":
		return fmt.Errorf("backing file %.1023q: its format must be said, or readers have to guess it", b.Name)
	case l.DataFile != nil && l.DataFile.Raw:
		return errors.New("an image with a raw external data file must not have a backing file")
	}
	return nil
}

func (l *Layout) validateDataFile() error {
	switch d := l.DataFile; {
	case d == nil:
	case d.Name == "":
		return errors.New("an external data file needs a name")
	case d.Raw && l.Sparse:
		return errors.New("a raw external data file holds the whole disk: nothing in such an image can be absent")
	}
	return nil
}

// validatePreallocation checks that what is to be allocated may be. Extended L2
// entries can say of an allocated cluster that it is absent.
func (l *Layout) validatePreallocation() error {
	switch {
	case int(l.Preallocation) >= len(preallocationNames):
		return fmt.Errorf("%s: must be off, metadata, falloc or full", l.Preallocation)
	case l.Preallocation == PreallocationOff || l.ExtendedL2:
	case l.Backing != nil:
		return errors.New("a backing file and preallocation exclude each other without extended L2 entries")
	case l.Sparse:
		return errors.New("preallocation leaves nothing absent, as a sparse image has to, without extended L2 entries")
	}
	return nil
}

// WithDefaults is the layout with all that is left open filled in, as Create
// understands it.
func (l Layout) WithDefaults() Layout {
	l.setDefaults()
	return l
}

// setDefaults replaces what is left open.
func (l *Layout) setDefaults() {
	if l.ClusterSize == 0 {
		l.ClusterSize = DefaultClusterSize
	}
	if l.Version == 0 {
		l.Version = defaultVersion
	}
	if l.RefcountBits == 0 {
		l.RefcountBits = defaultRefcountBits
	}
	l.Sparse = l.Sparse || l.Backing != nil
	if l.DataFile != nil && l.DataFile.Raw && l.Preallocation == PreallocationOff {
		// What somebody writes into the raw file has to be seen through the image.
		l.Preallocation = PreallocationMetadata
	}
}
