package plan

import (
	"fmt"
	"time"
)

// A Plan is the history of the disks whose backups lie in a folder.
type Plan struct {
	Disks    []*Disk   `json:"disks"`
	Problems []Problem `json:"problems,omitempty"` // of the folder, not of one disk
	// Others are files that are no part of a backup, as far as Discover knows.
	Others []string `json:"others,omitempty"`
	// Manifests are qbit's own records of what the backups held when they were
	// sealed.
	Manifests []string `json:"manifests,omitempty"`
}

// A Tool is what made a backup.
type Tool string

// The tools whose folders are known.
const (
	ToolLibvirt    Tool = "libvirt"
	ToolVirtnbd    Tool = "virtnbdbackup"
	ToolQmpbackup  Tool = "qmpbackup"
	ToolOvirt      Tool = "oVirt"
	ToolOpenNebula Tool = "OpenNebula"
	ToolCloudStack Tool = "CloudStack"
	ToolKubevirt   Tool = "KubeVirt"
	ToolOADP       Tool = "OADP"
	ToolBacking    Tool = "backing files" // qcow2 images that name each other
	ToolUnknown    Tool = "unknown"       // images that nothing but their names says anything of
)

// A Disk is the history of one disk of one domain.
type Disk struct {
	Domain string `json:"domain,omitempty"`
	Name   string `json:"name"` // the target (vda), or what the tool calls it
	Tool   Tool   `json:"tool"`
	// Backups are all backups of the disk, each after its parent.
	Backups []*Backup `json:"backups"`
	// Live is the image that the guest used, where it lies in the folder too. It
	// is no backup, but holds the bitmaps.
	Live     string    `json:"live,omitempty"`
	Problems []Problem `json:"problems,omitempty"`
}

// Kind is what a backup holds.
type Kind string

// The kinds of backups.
const (
	Full         Kind = "full"         // the whole disk
	Incremental  Kind = "incremental"  // what changed since its parent; others may stand on it
	Differential Kind = "differential" // what changed since its parent; nothing stands on it
	Copy         Kind = "copy"         // the whole disk; nothing stands on it
)

// Whole says that a backup of this kind needs no parent.
func (k Kind) Whole() bool { return k == Full || k == Copy }

// A Backup is one backup of one disk.
type Backup struct {
	// ID is unique in the plan: the path of the file.
	ID string `json:"id"`
	// Point names the state of the disk that it brings back: a checkpoint, a
	// date, a number, whatever the tool counts by.
	Point  string    `json:"point"`
	Kind   Kind      `json:"kind"`
	Time   time.Time `json:"time,omitzero"` // when it was made, as its records say
	Size   int64     `json:"size"`          // of the disk, in bytes
	Stored int64     `json:"stored"`        // of the file, in bytes
	Source Source    `json:"source"`
	// Lossy says in words why the file cannot tell zeroes from unchanged ranges;
	// empty where it can.
	Lossy string `json:"lossy,omitempty"`
	// Parent is what an increment stands on; nil for one that is whole, and where
	// it was not found.
	Parent   *Backup   `json:"-"`
	ParentID string    `json:"parent,omitempty"`
	Edge     *Edge     `json:"edge,omitempty"` // nil for one that is whole
	Problems []Problem `json:"problems,omitempty"`
	// DomainXML is the document that describes the domain at that point.
	DomainXML *Document `json:"domainXML,omitempty"`
}

// Increment says that a backup holds only what changed.
func (b *Backup) Increment() bool { return !b.Kind.Whole() }

func (b *Backup) String() string { return b.ID }

// Format is how a file holds a backup.
type Format string

// The formats of backups.
const (
	FormatQcow2   Format = "qcow2"
	FormatRaw     Format = "raw"
	FormatVirtnbd Format = "virtnbd" // the stream of virtnbdbackup
)

// A Source is where the bytes of a backup lie.
type Source struct {
	Path   string `json:"path"`             // below the folder, with slashes
	Member string `json:"member,omitempty"` // where Path is a zip archive: which member of it
	Format Format `json:"format"`
	// Alone says that the backing file in the header of a whole backup is to be
	// passed over: it was the way to the disk when the tool copied all of it.
	Alone bool `json:"alone,omitempty"`
	// Checksum is a file with the adler32 of the whole file, as virtnbdbackup
	// leaves it; with Member set it is a member too.
	Checksum string `json:"checksum,omitempty"`
}

func (s Source) String() string {
	if s.Member != "" {
		return s.Path + "!" + s.Member
	}
	return s.Path
}

// A Document is a file, or member of an archive, with XML in it.
type Document struct {
	Path   string `json:"path"`
	Member string `json:"member,omitempty"`
	// Checkpoint says that the domain is part of a checkpoint's document.
	Checkpoint bool `json:"checkpoint,omitempty"`
}

// Grade is how well an edge of the history is known.
type Grade uint8

// The grades, from the worst to the best.
const (
	// Assumed: only the order of names, or a hint, says so; a missing backup
	// between the two would not be seen.
	Assumed Grade = iota
	// Implied: the tool's records say so in a roundabout way, which would show a
	// missing backup.
	Implied
	// Proven: a record that was written with the backup names the parent.
	Proven
)

var gradeNames = [...]string{"assumed", "implied", "proven"}

func (g Grade) String() string {
	if int(g) < len(gradeNames) {
		return gradeNames[g]
	}
	return fmt.Sprintf("Grade(%d)", uint8(g))
}

// MarshalText implements encoding.TextMarshaler.
func (g Grade) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (g *Grade) UnmarshalText(b []byte) error {
	for i, name := range gradeNames {
		if name == string(b) {
			*g = Grade(i)
			return nil
		}
	}
	return fmt.Errorf("there is no grade %q", b)
}

// An Edge says on what an increment stands, and why.
type Edge struct {
	Grade    Grade      `json:"grade"`
	Evidence []Evidence `json:"evidence"`
}

// Evidence is one thing that speaks for an edge.
type Evidence struct {
	Grade Grade  `json:"grade"`
	From  string `json:"from"` // the file that says it
	Says  string `json:"says"` // in words, after "it"
}

func (e Evidence) String() string { return e.From + " " + e.Says }
