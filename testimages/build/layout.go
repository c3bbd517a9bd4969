package build

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"strings"
)

// A Place is where a structure or a field stands in the file, in bytes.
type Place struct{ Off, Len int64 }

// End is the offset of the first byte after p.
func (p Place) End() int64 { return p.Off + p.Len }

// A Layout says where everything stands in an image. Names are:
//
//	header, header.FIELD                  FIELD as in the specification
//	extension[i], extension[i].type, .length, .data
//	extension.end                         the end marker
//	backing_name
//	refcount_table, refcount_table[i], refcount_block[i]
//	l1, l1[i], l2[i], l2[i][j], l2[i][j].bitmap
//	data[k], packed[k]                    the bytes of guest cluster k
//	snapshots, snapshot[n], snapshot[n].FIELD
//	snapshot[n].l1[i] and so on           the snapshot's own tables and data
//	bitmap_directory, bitmap[n], bitmap[n].FIELD
//	bitmap[n].table, bitmap[n].table[i], bitmap[n].data[i]
//	luks
//
// i of an L2 table is its index in the L1 table. Fields of the bitmaps
// extension are bitmaps_extension.nb_bitmaps, .reserved,
// .bitmap_directory_size and .bitmap_directory_offset.
type Layout struct {
	places map[string]Place
	// ClusterSize in bytes, and how many entries an L2 table has.
	ClusterSize, L2Entries uint64
}

func (l *Layout) note(off, n int64, format string, args ...any) {
	l.places[fmt.Sprintf(format, args...)] = Place{off, n}
}

// Find returns the place with that name.
func (l *Layout) Find(name string) (Place, bool) {
	p, ok := l.places[name]
	return p, ok
}

// At is Find for names that must exist; a missing one is a mistake of the
// caller, and it panics with the names that are near.
func (l *Layout) At(format string, args ...any) Place {
	name := fmt.Sprintf(format, args...)
	p, ok := l.places[name]
	if !ok {
		panic(fmt.Sprintf("build: no place %q; there are %s", name, strings.Join(l.Names(), ", ")))
	}
	return p
}

// Names of all places, ordered by offset.
func (l *Layout) Names() []string {
	names := make([]string, 0, len(l.places))
	for n := range l.places {
		names = append(names, n)
	}
	sort.Slice(names, func(i, j int) bool {
		a, b := l.places[names[i]], l.places[names[j]]
		if a.Off != b.Off {
			return a.Off < b.Off
		}
		return names[i] < names[j]
	})
	return names
}

// Entry is the place of the active L2 entry of guest cluster k.
func (l *Layout) Entry(k uint64) Place {
	width := int64(l.ClusterSize / l.L2Entries)
	return Place{l.At("l2[%d]", k/l.L2Entries).Off + int64(k%l.L2Entries)*width, 8}
}

// Field reads the big-endian number at a place of 1, 2, 4 or 8 bytes.
func (img *Image) Field(name string) uint64 {
	return getBE(img.Bytes, img.At("%s", name))
}

// Patch returns a copy of the file with one field set.
func (img *Image) Patch(name string, value uint64) []byte {
	return img.PatchAll(map[string]uint64{name: value})
}

// PatchAll returns a copy of the file with several fields set.
func (img *Image) PatchAll(values map[string]uint64) []byte {
	b := slices.Clone(img.Bytes)
	for name, v := range values {
		putBE(b, img.At("%s", name), v)
	}
	return b
}

// Cut returns a copy of the file that ends at byte n.
func (img *Image) Cut(n int64) []byte { return slices.Clone(img.Bytes[:n]) }

func getBE(b []byte, p Place) uint64 {
	var v uint64
	for _, x := range field(b, p) {
		v = v<<8 | uint64(x)
	}
	return v
}

func putBE(b []byte, p Place, v uint64) {
	var buf [8]byte
	binary.BigEndian.PutUint64(buf[:], v)
	copy(field(b, p), buf[8-p.Len:])
}

func field(b []byte, p Place) []byte {
	if p.Len < 1 || p.Len > 8 {
		panic(fmt.Sprintf("build: %d bytes at %#x are no number", p.Len, p.Off))
	}
	return b[p.Off:p.End()]
}
