package build

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func audit(t *testing.T, file []byte) *Audit {
	t.Helper()
	a, err := AuditFile(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Nothing is found in what Random makes; its refcounts, extension and bitmaps are
// found.
func TestAuditSound(t *testing.T) {
	for seed := range uint64(100) {
		img := Random(seed)
		a := audit(t, img.Bytes)
		if len(a.Problems) > 0 || a.Leaks > 0 && !a.Stale {
			t.Errorf("seed %d: %d leaks, %q", seed, a.Leaks, a.Problems)
		}
		want := len(img.Bitmaps)
		if img.Spec.StaleBitmaps {
			want = 0
		}
		if len(a.Bitmaps) != want || a.Stale != (img.Spec.StaleBitmaps && len(img.Bitmaps) > 0) {
			t.Errorf("seed %d: %d bitmaps of %d, stale %t", seed, len(a.Bitmaps), want, a.Stale)
		}
		if ext, ok := img.Find("bitmaps_extension"); ok && a.Extension != ext.Off {
			t.Errorf("seed %d: the extension at %#x, is at %#x", seed, a.Extension, ext.Off)
		}
	}
}

func auditImage() *Image {
	return Must(Spec{
		Size:      40 * 512,
		Clusters:  map[uint64]Cluster{0: {Form: Normal}, 1: {Form: Normal}, 3: {Form: Packed}},
		Snapshots: []Snapshot{{ID: "1", Clusters: map[uint64]Cluster{2: {Form: Normal}}}},
		Bitmaps:   []Bitmap{{Name: "a", Dirty: []Range{{512, 512}}}, {Name: "b", Dirty: []Range{{0, 9000}}}},
	})
}

// Each broken rule is found, in these words.
func TestAuditProblems(t *testing.T) {
	img := auditImage()
	at := func(name string) uint64 { return uint64(img.At("%s", name).Off) }
	for _, c := range []struct {
		field string
		value uint64
		want  string
	}{
		{"l2[0][0]", at("data[1]") | copied, "refcount 1"},
		{"l2[0][0]", at("data[0]"), "bit 63"},
		{"l1[0]", at("l2[0]"), "bit 63"},
		{"l2[0][0]", at("l2[0]") | copied, "used by"},
		{"l2[0][0]", at("refcount_block[0]") | copied, "used by"},
		{"l2[0][0]", 1<<30 | copied, "beyond the end"},
		{"l2[0][0]", 0, "leaks 1"},
		{"snapshot[0].l2[0][2]", at("bitmap[0].table"), "used by"},
		{"bitmap[0].table[0]", at("data[1]"), "used by"},
		{"bitmap[0].table[0]", at("data[1]") | 1, "bitmap table"},
		{"bitmap[0].table[0]", 1, "leaks 1"},
		{"bitmap[1].bitmap_table_offset", at("bitmap[0].table"), "used by"},
		{"bitmap[1].name", 'a', "two bitmaps"},
		{"bitmap[1].name_size", 900, "of the directory"},
		{"bitmaps_extension.bitmap_directory_size", 200, "bytes after"},
		{"bitmaps_extension.nb_bitmaps", 1, "bytes after"},
		{"bitmaps_extension.length", 16, "16 bytes"},
		{"bitmaps_extension.length", 10000, "too long"},
		{"header.autoclear_features", 0, "stale"},
		{"bitmaps_extension.type", 0x12345678, "without the extension"},
		{"header.refcount_table_offset", 1 << 20, "beyond the end"},
		{"snapshot[0].name_size", 60000, "beyond the end"},
	} {
		a := audit(t, img.Patch(c.field, c.value))
		all := fmt.Sprintf("%s leaks %d", strings.Join(a.Problems, "\n"), a.Leaks)
		if a.Stale {
			all += " stale"
		}
		if !strings.Contains(all, c.want) {
			t.Errorf("%s = %#x: want %q, have %q", c.field, c.value, c.want, all)
		}
	}
}

// Every used cluster at another refcount is found, at every width.
func TestAuditRefcounts(t *testing.T) {
	for width := 1; width <= 64; width *= 2 {
		img := auditImage()
		img.Spec.RefcountBits = width
		img = Must(img.Spec)
		sound := audit(t, img.Bytes)
		for c, cl := range sound.Clusters {
			if cl.Refs == 0 || cl.Count != cl.Refs {
				t.Fatalf("width %d: cluster %d: %+v", width, c, cl)
			}
			file := slices.Clone(img.Bytes)
			img.SetRefcount(file, uint64(c), 0)
			a := audit(t, file)
			if len(a.Problems) == 0 || a.Clusters[c].Count != 0 {
				t.Errorf("width %d: cluster %d at refcount 0: %q", width, c, a.Problems)
			}
			img.SetRefcount(file, uint64(c), cl.Count)
			if !bytes.Equal(file, img.Bytes) {
				t.Errorf("width %d: SetRefcount of cluster %d changed more", width, c)
			}
		}
	}
}

// Mapping and Content follow what they are the hash of.
func TestAuditHashes(t *testing.T) {
	img := auditImage()
	a, b := audit(t, img.Bytes), audit(t, slices.Clone(img.Bytes))
	if a.Mapping != b.Mapping || !slices.Equal(a.Bitmaps, b.Bitmaps) {
		t.Error("the same file gives other hashes")
	}
	file := slices.Clone(img.Bytes)
	file[img.At("bitmap[1].data[0]").Off]++
	if b := audit(t, file); a.Mapping != b.Mapping || a.Bitmaps[0] != b.Bitmaps[0] || a.Bitmaps[1] == b.Bitmaps[1] {
		t.Errorf("a changed bit: %+v, %+v", a.Bitmaps, b.Bitmaps)
	}
	if b := audit(t, img.Patch("l2[0][5]", 1)); a.Mapping == b.Mapping {
		t.Error("a changed L2 entry does not change the mapping")
	}
}
