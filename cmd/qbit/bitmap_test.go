package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

func TestParseSpan(t *testing.T) {
	for text, want := range map[string]span{
		"0+1": {0, 1}, "1M+64k": {1 << 20, 1<<20 + 64<<10}, "1M-1088k": {1 << 20, 1088 << 10}, "5-6": {5, 6},
		"1.5k+0.5k": {1536, 2048}, "4E+3E": {4 << 60, 7 << 60},
	} {
		if got, err := parseSpan(text); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "1", "1M", "+1", "1+", "1-", "-1", "1+0", "2-2", "3-2", "1+-1", "1--2", "7E+7E", "x+1", "1 + 1"} {
		if got, err := parseSpan(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

func TestShellWord(t *testing.T) {
	for text, want := range map[string]string{"a/b-1.qcow2": "a/b-1.qcow2", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "-n": "'-n'", "\x1b": `'\x1b'`} {
		if got := shellWord(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// drawBitmap is a random bitmap of a disk.
func drawBitmap(t *rapid.T, size int64, label string) *bitmap.Bitmap {
	b := must(bitmap.New(size, int64(512)<<rapid.IntRange(0, 6).Draw(t, label+" granularity")))
	for range rapid.IntRange(0, 30).Draw(t, label+" ranges") {
		off := rapid.Int64Range(0, size).Draw(t, "off")
		n := rapid.Int64Range(0, 40000).Draw(t, "n")
		if rapid.Bool().Draw(t, "dirty") {
			b.Set(off, n)
		} else {
			b.Unset(off, n)
		}
	}
	return b
}

func drawSize(t *rapid.T) int64 { return rapid.Int64Range(0, 3<<20).Draw(t, "size") }

func TestCountRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := drawBitmap(t, drawSize(t), "b")
		want := int64(0)
		for range b.Ranges() {
			want++
		}
		if got := countRanges(b); got != want {
			t.Fatalf("%d ranges, counted %d", want, got)
		}
	})
	// Ranges that cross a piece, and pieces that are clean.
	b := must(bitmap.New(1<<40, 4096))
	for _, at := range []int64{0, 1 << 31, 1<<31 + 4096*64, 3 << 31, 1<<40 - 4096} {
		b.Set(at-4096, 8192)
	}
	if got := countRanges(b); got != 5 {
		t.Errorf("5 ranges, counted %d", got)
	}
}

// TestDiffModel compares differingRuns with a look at every sector.
func TestDiffModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := drawSize(t)
		a, b := drawBitmap(t, size, "a"), drawBitmap(t, size, "b")
		got := make(map[int64]int)
		end := int64(0)
		for r, side := range differingRuns(a, b) {
			if r.Off < end || r.Len <= 0 {
				t.Fatalf("%v after %d", r, end)
			}
			if before, ok := got[r.Off-512]; ok && before == side {
				t.Fatalf("%v could go on from what was told before", r)
			}
			end = r.Off + r.Len
			for at := r.Off; at < end; at += 512 {
				got[at] = side
			}
		}
		for at := int64(0); at < size; at += 512 {
			side, differ := got[at]
			x, y := a.Test(at), b.Test(at)
			if differ != (x != y) || differ && (side == 0) != x {
				t.Fatalf("at %d: %t and %t, told %t, %d", at, x, y, differ, side)
			}
		}
	})
}

// TestRoundTrip exports random bitmaps and imports them.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := drawSize(t)
		b := drawBitmap(t, size, "b")
		x := exportedBitmap{info: qcow2.BitmapInfo{Name: rapid.String().Draw(t, "name"), Auto: rapid.Bool().Draw(t, "auto")}, bits: b, state: stateConsistent}
		var out bytes.Buffer
		if err := x.write(context.Background(), newLineWriter(&out)); err != nil {
			t.Fatal(err)
		}
		got, head, err := readInto(out.Bytes(), size)
		if err != nil {
			t.Fatalf("%v in %s", err, out.Bytes())
		}
		if !got.Equal(b) || head.recording != x.info.Auto || !head.complete {
			t.Fatalf("%+v; another bitmap from %s", head, out.Bytes())
		}
	})
}

// TestReadRanges: what a file of ranges must not say, and what is passed over.
func TestReadRanges(t *testing.T) {
	const size = 1 << 20
	head := `"format": "qbit-bitmap", "version": 1, "virtual-size": 1048576, "granularity": 4096, "recording": true, "complete": true`
	ours := func(ranges string) string { return "{" + head + `, "ranges": [` + ranges + "]}" }
	const clean = `{"offset": 0, "length": 1048576, "type": 0}`
	for _, good := range []string{
		ours(""), ours(`{"offset": 0, "length": 1048576}`), ours(`{"length": 1, "offset": 1048575}`), ours(`{"offset": 0, "length": 1}, {"offset": 1, "length": 1}`),
		`{"future": {"a": [1]}, ` + head + `, "ranges": [], "more": 1}`, "[" + clean + "]",
		`[{"offset": 0, "length": 1, "type": 1, "description": "dirty"}, {"offset": 1, "length": 1048575, "type": 0, "description": "clean"}]`,
	} {
		if _, _, err := readInto([]byte(good), size); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"": "ends before", "{": "ends before", "[": "ends before", "1": "neither", `"x"`: "neither", "}": "invalid character",
		"{}": `"ranges" is missing`, "[]": "the map is of 0 bytes",
		ours("") + "1":                 "follows the end",
		"[" + clean + "]]":             "follows the end",
		"{" + head + "}":               `"ranges" is missing`,
		"{" + head + `, "ranges": {}}`: "it must be a list",
		"{" + head + `, "ranges": []`:  "ends before",
		`{"ranges": [], ` + head + `}`: "before the ranges must stand: format, version",
		"{" + head + `, "version": 1}`: "twice",
		`{"format": "other"}`:          `the format is "other"`,
		`{"version": 2}`:               "the version is 2",
		`{"virtual-size": 5}`:          "a disk of 5 bytes",
		`{"granularity": 1000}`:        "power of two",
		`{"granularity": "64k"}`:       `the key "granularity"`,
		`{"complete": 1}`:              `the key "complete"`,
		`{"dirty-bytes": 1e400}`:       "dirty-bytes",
		"{" + head + `, "dirty-bytes": 2, "ranges": [{"offset": 0, "length": 1}]}`: "1 bytes together, and dirty-bytes says 2",
		ours(`{"offset": 0}`):                                                       "an offset and a length",
		ours(`{"offset": 0, "length": 0}`):                                          "above 0",
		ours(`{"offset": 0, "length": -1}`):                                         "above 0",
		ours(`{"offset": -1, "length": 1}`):                                         "must ascend",
		ours(`{"offset": 0, "length": 1, "type": 1}`):                               "unknown field",
		ours(`{"offset": 0.5, "length": 1}`):                                        "0.5",
		ours(`[0, 1]`):                                                              "cannot unmarshal",
		ours(`{"offset": 1048576, "length": 1}`):                                    "behind the end of the disk",
		ours(`{"offset": 1, "length": 9223372036854775807}`):                        "behind the end of the disk",
		ours(`{"offset": 9223372036854775807, "length": 1}`):                        "behind the end of the disk",
		ours(`{"offset": 8, "length": 8}, {"offset": 0, "length": 8}`):              "the one before ends at 16",
		ours(`{"offset": 0, "length": 8},`):                                         "",
		`[{"offset": 1, "length": 1048575, "type": 0}]`:                             "no gaps",
		`[{"offset": 0, "length": 512, "type": 0}]`:                                 "not all of it",
		`[{"offset": 0, "length": 1048577, "type": 0}]`:                             "behind the end",
		`[{"offset": 0, "length": 1048576}]`:                                        "qemu:dirty-bitmap",
		`[{"offset": 0, "length": 1048576, "type": 3, "description": "hole,zero"}]`: "qemu:dirty-bitmap",
		`[{"offset": 0, "length": 1048576, "type": 0, "description": "data"}]`:      "qemu:dirty-bitmap",
		`[{"offset": 0, "length": 1048576, "type": 1, "description": "clean"}]`:     "qemu:dirty-bitmap",
	} {
		_, _, err := readInto([]byte(bad), size)
		if err == nil || !strings.Contains(err.Error(), want) || statusOf(err) != exitBad {
			t.Errorf("%s: %v, want %q", bad, err, want)
		}
	}
}

// TestImportLastSector: QEMU serves whole sectors, so the map of a disk that ends
// within one says nothing of its last bytes; they count as dirty.
func TestImportLastSector(t *testing.T) {
	b, _, err := readInto([]byte(`[{"offset": 0, "length": 8192, "type": 0}]`), 8192+511)
	if err != nil || b.Count() != 511 {
		t.Errorf("%v: %d bytes are dirty, want 511", err, b.Count())
	}
}

// A stopped run ends a list so that it does not parse.
func TestRangesStop(t *testing.T) {
	b := must(bitmap.New(100_000*1024, 512))
	for off := int64(0); off < b.Size(); off += 1024 {
		b.Set(off, 512)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out bytes.Buffer
	if err := writeRuns(ctx, newLineWriter(&out), b, true); err != context.Canceled {
		t.Errorf("got %v", err)
	}
	if strings.Contains(out.String(), "]") {
		t.Error("the list is closed")
	}
}

func TestColumn(t *testing.T) {
	for _, n := range []int64{0, 7, 1234567890, 12345678901234} {
		w := newLineWriter(nil)
		w.text("x")
		w.column(n, 10)
		if diff := cmp.Diff(fmt.Sprintf("x%10d", n), string(w.line)); diff != "" {
			t.Error(diff)
		}
	}
}

// TestBitmapListOfHugeImages lists what costs its maker nothing: in little memory,
// and to the end.
func TestBitmapListOfHugeImages(t *testing.T) {
	for name, write := range map[string]func(*testing.T, string){
		"hostile names":  writeBitmaps(8000, 12, hostileName(1000)),
		"a shared table": writeSharedTable,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image")
			write(t, path)
			u := runMeasured(t, io.Discard, "qbit", "bitmap", "--output=json", path)
			t.Logf("%d MiB, %v", u.memory>>20, u.cpu)
			if u.memory > 64<<20 || u.status != 0 {
				t.Errorf("%d MiB, status %d", u.memory>>20, u.status)
			}
		})
	}
}

// TestBitmapRecipes runs every kind of call on every broken image that we know: it
// ends in a status and a message that names the file, and who fails or only reads
// leaves every byte as it was.
func TestBitmapRecipes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image.qcow2")
	for _, r := range build.Recipes() {
		for _, call := range []struct {
			args, name string
			reads      bool
		}{
			{"", "", true}, {"--output=json", "", true}, {"--ranges", "first", true}, {"--salvage", "first", true}, {"-n --drop-all", "", true},
			{"--add", "new", false}, {"--set 0+1", "first", false}, {"--merge later", "first", false},
			{"--remove", "first", false}, {"--remove --inconsistent", "", false}, {"--drop-all", "", false},
		} {
			writeFile(t, path, r.Image)
			args := append(append([]string{"bitmap"}, strings.Fields(call.args)...), path)
			if call.name != "" {
				args = append(args, call.name)
			}
			_, stderr, status := qbit(args...)
			if status > exitBad && !strings.Contains(stderr, "end of the disk") {
				t.Errorf("%s: %q: status %d: %s", r.Name, call.args, status, stderr)
			}
			if (call.reads || status != 0) && !bytes.Equal(must(os.ReadFile(path)), r.Image) {
				t.Errorf("%s: %q: status %d, and the image changed", r.Name, call.args, status)
			}
			for line := range strings.Lines(stderr) {
				if !strings.Contains(line, path) && status != exitUsage {
					t.Errorf("%s: %q: %q does not name the file", r.Name, call.args, line)
				}
			}
		}
	}
}
