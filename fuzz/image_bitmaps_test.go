package fuzz

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// bitmapDisk is the size of the disk that FuzzBitmaps has bitmaps of: its
// smallest granularity needs two clusters of bits.
const bitmapDisk = 512*8*512 + 40*512 + 100

func bitmapImage() *build.Image {
	return build.Must(build.Spec{
		Size:     bitmapDisk,
		Clusters: map[uint64]build.Cluster{0: {Form: build.Normal}, 7: {Form: build.Packed}, 70: {Form: build.Normal}},
		Bitmaps: []build.Bitmap{
			{Name: "fine", Dirty: []build.Range{{Off: 0, Len: 3000}, {Off: 900000, Len: 1300000}}},
			{Name: "ones", Flags: build.Auto, Dirty: []build.Range{{Off: 0, Len: bitmapDisk}}},
			{Name: "coarse", GranularityBits: 16, Literal: true, Flags: build.InUse, Dirty: []build.Range{{Off: 70000, Len: 1}}},
			{Name: "extra", GranularityBits: 12, Flags: build.ExtraDataCompatible, Extra: []byte("0123456789"), Dirty: []build.Range{{Off: 5000, Len: 9}}},
		},
	})
}

// bitmapPlaces are the structures that FuzzBitmaps changes.
func bitmapPlaces(img *build.Image) (places []build.Place) {
	for _, name := range img.Names() {
		switch {
		case name == "bitmaps_extension.data", name == "header.autoclear_features", name == "bitmap_directory":
			places = append(places, img.At("%s", name))
		case strings.HasSuffix(name, ".table"), strings.Contains(name, "].data["):
			places = append(places, img.At("%s", name))
		}
	}
	return places
}

// FuzzBitmaps changes bytes of the data of the bitmaps extension, directory, tables and
// data. A change is four bytes: which place, where in it (two), what to put.
// Properties: the guest's data reads as before; the directory and the bits of
// each bitmap are what a slow decoder by the letter of the specification finds,
// or an error where it finds a rule broken, and nowhere else.
func FuzzBitmaps(f *testing.F) {
	img := bitmapImage()
	places := bitmapPlaces(img)
	guest := img.Disk.Bytes()
	f.Add([]byte{})
	for i, p := range places {
		for at := int64(0); at < min(p.Len, 200); at += 3 {
			f.Add([]byte{byte(i), byte(at >> 8), byte(at), byte(1 + at*37)})
		}
	}
	f.Fuzz(func(t *testing.T, changes []byte) {
		file := bytes.Clone(img.Bytes)
		for ; len(changes) >= 4; changes = changes[4:] {
			p := places[int(changes[0])%len(places)]
			file[p.Off+int64(binary.BigEndian.Uint16(changes[1:]))%p.Len] = changes[3]
		}
		file[95] &^= 2 // the raw external data bit is not what this is about
		checkBitmaps(t, file, guest)
	})
}

func checkBitmaps(t *testing.T, file, guest []byte) {
	img, err := qcow2.Open(bytes.NewReader(file), int64(len(file)), nil)
	if err != nil {
		t.Fatal(err) // the header and the guest's tables were left alone
	}
	got := make([]byte, len(guest))
	if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, guest) {
		t.Fatalf("the guest's data is not as before: %v", err)
	}
	list, err := img.Bitmaps()
	want, rule := slowDirectory(file)
	if (err == nil) != (rule == "") || len(list) > 0 && len(list) != len(want) {
		t.Fatalf("%d bitmaps, error %v; the slow decoder finds %d, broken rule %q", len(list), err, len(want), rule)
	}
	for i := range list {
		checkBitmap(t, img, file, list[i], want[i])
	}
}

func checkBitmap(t *testing.T, img *qcow2.Image, file []byte, info qcow2.BitmapInfo, want slowBitmap) {
	if info.Name != want.name || info.TableOffset != qcow2.HostOffset(want.table) || info.TableSize != want.entries ||
		info.Flags != want.flags || info.Type != want.kind || info.InUse != (want.flags&1 != 0) || info.Auto != (want.flags&2 != 0) ||
		!bytes.Equal(info.ExtraData, want.extra) {
		t.Fatalf("entry %+v, the slow decoder finds %+v", info, want)
	}
	b, err := img.ReadBitmap(info)
	bits, rule := want.bits(file)
	if (err == nil) != (rule == "") {
		t.Fatalf("bitmap %q: %v; the slow decoder says %q", info.Name, err, rule)
	}
	if err != nil {
		return
	}
	if b.Size() != bitmapDisk || b.Granularity() != 1<<want.granularityBits {
		t.Fatalf("bitmap %q: size %d, granularity %d", info.Name, b.Size(), b.Granularity())
	}
	bitmapIs(t, b, bits, (bitmapDisk+int(b.Granularity())-1)/int(b.Granularity()))
}

// A slowBitmap is a bitmap directory entry.
type slowBitmap struct {
	table           uint64
	entries, flags  uint32
	kind            uint8
	granularityBits uint8
	name            string
	extra           []byte
}

var be = binary.BigEndian

// inFile reports that [off, off+n) lies in the file.
func inFile(file []byte, off, n uint64) bool {
	return off <= uint64(len(file)) && n <= uint64(len(file))-off
}

// slowExtension finds the bitmaps extension in a version 3 header of 104 bytes,
// and says which rule is broken in finding one.
func slowExtension(file []byte) (ext []byte, rule string) {
	for off := 104; off+8 <= 512; {
		kind, n := be.Uint32(file[off:]), int(be.Uint32(file[off+4:]))
		if kind == 0 {
			break
		}
		if kind == build.ExtBitmaps {
			if ext != nil {
				return nil, "two extensions"
			}
			ext = file[off+8 : off+8+n]
		}
		off += 8 + (n+7)/8*8
	}
	if ext == nil && file[95]&1 != 0 {
		return nil, "the autoclear bit without the extension"
	}
	return ext, ""
}

// slowDirectory decodes the sections "Bitmaps extension" and "Bitmap directory".
// After a broken rule it gives the entries before that.
func slowDirectory(file []byte) (list []slowBitmap, rule string) {
	ext, rule := slowExtension(file)
	if ext == nil || rule != "" {
		return nil, rule
	}
	if len(ext) != 24 {
		return nil, "length of the extension"
	}
	count, size, off := be.Uint32(ext), be.Uint64(ext[8:]), be.Uint64(ext[16:])
	if count == 0 || count > 65535 || be.Uint32(ext[4:]) != 0 || off == 0 || off%512 != 0 || !inFile(file, off, size) {
		return nil, "the extension"
	}
	if size < 24*uint64(count) {
		return nil, "size of the directory"
	}
	dir := file[off : off+size]
	for range count {
		b, n, ok := slowEntry(dir)
		if !ok {
			return list, "entry"
		}
		list, dir = append(list, b), dir[n:]
	}
	if len(dir) > 0 {
		return list, "bytes behind the last entry"
	}
	return list, ""
}

// slowEntry decodes the first entry of a directory. The padding of the last one
// may be missing.
func slowEntry(dir []byte) (b slowBitmap, n int, ok bool) {
	if len(dir) < 24 {
		return b, 0, false
	}
	name, extra := uint64(be.Uint16(dir[18:])), uint64(be.Uint32(dir[20:]))
	if name == 0 || name > 1023 || 24+name+extra > uint64(len(dir)) {
		return b, 0, false
	}
	b = slowBitmap{table: be.Uint64(dir), entries: be.Uint32(dir[8:]), flags: be.Uint32(dir[12:]), kind: dir[16], granularityBits: dir[17]}
	b.extra = dir[24 : 24+extra]
	b.name = string(dir[24+extra : 24+extra+name])
	return b, min(int(24+extra+name+7)/8*8, len(dir)), true
}

// bits gives the wire form of a bitmap by the sections "Bitmap table" and
// "Bitmap data", or the rule that keeps it from having one.
func (b *slowBitmap) bits(file []byte) (bits []byte, rule string) {
	switch {
	case b.kind != 1 || b.flags&^7 != 0 || len(b.extra) > 0 && b.flags&4 == 0:
		return nil, "type, flags or extra data"
	case b.granularityBits < 9 || b.granularityBits > 31:
		return nil, "granularity"
	case b.table%512 != 0 || b.entries > 0x8000000 || !inFile(file, b.table, 8*uint64(b.entries)):
		return nil, "place of the table"
	}
	granules := (bitmapDisk-1)>>b.granularityBits + 1
	wire := (granules + 7) / 8
	if need := (wire + 511) / 512; b.flags&1 == 0 && int(b.entries) != need {
		return nil, "size of the table"
	}
	for i := range int(b.entries) {
		if rule := slowCluster(file, be.Uint64(file[b.table+8*uint64(i):]), wire-512*i, &bits); rule != "" {
			return nil, rule
		}
	}
	bits = append(bits, make([]byte, wire)...)[:wire]
	if rest := granules % 8; rest != 0 {
		bits[wire-1] &= 1<<rest - 1
	}
	return bits, ""
}

// slowCluster appends what a table entry says of 512 bytes of bits, n of which
// are in use.
func slowCluster(file []byte, entry uint64, n int, bits *[]byte) (rule string) {
	off := entry & 0x00fffffffffffe00
	n = max(0, min(n, 512))
	switch {
	case entry&^(0x00fffffffffffe00|1) != 0 || off != 0 && entry&1 != 0:
		return "reserved bits"
	case n == 0:
	case off == 0:
		*bits = append(*bits, bytes.Repeat([]byte{byte(-int(entry & 1))}, n)...)
	case !inFile(file, off, uint64(n)):
		return "place of the data"
	default:
		*bits = append(*bits, file[off:off+uint64(n)]...)
	}
	return ""
}
