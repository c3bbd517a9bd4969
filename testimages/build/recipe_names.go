package build

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
)

// SecretName is a file of the host that some recipes name, and Secret its content: what
// no program may give to whoever made the image.
const SecretName = "secret"

// SelfName is the file name that an image must have to be its own backing file.
const SelfName = "image.qcow2"

// Secret is the content of the file of that name, in whole clusters.
var Secret = bytes.Repeat([]byte("what the host keeps to itself. \n"), 128)

// names are images that want other files opened. No rule of the format is broken: it is
// the reader who must not do what they say, unless its user wants it. All names are
// relative, so that a test opens nothing but what is in its own folder.
func (b *book) names() {
	size := uint64(len(Secret))
	const rule = "nothing that an image names is opened unasked"
	data := func(name, file string) {
		img := Must(Spec{Size: size, ClusterBits: 12, DataFile: &DataFile{Name: file, Raw: true}, Clusters: map[uint64]Cluster{0: {Form: Normal}}})
		b.named("header extension", "data file "+name, "data file name", rule, img)
	}
	data("of the host", SecretName)
	data("of the host by its folder", "./"+SecretName)
	data("as a description of devices", `json:{"driver":"file","filename":"`+SecretName+`"}`)
	data("as a device that is endless", `json:{"driver":"null-co","size":"1T"}`)
	data("by a protocol", "file:"+SecretName)
	backing := func(name, file, format string) {
		img := Must(Spec{Size: size, ClusterBits: 12, Backing: file, BackingFormat: format})
		b.named("header", "backing file "+name, "backing_file_offset", rule, img)
	}
	backing("of the host", SecretName, "raw")
	backing("of the host, without a format", SecretName, "")
	backing("as a description of devices", `json:{"driver":"raw","file":{"driver":"file","filename":"`+SecretName+`"}}`, "raw")
	backing("is the image itself", SelfName, "qcow2")
	b.all[len(b.all)-1].Endless = true
}

func (b *book) named(structure, name, field, rule string, img *Image) {
	b.all = append(b.all, Recipe{
		Name: structure + ": " + name, Rule: rule, Structure: structure, Field: field, When: WhenRead,
		Image: img.Bytes, Files: map[string][]byte{SecretName: Secret},
	})
}

// otherFormats are images of formats that programs take by their first bytes, with the
// fields that QEMU once did not check.
func (b *book) otherFormats() {
	add := func(format, name, rule string, image []byte) {
		b.all = append(b.all, Recipe{Name: "other format: " + name, Rule: rule, Structure: "header", Field: noticedIn(format),
			When: WhenOpen, Image: image, Format: format})
	}
	add("qcow", "qcow version 1 with L2 tables of 2 GiB", "an L2 table has 512 to 65536 bytes", qcow1(1<<20, 12, 28))
	add("qcow", "qcow version 1 with clusters of 1 byte", "clusters have 512 bytes to 64 KiB", qcow1(1<<20, 0, 12))
	add("qcow", "qcow version 1 with an L1 table that overflows", "the L1 table fits into memory", qcow1(1<<63-1, 9, 6))
	add("parallels", "parallels without tracks", "the size of a block is not 0", parallels(0, 16))
	add("parallels", "parallels with a catalog of 16 GiB", "the catalog lies in the file", parallels(63, 1<<32-1))
	add("bochs", "bochs with extents of 0 bytes", "an extent is not empty", bochs(0, 16))
	add("bochs", "bochs with a catalog of 16 GiB", "the catalog lies in the file", bochs(1<<16, 1<<32-1))
}

// noticedIn is where a reader of qcow2 sees that the format is another one.
func noticedIn(format string) string {
	if format == "qcow" {
		return "version"
	}
	return "magic"
}

func qcow1(size uint64, clusterBits, l2Bits byte) []byte {
	be := binary.BigEndian
	h := append([]byte("QFI\xfb"), 0, 0, 0, 1)
	h = be.AppendUint64(h, 0) // backing_file_offset
	h = be.AppendUint64(h, 0) // backing_file_size, mtime
	h = be.AppendUint64(h, size)
	h = append(h, clusterBits, l2Bits, 0, 0, 0, 0, 0, 0) // padding, crypt_method
	h = be.AppendUint64(h, 48)                           // l1_table_offset
	return append(h, make([]byte, 4096-len(h))...)
}

func parallels(tracks, entries uint32) []byte {
	le := binary.LittleEndian
	h := []byte("WithoutFreeSpace")
	for _, v := range []uint32{2, 16, 100, tracks, entries, 2048, 0} { // version, heads, cylinders, …, sectors
		h = le.AppendUint32(h, v)
	}
	return append(h, make([]byte, 4096-len(h))...)
}

func bochs(extent, catalog uint32) []byte {
	h := make([]byte, 4096)
	copy(h, "Bochs Virtual HD Image")
	copy(h[32:], "Redolog")
	copy(h[48:], "Growing")
	le := binary.LittleEndian
	for i, v := range []uint32{0x00020000, 512, catalog, 512, extent, 0} { // version, header, …, bitmap, …
		le.PutUint32(h[64+4*i:], v)
	}
	le.PutUint64(h[88:], 1<<20)
	return h
}

// advisory says which recipes show what an advisory is about, by the beginning of their
// names.
var advisory = map[string][]string{
	"CVE-2014-0142": {"other format: parallels without", "other format: bochs with extents"},
	"CVE-2014-0143": {"header: l1_size huge", "header: refcount_table_clusters huge", "snapshot table: l1_size huge",
		"refcount table: block beyond", "other format: parallels with a", "other format: bochs with a"},
	"CVE-2014-0144": {"header: header_length", "header: backing_", "header: backing name", "header: refcount_table", "header: l1_", "header: size", "header: nb_snapshots", "header: snapshots_offset"},
	"CVE-2014-0145": {"snapshot table: l1_", "snapshot table: disk size"},
	"CVE-2014-0146": {"header: nb_snapshots", "header: snapshots_offset"},
	"CVE-2014-0147": {"refcount table: beyond", "refcount table: no clusters", "refcount table: block is"},
	"CVE-2014-0222": {"other format: qcow version 1 with L2"},
	"CVE-2014-0223": {"other format: qcow version 1 with an L1", "other format: qcow version 1 with clusters"},

	"CVE-2024-32498": {"header extension: data file of the host"},
	"CVE-2024-4467":  {"header extension: data file as"},
	"CVE-2026-27211": {"header: backing file of the host"},
}

// advisories notes which recipe belongs to which advisory.
func (b *book) advisories() {
	for i := range b.all {
		r := &b.all[i]
		var list []string
		for cve, names := range advisory {
			if slices.ContainsFunc(names, func(s string) bool { return strings.HasPrefix(r.Name, s) }) {
				list = append(list, cve)
			}
		}
		slices.Sort(list)
		r.CVE = strings.Join(list, " ")
	}
}
