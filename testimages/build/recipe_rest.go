package build

// featureNames is the type of the feature name table.
const featureNames = 0x6803f857

// areas breaks rules about the bytes between structures. Most readers pass over them.
func (b *book) areas() {
	padded := Must(Spec{Size: 512, HeaderLength: 112})
	b.spoil(WhenAny, "header", padded, padded.At("header.compression_type").Off+1, patch{
		name: "padding", field: "padding", rule: "the padding of the header is zero",
	})
	b.spoil(WhenAny, "header", padded, 400, patch{
		name: "bytes behind the extensions", field: "", rule: "behind the extensions there is the backing name and nothing else",
	})
	for _, row := range [...]struct {
		name string
		data []byte
	}{
		{"cut", make([]byte, 47)},
		{"of no known field", append([]byte{3, 0}, make([]byte, 46)...)},
		{"of bit 64", append([]byte{0, 64}, make([]byte, 46)...)},
	} {
		img := Must(Spec{Size: 512, Extensions: []Extension{{featureNames, row.data}}})
		b.add(WhenAny, "header extension", img, img.Bytes, patch{
			name: "feature name " + row.name, field: "feature name table", rule: "an entry has 48 bytes: a field of 0 to 2, a bit of 0 to 63, and a name",
		})
	}
	for _, p := range []patch{
		{name: "dirty bit", field: "incompatible_features", value: Dirty, rule: "with the dirty bit refcounts are not to be trusted"},
		{name: "corrupt bit", field: "incompatible_features", value: Corrupt, rule: "with the corrupt bit nothing may be written"},
	} {
		img := small()
		b.add(WhenAny, "header", img, img.Patch("header.incompatible_features", p.value), p)
	}
}

// spoil changes a byte that has no field.
func (b *book) spoil(when, structure string, img *Image, at int64, p patch) {
	file := img.Cut(int64(len(img.Bytes)))
	file[at] ^= 0x55
	b.add(when, structure, img, file, p)
}

// copiedBits makes the copied bits contradict the refcounts.
func (b *book) copiedBits() {
	img, shared := wide(), snapshotImage()
	const rule = "the copied bit says that the refcount is exactly 1"
	b.patches(WhenRefcounts, "L1 table", img, []patch{
		{"copied bit is clear", "l1[0]", img.Field("l1[0]") &^ copied, "entry 0", rule},
	})
	b.patches(WhenRefcounts, "L2 table", img, []patch{
		{"copied bit is clear", "l2[0][0]", img.Field("l2[0][0]") &^ copied, "entry 0", rule},
	})
	b.patches(WhenRefcounts, "L1 table", shared, []patch{
		{"copied bit of a table that a snapshot shares", "l1[0]", shared.Field("l1[0]") | copied, "entry 0", rule},
	})
	b.patches(WhenAny, "L1 table", img, []patch{
		{"copied bit without a table", "l1[0]", copied, "entry 0", "an entry without a table is 0"},
	})
}

// shared gives a cluster two uses: what is read is not always wrong, but the next
// program that writes to one of them destroys the other.
func (b *book) shared() {
	const rule = "a cluster has one use"
	past := Must(Spec{Size: 80 * 512, Clusters: map[uint64]Cluster{0: {Form: Normal}, 1: {Form: Normal}, 70: {Form: Normal}}})
	b.patches(WhenAny, "L1 table", past, []patch{
		{"two entries name one table", "l1[1]", past.Field("l1[0]"), "entry 1", rule},
		{"L2 table is the refcount table", "l1[1]", uint64(past.At("refcount_table").Off) | copied, "entry 1", rule},
	})
	b.patches(WhenAny, "L2 table", past, []patch{
		{"two entries name one cluster", "l2[0][1]", past.Field("l2[0][0]"), "entry 1", rule},
		{"data is the L1 table", "l2[0][1]", uint64(past.At("l1").Off) | copied, "entry 1", rule},
		{"data is a refcount block", "l2[0][1]", uint64(past.At("refcount_block[0]").Off) | copied, "entry 1", rule},
	})
	snap := snapshotImage()
	b.patches(WhenAny, "snapshot table", snap, []patch{
		{"a snapshot has the active L1 table", "snapshot[0].l1_table_offset", uint64(snap.At("l1").Off), "l1_table_offset", rule},
	})
	maps := bitmapImage()
	b.patches(WhenAny, "bitmap directory", maps, []patch{
		{"two bitmaps have one table", "bitmap[1].bitmap_table_offset", maps.Field("bitmap[0].bitmap_table_offset"), "bitmap_table_offset", rule},
	})
	b.patches(WhenAny, "bitmap table", maps, []patch{
		{"data is the L1 table", "bitmap[0].table[2]", uint64(maps.At("l1").Off), "entry 2", rule},
	})
	legal := Must(Spec{Size: 512, Bitmaps: []Bitmap{{Name: "b", Extra: []byte("12345678"), Flags: ExtraDataCompatible}}})
	b.add(WhenAny, "bitmap directory", legal, legal.Bytes, patch{
		name: "extra data that may be passed over", field: "flags", rule: "none: the flag extra_data_compatible allows it",
	})
}
