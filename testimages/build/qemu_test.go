package build

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

type clusters = map[uint64]Cluster

// mixed holds each form that every version 3 image may hold.
func mixed() clusters {
	return clusters{
		0: {Form: Normal}, 1: {Form: Packed}, 2: {Form: ZeroPlain}, 3: {Form: ZeroPrealloc},
		5: {Form: Packed}, 6: {Form: Packed, Gap: 3}, 7: {Form: Normal}, 8: {Form: Packed}, 9: {Form: Packed},
	}
}

// plain holds what version 2 may hold.
func plain() clusters {
	return clusters{0: {Form: Normal}, 2: {Form: Packed}, 3: {Form: Packed}, 5: {Form: Normal}}
}

func subs() clusters {
	return clusters{
		0: {Form: Normal}, 1: {Form: ZeroPlain}, 2: {Form: ZeroPrealloc},
		3: {Form: Sub, Alloc: 0x0f0f0001, Zero: 0xf0f00000},
		4: {Form: Sub, Zero: 0x80000001}, 5: {Form: Sub, Prealloc: true, Zero: 6},
		6: {Form: Sub, Alloc: 1 << 31}, 7: {Form: Packed}, 8: {Form: Sub},
	}
}

func many(n uint64, f Form) clusters {
	m := clusters{}
	for i := range n {
		m[i] = Cluster{Form: f}
	}
	return m
}

func variants() map[string]Spec {
	const size = 12 * 512
	state := bytes.Repeat([]byte("state"), 300)
	v := map[string]Spec{
		"empty":             {},
		"unallocated":       {Size: size},
		"mixed":             {Size: size, Clusters: mixed()},
		"version 2":         {Version: 2, Size: size, Clusters: plain()},
		"several L2 tables": {Size: 300 * 512, Clusters: clusters{0: {Form: Normal}, 63: {Form: Packed}, 64: {Form: ZeroPlain}, 299: {Form: Normal}}},
		"all data":          {Size: 200 * 512, Clusters: many(200, Normal)},
		"all compressed":    {Size: 200 * 512, Clusters: many(200, Packed)},
		"compressed 1 bit":  {Size: 50 * 512, RefcountBits: 1, Clusters: many(50, Packed)},
		"compressed 2 bits": {Size: 50 * 512, RefcountBits: 2, Clusters: many(50, Packed)},
		"incompressible":    {Size: size, Clusters: clusters{0: {Form: Packed, Content: madeUp(1, "x", 512, false)}, 1: {Form: Packed}}},
		"ends in a sector":  {Size: 12 << 12, ClusterBits: 12, Clusters: many(12, Packed), End: EndSector},
		"ends at a byte":    {Size: 12 << 12, ClusterBits: 12, Clusters: many(12, Packed), End: EndByte},
		"ends in a subcluster": {Size: 2 << 14, ClusterBits: 14, ExtendedL2: true, End: EndSector,
			Clusters: clusters{1: {Form: Sub, Alloc: 3}}},
		"odd size":         {Size: 5*512 + 100, Clusters: many(6, Normal)},
		"size of sectors":  {Size: 5*4096 + 512, ClusterBits: 12, Clusters: many(6, Packed)},
		"shuffled":         {Size: 100 * 512, Clusters: many(100, Normal), Shuffle: true, Seed: 4},
		"shared in a disk": {Size: size, Clusters: clusters{0: {Form: Normal, Share: "a"}, 4: {Form: Normal, Share: "a"}, 5: {Form: Packed, Share: "b"}, 6: {Form: Packed, Share: "b"}}},
		"extra L1":         {Size: size, ExtraL1: 100, Clusters: mixed()},
		"huge":             {Size: 1 << 40, ClusterBits: 16, Clusters: clusters{0: {Form: Normal}, 1<<24 - 1: {Form: Normal}}},
		"snapshots": {Size: size, Clusters: mixed(), Snapshots: []Snapshot{
			{ID: "1", Name: "copy", Copy: true, Seconds: 1700000000, Nanosecond: 5, VMClock: 77},
			{ID: "22", Name: "other", Clusters: many(5, Packed), Extra: []byte("12345678")},
			{ID: "3", Name: "smaller", DiskSize: 5 * 512, Clusters: many(4, Normal), VMState: state},
			{ID: "4", Name: "bigger", DiskSize: 100 * 512, Clusters: many(90, Normal)},
			{ID: "5", Name: "copy with state", Copy: true, VMState: state},
		}},
		"snapshots version 2": {Version: 2, Size: size, Clusters: plain(), Snapshots: []Snapshot{
			{ID: "1", Name: "bare", Bare: true, Copy: true}, {ID: "2", Name: "full", Clusters: many(3, Packed)},
		}},
		"snapshots extended": {Size: 10 << 14, ClusterBits: 14, ExtendedL2: true, Clusters: subs(),
			Snapshots: []Snapshot{{ID: "1", Name: "a", Copy: true}, {ID: "2", Name: "b", Clusters: subs()}}},
		"extended":      {Size: 10<<14 - 512, ClusterBits: 14, ExtendedL2: true, Clusters: subs()},
		"extended zstd": {Size: 10 << 16, ClusterBits: 16, ExtendedL2: true, Zstd: true, Clusters: subs()},
		"zstd":          {Size: size, Zstd: true, Clusters: mixed()},
		"header 112":    {Size: size, HeaderLength: 112, Clusters: mixed()},
		"header 120":    {Size: size, HeaderTail: make([]byte, 8), Clusters: mixed()},
		"extensions": {Size: size, ClusterBits: 12, Clusters: many(3, Normal), PadByte: 0x55,
			Extensions:   []Extension{{0x12345678, []byte("abc")}, {0x9abcdef0, nil}, {0x12345678, []byte("twice")}},
			FeatureNames: []Feature{{0, 0, "dirty bit"}, {1, 0, "lazy refcounts"}, {2, 63, strings.Repeat("x", 46)}}},
		"unknown features": {Size: size, Clusters: mixed(), Compatible: LazyRefcounts | 1<<40, Autoclear: 1 << 50},
		"corrupt":          {Size: size, Clusters: mixed(), Incompatible: Corrupt},
		"data file":        {Size: size, DataFile: &DataFile{Name: "data"}, Clusters: clusters{0: {Form: Normal}, 3: {Form: ZeroPlain}, 5: {Form: ZeroPrealloc}, 9: {Form: Normal}}},
		"raw data file":    {Size: size, DataFile: &DataFile{Name: "data", Raw: true}, Clusters: clusters{0: {Form: Normal}, 3: {Form: ZeroPlain}, 5: {Form: ZeroPrealloc}, 9: {Form: Normal}}},
		"extended data file": {Size: 4 << 14, ClusterBits: 14, ExtendedL2: true, DataFile: &DataFile{Name: "data"},
			Clusters: clusters{0: {Form: Normal}, 2: {Form: Sub, Alloc: 0xff, Zero: 0xff00}}},
		"backing":       {Size: size, Backing: "backing", BackingFormat: "raw", Clusters: mixed()},
		"backing v2":    {Version: 2, Size: size, Backing: "backing", BackingFormat: "raw", Clusters: plain()},
		"backing subs":  {Size: 10 << 14, ClusterBits: 14, ExtendedL2: true, Backing: "backing", BackingFormat: "raw", Clusters: subs()},
		"bitmaps":       {Size: 40000 * 512, Clusters: plain(), Bitmaps: someBitmaps()},
		"stale bitmaps": {Size: size, Bitmaps: []Bitmap{{Name: "b", Dirty: []Range{{0, 512}}}}, StaleBitmaps: true},
		"many bitmaps":  {Size: size, Clusters: plain(), Bitmaps: manyBitmaps(40)},
	}
	for bits := 1; bits <= 64; bits *= 2 {
		v["refcount bits "+string(rune('a'+bits%26))] = Spec{Size: size, RefcountBits: bits, Clusters: mixed()}
	}
	for bits := 9; bits <= 21; bits += 2 {
		v["cluster bits "+string(rune('a'+bits))] = Spec{Size: 9<<bits + 512, ClusterBits: bits, Clusters: mixed(), Zstd: bits%4 == 1}
	}
	return v
}

func someBitmaps() []Bitmap {
	return []Bitmap{
		{Name: "empty"},
		{Name: "one", Dirty: []Range{{1000, 1}}, Flags: Auto},
		{Name: "full", Dirty: []Range{{0, 40000 * 512}}},
		{Name: "full, as data", Dirty: []Range{{0, 40000 * 512}}, Literal: true},
		{Name: "mixed", Dirty: []Range{{40000*512 - 1, 1}, {3 << 20, 5 << 20}, {512, 512}}},
		{Name: "coarse", GranularityBits: 20, Dirty: []Range{{5 << 20, 1}}},
		{Name: "in use", Flags: InUse | Auto},
	}
}

func manyBitmaps(n int) []Bitmap {
	var all []Bitmap
	for i := range n {
		all = append(all, Bitmap{Name: strings.Repeat("n", i+1), GranularityBits: 9 + i%20, Dirty: []Range{{0, int64(i * 100)}}})
	}
	return all
}

// write stores an image and the files that it names in a new folder.
func write(t *testing.T, img *Image, backing []byte) string {
	t.Helper()
	dir := t.TempDir()
	if d := img.Spec.DataFile; d != nil { // QEMU looks for a relative name in its own working directory
		img.Spec.DataFile = &DataFile{Name: filepath.Join(dir, d.Name), Raw: d.Raw}
		img = Must(img.Spec)
	}
	files := map[string][]byte{"image": img.Bytes}
	if d := img.Spec.DataFile; d != nil {
		files[filepath.Base(d.Name)] = img.Data
	}
	if img.Spec.Backing != "" {
		files[img.Spec.Backing] = backing
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "image")
}

// convert returns what qemu-img reads, of a snapshot if it is named.
func convert(t *testing.T, path, snapshot string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "raw")
	args := []string{"convert", "-f", "qcow2", "-O", "raw"}
	if snapshot != "" {
		args = append(args, "-l", "snapshot.id="+snapshot)
	}
	interop.Run(t, "qemu-img", append(args, path, out)...)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// same compares bytes; qemu-img knows whole sectors only.
func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	got, want = got[:len(got)/512*512], want[:len(want)/512*512]
	if len(got) != len(want) {
		t.Fatalf("%s: %d bytes, want %d", what, len(got), len(want))
	}
	for i := 0; i < len(got); i += 512 {
		if !bytes.Equal(got[i:i+512], want[i:i+512]) {
			t.Fatalf("%s: sector %d differs: %x, want %x", what, i/512, got[i:i+16], want[i:i+16])
		}
	}
}

// checkClean wants qemu-img check to find nothing at all.
func checkClean(t *testing.T, path string) {
	t.Helper()
	out, err := exec.Command("qemu-img", "check", "-f", "qcow2", "--output=json", path).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img check: %v\n%s", err, out)
	}
	var report map[string]any
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, key := range []string{"check-errors", "corruptions", "leaks"} {
		if n, ok := report[key].(float64); ok && n != 0 {
			t.Fatalf("qemu-img check: %s", out)
		}
	}
}

func TestQEMUAgrees(t *testing.T) {
	interop.Need(t, "qemu-img")
	backing := madeUp(9, "backing", 7*512, false)
	for name, spec := range variants() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img := Must(spec)
			path := write(t, img, backing)
			if spec.Incompatible == 0 && !spec.StaleBitmaps {
				checkClean(t, path)
			}
			if spec.Size > 1<<30 {
				return
			}
			checkMap(t, path, &img.Disk)
			same(t, "disk", convert(t, path, ""), img.Disk.Over(qemuBacking(spec, backing)))
			for i := range img.Snapshots {
				checkSnapshot(t, img, i, path)
			}
		})
	}
}

// checkSnapshot compares a snapshot with what qemu-img makes of it. QEMU reads
// it with the size of the active disk, so only what both have is compared.
func checkSnapshot(t *testing.T, img *Image, i int, path string) {
	t.Helper()
	sn := &img.Snapshots[i]
	got, want := convert(t, path, sn.ID), sn.Disk.Bytes()
	n := min(len(got), len(want))
	same(t, "snapshot "+sn.Name, got[:n], want[:n])
}

// checkMap compares the kinds with those of qemu-img map.
func checkMap(t *testing.T, path string, v *View) {
	t.Helper()
	var ranges []struct {
		Start, Length, Depth int64
		Present, Zero, Data  bool
	}
	out := interop.Run(t, "qemu-img", "map", "-f", "qcow2", "--output=json", path)
	if err := json.Unmarshal(out, &ranges); err != nil {
		t.Fatal(err)
	}
	for _, r := range ranges {
		for off := r.Start; off < r.Start+r.Length; off += 512 {
			k := v.KindAt(off)
			absent := !r.Present || r.Depth > 0
			if absent != (k == Absent) || !absent && r.Zero != (k == Zero) {
				t.Fatalf("byte %d: %s, and qemu-img map says %+v", off, k, r)
			}
		}
	}
}

func TestQEMUReadsTheBitmaps(t *testing.T) {
	interop.Need(t, "qemu-nbd", "nbdinfo")
	img := Must(variants()["bitmaps"])
	path := write(t, img, nil)
	for _, bm := range img.Bitmaps {
		if bm.Flags&InUse != 0 {
			continue
		}
		var ranges []struct{ Offset, Length, Type int64 }
		out := interop.Run(t, "nbdinfo", "--json", "--map=qemu:dirty-bitmap:"+bm.Name, "--",
			"[", "qemu-nbd", "-r", "-f", "qcow2", "-B", bm.Name, path, "]")
		if err := json.Unmarshal(out, &ranges); err != nil {
			t.Fatal(err)
		}
		var dirty []Range
		for _, r := range ranges {
			if r.Type == 1 {
				dirty = append(dirty, Range{r.Offset, r.Length})
			}
		}
		if !slices.Equal(dirty, bm.Dirty) {
			t.Errorf("bitmap %q: QEMU reads %v, want %v", bm.Name, dirty, bm.Dirty)
		}
	}
}

func qemuBacking(s Spec, backing []byte) []byte {
	if s.Backing == "" {
		return nil
	}
	return backing
}

func TestQEMUListsTheSnapshots(t *testing.T) {
	interop.Need(t, "qemu-img")
	img := Must(variants()["snapshots"])
	var info struct {
		Snapshots []struct {
			ID, Name string
			State    int    `json:"vm-state-size"`
			Sec      uint32 `json:"date-sec"`
			Nsec     uint32 `json:"date-nsec"`
			ClockSec uint64 `json:"vm-clock-sec"`
			Clock    uint64 `json:"vm-clock-nsec"`
		}
	}
	out := interop.Run(t, "qemu-img", "info", "-f", "qcow2", "--output=json", write(t, img, nil))
	if err := json.Unmarshal(out, &info); err != nil {
		t.Fatal(err)
	}
	if len(info.Snapshots) != len(img.Snapshots) {
		t.Fatalf("%d snapshots, want %d", len(info.Snapshots), len(img.Snapshots))
	}
	for i, got := range info.Snapshots {
		want := img.Snapshots[i]
		if got.ID != want.ID || got.Name != want.Name || got.State != len(want.VMState) || got.Sec != want.Seconds ||
			got.Nsec != want.Nanosecond || got.ClockSec*1e9+got.Clock != want.VMClock {
			t.Errorf("QEMU lists %+v, want %+v", got, want.Snapshot)
		}
	}
}
