package sets

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Mutation is something that happens to backups.
type Mutation struct {
	Name  string // unique, stable
	About string // what was done, as a phrase

	applies func(s Set) bool
	apply   func(dir string, s Set) (Expect, error)
}

// Mutations are all of them.
func Mutations() []Mutation {
	return slices.Concat(folderMutations, streamMutations, qcow2Mutations)
}

// Mutate returns the mutation of that name, and panics where there is none.
func Mutate(name string) Mutation {
	for _, m := range Mutations() {
		if m.Name == name {
			return m
		}
	}
	panic("no mutation is named " + name)
}

// Applies reports whether the mutation can be done to a set.
func (m Mutation) Applies(s Set) bool { return m.applies(s) }

// Apply does it to a set that was built in dir, and says what must follow. All
// files have one modification time again, but for Touch.
func (m Mutation) Apply(dir string, s Set) (Expect, error) {
	if !m.applies(s) {
		return Expect{}, fmt.Errorf("mutation %s does not apply to set %s", m.Name, s.Name)
	}
	e, err := m.within(dir, s)
	if err == nil && m.Name != "Touch" {
		err = touchAll(dir, func(int) time.Time { return stamp })
	}
	if err != nil {
		return Expect{}, fmt.Errorf("mutation %s of set %s: %w", m.Name, s.Name, err)
	}
	return e, nil
}

// within works on the members of a zip in a folder.
func (m Mutation) within(dir string, s Set) (Expect, error) {
	if !s.Zip || m.Name == "Touch" {
		return m.apply(dir, s)
	}
	if err := unzipTo(s.Path(dir), dir); err != nil {
		return Expect{}, err
	}
	e, err := m.apply(dir, s)
	if err != nil {
		return Expect{}, err
	}
	return e, zipped(&s, dir)
}

// folderMutations need to know nothing of what is in a file.
var folderMutations = []Mutation{
	{"Touch", "the files' times are shuffled", func(Set) bool { return true }, touch},
	{"RemoveMiddle", "an increment in the middle is gone", hasMiddle, removeMiddle},
	{"RemoveFull", "the full backup is gone", hasMiddle, removeFull},
	{"SwapTwo", "two increments lie under each other's names", hasTwo, swapTwo},
	{"ForeignDisk", "an increment is another disk's", hasTwoDisks, foreignDisk},
	{"ForeignDomain", "an increment is another machine's", hasStranger, foreignDomain},
	{"Partial", "the last increment was never finished", leavesPartial, partial},
	{"Resized", "nothing: the disk changed its size between two points", func(s Set) bool { return strings.Contains(s.Name, "-resize") },
		func(dir string, s Set) (Expect, error) { return s.expect(), nil }},
}

// touch gives each file a time of its own, in an order that is none of theirs.
func touch(dir string, s Set) (Expect, error) {
	rng := rand.New(rand.NewPCG(5, 0))
	return s.expect(), touchAll(dir, func(int) time.Time {
		return stamp.Add(time.Duration(rng.IntN(1e6)) * time.Minute)
	})
}

// middle is an increment that others are built on, the later the better; the zero
// row where there is none.
func (s Set) middle() Truth {
	var found Truth
	for _, t := range s.Points(s.Disks()[0]) {
		parent, ok := s.find(t.Disk, t.Parent)
		if ok && parent.Kind == "inc" {
			found = parent
		}
	}
	return found
}

// find is Point for a row that may not be there.
func (s Set) find(disk, point string) (Truth, bool) {
	for _, t := range s.Truth {
		if t.Disk == disk && t.Point == point {
			return t, true
		}
	}
	return Truth{}, false
}

func hasMiddle(s Set) bool { return s.middle().Point != "" }

// broken is what must follow where a link is not what its place wants, by what
// tells the order in such sets.
func (s Set) broken() Verdict {
	switch {
	case s.Evidence == Proven, s.Tool == "opennebula":
		return Refuse
	case s.Backing == BackingJSON, s.Evidence == Assumed:
		return Doubt | Refuse
	case s.Backing >= BackingRelative:
		return Refuse
	case s.Tool == "libvirt": // the XML that there is tells of the missing one
		return Doubt | Refuse
	}
	return Doubt | Refuse | Blind
}

func (s Set) path(dir string, t Truth) string {
	return filepath.Join(dir, filepath.FromSlash(t.Files[0]))
}

func removeMiddle(dir string, s Set) (Expect, error) {
	t := s.middle()
	return removeOne(dir, s, t, s.broken())
}

// removeFull removes what everything stands on.
func removeFull(dir string, s Set) (Expect, error) {
	return removeOne(dir, s, s.chainTo(s.middle())[0], Refuse)
}

func removeOne(dir string, s Set, t Truth, v Verdict) (Expect, error) {
	e := s.expect("missing", "gap", "no full", "no backup of", "not there", "no such", t.Point, t.Files[0])
	e.Files = t.Files
	e.from(s, t, v)
	e.of[key{t.Disk, t.Point}] = Refuse
	err := os.Remove(s.path(dir, t))
	if sum := s.path(dir, t) + ".chksum"; err == nil {
		if err = os.Remove(sum); os.IsNotExist(err) {
			err = nil
		}
	}
	return e, err
}

// two are an increment and one that is built on it, the earlier the better.
func (s Set) two() (a, b Truth) {
	for _, t := range s.Points(s.Disks()[0]) {
		parent, ok := s.find(t.Disk, t.Parent)
		if ok && parent.Kind == "inc" && t.Kind == "inc" {
			return parent, t
		}
	}
	return Truth{}, Truth{}
}

func hasTwo(s Set) bool {
	a, _ := s.two()
	return a.Point != ""
}

func swapTwo(dir string, s Set) (Expect, error) {
	a, b := s.two()
	e := s.expect("swap", "order", "itself", "loop", "contradict", "checkpoint", "size", "parent", "name")
	e.Files = []string{a.Files[0], b.Files[0]}
	v := Blind
	switch {
	case s.Tool == "virtnbdbackup": // the streams say what they are
		v = Right | Doubt | Refuse
	case s.Tool == "libvirt":
		v = Doubt | Refuse | Blind
	case s.Backing >= BackingRelative, s.Name == "oadp": // one names itself; sizes are told
		v = Doubt | Refuse
	}
	e.from(s, a, v)
	tmp := s.path(dir, a) + ".swap"
	for _, step := range [][2]string{{s.path(dir, a), tmp}, {s.path(dir, b), s.path(dir, a)}, {tmp, s.path(dir, b)}} {
		if err := os.Rename(step[0], step[1]); err != nil {
			return e, err
		}
	}
	e.blind(dir, s)
	return e, nil
}

// hasTwoDisks: both have an increment of the same place, and not the same size.
func hasTwoDisks(s Set) bool {
	disks := s.Disks()
	return len(disks) == 2 && hasMiddle(s) && len(s.Points(disks[0])) == len(s.Points(disks[1])) &&
		s.Points(disks[0])[0].Size != s.Points(disks[1])[0].Size
}

func foreignDisk(dir string, s Set) (Expect, error) {
	t := s.middle()
	other := s.Point(s.Disks()[1], t.Point)
	b, err := os.ReadFile(s.path(dir, other))
	if err != nil {
		return Expect{}, err
	}
	e := s.expect("another disk", "disk", "size", "backing", "foreign", "belong")
	e.Files = t.Files
	v := Doubt | Refuse
	if s.Tool == "virtnbdbackup" {
		v = Refuse
	}
	e.from(s, t, v)
	return e, s.replace(dir, t, b)
}

// replace puts other bytes under a row's name; a checksum beside it is made anew,
// as by one who copied both.
func (s Set) replace(dir string, t Truth, b []byte) error {
	if err := os.WriteFile(s.path(dir, t), b, 0o644); err != nil {
		return err
	}
	if _, err := os.Stat(s.path(dir, t) + ".chksum"); err != nil {
		return nil
	}
	if s.Name == "virtnbd-badchksum" {
		return nil
	}
	return checksum(s.path(dir, t))
}

// hasStranger: a set of the same names is at hand.
func hasStranger(s Set) bool {
	return s.Name == "virtnbd-plain" || s.Tool == "libvirt" && strings.Contains(s.Name, "demo")
}

func foreignDomain(dir string, s Set) (Expect, error) {
	t, _ := s.two()
	e := s.expect("another", "date", "size", "backing", "foreign", "belong", "order")
	e.Files = t.Files
	e.from(s, t, Doubt|Refuse)
	b, err := strangersFile(dir, s, t)
	if err != nil {
		return e, err
	}
	return e, s.replace(dir, t, b)
}

// strangersFile is the increment of the same place from another machine.
func strangersFile(dir string, s Set, t Truth) ([]byte, error) {
	if s.Tool == "virtnbdbackup" {
		return frozenFile("other", t.Files[0])
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "stranger")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	other := Get("libvirt-plain64k")
	if err := other.Build(tmp); err != nil {
		return nil, err
	}
	row := other.Point("vda", t.Point)
	return os.ReadFile(other.path(tmp, row))
}

// leavesPartial: the tool writes under another name until it is done.
func leavesPartial(s Set) bool {
	return (s.Tool == "virtnbdbackup" || s.Tool == "qmpbackup") && s.newest().Kind == "inc" && s.Name != "virtnbd-offline"
}

// newest is the first disk's newest increment; the zero row where there is none.
func (s Set) newest() Truth {
	var found Truth
	for _, t := range s.Points(s.Disks()[0]) {
		if t.Kind == "inc" {
			found = t
		}
	}
	return found
}

func partial(dir string, s Set) (Expect, error) {
	t := s.newest()
	e := s.expect("partial", "not finished", "unfinished", "no such", t.Point)
	e.Files = []string{t.Files[0] + ".partial"}
	e.from(s, t, Refuse)
	path := s.path(dir, t)
	if err := os.Truncate(path, 4096); err != nil {
		return e, err
	}
	os.Remove(path + ".chksum")
	return e, os.Rename(path, path+".partial")
}
