package manifest

import (
	"bytes"
	"fmt"
	"testing"
)

// benchManifest has a full backup of 1 TiB that records every chunk, and ten
// increments of a thousand chunks each.
func benchManifest(tb testing.TB) *Manifest {
	tb.Helper()
	const size = int64(1 << 40)
	m := &Manifest{}
	d := m.AddDisk("vm", "vda")
	for i := range int64(11) {
		p := &Point{ID: fmt.Sprint(i), Name: fmt.Sprint("day ", i), Kind: "full", Size: size}
		step := int64(1)
		if i > 0 {
			p.Kind, step = "incremental", Chunks(size)/1000
			p.Parent = &Parent{ID: fmt.Sprint(i - 1), Root: d.Point(fmt.Sprint(i - 1)).Root}
		}
		for chunk := int64(0); chunk < Chunks(size); chunk += step {
			p.Runs.AddSum(chunk, uint64(chunk*31+i+1))
		}
		d.Put(p)
		p.Root = mustView(tb, d, p.ID).Root()
	}
	return m
}

// BenchmarkDecode reads the document of a disk of 1 TiB.
func BenchmarkDecode(b *testing.B) {
	var doc bytes.Buffer
	if err := benchManifest(b).Encode(&doc); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(doc.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(bytes.NewReader(doc.Bytes()), nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheck resolves the newest of its points and computes its root.
func BenchmarkCheck(b *testing.B) {
	d := benchManifest(b).Disk("vm", "vda")
	for b.Loop() {
		if err := mustView(b, d, "10").Check(); err != nil {
			b.Fatal(err)
		}
	}
}
