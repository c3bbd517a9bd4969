package libvirt

import (
	"fmt"
	"math"
	"strings"
)

// A Domain is the configuration of a virtual machine as far as its disks go
// (formatdomain.html). All else of the document is kept. Nothing of it is checked
// against the schema, which differs from one libvirt to the next: what is not
// there is empty.
type Domain struct {
	Name string // any text; a change is written
	UUID string // a change is written; empty: libvirt makes a new one
	// Disks are the disks in the document's order. They are a view: SetDiskPath
	// changes the document, a change to this list does not.
	Disks []DomainDisk

	doc *node
}

// A DomainDisk is one <disk> of a domain.
type DomainDisk struct {
	Target string // dev of <target>: "vda"; it may be any text
	Bus    string // "virtio", "sata", …; empty where the document does not say
	Device string // "disk", "cdrom", "floppy" or "lun"
	Type   string // "file", "block", "network", "volume", …
	// Source is the path of a file or device, the name at a network server or
	// that of a volume; empty for a drive without a medium. Never trust it: it is
	// the path on a host that wrote the document, if at all.
	Source   string
	Driver   string // format of the image: "qcow2", "raw"; empty where it is not said
	ReadOnly bool
	// Encrypted says that the image is to be opened with a secret.
	Encrypted bool
}

const domainTop = "domain"

// ParseDomain reads a <domain>. Errors are FormatErrors: not XML, or beyond a
// bound.
func ParseDomain(b []byte) (*Domain, error) {
	doc, err := parseDocument("domain", domainTop, b)
	if err != nil {
		return nil, err
	}
	return readDomain(doc), nil
}

func readDomain(doc *node) *Domain {
	root := doc.root()
	return &Domain{
		Name:  root.child("name").content(),
		UUID:  strings.Trim(root.child("uuid").content(), whiteSpace),
		Disks: readDomainDisks(root),
		doc:   doc,
	}
}

func readDomainDisks(root *node) []DomainDisk {
	var disks []DomainDisk
	for _, n := range root.child("devices").children("disk") {
		disks = append(disks, readDomainDisk(n))
	}
	return disks
}

func readDomainDisk(n *node) DomainDisk {
	source := n.child("source")
	d := DomainDisk{
		Target:    n.child("target").attr("dev"),
		Bus:       n.child("target").attr("bus"),
		Device:    orElse(n.attr("device"), "disk"),
		Type:      orElse(n.attr("type"), "file"),
		Driver:    n.child("driver").attr("type"),
		ReadOnly:  n.child("readonly") != nil,
		Encrypted: n.child("encryption") != nil || source.child("encryption") != nil,
	}
	d.Source = source.attr(sourceAttr(d.Type))
	return d
}

func orElse(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// sourceAttr is the attribute of <source> that says where a disk of a type lies.
func sourceAttr(kind string) string {
	switch kind {
	case "block":
		return "dev"
	case "network":
		return "name"
	case "volume":
		return "volume"
	case "dir":
		return "dir"
	case "vhostuser":
		return "path"
	}
	return "file"
}

// Disk is the disk with this target, which must be the only one.
func (d *Domain) Disk(target string) (DomainDisk, error) {
	i, err := d.find(target)
	if err != nil {
		return DomainDisk{}, err
	}
	return d.Disks[i], nil
}

func (d *Domain) find(target string) (int, error) {
	found, have := -1, []string(nil)
	disks := readDomainDisks(d.doc.root())
	for i, disk := range disks {
		if have = append(have, disk.Target); disk.Target != target {
			continue
		}
		if found >= 0 {
			return 0, &FormatError{"domain", fmt.Sprintf("domain/devices/disk[%d]/target/@dev", i+1),
				target, "two disks have this target"}
		}
		found = i
	}
	if found < 0 {
		return 0, &NotFoundError{What: "disk", Name: target, Have: have}
	}
	return found, nil
}

// Memory is the memory of the domain in bytes; 0 where the document does not say.
// The element's unit is one of libvirt's: b or bytes, KB, MB, GB, TB, PB and EB
// (powers of 1000), k or KiB and so on (powers of 1024); KiB where it is left out.
func (d *Domain) Memory() (int64, error) {
	n := d.doc.root().child("memory")
	if n == nil {
		return 0, nil
	}
	f := &fields{structure: "domain"}
	scale, ok := unitScale(orElse(n.attr("unit"), "KiB"))
	if !ok {
		f.fail("domain/memory/@unit", n.attr("unit"), "must be b, bytes, KB, KiB, MB, MiB and so on to EB, EiB")
		return 0, f.err
	}
	return f.number("domain/memory", n.content(), math.MaxInt64/scale) * scale, f.err
}

// unitScale is how many bytes a unit has. Letters may be large or small.
func unitScale(unit string) (int64, bool) {
	u := strings.ToLower(unit)
	switch u {
	case "b", "byte", "bytes":
		return 1, true
	case "":
		return 0, false
	}
	power := strings.IndexByte("kmgtpe", u[0]) + 1
	if power == 0 {
		return 0, false
	}
	base := int64(1024)
	switch u[1:] {
	case "b":
		base = 1000
	case "", "ib":
	default:
		return 0, false
	}
	scale := int64(1)
	for range power {
		scale *= base
	}
	return scale, true
}

// Append returns the document: byte for byte what was parsed, with the changes of
// Name, UUID and SetDiskPath.
func (d *Domain) Append() []byte {
	return d.written().appendTo(nil)
}

var domainOrder = []string{"name", "uuid"}

func (d *Domain) written() *node {
	doc := d.doc.clone()
	root := doc.root()
	root.putContent("name", d.Name, 1, domainOrder...)
	if strings.Trim(root.child("uuid").content(), whiteSpace) != d.UUID {
		root.putContent("uuid", d.UUID, 1, domainOrder...)
	}
	return doc
}
