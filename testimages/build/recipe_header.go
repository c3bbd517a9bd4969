package build

import (
	"encoding/binary"
	"fmt"
)

func (b *book) header() {
	b.patches(WhenOpen, "header", small(), []patch{
		{"magic", "header.magic", 0x514649fa, "magic", "an image begins with QFI and 0xfb"},
		{"version 0", "header.version", 0, "version", "the version is 2 or 3"},
		{"version 1", "header.version", 1, "version", "the version is 2 or 3"},
		{"version 4", "header.version", 4, "version", "the version is 2 or 3"},
		{"cluster_bits 8", "header.cluster_bits", 8, "cluster_bits", "clusters are not smaller than 512 bytes"},
		{"cluster_bits 0", "header.cluster_bits", 0, "cluster_bits", "clusters are not smaller than 512 bytes"},
		{"cluster_bits 22", "header.cluster_bits", 22, "cluster_bits", "QEMU's limit: clusters of 2 MiB"},
		{"cluster_bits 64", "header.cluster_bits", 64, "cluster_bits", "QEMU's limit: clusters of 2 MiB"},
		{"cluster_bits huge", "header.cluster_bits", 1<<32 - 1, "cluster_bits", "QEMU's limit: clusters of 2 MiB"},
		{"size over 63 bits", "header.size", 1 << 63, "size", "the L1 table describes the whole disk; no offset is negative"},
		{"size beyond the L1 table", "header.size", 65 * 512, "l1_size", "the L1 table describes the whole disk"},
		{"size that overflows when rounded", "header.size", 1<<64 - 1, "size", "the L1 table describes the whole disk; no offset is negative"},
		{"l1_size 0", "header.l1_size", 0, "l1_size", "the L1 table describes the whole disk"},
		{"l1_size over QEMU's limit", "header.l1_size", 32<<20/8 + 1, "l1_size", "QEMU's limit: an L1 table of 32 MiB"},
		{"l1_size huge", "header.l1_size", 1<<32 - 1, "l1_size", "QEMU's limit: an L1 table of 32 MiB"},
		{"l1_size claims more than the file has", "header.l1_size", 32 << 20 / 8, "l1_size", "the L1 table lies in the file"},
		{"l1_table_offset unaligned", "header.l1_table_offset", 513, "l1_table_offset", "the L1 table is aligned to a cluster"},
		{"l1_table_offset beyond the end", "header.l1_table_offset", 1 << 40, "l1_table_offset", "the L1 table lies in the file"},
		{"l1_table_offset overflows", "header.l1_table_offset", 1<<64 - 512, "l1_table_offset", "the L1 table lies in the file"},
		{"refcount_table_offset unaligned", "header.refcount_table_offset", 513, "refcount_table_offset", "the refcount table is aligned to a cluster"},
		{"refcount_table_clusters huge", "header.refcount_table_clusters", 1<<32 - 1, "refcount_table_clusters", "QEMU's limit: a refcount table of 8 MiB"},
		{"refcount_order 7", "header.refcount_order", 7, "refcount_order", "the refcount order is at most 6"},
		{"refcount_order huge", "header.refcount_order", 1<<32 - 1, "refcount_order", "the refcount order is at most 6"},
		{"header_length 96", "header.header_length", 96, "header_length", "the header of version 3 has 104 bytes at least"},
		{"header_length 0", "header.header_length", 0, "header_length", "the header of version 3 has 104 bytes at least"},
		{"header_length 108", "header.header_length", 108, "header_length", "the header length is a multiple of 8"},
		{"header_length over a cluster", "header.header_length", 520, "header_length", "the header lies in the first cluster"},
		{"header_length huge", "header.header_length", 1<<32 - 8, "header_length", "the header lies in the first cluster"},
		{"crypt_method 3", "header.crypt_method", 3, "crypt_method", "the method is 0, 1 or 2"},
	})
	b.patches(WhenRead, "header", small(), []patch{
		{"l1_table_offset at the header", "header.l1_table_offset", 0, "l1_table_offset", "the header is no L1 table"},
	})
}

func (b *book) features() {
	img := small()
	b.patches(WhenOpen, "header", img, []patch{
		{"unknown incompatible bit 5", "header.incompatible_features", 1 << 5, "incompatible_features", "an unknown incompatible feature forbids opening"},
		{"unknown incompatible bit 63", "header.incompatible_features", 1 << 63, "incompatible_features", "an unknown incompatible feature forbids opening"},
		{"compression bit without its field", "header.incompatible_features", compressionType, "compression_type", "the compression bit needs a compression type that is present and not zero"},
		{"extended L2 with small clusters", "header.incompatible_features", extendedL2, "cluster_bits", "extended L2 entries need clusters of 16 KiB"},
	})
	b.patches(WhenAny, "header", img, []patch{ // QEMU opens it; nothing is read otherwise for it
		{"raw data bit without a data file", "header.autoclear_features", rawDataBit, "autoclear_features", "the raw bit stands only beside the external data bit"},
	})
	long := Must(Spec{Size: 512, HeaderLength: 112})
	b.patches(WhenOpen, "header", long, []patch{
		{"compression type without its bit", "header.compression_type", 1, "compression_type", "a type other than zlib needs the compression bit"},
	})
	zstd := Must(Spec{Size: 512, Zstd: true})
	b.patches(WhenOpen, "header", zstd, []patch{
		{"compression bit with type 0", "header.compression_type", 0, "compression_type", "with the compression bit the type is not zero"},
		{"compression type 2", "header.compression_type", 2, "compression_type", "the type is zlib or zstd"},
	})
	b.patches(WhenBitmaps, "header", img, []patch{
		{"bitmaps bit without the extension", "header.autoclear_features", bitmapsBit, "autoclear_features", "the bitmaps bit needs the bitmaps extension"},
	})
	named := Must(Spec{Size: 512, Incompatible: 1 << 9, FeatureNames: []Feature{{0, 9, "time travel"}, {1, 9, "no"}, {0, 10, "no"}}})
	b.add(WhenOpen, "header", named, named.Bytes, patch{
		name: "unknown incompatible bit 9, named time travel", field: "incompatible_features",
		rule: "an unknown incompatible feature forbids opening",
	})
}

func (b *book) backing() {
	img := Must(Spec{Size: 512, Backing: "base.img", BackingFormat: "raw"})
	b.patches(WhenOpen, "header", img, []patch{
		{"backing_file_size 1024", "header.backing_file_size", 1024, "backing_file_size", "a backing name has 1023 bytes at most"},
		{"backing_file_size huge", "header.backing_file_size", 1<<32 - 1, "backing_file_size", "a backing name has 1023 bytes at most"},
		{"backing name over the first cluster", "header.backing_file_size", 500, "backing_file_size", "the backing name lies in the first cluster"},
		{"backing_file_offset in another cluster", "header.backing_file_offset", 512, "backing_file_offset", "the backing name lies in the first cluster"},
		{"backing_file_offset huge", "header.backing_file_offset", 1<<64 - 4, "backing_file_offset", "the backing name lies in the first cluster"},
	})
	raw := Must(Spec{Size: 512, DataFile: &DataFile{Name: "d", Raw: true}})
	file := raw.PatchAll(map[string]uint64{"header.backing_file_offset": 400, "header.backing_file_size": 4})
	b.add(WhenOpen, "header", raw, file, patch{
		name: "backing file with a raw data file", field: "backing_file_offset",
		rule: "a raw external data file has no backing file",
	})
}

func (b *book) extensions() {
	img := Must(Spec{Size: 512, Extensions: []Extension{{0x12345678, []byte("12345678")}}})
	b.patches(WhenOpen, "header extension", img, []patch{
		{"longer than the cluster", "extension[0].length", 512, "length", "header extensions lie in the first cluster"},
		{"length huge", "extension[0].length", 1<<32 - 1, "length", "header extensions lie in the first cluster"},
		{"length that overflows when padded", "extension[0].length", 1<<32 - 7, "length", "header extensions lie in the first cluster"},
	})
	backing := Must(Spec{Size: 512, Backing: "base.img", BackingFormat: "raw"})
	b.patches(WhenOpen, "header extension", backing, []patch{
		{"runs into the backing name", "backing_format.length", 32, "length", "header extensions end before the backing name"},
	})
	twice := Must(Spec{Size: 512, Backing: "base.img", BackingFormat: "raw", Extensions: []Extension{{ExtBackingFormat, []byte("qcow2")}}})
	b.add(WhenOpen, "header extension", twice, twice.Bytes, patch{
		name: "backing format twice", field: "type", rule: "an extension type appears once at most",
	})
}

func (b *book) encryption() {
	luks := Must(Spec{Size: 512, CryptMethod: 2})
	b.patches(WhenOpen, "header extension", luks, []patch{
		{"encryption header unaligned", "encryption_extension.offset", 513, "offset", "the encryption header is aligned to a cluster"},
		{"encryption header without LUKS", "header.crypt_method", 1, "type", "only LUKS has an encryption header"},
		{"encryption header missing", "encryption_extension.type", 0x12345678, "type", "LUKS has an encryption header"},
		{"encryption header pointer too short", "encryption_extension.length", 8, "length", "the pointer has 16 bytes"},
	})
	b.patches(WhenAny, "header extension", luks, []patch{ // nothing is encrypted here yet
		{"encryption header beyond the end", "encryption_extension.offset", 1 << 40, "offset", "the encryption header lies in the file"},
	})
}

func (b *book) refcounts() {
	img := wide()
	b.patches(WhenRefcounts, "refcount table", img, []patch{
		{"reserved bits", "refcount_table[0]", img.Field("refcount_table[0]") | 1, "entry 0", "bits 0 to 8 are reserved"},
		{"block unaligned", "refcount_table[0]", img.Field("refcount_table[0]") + 512, "entry 0", "a refcount block is aligned to a cluster"},
		{"block beyond the end", "refcount_table[0]", 1 << 40, "entry 0", "a refcount block lies in the file"},
		{"block is the table", "refcount_table[0]", 1 << 12, "entry 0", "a cluster has one use here"},
	})
	file := img.Patch("header.refcount_table_offset", 1<<40)
	b.add(WhenRefcounts, "refcount table", img, file, patch{
		name: "beyond the end", field: "refcount_table_offset", rule: "the refcount table lies in the file",
	})
	file = img.Patch("refcount_table[0]", 0)
	b.add(WhenRefcounts, "refcount table", img, file, patch{
		name: "no block", field: "entry 0", rule: "clusters in use have a refcount",
	})
	file = img.Patch("header.refcount_table_clusters", 0)
	b.add(WhenRefcounts, "refcount table", img, file, patch{
		name: "no clusters", field: "refcount_table_clusters", rule: "there is a refcount table",
	})
	b.refcountBlocks(img)
}

// refcountBlocks makes refcounts of 16 bits say something wrong.
func (b *book) refcountBlocks(img *Image) {
	block, data := img.At("refcount_block[0]").Off, img.At("data[0]").Off>>img.Spec.ClusterBits
	for _, row := range []struct {
		name, rule string
		entry      int64
		count      uint16
	}{
		{"header is free", "clusters in use have a refcount", 0, 0},
		{"data is free", "clusters in use have a refcount", data, 0},
		{"data counts as shared", "a refcount is the number of references", data, 2},
		{"a cluster is leaked", "a refcount is the number of references", int64(len(img.Bytes)) >> img.Spec.ClusterBits, 1},
	} {
		file := img.Cut(int64(len(img.Bytes)))
		if end := int64(len(file)) >> img.Spec.ClusterBits; row.entry == end {
			file = append(file, make([]byte, img.ClusterSize)...)
		}
		binary.BigEndian.PutUint16(file[block+2*row.entry:], row.count)
		b.add(WhenRefcounts, "refcount block", img, file, patch{
			name: row.name, field: fmt.Sprintf("entry %d", row.entry), rule: row.rule,
		})
	}
}
