package qcow2

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/qbitkit/qbit/testimages/interop"
)

// headerV2 is the header of an image that qemu-img 7.2 made with the options
// compat=0.10,cluster_size=4096 over a raw backing file: up to the backing file's
// name.
const headerV2 = `
514649fb 00000002 00000000 00000060 00000008 0000000c 00000000 00300000
00000000 00000002 00000000 00003000 00000000 00001000 00000001 00000000
00000000 00000000
e2792aca 00000003 72617700 00000000
00000000 00000000`

// headerV3 is that of an image with the options lazy_refcounts=on,
// refcount_bits=8,compression_type=zstd: up to the end of the extensions.
const headerV3 = `
514649fb 00000003 00000000 00000000 00000000 00000010 00000000 00500000
00000000 00000001 00000000 00030000 00000000 00010000 00000001 00000000
00000000 00000000 00000000 00000008 00000000 00000001 00000000 00000000
00000003 00000070 01000000 00000000
6803f857 00000180
00006469 72747920 62697400 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
0001636f 72727570 74206269 74000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
00026578 7465726e 616c2064 61746120 66696c65 00000000 00000000 00000000 00000000 00000000 00000000 00000000
0003636f 6d707265 7373696f 6e207479 70650000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
00046578 74656e64 6564204c 3220656e 74726965 73000000 00000000 00000000 00000000 00000000 00000000 00000000
01006c61 7a792072 6566636f 756e7473 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
02006269 746d6170 73000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
02017261 77206578 7465726e 616c2064 61746100 00000000 00000000 00000000 00000000 00000000 00000000 00000000
00000000 00000000`

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// reencode decodes the header and the extensions in the first cluster and encodes
// them again; end is the end of the extension area.
func reencode(t *testing.T, first []byte, end int) (Header, []Extension, []byte) {
	t.Helper()
	h, err := decodeHeader(first)
	if err != nil {
		t.Fatal(err)
	}
	exts, err := decodeExtensions(first, int(h.HeaderLength), end, defaults())
	if err != nil {
		t.Fatal(err)
	}
	b := appendHeader(nil, &h)
	for _, e := range exts {
		b = appendExtension(b, e.Type, e.Data)
	}
	return h, exts, appendExtension(b, extEnd, nil)
}

func TestHeaderOfQEMU(t *testing.T) {
	for _, row := range []struct {
		hex  string
		want Header
		ext  Extension
	}{
		{headerV2, Header{Version: 2, BackingFileOffset: 96, BackingFileSize: 8, ClusterBits: 12, Size: 3 << 20, L1Size: 2,
			L1TableOffset: 0x3000, RefcountTableOffset: 0x1000, RefcountTableClusters: 1, RefcountOrder: 4, HeaderLength: 72},
			Extension{ExtBackingFormat, 72, []byte("raw")}},
		{headerV3, Header{Version: 3, ClusterBits: 16, Size: 5 << 20, L1Size: 1, L1TableOffset: 0x30000,
			RefcountTableOffset: 0x10000, RefcountTableClusters: 1, IncompatibleFeatures: IncompatCompression,
			CompatibleFeatures: CompatLazyRefcounts, RefcountOrder: 3, HeaderLength: 112, CompressionType: CompressionZstd},
			Extension{ExtFeatureNames, 112, appendFeatureNames(nil, ourFeatureNames)}},
	} {
		b := unhex(t, row.hex)
		h, exts, again := reencode(t, b, len(b))
		if diff := cmp.Diff(row.want, h); diff != "" {
			t.Errorf("version %d (-want +got):\n%s", row.want.Version, diff)
		}
		if diff := cmp.Diff([]Extension{row.ext}, exts); diff != "" {
			t.Errorf("version %d (-want +got):\n%s", row.want.Version, diff)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("version %d: encoded again:\n%x\nwant\n%x", row.want.Version, again, b)
		}
	}
}

// What QEMU writes with each option is encoded again to the same bytes.
func TestInteropHeader(t *testing.T) {
	interop.Need(t, "qemu-img")
	dir := t.TempDir()
	backing := filepath.Join(dir, "backing file.raw")
	interop.Run(t, "qemu-img", "create", "-q", "-f", "raw", backing, "1M")
	for i, options := range []string{
		"compat=0.10", "compat=0.10,cluster_size=512,backing_fmt=raw,backing_file=" + backing,
		"compat=1.1", "compat=1.1,backing_fmt=raw,backing_file=" + backing, "cluster_size=512", "cluster_size=2M",
		"extended_l2=on", "compression_type=zstd", "lazy_refcounts=on,refcount_bits=1", "refcount_bits=64",
		"data_file=" + filepath.Join(dir, "data"), "data_file_raw=on,data_file=" + filepath.Join(dir, "raw data"),
	} {
		t.Run(options, func(t *testing.T) {
			image := filepath.Join(dir, fmt.Sprint(i, ".qcow2"))
			interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, "3M")
			file, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			h, err := decodeHeader(file)
			if err != nil {
				t.Fatal(err)
			}
			end := h.Geometry().ClusterSize()
			if h.BackingFileOffset != 0 {
				end = int64(h.BackingFileOffset)
			}
			_, _, again := reencode(t, file, int(end))
			if h.BackingFileOffset != 0 && int64(len(again)) != end || int64(len(again)) > end {
				t.Errorf("%d bytes, and the extensions end at %d", len(again), end)
			}
			if !bytes.HasPrefix(file, again) {
				t.Errorf("encoded again:\n%x\nwant\n%x", again, file[:len(again)])
			}
		})
	}
}

// drawHeader makes any header that can be decoded.
func drawHeader(t *rapid.T) Header {
	u64 := func(name string) uint64 { return rapid.Uint64().Draw(t, name) }
	u32 := func(name string) uint32 { return rapid.Uint32().Draw(t, name) }
	h := Header{
		Version: rapid.SampledFrom([]uint32{2, 3}).Draw(t, "version"), BackingFileOffset: HostOffset(u64("backing_file_offset")),
		BackingFileSize: u32("backing_file_size"), ClusterBits: rapid.Uint32Range(9, 21).Draw(t, "cluster_bits"),
		Size: u64("size"), CryptMethod: CryptMethod(u32("crypt_method")), L1Size: u32("l1_size"),
		L1TableOffset: HostOffset(u64("l1_table_offset")), RefcountTableOffset: HostOffset(u64("refcount_table_offset")),
		RefcountTableClusters: u32("refcount_table_clusters"), NbSnapshots: u32("nb_snapshots"),
		SnapshotsOffset: HostOffset(u64("snapshots_offset")), RefcountOrder: 4, HeaderLength: headerLengthV2,
	}
	if h.Version == 2 {
		return h
	}
	h.IncompatibleFeatures, h.CompatibleFeatures = u64("incompatible_features"), u64("compatible_features")
	h.AutoclearFeatures, h.RefcountOrder = u64("autoclear_features"), u32("refcount_order")
	h.HeaderLength = 8 * rapid.Uint32Range(104/8, 512/8).Draw(t, "header_length / 8")
	if h.HeaderLength > compressionOffset {
		h.CompressionType = CompressionType(rapid.Uint8().Draw(t, "compression_type"))
	}
	if n := int(h.HeaderLength) - headerLengthFull; n > 0 {
		h.Additional = rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "additional")
	}
	return h
}

func TestHeaderRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawHeader(t)
		const before = "kept"
		b := appendHeader([]byte(before), &want)
		if !bytes.HasPrefix(b, []byte(before)) || len(b) != len(before)+int(want.HeaderLength) {
			t.Fatalf("%d bytes after %d, header_length is %d", len(b), len(before), want.HeaderLength)
		}
		got, err := decodeHeader(b[len(before):])
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		if again := appendHeader(nil, &got); !bytes.Equal(again, b[len(before):]) {
			t.Fatalf("encoded again:\n%x\nwant\n%x", again, b[len(before):])
		}
	})
}

func TestExtensionRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := 8 * rapid.IntRange(9, 64).Draw(t, "start / 8")
		b := make([]byte, start)
		var want []Extension
		for range rapid.IntRange(0, 5).Draw(t, "extensions") {
			e := Extension{Host: HostOffset(len(b)), Data: rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "data")}
			e.Type = rapid.OneOf(rapid.Uint32Min(1), rapid.SampledFrom([]uint32{ExtBackingFormat, ExtFeatureNames,
				ExtBitmaps, ExtEncryption, ExtDataFile})).Draw(t, "type")
			b = appendExtension(b, e.Type, e.Data)
			want = append(want, e)
		}
		end := len(b)
		if rapid.Bool().Draw(t, "end marker") { // without one, the area ends them
			b = append(appendExtension(b, extEnd, nil), "what stands behind"...)
			end = len(b)
		}
		got, err := decodeExtensions(append(b, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0), start, end, defaults())
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("%d extensions, want %d", len(got), len(want))
		}
		for i, e := range got {
			if e.Type != want[i].Type || e.Host != want[i].Host || !bytes.Equal(e.Data, want[i].Data) {
				t.Fatalf("extension %d is %+v, want %+v", i, e, want[i])
			}
		}
	})
}

func TestFeatureNamesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[^\x00]{0,46}`).Filter(func(s string) bool { return len(s) <= 46 })
		want := rapid.SliceOf(rapid.Custom(func(t *rapid.T) FeatureName {
			return FeatureName{rapid.Byte().Draw(t, "kind"), rapid.Byte().Draw(t, "bit"), name.Draw(t, "name")}
		})).Draw(t, "names")
		got := decodeFeatureNames(appendFeatureNames(nil, want), defaults())
		if len(got) != len(want) || len(want) > 0 && !cmp.Equal(got, want) {
			t.Fatalf("(-want +got):\n%s", cmp.Diff(want, got))
		}
	})
}

func defaults() *Limits {
	l := Limits{}.WithDefaults()
	return &l
}
