package libvirt

import (
	"fmt"
	"slices"
)

// disksOf are the disks listed in a checkpoint or backup.
func disksOf(root *node) []*node { return root.child("disks").children("disk") }

// distinct refuses a disk that is listed twice.
func (f *fields) distinct(path string, names []string) {
	seen := map[string]bool{}
	for i, name := range names {
		if seen[name] {
			f.fail(diskPath(path, i)+"/@name", name, "a disk is listed twice")
		}
		seen[name] = true
	}
}

// diskPath is the path of the disk that has i before it.
func diskPath(path string, i int) string { return fmt.Sprintf("%s/disks/disk[%d]", path, i+1) }

// syncDisks makes the disk elements of root those of origins, in that order, and
// lets apply write what each means. An origin is an element of the tree that from
// is: root must be its clone. It may also be of another tree, whose element is
// then copied, or nil for a new disk.
func syncDisks(root, from *node, origins []*node, order []string, apply func(i int, n *node)) {
	now, twins := disksOf(root), map[*node]*node{}
	for i, n := range disksOf(from) {
		twins[n] = now[i]
	}
	want := make([]*node, len(origins))
	for i, o := range origins {
		switch twin := twins[o]; {
		case o == nil:
			want[i] = newElement("disk")
		case twin != nil:
			want[i] = twin
			delete(twins, o)
		default:
			want[i] = o.clone()
		}
	}
	relist(root, now, want, order)
	for i, n := range want {
		apply(i, n)
	}
}

// relist replaces the disk elements now by want; a list without a disk goes.
func relist(root *node, now, want []*node, order []string) {
	if slices.Equal(now, want) {
		return
	}
	disks := root.need("disks", 1, order...)
	disks.remove(now...)
	if len(want) > 0 {
		disks.insert(want[0], 2, "disk")
		at := slices.Index(disks.kids, want[0]) + 1
		var more []*node
		for _, n := range want[1:] {
			more = append(more, lineBreak(2), n)
		}
		disks.kids = slices.Insert(disks.kids, at, more...)
	}
	if !disks.hasElements() {
		root.remove(disks)
	}
}
