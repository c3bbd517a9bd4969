package build

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Types of header extensions.
const (
	ExtEnd           = 0
	ExtBackingFormat = 0xe2792aca
	ExtFeatureNames  = 0x6803f857
	ExtBitmaps       = 0x23852875
	ExtEncryption    = 0x0537be77
	ExtDataFile      = 0x44415441
)

const magic = 0x514649fb

// writeHeader writes the first cluster: header, extensions, backing name.
func (b *builder) writeHeader() error {
	b.lay.note(0, int64(b.s.HeaderLength), "header")
	b.headerFields2()
	if b.s.Version >= 3 {
		b.headerFields3()
	}
	pos, err := b.writeExtensions(uint64(b.s.HeaderLength))
	if err != nil || b.s.Backing == "" {
		return err
	}
	n := uint64(len(b.s.Backing))
	if pos+n > b.cs {
		return fmt.Errorf("no room for a backing name of %d bytes", n)
	}
	copy(b.buf[pos:], b.s.Backing)
	b.lay.note(int64(pos), int64(n), "backing_name")
	b.put(8, 8, pos, "header.backing_file_offset")
	b.put(16, 4, n, "header.backing_file_size")
	return nil
}

func (b *builder) headerFields2() {
	f := func(off uint64, n int64, v uint64, name string) { b.put(off, n, v, "header.%s", name) }
	f(0, 4, magic, "magic")
	f(4, 4, uint64(b.s.Version), "version")
	f(8, 8, 0, "backing_file_offset")
	f(16, 4, 0, "backing_file_size")
	f(20, 4, uint64(b.s.ClusterBits), "cluster_bits")
	f(24, 8, b.s.Size, "size")
	f(32, 4, uint64(b.s.CryptMethod), "crypt_method")
	f(36, 4, b.views[0].l1n, "l1_size")
	f(40, 8, b.views[0].l1, "l1_table_offset")
	f(48, 8, b.cs, "refcount_table_offset")
	f(56, 4, b.tables, "refcount_table_clusters")
	f(60, 4, uint64(len(b.s.Snapshots)), "nb_snapshots")
	f(64, 8, b.snaps, "snapshots_offset")
}

func (b *builder) headerFields3() {
	f := func(off uint64, n int64, v uint64, name string) { b.put(off, n, v, "header.%s", name) }
	f(72, 8, b.incompatible(), "incompatible_features")
	f(80, 8, b.s.Compatible, "compatible_features")
	f(88, 8, b.autoclear(), "autoclear_features")
	f(96, 4, uint64(bits.TrailingZeros(uint(b.s.RefcountBits))), "refcount_order")
	f(100, 4, uint64(b.s.HeaderLength), "header_length")
	if b.s.HeaderLength > 104 {
		f(104, 1, boolBit(b.s.Zstd, 1), "compression_type")
		b.lay.note(105, 7, "header.padding")
		copy(b.buf[112:b.s.HeaderLength], b.s.HeaderTail)
	}
}

func boolBit(on bool, bit uint64) uint64 {
	if on {
		return bit
	}
	return 0
}

func (b *builder) incompatible() uint64 {
	return b.s.Incompatible | boolBit(b.s.DataFile != nil, externalData) |
		boolBit(b.s.Zstd, compressionType) | boolBit(b.s.ExtendedL2, extendedL2)
}

func (b *builder) autoclear() uint64 {
	return b.s.Autoclear | boolBit(len(b.s.Bitmaps) > 0 && !b.s.StaleBitmaps, bitmapsBit) |
		boolBit(b.s.DataFile != nil && b.s.DataFile.Raw, rawDataBit)
}

// extensions in the order in which they are written.
func (b *builder) extensions() []Extension {
	var all []Extension
	if b.s.BackingFormat != "" {
		all = append(all, Extension{ExtBackingFormat, []byte(b.s.BackingFormat)})
	}
	if d := b.s.DataFile; d != nil && d.Name != "" {
		all = append(all, Extension{ExtDataFile, []byte(d.Name)})
	}
	if b.s.CryptMethod == 2 {
		data := binary.BigEndian.AppendUint64(nil, b.luks)
		all = append(all, Extension{ExtEncryption, binary.BigEndian.AppendUint64(data, b.cs)})
	}
	if len(b.s.FeatureNames) > 0 {
		all = append(all, Extension{ExtFeatureNames, featureTable(b.s.FeatureNames)})
	}
	if len(b.s.Bitmaps) > 0 {
		all = append(all, Extension{ExtBitmaps, b.bitmapsExtension()})
	}
	return append(all, b.s.Extensions...)
}

func featureTable(features []Feature) []byte {
	var t []byte
	for _, f := range features {
		entry := make([]byte, 48)
		entry[0], entry[1] = f.Kind, f.Bit
		copy(entry[2:], f.Name)
		t = append(t, entry...)
	}
	return t
}

// writeExtensions returns where the free space of the first cluster begins.
func (b *builder) writeExtensions(pos uint64) (uint64, error) {
	for i, e := range b.extensions() {
		n := uint64(len(e.Data))
		end := pos + 8 + ceilDiv(n, 8)*8
		if end > b.cs {
			return 0, fmt.Errorf("no room for header extension %d of %d bytes", i, n)
		}
		b.lay.note(int64(pos), int64(end-pos), "extension[%d]", i)
		b.put(pos, 4, uint64(e.Type), "extension[%d].type", i)
		b.put(pos+4, 4, n, "extension[%d].length", i)
		b.lay.note(int64(pos+8), int64(n), "extension[%d].data", i)
		copy(b.buf[pos+8:], e.Data)
		for p := pos + 8 + n; p < end; p++ {
			b.buf[p] = b.s.PadByte
		}
		b.noteWellKnown(e.Type, i, int64(pos))
		pos = end
	}
	if pos+8 > b.cs {
		return 0, fmt.Errorf("no room for the end of the header extensions")
	}
	b.lay.note(int64(pos), 8, "extension.end")
	return pos + 8, nil
}

// noteWellKnown gives names to the extensions that tests patch.
func (b *builder) noteWellKnown(kind uint32, i int, pos int64) {
	names := map[uint32]string{
		ExtBackingFormat: "backing_format", ExtFeatureNames: "feature_names", ExtBitmaps: "bitmaps_extension",
		ExtEncryption: "encryption_extension", ExtDataFile: "data_file_extension",
	}
	name, ok := names[kind]
	if !ok {
		return
	}
	for _, part := range []string{"", ".type", ".length", ".data"} {
		p := b.lay.At("extension[%d]%s", i, part)
		b.lay.note(p.Off, p.Len, "%s%s", name, part)
	}
	switch kind {
	case ExtBitmaps:
		b.lay.note(pos+8, 4, "%s.nb_bitmaps", name)
		b.lay.note(pos+12, 4, "%s.reserved", name)
		b.lay.note(pos+16, 8, "%s.bitmap_directory_size", name)
		b.lay.note(pos+24, 8, "%s.bitmap_directory_offset", name)
	case ExtEncryption:
		b.lay.note(pos+8, 8, "%s.offset", name)
		b.lay.note(pos+16, 8, "%s.length_field", name)
	}
}
