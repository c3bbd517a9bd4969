package manifest

import (
	"fmt"
	"slices"
)

const (
	// Version is the version of the documents that this package reads and writes.
	Version = 1
	// ChunkSize is the length of a chunk of guest content in bytes; the last
	// chunk of a disk may be shorter.
	ChunkSize = 4 << 20
	// FileName is how a manifest is called in the folder that it is of.
	FileName = "qbit-manifest.json"
)

// A Sum is a 64-bit xxHash with seed 0.
type Sum uint64

// String prints 16 hex digits, as xxhsum does.
func (s Sum) String() string { return fmt.Sprintf("%016x", uint64(s)) }

// A Manifest says what backups held when they were sealed. It belongs to one
// goroutine while it is changed.
type Manifest struct {
	Disks []*Disk
}

// A Disk is the sealed points of one disk. Points are added with Put and taken
// away with Remove.
type Disk struct {
	Domain string // may be empty
	Name   string
	Points []*Point

	byID map[string]*Point // of Points, while their numbers agree
}

// A Point is one sealed backup, and the state of the disk that it brings back.
type Point struct {
	// ID is unique among the points of a disk: the path of the backup's file below
	// the folder, as the plan has it.
	ID string
	// Name is what people call the point: a checkpoint, a date.
	Name string
	// Kind is what the backup is, in the words of the plan: full, incremental, …
	Kind string
	// Size is that of the disk in bytes.
	Size int64
	// Parent is the point without the newest link; nil for a backup of the whole
	// disk, and for a point that was sealed without its parent.
	Parent *Parent
	// Assumed says that the point was sealed although a link on the way to it was
	// only assumed to stand on the one before.
	Assumed bool
	// Root is the digest of the content: see View.Root.
	Root Sum
	// SHA256 is that of the content, in hex; empty where it was not asked for.
	SHA256 string
	// Files are what the backup itself consists of, without its parents.
	Files []File
	// Runs are the chunks that are recorded, ascending, without overlap. In a
	// point without a parent a chunk that is not recorded is zero; otherwise it is
	// that of the parent.
	Runs Runs
}

// A Parent names a point, and what it held.
type Parent struct {
	ID   string
	Root Sum
}

// A File is one file of a backup, or a member of an archive.
type File struct {
	Path   string // below the folder, with slashes
	Member string // of the archive Path; empty where the file itself is meant
	Size   int64  // of the file or member, in bytes
	// Sum is the digest of the bytes of the file, computed as Root is.
	Sum Sum
	// SHA256 in hex; empty where it was not asked for.
	SHA256 string
}

// Name is the path, and the member of it if there is one.
func (f File) Name() string {
	if f.Member != "" {
		return f.Path + "!" + f.Member
	}
	return f.Path
}

// Chunks is how many chunks a disk of size bytes has.
func Chunks(size int64) int64 {
	n := size / ChunkSize
	if size%ChunkSize != 0 {
		n++
	}
	return n
}

// Disk finds a disk; nil: it is not in the manifest.
func (m *Manifest) Disk(domain, name string) *Disk {
	for _, d := range m.Disks {
		if d.Domain == domain && d.Name == name {
			return d
		}
	}
	return nil
}

// AddDisk is the disk of that name, which is made if it is not there.
func (m *Manifest) AddDisk(domain, name string) *Disk {
	d := m.Disk(domain, name)
	if d == nil {
		d = &Disk{Domain: domain, Name: name}
		m.Disks = append(m.Disks, d)
	}
	return d
}

// Point finds a point by its ID; nil: it is not sealed.
func (d *Disk) Point(id string) *Point {
	if d.byID == nil || len(d.byID) != len(d.Points) {
		d.byID = make(map[string]*Point, len(d.Points))
		for _, p := range d.Points {
			d.byID[p.ID] = p
		}
	}
	return d.byID[id]
}

// Put adds a point, in the place of the one with its ID if there is one.
func (d *Disk) Put(p *Point) {
	if old := d.Point(p.ID); old != nil {
		d.Points[slices.Index(d.Points, old)] = p
	} else {
		d.Points = append(d.Points, p)
	}
	d.byID[p.ID] = p
}

// Remove takes a point away.
func (d *Disk) Remove(id string) {
	d.Points = slices.DeleteFunc(d.Points, func(p *Point) bool { return p.ID == id })
	d.byID = nil
}

// Route is the point with that ID and all that it stands on, the whole backup
// first. It is for manifests that are valid, in which every parent is there.
func (d *Disk) Route(id string) ([]*Point, error) {
	var route []*Point
	for p := d.Point(id); ; p = d.Point(p.Parent.ID) {
		if p == nil || len(route) > len(d.Points) {
			return nil, d.fail(id, "the point, or one that it stands on, is not in the manifest")
		}
		route = append(route, p)
		if p.Parent == nil {
			break
		}
	}
	slices.Reverse(route)
	return route, nil
}

func (d *Disk) fail(point, format string, args ...any) error {
	return &Error{Disk: d.Name, Point: point, Msg: fmt.Sprintf(format, args...)}
}

// An Error is a rule that a manifest breaks.
type Error struct {
	Disk, Point string // where; empty for the manifest as a whole
	Msg         string
}

func (e *Error) Error() string {
	s := "manifest: "
	if e.Disk != "" {
		s += fmt.Sprintf("disk %q: ", e.Disk)
	}
	if e.Point != "" {
		s += fmt.Sprintf("point %q: ", e.Point)
	}
	return s + e.Msg
}
