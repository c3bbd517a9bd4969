package manifest

import (
	"encoding/hex"
	"io/fs"
	"strings"
	"unicode/utf8"
)

// Validate finds what breaks the rules of a manifest: names that stand twice,
// paths that lead out of the folder, parents that are missing or loop, runs out of
// order or range, chunks that nothing records. Roots it does not compute: see
// View.Check. limits may be nil.
func (m *Manifest) Validate(limits *Limits) error {
	l := limits.withDefaults()
	seen := make(map[[2]string]bool)
	for _, d := range m.Disks {
		key := [2]string{d.Domain, d.Name}
		switch {
		case seen[key]:
			return d.fail("", "the disk stands in it twice")
		case !goodName(d.Name) || d.Domain != "" && !goodName(d.Domain):
			return d.fail("", "the name of a disk is 1 to %d bytes of UTF-8", maxName)
		}
		seen[key] = true
		if err := d.validate(&l); err != nil {
			return err
		}
	}
	return nil
}

func goodName(s string) bool { return s != "" && len(s) <= maxName && utf8.ValidString(s) }

// validate takes what a disk uses of the limits away from them.
func (d *Disk) validate(left *Limits) error {
	ids := make(map[string]*Point, len(d.Points))
	for _, p := range d.Points {
		if ids[p.ID] != nil {
			return d.fail(p.ID, "the point stands in it twice")
		}
		ids[p.ID] = p
		if msg := p.validate(left); msg != "" {
			return d.fail(p.ID, "%s", msg)
		}
	}
	for _, p := range d.Points {
		if err := d.validateParent(p, ids); err != nil {
			return err
		}
	}
	return d.refuseLoops(ids)
}

// validate returns the rule that a point breaks on its own.
func (p *Point) validate(left *Limits) string {
	left.Points--
	left.Files -= int64(len(p.Files))
	switch {
	case !goodName(p.ID) || !goodName(p.Name) || !goodName(p.Kind):
		return "id, name and kind are 1 to 4096 bytes of UTF-8"
	case p.Size < 0 || p.Size > left.Size:
		return "the size of the disk is out of range"
	case left.Points < 0 || left.Files < 0:
		return "there are more points or files than the limits allow"
	case p.SHA256 != "" && !goodHex(p.SHA256, 32):
		return "sha256 is not 64 hex digits"
	}
	if left.Chunks -= Chunks(p.Size); left.Chunks < 0 {
		return "the disks of all points have more chunks than the limits allow"
	}
	for _, f := range p.Files {
		if msg := f.validate(); msg != "" {
			return msg
		}
	}
	return p.validateRuns()
}

func (f File) validate() string {
	switch {
	case !goodPath(f.Path) || f.Member != "" && !goodPath(f.Member):
		return "the path of a file leads out of the folder, or is none"
	case f.Size < 0:
		return "the size of a file is negative"
	case f.SHA256 != "" && !goodHex(f.SHA256, 32):
		return "the sha256 of a file is not 64 hex digits"
	}
	return ""
}

// goodPath reports a path below a folder, on every system.
func goodPath(s string) bool {
	return fs.ValidPath(s) && s != "." && len(s) <= maxName && !strings.ContainsRune(s, 0)
}

func goodHex(s string, bytes int) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == 2*bytes && s == strings.ToLower(s)
}

func (p *Point) validateRuns() string {
	at, all := int64(0), Chunks(p.Size)
	for _, r := range p.Runs {
		switch {
		case r.Count <= 0 || r.Sums != nil && int64(len(r.Sums)) != 8*r.Count:
			return "a run of chunks is empty, or has another number of checksums than chunks"
		case r.First < at:
			return "the runs of chunks are not ascending, or overlap"
		case r.First > all || r.Count > all-r.First:
			return "a run of chunks ends beyond the end of the disk"
		}
		at = r.End()
	}
	return ""
}

// validateParent checks a point against the one that it stands on.
func (d *Disk) validateParent(p *Point, ids map[string]*Point) error {
	if p.Parent == nil {
		return nil
	}
	parent := ids[p.Parent.ID]
	switch {
	case parent == nil:
		return d.fail(p.ID, "its parent %q is not in the manifest", p.Parent.ID)
	case parent.Root != p.Parent.Root:
		return d.fail(p.ID, "its parent %q has the root %s, and not %s", parent.ID, parent.Root, p.Parent.Root)
	}
	first := shared(parent.Size, p.Size)
	at := first
	for _, r := range p.Runs {
		if part := r.Slice(at, r.End()); part.First == at {
			at = part.End()
		}
	}
	if first < Chunks(p.Size) && at < Chunks(p.Size) {
		return d.fail(p.ID, "chunk %d is not recorded, and the disk of the parent has no such chunk", at)
	}
	return nil
}

// refuseLoops finds a point that stands on itself. All parents are there.
func (d *Disk) refuseLoops(ids map[string]*Point) error {
	ends := make(map[*Point]bool, len(d.Points)) // known to end at a whole backup
	for _, p := range d.Points {
		var way []*Point
		for at := p; !ends[at]; at = ids[at.Parent.ID] {
			way = append(way, at)
			if at.Parent == nil {
				break
			}
			if len(way) > len(d.Points) {
				return d.fail(p.ID, "it stands on itself")
			}
		}
		for _, at := range way {
			ends[at] = true
		}
	}
	return nil
}
