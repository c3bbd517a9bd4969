package build

// bitmapImage has bitmaps with a data cluster, an all-one and an all-zero
// entry: 9000 bits make three entries, the last of which is partly used.
func bitmapImage() *Image {
	const size = 9000 * 512
	return Must(Spec{Size: size, Clusters: map[uint64]Cluster{0: {Form: Normal}}, Bitmaps: []Bitmap{
		{Name: "first", Flags: Auto, Dirty: []Range{{0, 4096 * 512}, {size - 512, 512}}},
		{Name: "later"},
	}})
}

func (b *book) bitmapsExtension() {
	img := bitmapImage()
	dir := uint64(img.At("bitmap_directory").Off)
	b.patches(WhenBitmaps, "header extension", img, []patch{
		{"bitmaps: no bitmap", "bitmaps_extension.nb_bitmaps", 0, "nb_bitmaps", "there is one bitmap at least"},
		{"bitmaps: over QEMU's limit", "bitmaps_extension.nb_bitmaps", 65536, "nb_bitmaps", "QEMU's limit: 65535 bitmaps"},
		{"bitmaps: count huge", "bitmaps_extension.nb_bitmaps", 1<<32 - 1, "nb_bitmaps", "QEMU's limit: 65535 bitmaps"},
		{"bitmaps: reserved field", "bitmaps_extension.reserved", 1, "reserved", "the reserved field is zero"},
		{"bitmaps: directory unaligned", "bitmaps_extension.bitmap_directory_offset", dir + 8, "bitmap_directory_offset", "the directory is aligned to a cluster"},
		{"bitmaps: directory beyond the end", "bitmaps_extension.bitmap_directory_offset", 1 << 40, "bitmap_directory_offset", "the directory lies in the file"},
		{"bitmaps: directory offset overflows", "bitmaps_extension.bitmap_directory_offset", 1<<64 - 512, "bitmap_directory_offset", "the directory lies in the file"},
		{"bitmaps: directory huge", "bitmaps_extension.bitmap_directory_size", 1 << 62, "bitmap_directory_size", "the directory lies in the file"},
		{"bitmaps: directory of 64 MiB", "bitmaps_extension.bitmap_directory_size", 64 << 20, "bitmap_directory_size", "the directory lies in the file"},
		{"bitmaps: directory size 0", "bitmaps_extension.bitmap_directory_size", 0, "bitmap_directory_size", "the size is that of all entries"},
		{"bitmaps: extension too short", "bitmaps_extension.length", 16, "length", "the extension has 24 bytes"},
	})
	twice := Must(Spec{Size: 512, Bitmaps: []Bitmap{{Name: "b"}}, Extensions: []Extension{{ExtBitmaps, make([]byte, 24)}}})
	b.add(WhenBitmaps, "header extension", twice, twice.Bytes, patch{
		name: "bitmaps: twice", field: "type", rule: "an extension type appears once at most",
	})
}

func (b *book) bitmapDirectory() {
	img := bitmapImage()
	size := uint64(img.At("bitmap_directory").Len)
	b.patches(WhenBitmaps, "bitmap directory", img, []patch{
		{"table unaligned", "bitmap[0].bitmap_table_offset", 513, "bitmap_table_offset", "a bitmap table is aligned to a cluster"},
		{"table beyond the end", "bitmap[0].bitmap_table_offset", 1 << 40, "bitmap_table_offset", "a bitmap table lies in the file"},
		{"table huge", "bitmap[0].bitmap_table_size", 1<<32 - 1, "bitmap_table_size", "QEMU's limit: 0x8000000 entries"},
		{"table over the file", "bitmap[0].bitmap_table_size", 0x8000000, "bitmap_table_size", "a bitmap table lies in the file"},
		{"table too small", "bitmap[0].bitmap_table_size", 2, "bitmap_table_size", "the table describes the whole disk"},
		{"table too big", "bitmap[0].bitmap_table_size", 4, "bitmap_table_size", "the table describes the disk and no more"},
		{"reserved flag 3", "bitmap[0].flags", Auto | 1<<3, "flags", "flags 3 to 31 are reserved"},
		{"reserved flag 31", "bitmap[0].flags", 1 << 31, "flags", "flags 3 to 31 are reserved"},
		{"type 0", "bitmap[0].type", 0, "type", "the type is 1"},
		{"type 2", "bitmap[0].type", 2, "type", "the type is 1"},
		{"granularity_bits 64", "bitmap[0].granularity_bits", 64, "granularity_bits", "granularity bits are 0 to 63"},
		{"granularity_bits 8", "bitmap[0].granularity_bits", 8, "granularity_bits", "QEMU's limit: 512 bytes"},
		{"granularity_bits 32", "bitmap[0].granularity_bits", 32, "granularity_bits", "QEMU's limit: 2 GiB"},
		{"no name", "bitmap[0].name_size", 0, "name_size", "a name is not empty"},
		{"name over QEMU's limit", "bitmap[0].name_size", 1024, "name_size", "QEMU's limit: 1023 bytes"},
		{"name beyond the directory", "bitmap[1].name_size", 1023, "name_size", "entries lie in the directory"},
		{"extra data huge", "bitmap[0].extra_data_size", 1<<32 - 1, "extra_data_size", "entries lie in the directory"},
		{"padding", "bitmap[0].padding", 1, "padding", "padding is zero"},
		{"fewer entries than bitmaps", "bitmaps_extension.nb_bitmaps", 3, "nb_bitmaps", "the directory has one entry a bitmap"},
		{"more entries than bitmaps", "bitmaps_extension.nb_bitmaps", 1, "nb_bitmaps", "the directory has one entry a bitmap"},
		{"cut by its size", "bitmaps_extension.bitmap_directory_size", size - 8, "bitmap_directory_size", "the size is that of all entries"},
	})
	b.bitmapDirectoryBuilt()
}

// bitmapDirectoryBuilt breaks rules that one field cannot break.
func (b *book) bitmapDirectoryBuilt() {
	same := Must(Spec{Size: 512, Bitmaps: []Bitmap{{Name: "same"}, {Name: "same"}}})
	b.add(WhenBitmaps, "bitmap directory", same, same.Bytes, patch{
		name: "two of one name", field: "name", rule: "names are unique",
	})
	extra := Must(Spec{Size: 512, Bitmaps: []Bitmap{{Name: "b", Extra: []byte("12345678"), Dirty: []Range{{0, 1}}}}})
	b.add(WhenBitmaps, "bitmap directory", extra, extra.Bytes, patch{
		name: "unknown extra data", field: "extra_data_size", rule: "a bitmap with unknown extra data is not used",
	})
}

func (b *book) bitmapTables() {
	img := bitmapImage()
	e := img.Field("bitmap[0].table[2]")
	b.patches(WhenBitmaps, "bitmap table", img, []patch{
		{"bit 0 beside an offset", "bitmap[0].table[2]", e | 1, "entry 2", "bit 0 is reserved where there is an offset"},
		{"reserved low bits", "bitmap[0].table[2]", e | 2, "entry 2", "bits 1 to 8 are reserved"},
		{"reserved low bits without an offset", "bitmap[0].table[1]", 1 << 8, "entry 1", "bits 1 to 8 are reserved"},
		{"reserved high bits", "bitmap[0].table[2]", e | 1<<56, "entry 2", "bits 56 to 63 are reserved"},
		{"data beyond the end", "bitmap[0].table[2]", 1 << 40, "entry 2", "bitmap data lies in the file"},
	})
	data := img.At("bitmap[0].data[2]")
	file := img.Cut(int64(len(img.Bytes)))
	file[data.End()-1] = 0x80
	b.add(WhenBitmaps, "bitmap data", img, file, patch{
		name: "bits beyond the disk", field: "cluster 2", rule: "unused tail bits are zero",
	})
	odd := Must(Spec{Size: 1 << 20, ClusterBits: 12, Bitmaps: []Bitmap{{Name: "b", Dirty: []Range{{0, 512}}}}})
	b.patches(WhenBitmaps, "bitmap table", odd, []patch{
		{"data unaligned", "bitmap[0].table[0]", odd.Field("bitmap[0].table[0]") + 512, "entry 0", "bitmap data is aligned to a cluster"},
	})
}
