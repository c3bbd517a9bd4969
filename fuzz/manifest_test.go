package fuzz

import (
	"bytes"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/reconstruct/manifest"
)

// manifestSeeds are documents with every key, and some that lie.
func manifestSeeds() []string {
	const head = `{"qbit-manifest": 1, "chunk-size": 4194304, "disks": [`
	const full = `{"id": "f", "name": "cp0", "kind": "full", "size": 12582912, "root": "00000000000000aa", "files": [{"path": "d/f", "size": 10, "xxh64-4m": "0000000000000001"}], "chunks": [{"first": 1, "sums": "0000000000000007"}]}`
	const inc = `{"id": "i", "name": "cp1", "kind": "incremental", "size": 12582913, "parent": {"id": "f", "root": "00000000000000aa"}, "assumed": true, "root": "00000000000000bb", "sha256": "` +
		`0000000000000000000000000000000000000000000000000000000000000000", "files": [{"path": "z", "member": "m", "size": 1, "xxh64-4m": "0000000000000001"}], "chunks": [{"first": 0, "zeros": 1}, {"first": 3, "zeros": 1}]}`
	disk := head + `{"domain": "vm", "name": "vda", "points": [` + full + "," + inc + `]}]}`
	return []string{
		disk,
		head + `]}`,
		strings.Replace(disk, "12582913", "17592186044416", 1),
		strings.Replace(disk, "12582913", "18014398509481984", 1),
		strings.Replace(disk, `"zeros": 1}]`, `"zeros": 9223372036854775807}]`, 1),
		strings.Replace(disk, `{"id": "f", "root"`, `{"id": "i", "root"`, 1),
		head + strings.Repeat(`{"name": "a"},`, 50) + `{"name": "b"}]}`,
		disk[:len(disk)/2],
	}
}

// FuzzManifest decodes a document that anybody may have written. Property: what is
// accepted is within the limits and can be written and read again as the same; of
// each point every chunk is known, and none beyond, without more time or memory
// than the document is long. A root is right, or the view says so.
func FuzzManifest(f *testing.F) {
	for _, s := range manifestSeeds() {
		f.Add([]byte(s))
	}
	limits := &manifest.Limits{Bytes: 1 << 20, Size: 1 << 44, Chunks: 1 << 22}
	f.Fuzz(func(t *testing.T, doc []byte) {
		m, err := manifest.Decode(bytes.NewReader(doc), limits)
		if err != nil {
			return
		}
		var first, second bytes.Buffer
		if err := m.Encode(&first); err != nil {
			t.Fatalf("accepted, and not written: %v", err)
		}
		again, err := manifest.Decode(bytes.NewReader(first.Bytes()), nil)
		if err != nil {
			t.Fatalf("written, and not read: %v\n%s", err, first.Bytes())
		}
		if err := again.Encode(&second); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatalf("written again it is another document: %v\n%s\n%s", err, first.Bytes(), second.Bytes())
		}
		for _, d := range m.Disks {
			checkViews(t, d)
		}
	})
}

// checkViews resolves every point of a disk.
func checkViews(t *testing.T, d *manifest.Disk) {
	for _, p := range d.Points {
		v, err := d.View(p.ID)
		if err != nil {
			t.Fatalf("point %q is valid, and has no view: %v", p.ID, err)
		}
		last := manifest.Chunks(p.Size) - 1
		for _, n := range []int64{0, last / 2, last} {
			if _, known := v.Chunk(n); known != (last >= 0) {
				t.Fatalf("point %q: chunk %d of %d: known is %v", p.ID, n, last+1, known)
			}
		}
		if _, known := v.Chunk(last + 1); known {
			t.Fatalf("point %q: a chunk beyond the disk is known", p.ID)
		}
		if (v.Root() == p.Root) != (v.Check() == nil) {
			t.Fatalf("point %q: the root is not judged by the chunks", p.ID)
		}
	}
}
