// Package sets holds sets of backups as the tools leave them, with the truth
// about every point, for tests of what plans, restores and verifies them.
//
// A [Set] is laid out in a folder by [Set.Build]. Those of virtnbdbackup are
// frozen from real runs under data; those of libvirt are the frozen chains of
// package testimages; those of the other tools are laid out as these tools lay
// them out, with the real qcow2 files of such a chain inside. A [Mutation] then
// does to the folder what happens to backups, and says what must follow.
//
// The package knows the formats once more by itself, and imports nothing of what
// it is used to test.
package sets

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// A Set is the backups of one machine as one tool leaves them. It is a value
// that nothing changes, and may be used from several goroutines.
type Set struct {
	Name string // unique, stable: tool, dash, what is special
	Tool string // virtnbdbackup, libvirt, qmpbackup, ovirt, opennebula, cloudstack, kubevirt, oadp, qcow2

	// Truth has a row for each disk and point, the points of a disk in order.
	Truth []Truth

	// Lossy: the files cannot give the truth everywhere; see Truth.Lossy.
	Lossy bool

	// Evidence is the best thing in the set that tells the order of its members.
	Evidence Evidence

	// Backing says what the files' headers name as their backing file.
	Backing Backing

	// Map is, for a set whose files moved, the folder that the headers name; the
	// files lie in the set's folder now. "" where nothing moved.
	Map string

	// HasBitmaps: the live images lie in the folder "live", with the bitmaps that
	// say what changed between the points.
	HasBitmaps bool

	// Zip: the set is one file, [Set.Path], and no folder.
	Zip bool

	// Wants is what a plan of this set, untouched, may say of its points.
	Wants Verdict

	parts func(s *Set, dir string) error // lays out the files; nil for a frozen set
}

// A Truth is a point of a disk, and what the disk held then.
type Truth struct {
	Disk   string // as the tool names it
	Point  string // as the tool's users name it; unique within the disk
	Kind   string // full, inc, diff or copy
	Parent string // the point that it is incremental to; "" for a full or copy
	Size   int64  // of the virtual disk, in bytes
	SHA256 string // of all its bytes, in hex
	At     time.Time
	Files  []string // slash paths in the set's folder: the point's own data file

	// Lossy: between the last full and this point some file cannot say that a
	// range became zero, so that the files alone may give other bytes.
	Lossy bool

	// Wants is what a plan may say of the point in the untouched set, where that
	// is not what it may say of the others; see Set.Wants.
	Wants Verdict

	// Target is what the machine calls the disk (vda), where that is not Disk.
	Target string
}

// Evidence grades what tells the order of a set's members.
type Evidence int

const (
	Assumed Evidence = iota // names that happen to be numbered, or nothing
	Implied                 // a name scheme of the tool, backing references
	Proven                  // metadata that names the parent
)

// Backing says how the files of a set name each other.
type Backing int

const (
	BackingNone     Backing = iota // no file names another
	BackingSource                  // the live image, which is not in the set
	BackingDead                    // an NBD export that is gone
	BackingRelative                // the parent, relative to the file
	BackingAbsolute                // the parent, by its path
	BackingMoved                   // the parent, by a path where it lies no more
	BackingJSON                    // the parent, in a json: name
)

// All are all sets. Building one takes milliseconds.
func All() []Set {
	all := slices.Concat(virtnbdSets(), libvirtSets(), qmpbackupSets(), imagesetSets(), kubevirtSets(), qcow2Sets())
	for i := range all {
		all[i].Lossy = slices.ContainsFunc(all[i].Truth, func(t Truth) bool { return t.Lossy })
		all[i].settle()
	}
	return all
}

// settle fills in what may be said of each point: Right where something tells the
// order, else what only a user can decide, and Doubt at the best where the files
// do not hold the truth.
func (s *Set) settle() {
	if s.Wants == 0 {
		s.Wants = Right
		if s.Evidence == Assumed {
			s.Wants = Doubt | Refuse
		}
	}
	for i := range s.Truth {
		t := &s.Truth[i]
		switch {
		case t.Wants != 0:
		case t.Lossy && !s.HasBitmaps:
			t.Wants = Doubt | Refuse
		case t.Lossy:
			t.Wants = Right | Doubt | Refuse
		case t.Parent == "":
			t.Wants = Right
		default:
			t.Wants = s.Wants
		}
	}
}

// Get returns the set of that name, and panics where there is none.
func Get(name string) Set {
	for _, s := range All() {
		if s.Name == name {
			return s
		}
	}
	panic("no set is named " + name)
}

// OfTool are the sets of one tool.
func OfTool(tool string) []Set {
	return slices.DeleteFunc(All(), func(s Set) bool { return s.Tool != tool })
}

// stamp is the modification time of every file of every set: file times tell nothing.
var stamp = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// Build lays the set out in dir, an existing and empty folder. All files have the
// same modification time.
func (s Set) Build(dir string) error {
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		return errors.Join(err, fmt.Errorf("build set %s: folder is not empty: %s", s.Name, dir))
	}
	if err := s.parts(&s, dir); err != nil {
		return fmt.Errorf("build set %s: %w", s.Name, err)
	}
	if err := touchAll(dir, func(int) time.Time { return stamp }); err != nil {
		return fmt.Errorf("build set %s: %w", s.Name, err)
	}
	return nil
}

// Path is what to hand to a program: the folder, or the zip file in it.
func (s Set) Path(dir string) string {
	if s.Zip {
		return filepath.Join(dir, "backup.zip")
	}
	return dir
}

// Lay builds the set in a new folder of the test, which it returns; see [Set.Path].
func (s Set) Lay(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := s.Build(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Disks are the names of the disks, in the order of the truth.
func (s Set) Disks() []string {
	var names []string
	for _, t := range s.Truth {
		if !slices.Contains(names, t.Disk) {
			names = append(names, t.Disk)
		}
	}
	return names
}

// Points are the rows of one disk, in order.
func (s Set) Points(disk string) []Truth {
	return slices.DeleteFunc(slices.Clone(s.Truth), func(t Truth) bool { return t.Disk != disk })
}

// Point returns one row, and panics where there is none.
func (s Set) Point(disk, point string) Truth {
	for _, t := range s.Truth {
		if t.Disk == disk && t.Point == point {
			return t
		}
	}
	panic(fmt.Sprintf("set %s has no point %s of %s", s.Name, point, disk))
}

// chainTo are the rows that make up a point: from its full to itself.
func (s Set) chainTo(t Truth) []Truth {
	chain := []Truth{t}
	for t.Parent != "" {
		t = s.Point(t.Disk, t.Parent)
		chain = append([]Truth{t}, chain...)
	}
	return chain
}

// touchAll gives the n-th file below dir, in the order of their names, a time.
func touchAll(dir string, at func(n int) time.Time) error {
	n := 0
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		n++
		return os.Chtimes(path, at(n-1), at(n-1))
	})
}
