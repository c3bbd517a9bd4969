package main

import (
	"strings"
	"testing"

	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// FuzzFirstLast: FIRST..LAST of any two names is read as these two, or not at all where
// it can be read in another way too; whatever else it is ends in a mistake of the command
// line, or in a checkpoint that there is not.
func FuzzFirstLast(f *testing.F) {
	f.Add("one", "two", "one..two")
	f.Add("a", "a..b", "a..a..b")
	f.Add("a..a", "b", "..")
	f.Add("x", "x", "x...x")
	f.Fuzz(func(t *testing.T, first, last, arg string) {
		var cps []*libvirt.Checkpoint
		for _, name := range []string{first, last} {
			cp := &libvirt.Checkpoint{Name: name, CreationTime: 1}
			if cp.Validate() != nil || name == "" {
				return
			}
			cps = append(cps, cp)
		}
		tree, _ := libvirt.NewTree(cps)
		from, to, err := splitPath(tree, first+".."+last)
		switch {
		case err == nil && (from != first || to != last) && !strings.Contains(first+last, ".."):
			t.Fatalf("%q..%q is read as %q and %q", first, last, from, to)
		case err != nil && statusOf(err) != exitUsage:
			t.Fatal(err)
		}
		from, to, err = splitPath(tree, arg)
		switch {
		case err == nil && (from+".."+to != arg || tree.Checkpoint(from) == nil || tree.Checkpoint(to) == nil):
			t.Fatalf("%q is read as %q and %q", arg, from, to)
		case err != nil && statusOf(err) != exitUsage && statusOf(err) != exitFailed:
			t.Fatal(err)
		}
	})
}
