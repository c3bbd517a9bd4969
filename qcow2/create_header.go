package qcow2

import "fmt"

// header is the header of the layout, without the places of the tables.
func (w *Writer) header() *Header {
	l := &w.layout
	h := &Header{Version: w.geometry.Version, ClusterBits: w.geometry.ClusterBits, Size: uint64(w.size), L1Size: uint32(w.l1Size()),
		RefcountOrder: w.geometry.RefcountOrder, HeaderLength: headerLengthFull, CompressionType: l.Compression}
	if h.Version == 2 {
		h.HeaderLength = headerLengthV2
	}
	for _, f := range []struct {
		asked bool
		field *uint64
		bit   uint64
	}{
		{l.ExtendedL2, &h.IncompatibleFeatures, IncompatExtendedL2},
		{l.Compression != CompressionZlib, &h.IncompatibleFeatures, IncompatCompression},
		{l.DataFile != nil, &h.IncompatibleFeatures, IncompatDataFile},
		{l.LazyRefcounts, &h.CompatibleFeatures, CompatLazyRefcounts},
		{l.DataFile != nil && l.DataFile.Raw, &h.AutoclearFeatures, AutoclearRawData},
	} {
		if f.asked {
			*f.field |= f.bit
		}
	}
	return h
}

// firstCluster is the header, its extensions, and the name of the backing file.
// The bitmaps extension, of which that is the data, comes first: it has to lie in
// the first sector (docs/crash-safety.md). The feature name table only serves
// messages, and is left out where there is no room for it.
func (w *Writer) firstCluster(h *Header, bitmaps []byte) ([]byte, error) {
	var exts []byte
	if bitmaps != nil {
		h.AutoclearFeatures |= AutoclearBitmaps
		exts = appendExtension(exts, ExtBitmaps, bitmaps)
	}
	name := ""
	if w.layout.Backing != nil {
		name = w.layout.Backing.Name
		exts = appendExtension(exts, ExtBackingFormat, []byte(w.layout.Backing.Format))
	}
	if w.layout.DataFile != nil {
		exts = appendExtension(exts, ExtDataFile, []byte(w.layout.DataFile.Name))
	}
	rest := int64(h.HeaderLength) + int64(len(exts)) + 8 + int64(len(name))
	if rest > w.geometry.ClusterSize() {
		return nil, fmt.Errorf("the header, with the names of the backing file and the data file, takes %d bytes and must fit into one cluster: larger clusters than %d bytes are needed, or shorter names",
			rest, w.geometry.ClusterSize())
	}
	if names := appendFeatureNames(nil, ourFeatureNames); h.Version >= 3 && rest+8+int64(len(names)) <= w.geometry.ClusterSize() {
		exts = appendExtension(exts, ExtFeatureNames, names)
	}
	exts = appendExtension(exts, extEnd, nil)
	if name != "" {
		h.BackingFileOffset = HostOffset(int(h.HeaderLength) + len(exts))
		h.BackingFileSize = uint32(len(name))
	}
	return append(append(appendHeader(nil, h), exts...), name...), nil
}
