package qcow2

import (
	"encoding/binary"
	"fmt"
	"math"
)

const magic = 0x514649fb // "QFI\xfb"

// Lengths of the header structure: section "Header".
const (
	headerLengthV2    = 72
	headerLengthV3    = 104 // the least that version 3 allows
	headerLengthFull  = 112 // with compression_type and its padding
	compressionOffset = 104
)

// Bits of incompatible_features, compatible_features and autoclear_features.
const (
	IncompatDirty       = 1 << 0
	IncompatCorrupt     = 1 << 1
	IncompatDataFile    = 1 << 2
	IncompatCompression = 1 << 3
	IncompatExtendedL2  = 1 << 4

	CompatLazyRefcounts = 1 << 0

	AutoclearBitmaps = 1 << 0
	AutoclearRawData = 1 << 1

	knownIncompat = IncompatDirty | IncompatCorrupt | IncompatDataFile |
		IncompatCompression | IncompatExtendedL2
)

// Limits that QEMU 7.2 puts on fields whose range the format leaves open. For what
// is read they are defaults, see Limits; what is written never goes beyond them.
const (
	minClusterBits     = 9
	maxClusterBits     = 21
	maxL1Bytes         = 32 << 20
	maxRefTableBytes   = 8 << 20
	maxSnapshots       = 65536
	maxBackingFileName = 1023
)

// CryptMethod is the header's crypt_method.
type CryptMethod uint32

// The encryption methods of the section "Header".
const (
	CryptNone CryptMethod = 0
	CryptAES  CryptMethod = 1
	CryptLUKS CryptMethod = 2
)

func (m CryptMethod) String() string {
	switch m {
	case CryptNone:
		return ""
	case CryptAES:
		return "aes"
	case CryptLUKS:
		return "luks"
	}
	return fmt.Sprintf("crypt_method %d", uint32(m))
}

// CompressionType is the header's compression_type.
type CompressionType uint8

// The compression types of the section "Additional fields".
const (
	CompressionZlib CompressionType = 0
	CompressionZstd CompressionType = 1
)

func (t CompressionType) String() string {
	switch t {
	case CompressionZlib:
		return "zlib"
	case CompressionZstd:
		return "zstd"
	}
	return fmt.Sprintf("compression_type %d", uint8(t))
}

// Header is the image header; fields are named as in the section "Header".
// For version 2 the later fields hold what that version always means.
type Header struct {
	Version               uint32
	BackingFileOffset     HostOffset
	BackingFileSize       uint32
	ClusterBits           uint32
	Size                  uint64 // bytes of the virtual disk
	CryptMethod           CryptMethod
	L1Size                uint32 // entries
	L1TableOffset         HostOffset
	RefcountTableOffset   HostOffset
	RefcountTableClusters uint32
	NbSnapshots           uint32
	SnapshotsOffset       HostOffset

	IncompatibleFeatures uint64
	CompatibleFeatures   uint64
	AutoclearFeatures    uint64
	RefcountOrder        uint32
	HeaderLength         uint32
	CompressionType      CompressionType

	// Additional holds what stands after byte 112, up to HeaderLength: fields
	// of versions to come, kept as they are.
	Additional []byte
}

// Geometry is the part of the header that the shape of all tables follows from.
func (h *Header) Geometry() Geometry {
	return Geometry{
		ClusterBits:   h.ClusterBits,
		RefcountOrder: h.RefcountOrder,
		ExtendedL2:    h.IncompatibleFeatures&IncompatExtendedL2 != 0,
		Version:       h.Version,
	}
}

func headerError(field string, at int, value uint64, format string, args ...any) error {
	return &FormatError{Structure: "header", Field: field, Host: HostOffset(at), Value: value,
		Msg: fmt.Sprintf(format, args...)}
}

// firstClusterSize is the size of the first cluster, from the first bytes of a
// file; where they cannot say it, enough for decodeHeader to say why.
func firstClusterSize(b []byte) int64 {
	if len(b) >= 24 && binary.BigEndian.Uint32(b) == magic {
		if bits := binary.BigEndian.Uint32(b[20:]); bits >= minClusterBits && bits <= maxClusterBits {
			return 1 << bits
		}
	}
	return 1 << minClusterBits
}

// decodeHeader decodes the fixed part of the header from the first bytes of a
// file and checks what must hold before anything else can be read: magic,
// version, lengths. The other rules are validate's.
func decodeHeader(b []byte) (Header, error) {
	if len(b) < 4 || binary.BigEndian.Uint32(b) != magic {
		return Header{}, ErrNotQcow2
	}
	if len(b) < 8 {
		return Header{}, headerError("version", 4, uint64(len(b)), "the file ends inside the header")
	}
	version := binary.BigEndian.Uint32(b[4:])
	if version != 2 && version != 3 {
		return Header{}, &UnsupportedError{Feature: fmt.Sprintf("qcow version %d", version)}
	}
	if len(b) < headerLengthV2 || version == 3 && len(b) < headerLengthV3 {
		return Header{}, headerError("header_length", 0, uint64(len(b)), "the file ends inside the header")
	}
	h := decodeHeaderV2(b)
	if h.ClusterBits < minClusterBits || h.ClusterBits > maxClusterBits {
		return Header{}, headerError("cluster_bits", 20, uint64(h.ClusterBits), "must be from 9 to 21")
	}
	if version == 2 {
		h.RefcountOrder, h.HeaderLength = 4, headerLengthV2
	} else if err := h.decodeV3(b); err != nil {
		return Header{}, err
	}
	return h, nil
}

func decodeHeaderV2(b []byte) Header {
	c := cursor{b: b, off: 4}
	return Header{
		Version:               c.u32(),
		BackingFileOffset:     HostOffset(c.u64()),
		BackingFileSize:       c.u32(),
		ClusterBits:           c.u32(),
		Size:                  c.u64(),
		CryptMethod:           CryptMethod(c.u32()),
		L1Size:                c.u32(),
		L1TableOffset:         HostOffset(c.u64()),
		RefcountTableOffset:   HostOffset(c.u64()),
		RefcountTableClusters: c.u32(),
		NbSnapshots:           c.u32(),
		SnapshotsOffset:       HostOffset(c.u64()),
	}
}

func (h *Header) decodeV3(b []byte) error {
	c := cursor{b: b, off: headerLengthV2}
	h.IncompatibleFeatures = c.u64()
	h.CompatibleFeatures = c.u64()
	h.AutoclearFeatures = c.u64()
	h.RefcountOrder = c.u32()
	h.HeaderLength = c.u32()
	if h.HeaderLength < headerLengthV3 {
		return headerError("header_length", 100, uint64(h.HeaderLength), "must be at least 104 in version 3")
	}
	if h.HeaderLength%8 != 0 {
		return headerError("header_length", 100, uint64(h.HeaderLength), "must be a multiple of 8")
	}
	if int64(h.HeaderLength) > int64(1)<<h.ClusterBits {
		return headerError("header_length", 100, uint64(h.HeaderLength),
			"must not be longer than a cluster (%d bytes)", 1<<h.ClusterBits)
	}
	if int64(h.HeaderLength) > int64(len(b)) {
		return headerError("header_length", 100, uint64(h.HeaderLength), "the file ends inside the header")
	}
	if h.HeaderLength > compressionOffset {
		h.CompressionType = CompressionType(c.u8())
	}
	if h.HeaderLength > headerLengthFull {
		h.Additional = append([]byte(nil), b[headerLengthFull:h.HeaderLength]...)
	}
	return nil
}

// unknownIncompat is the lowest incompatible feature bit that this package
// does not know, or -1.
func (h *Header) unknownIncompat() int {
	unknown := h.IncompatibleFeatures &^ knownIncompat
	for bit := range 64 {
		if unknown&(1<<bit) != 0 {
			return bit
		}
	}
	return -1
}

// validate checks every rule of the section "Header" that a single field or
// two can break. fileSize is the size of the image file in bytes.
func (h *Header) validate(fileSize int64, limits *Limits) error {
	for _, rule := range []func(int64, *Limits) error{
		h.validateFeatures, h.validateRefcounts, h.validateL1, h.validateBackingFile,
	} {
		if err := rule(fileSize, limits); err != nil {
			return err
		}
	}
	return nil
}

func (h *Header) validateFeatures(int64, *Limits) error {
	if h.CryptMethod > CryptLUKS {
		return &UnsupportedError{Feature: "encryption with " + h.CryptMethod.String()}
	}
	if h.CompressionType > CompressionZstd {
		return &UnsupportedError{Feature: h.CompressionType.String()}
	}
	flagged := h.IncompatibleFeatures&IncompatCompression != 0
	if flagged != (h.CompressionType != CompressionZlib) {
		return headerError("compression_type", compressionOffset, uint64(h.CompressionType),
			"must be nonzero if and only if the compression type bit is set")
	}
	if h.Geometry().ExtendedL2 && h.ClusterBits < 14 {
		return headerError("cluster_bits", 20, uint64(h.ClusterBits), "must be at least 14 with extended L2 entries")
	}
	rawData := h.IncompatibleFeatures&IncompatDataFile != 0 && h.AutoclearFeatures&AutoclearRawData != 0
	if rawData && h.BackingFileOffset != 0 {
		return headerError("backing_file_offset", 8, uint64(h.BackingFileOffset),
			"an image with a raw external data file must not have a backing file")
	}
	return nil
}

func (h *Header) validateRefcounts(_ int64, limits *Limits) error {
	if h.RefcountOrder > 6 {
		return headerError("refcount_order", 96, uint64(h.RefcountOrder), "must not exceed 6")
	}
	if !h.Geometry().aligned(h.RefcountTableOffset) {
		return headerError("refcount_table_offset", 48, uint64(h.RefcountTableOffset), "must be aligned to a cluster")
	}
	if most := limits.RefcountTableBytes; uint64(h.RefcountTableClusters)<<h.ClusterBits > uint64(most) {
		return limitError("refcount-table-bytes", most, headerError("refcount_table_clusters", 56, uint64(h.RefcountTableClusters),
			"the refcount table must not be larger than %d bytes", most))
	}
	return nil
}

func (h *Header) validateL1(fileSize int64, limits *Limits) error {
	g := h.Geometry()
	most := limits.L1Bytes
	if h.Size > math.MaxInt64 {
		return headerError("size", 24, h.Size, "must not exceed %d", int64(math.MaxInt64))
	}
	if g.l1EntriesFor(h.Size) > uint64(most)/8 {
		return limitError("l1-bytes", most, headerError("size", 24, h.Size, "too large: the L1 table would exceed %d bytes", most))
	}
	if uint64(h.L1Size)*8 > uint64(most) {
		return limitError("l1-bytes", most, headerError("l1_size", 36, uint64(h.L1Size), "the L1 table must not be larger than %d bytes", most))
	}
	if need := g.l1EntriesFor(h.Size); uint64(h.L1Size) < need {
		return headerError("l1_size", 36, uint64(h.L1Size), "a disk of %d bytes needs %d entries", h.Size, need)
	}
	if !g.aligned(h.L1TableOffset) {
		return headerError("l1_table_offset", 40, uint64(h.L1TableOffset), "must be aligned to a cluster")
	}
	if h.L1Size > 0 && h.L1TableOffset == 0 {
		return headerError("l1_table_offset", 40, 0, "must not be 0, where the header is")
	}
	if h.L1Size > 0 && !within(h.L1TableOffset, uint64(h.L1Size)*8, fileSize) {
		return headerError("l1_table_offset", 40, uint64(h.L1TableOffset),
			"the L1 table (%d bytes) reaches beyond the end of the file (%d bytes)", uint64(h.L1Size)*8, fileSize)
	}
	return nil
}

func (h *Header) validateBackingFile(fileSize int64, _ *Limits) error {
	if h.BackingFileOffset == 0 {
		return nil
	}
	cluster := HostOffset(h.Geometry().ClusterSize())
	if h.BackingFileOffset < HostOffset(h.HeaderLength) || h.BackingFileOffset >= cluster {
		return headerError("backing_file_offset", 8, uint64(h.BackingFileOffset),
			"must lie after the header (%d bytes) in the first cluster (%d bytes)", h.HeaderLength, uint64(cluster))
	}
	if h.BackingFileSize > maxBackingFileName {
		return headerError("backing_file_size", 16, uint64(h.BackingFileSize), "must not exceed %d", maxBackingFileName)
	}
	if h.BackingFileOffset+HostOffset(h.BackingFileSize) > cluster {
		return headerError("backing_file_size", 16, uint64(h.BackingFileSize), "the name must end in the first cluster")
	}
	if !within(h.BackingFileOffset, uint64(h.BackingFileSize), fileSize) {
		return headerError("backing_file_offset", 8, uint64(h.BackingFileOffset), "the name reaches beyond the end of the file (%d bytes)", fileSize)
	}
	return nil
}

// within reports that [off, off+n) lies in a file of size bytes.
func within(off HostOffset, n uint64, size int64) bool {
	return uint64(off) <= uint64(size) && n <= uint64(size)-uint64(off)
}
