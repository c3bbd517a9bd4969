package plan

import (
	"context"
	"fmt"
	"testing"
	"testing/fstest"
)

// thousand are the folders of a thousand backups.
func thousand() map[string]fstest.MapFS {
	push, named, streams, chain := fstest.MapFS{}, fstest.MapFS{}, fstest.MapFS{}, fstest.MapFS{}
	full, inc := image(4096, ""), image(4096, live)
	before := ""
	for i := range 1000 {
		name := fmt.Sprintf("cp%d", i)
		img := inc
		if i == 0 {
			img = full
		}
		push[name+".xml"], push[name+".backup.xml"], push["vda"+name+".qcow2"] = checkpoint(name, before, live), job("vda"+name+".qcow2", before), img
		named[name+".xml"], named["vda."+name+".qcow2"] = push[name+".xml"], img
		streams["vda.inc."+name+".data"] = stream("vda", name, before, "")
		if i > 0 {
			chain[name+".qcow2"] = image(4096, before+".qcow2")
		} else {
			chain[name+".qcow2"] = full
		}
		before = name
	}
	return map[string]fstest.MapFS{"push": push, "named": named, "streams": streams, "backing": chain}
}

// BenchmarkThousand plans a folder with a chain of a thousand links.
func BenchmarkThousand(b *testing.B) {
	for name, files := range thousand() {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				p, err := Discover(context.Background(), files, nil)
				if err != nil || len(p.Disks) != 1 || len(p.Disks[0].Backups) != 1000 {
					b.Fatalf("%v\n%d disks", err, len(p.Disks))
				}
				if _, err := p.Disks[0].Route(p.Disks[0].Backups[999], false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
