package build

import "fmt"

func (b *book) cut(when, structure string, img *Image, n int64, what string) {
	b.add(when, structure, img, img.Cut(n), patch{
		name: fmt.Sprintf("cut at %s", what), field: "", rule: "the structure lies in the file",
	})
}

// truncations end the file inside a structure.
func (b *book) truncations() {
	img := small()
	for _, n := range []int64{0, 3, 4, 8, 23, 71, 72, 103} {
		b.cut(WhenOpen, "header", img, n, fmt.Sprintf("byte %d", n))
	}
	v2 := Must(Spec{Version: 2, Size: 512})
	b.cut(WhenOpen, "header", v2, 71, "byte 71 of version 2")
	long := Must(Spec{Size: 512, Zstd: true})
	b.cut(WhenOpen, "header", long, 104, "the compression type")
	b.cut(WhenOpen, "L1 table", img, img.At("l1").Off, "its start")
	b.cut(WhenOpen, "L1 table", img, img.At("l1").End()-1, "its last byte")
	b.cut(WhenRead, "L2 table", img, img.At("l2[0]").Off, "its start")
	b.cut(WhenRead, "L2 table", img, img.At("l2[0]").End()-1, "its last byte")
	b.cut(WhenRead, "L2 table", img, img.Entry(2).Off, "an entry")
	b.cut(WhenRead, "L2 table", img, img.At("data[7]").Off, "a data cluster")
	b.cut(WhenRead, "L2 table", img, img.At("data[7]").End()-1, "the end of a data cluster")
	b.cut(WhenRead, "compressed cluster", img, img.At("packed[5]").Off, "its start")
	b.cut(WhenRead, "compressed cluster", img, img.At("packed[5]").Off+40, "its middle")
	b.cutExtensions()
	b.cutLists()
}

func (b *book) cutExtensions() {
	img := Must(Spec{Size: 512, Backing: "base.img", BackingFormat: "qcow2"})
	b.cut(WhenOpen, "header extension", img, img.At("backing_format.length").Off, "its length")
	b.cut(WhenOpen, "header extension", img, img.At("backing_format.data").Off+1, "its data")
	b.cut(WhenOpen, "header", img, img.At("backing_name").Off+3, "the backing name")
}

// cutLists cuts images whose guest data, all unallocated, stays readable.
func (b *book) cutLists() {
	img := Must(Spec{Size: 512, Snapshots: []Snapshot{{ID: "1", Name: "one"}, {ID: "2", Name: "two"}}})
	b.cut(WhenSnapshots, "snapshot table", img, img.At("snapshots").Off, "its start")
	b.cut(WhenSnapshots, "snapshot table", img, img.At("snapshot[1]").Off+20, "an entry")
	b.cut(WhenSnapshots, "snapshot table", img, img.At("snapshot[1].name").Off+1, "a name")

	img = Must(Spec{Size: 512, Bitmaps: []Bitmap{{Name: "one"}, {Name: "two"}}})
	b.cut(WhenBitmaps, "bitmap directory", img, img.At("bitmap_directory").Off, "its start")
	b.cut(WhenBitmaps, "bitmap directory", img, img.At("bitmap[1].name").Off+1, "a name")
}
