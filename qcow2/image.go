package qcow2

import (
	"fmt"
	"io"
	"iter"
)

// Options says how to open an image. The zero value opens a stand-alone image
// and touches no file but the one given.
type Options struct {
	// OpenRef opens a backing file or an external data file. Where it is nil,
	// or gives (nil, nil), the reference stays closed: the image opens, and
	// reading bytes that live there is a *RefError. Its error fails Open.
	OpenRef func(Ref) (Disk, error)

	// TableCache is how many bytes of L1 and L2 tables are kept; 0 means
	// 256 KiB, which is right for reading in order.
	TableCache int

	// Limits bound what the image can make us read and follow; the zero value
	// has safe defaults.
	Limits Limits
}

// An Image is a qcow2 image that was opened for reading; as a Disk it is the
// active state of the guest's disk. It may be used from several goroutines and
// does not own the reader that it was opened on.
type Image struct {
	r          io.ReaderAt
	size       int64
	header     Header
	geometry   Geometry
	extensions []Extension
	limits     Limits // with the defaults

	backingRef  *Ref
	backing     Disk
	dataFile    *Ref
	storage     io.ReaderAt // of data clusters; nil while a data file is closed
	storageSize int64

	tables   *tableCache
	clusters *clusterReader
	active   view
}

// Open opens the image in r, a file of size bytes, for reading. It reads the
// first cluster only, and OpenRef's files.
//
// Errors: ErrNotQcow2; *FormatError where the header breaks the format;
// *UnsupportedError for a feature that this package does not read, named from
// the image's own feature name table. An encrypted image opens; reading its
// guest bytes is an *UnsupportedError.
func Open(r io.ReaderAt, size int64, opts *Options) (*Image, error) {
	if opts == nil {
		opts = &Options{}
	}
	img := &Image{r: r, size: size, limits: opts.Limits.WithDefaults()}
	first, err := img.loadHeader()
	if err != nil {
		return nil, err
	}
	if err := img.assemble(first, opts); err != nil {
		return nil, err
	}
	return img, nil
}

// assemble makes an image of its header and extensions; first is the first cluster.
func (img *Image) assemble(first []byte, opts *Options) error {
	img.geometry = img.header.Geometry()
	img.decodeRefs(first)
	cache := opts.TableCache
	if cache == 0 {
		cache = defaultTableCache
	}
	img.tables = newTableCache(img.r, cache)
	img.clusters = &clusterReader{r: img.r, size: img.size, geometry: img.geometry, method: img.header.CompressionType,
		window: img.limits.ZstdWindow}
	img.active = view{img: img, l1: img.header.L1TableOffset, l1Size: int64(img.header.L1Size), size: int64(img.header.Size)}
	return img.openRefs(opts.OpenRef)
}

// loadHeader reads and checks the header and its extensions; the result is the
// first cluster, or what the file has of it.
func (img *Image) loadHeader() ([]byte, error) {
	start, err := readUpTo(img.r, min(headerLengthV2, img.size))
	if err != nil {
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	first, err := readUpTo(img.r, min(firstClusterSize(start), img.size))
	if err != nil {
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	if img.header, err = decodeHeader(first); err != nil {
		return nil, err
	}
	return first, img.loadExtensions(first)
}

func (img *Image) loadExtensions(first []byte) error {
	h := &img.header
	end := len(first)
	if h.BackingFileOffset != 0 {
		end = int(min(h.BackingFileOffset, HostOffset(len(first))))
	}
	exts, err := decodeExtensions(first, int(h.HeaderLength), end, &img.limits)
	img.extensions = exts
	if bit := h.unknownIncompat(); bit >= 0 {
		return &UnsupportedError{Feature: featureName(img.FeatureNames(), FeatureIncompatible, bit)}
	}
	if invalid := h.validate(img.size, &img.limits); invalid != nil {
		return invalid
	}
	if err != nil {
		return err
	}
	if err := validateExtensions(exts); err != nil {
		return err
	}
	return h.validateEncryption(exts)
}

// readUpTo reads the first n bytes, or fewer where the reader ends early.
func readUpTo(r io.ReaderAt, n int64) ([]byte, error) {
	b := make([]byte, max(n, 0))
	got, err := r.ReadAt(b, 0)
	if got == len(b) || err == io.EOF {
		err = nil
	}
	return b[:got], err
}

// Header is the decoded header.
func (img *Image) Header() Header { return img.header }

// Geometry is the shape of the image's tables.
func (img *Image) Geometry() Geometry { return img.geometry }

// Extensions are the header extensions in their order, byte for byte.
func (img *Image) Extensions() []Extension { return img.extensions }

// Limits are those that the image was opened with, with the defaults filled in.
func (img *Image) Limits() Limits { return img.limits }

// FeatureNames is the image's feature name table; nil without one.
func (img *Image) FeatureNames() []FeatureName {
	if e := findExtension(img.extensions, ExtFeatureNames); e != nil {
		return decodeFeatureNames(e.Data, &img.limits)
	}
	return nil
}

// Dirty is the dirty bit: refcounts may be wrong, the guest's data is not.
func (img *Image) Dirty() bool { return img.header.IncompatibleFeatures&IncompatDirty != 0 }

// Corrupt is the corrupt bit: a program found the image broken. Any structure
// may be wrong.
func (img *Image) Corrupt() bool { return img.header.IncompatibleFeatures&IncompatCorrupt != 0 }

// LazyRefcounts is the lazy refcounts bit.
func (img *Image) LazyRefcounts() bool {
	return img.header.CompatibleFeatures&CompatLazyRefcounts != 0
}

// CompressionType is how compressed clusters are compressed: "zlib" or "zstd".
func (img *Image) CompressionType() string { return img.header.CompressionType.String() }

// Encryption is the encryption method: "aes", "luks", or "" for none.
func (img *Image) Encryption() string { return img.header.CryptMethod.String() }

// Size implements Disk.
func (img *Image) Size() int64 { return img.active.Size() }

// ReadAt implements Disk.
func (img *Image) ReadAt(p []byte, off int64) (int, error) { return img.active.ReadAt(p, off) }

// Extents implements Disk.
func (img *Image) Extents(off, n int64) iter.Seq2[Extent, error] { return img.active.Extents(off, n) }

var _ Disk = (*Image)(nil)
