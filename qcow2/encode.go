package qcow2

import "encoding/binary"

// appendHeader appends the header, additional fields included, as decodeHeader
// reads it.
func appendHeader(b []byte, h *Header) []byte {
	start := len(b)
	b = appendHeaderV2(b, h)
	if h.Version == 2 {
		return b
	}
	b = binary.BigEndian.AppendUint64(b, h.IncompatibleFeatures)
	b = binary.BigEndian.AppendUint64(b, h.CompatibleFeatures)
	b = binary.BigEndian.AppendUint64(b, h.AutoclearFeatures)
	b = binary.BigEndian.AppendUint32(b, h.RefcountOrder)
	b = binary.BigEndian.AppendUint32(b, h.HeaderLength)
	if h.HeaderLength > compressionOffset {
		b = append(b, byte(h.CompressionType), 0, 0, 0, 0, 0, 0, 0)
	}
	if h.HeaderLength > headerLengthFull {
		b = append(b, h.Additional...)
	}
	return b[:start+int(h.HeaderLength)]
}

func appendHeaderV2(b []byte, h *Header) []byte {
	b = binary.BigEndian.AppendUint32(b, magic)
	b = binary.BigEndian.AppendUint32(b, h.Version)
	b = binary.BigEndian.AppendUint64(b, uint64(h.BackingFileOffset))
	b = binary.BigEndian.AppendUint32(b, h.BackingFileSize)
	b = binary.BigEndian.AppendUint32(b, h.ClusterBits)
	b = binary.BigEndian.AppendUint64(b, h.Size)
	b = binary.BigEndian.AppendUint32(b, uint32(h.CryptMethod))
	b = binary.BigEndian.AppendUint32(b, h.L1Size)
	b = binary.BigEndian.AppendUint64(b, uint64(h.L1TableOffset))
	b = binary.BigEndian.AppendUint64(b, uint64(h.RefcountTableOffset))
	b = binary.BigEndian.AppendUint32(b, h.RefcountTableClusters)
	b = binary.BigEndian.AppendUint32(b, h.NbSnapshots)
	return binary.BigEndian.AppendUint64(b, uint64(h.SnapshotsOffset))
}

// appendExtension appends a header extension with its padding.
func appendExtension(b []byte, typ uint32, data []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, typ)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	b = append(b, data...)
	return append(b, make([]byte, alignUp(len(data), 8)-len(data))...)
}

// ourFeatureNames names every feature bit of the specification.
var ourFeatureNames = []FeatureName{
	{FeatureIncompatible, 0, "dirty bit"},
	{FeatureIncompatible, 1, "corrupt bit"},
	{FeatureIncompatible, 2, "external data file"},
	{FeatureIncompatible, 3, "compression type"},
	{FeatureIncompatible, 4, "extended L2 entries"},
	{FeatureCompatible, 0, "lazy refcounts"},
	{FeatureAutoclear, 0, "bitmaps"},
	{FeatureAutoclear, 1, "raw external data"},
}

func appendFeatureNames(b []byte, names []FeatureName) []byte {
	for _, n := range names {
		var entry [featureNameLength]byte
		entry[0], entry[1] = n.Kind, n.Bit
		copy(entry[2:], n.Name)
		b = append(b, entry[:]...)
	}
	return b
}
