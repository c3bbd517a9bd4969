package reconstruct

import (
	"fmt"
	"reflect"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// A Link is one backup: the blocks that changed since the link before it. The
// oldest link of a chain holds a whole disk.
type Link struct {
	// Name is for messages.
	Name string

	// Disk holds what changed, and is absent elsewhere. Nothing that an
	// increment names may be opened with it: its backing file is not the link
	// before it, and has changed since.
	Disk qcow2.Disk

	// Changed is the truth about what changed, where it is known: what is
	// changed in it and absent in Disk reads as zero. It must have the size of
	// Disk. The oldest link needs none, and one that it has is not used.
	Changed *bitmap.Bitmap

	// Raw marks a raw file, which cannot tell a range that was zeroed from one
	// that is unchanged. With Changed, what it holds outside of Changed is
	// absent, for a raw file that was copied without its holes would hide all
	// below it with zeros. Of the oldest link nothing is absent for that.
	Raw bool

	// Lossy says in words why the format of Disk cannot represent zeroes ("qcow2
	// version 2 without a backing file"); empty where it can. Changed mends it.
	// It is a matter of Warnings alone.
	Lossy string
}

// maxLayers bounds how far a chain of backing files is followed.
const maxLayers = 4096

// layers returns d and the disks that were opened below it.
func layers(d qcow2.Disk) []qcow2.Disk {
	var all []qcow2.Disk
	for d != nil && len(all) < maxLayers {
		all = append(all, d)
		b, ok := d.(interface{ BackingDisk() qcow2.Disk })
		if !ok {
			break
		}
		d = b.BackingDisk()
	}
	return all
}

// Layers is the number of values that Extent.Depth has in the extents of d: its
// own method Layers() int says so, or else the disks below it that its method
// BackingDisk() qcow2.Disk shows.
func Layers(d qcow2.Disk) int {
	all := layers(d)
	n := max(1, len(all))
	if d == nil {
		return n
	}
	if l, ok := all[n-1].(interface{ Layers() int }); ok {
		return n - 1 + max(1, l.Layers())
	}
	return n
}

// unopened is the backing file that d, or a disk opened below it, names and
// that was not opened; nil where there is none.
func unopened(d qcow2.Disk) *qcow2.Ref {
	for _, l := range layers(d) {
		u, ok := l.(interface{ Unopened() *qcow2.Ref })
		if !ok {
			continue
		}
		if ref := u.Unopened(); ref != nil {
			return ref
		}
	}
	return nil
}

// validate checks what can be known of a chain without reading it.
func validate(links []Link) error {
	if len(links) == 0 {
		return &ChainError{Index: -1, Msg: "there is no link", Missing: "a full backup"}
	}
	for i := range links {
		if err := validateLink(links, i, i > 0); err != nil {
			return err
		}
	}
	return validateOldest(links[0])
}

// validateLink checks link i, which is an increment or a full backup.
func validateLink(links []Link, i int, increment bool) error {
	l := links[i]
	fail := func(msg, missing, found string) error {
		return &ChainError{Link: l.Name, Index: i, Msg: msg, Missing: missing, Found: found}
	}
	if l.Disk == nil {
		return fail("the link has no disk", "a disk", "")
	}
	if l.Disk.Size() < 0 {
		return fail("the size is negative", "", fmt.Sprint(l.Disk.Size()))
	}
	for _, older := range links[:i] {
		if sameValue(l.Disk, older.Disk) {
			return fail("the same disk stands in the chain twice", "", fmt.Sprintf("%q before", older.Name))
		}
	}
	if l.Changed != nil && l.Changed.Size() != l.Disk.Size() {
		return fail("the bitmap of what changed is that of a disk of another size",
			fmt.Sprintf("a bitmap of %d bytes", l.Disk.Size()), fmt.Sprintf("one of %d bytes", l.Changed.Size()))
	}
	if increment && len(layers(l.Disk)) > 1 {
		return fail("an increment was opened together with its backing file, which would hide the links below it", "", "")
	}
	return nil
}

// validateOldest checks that the oldest link stands alone.
func validateOldest(l Link) error {
	ref := unopened(l.Disk)
	if ref == nil {
		return nil
	}
	return &ChainError{
		Link:    l.Name,
		Msg:     fmt.Sprintf("the oldest link names a backing file %q: it holds only what changed, not a full disk", ref.Name),
		Missing: "the full backup before it",
	}
}

// sameValue reports a == b, and false for values that cannot be compared.
func sameValue(a, b any) bool {
	if a == nil || b == nil {
		return a == b
	}
	return reflect.TypeOf(a) == reflect.TypeOf(b) && reflect.ValueOf(a).Comparable() && a == b
}
