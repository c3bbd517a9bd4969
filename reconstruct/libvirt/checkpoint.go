package libvirt

import (
	"math"
	"strconv"
	"time"
)

// A Checkpoint is a point in time of a domain, from which libvirt records what
// changes (formatcheckpoint.html). Its zero value is a new one; what a parsed one
// holds beyond these fields is kept. To copy one, parse what it appends.
type Checkpoint struct {
	// Name is empty where libvirt shall choose it. A parsed name fits the pattern
	// of the schema, [a-zA-Z0-9_-][a-zA-Z0-9_.-]*.
	Name        string
	Description string // any text
	// Parent is the checkpoint that was current when this one was made; empty for
	// the first. It is not the base of an increment: that is Backup.Incremental.
	Parent string
	// CreationTime is in seconds since 1970, UTC, by the clock of the host; 0
	// where the document does not say.
	CreationTime int64
	// Disks is what was said of each disk. No disks at all means all that can be
	// written to; in a list, a disk that is left out has no part.
	Disks []CheckpointDisk

	doc *node
}

// A CheckpointDisk says what part a disk has in a checkpoint.
type CheckpointDisk struct {
	// Name is the disk's target (vda) or the absolute path of its source. It may
	// be any text.
	Name string
	// Checkpoint is "bitmap" (or empty, which is the same) where a bitmap records
	// changes, "no" where the disk has no part.
	Checkpoint string
	// Bitmap is the bitmap's name, empty for that of the checkpoint: see
	// BitmapName. It may be any text.
	Bitmap string
	// Size is the number of bytes changed since, as libvirt estimated when asked
	// for it; -1 where the document does not say. Of a disk that was not parsed, 0
	// says nothing either.
	Size int64

	node *node // where it was read
}

// checkpointOrder is how libvirt lays a checkpoint out.
var checkpointOrder = []string{"name", "description", "parent", "creationTime", "disks", "domain"}

const checkpointTop = "domaincheckpoint"

// ParseCheckpoint reads a <domaincheckpoint>. Errors are FormatErrors: not XML,
// beyond a bound, or against a rule of the schema for what a Checkpoint says.
func ParseCheckpoint(b []byte) (*Checkpoint, error) {
	doc, err := parseDocument("checkpoint", checkpointTop, b)
	if err != nil {
		return nil, err
	}
	f := &fields{structure: "checkpoint"}
	c := readCheckpoint(f, doc.root())
	c.doc = doc
	if f.err != nil {
		return nil, f.err
	}
	return c, nil
}

func readCheckpoint(f *fields, root *node) *Checkpoint {
	c := &Checkpoint{
		Name:        f.name(root, checkpointTop, "name"),
		Description: f.text(root, checkpointTop, "description"),
		Parent:      f.name(f.one(root, checkpointTop, "parent"), checkpointTop+"/parent", "name"),
	}
	if s := f.text(root, checkpointTop, "creationTime"); s != "" {
		c.CreationTime = f.number(checkpointTop+"/creationTime", s, math.MaxInt64)
	}
	f.one(root, checkpointTop, "domain")
	f.one(root, checkpointTop, "disks")
	var names []string
	for i, n := range disksOf(root) {
		d := readCheckpointDisk(f, n, diskPath(checkpointTop, i))
		c.Disks = append(c.Disks, d)
		names = append(names, d.Name)
	}
	f.distinct(checkpointTop, names)
	return c
}

func readCheckpointDisk(f *fields, n *node, path string) CheckpointDisk {
	d := CheckpointDisk{
		Name:       f.required(n, path, "name"),
		Checkpoint: f.choice(n, path, "checkpoint", "no", "bitmap"),
		Bitmap:     n.attr("bitmap"),
		Size:       -1,
		node:       n,
	}
	if d.Checkpoint == "" {
		d.Checkpoint = "bitmap"
	}
	if s, has := n.lookup("size"); has {
		d.Size = f.number(path+"/@size", s, math.MaxInt64)
	}
	if d.Checkpoint == "no" && d.Bitmap != "" {
		f.fail(path+"/@bitmap", d.Bitmap, "a disk without a part in the checkpoint has no bitmap")
	}
	if d.Checkpoint == "no" && d.Size >= 0 {
		f.fail(path+"/@size", n.attr("size"), "a disk without a part in the checkpoint has no size")
	}
	return d
}

// ResolvedName is the name that libvirt uses: where the document has none, its
// creation time in seconds. It is empty where there is neither.
func (c *Checkpoint) ResolvedName() string {
	if c.Name == "" && c.CreationTime != 0 {
		return strconv.FormatInt(c.CreationTime, 10)
	}
	return c.Name
}

// Created is the creation time in UTC, the zero time where it is not known. It is
// what a clock said, and no evidence of order.
func (c *Checkpoint) Created() time.Time {
	if c.CreationTime == 0 {
		return time.Time{}
	}
	return time.Unix(c.CreationTime, 0).UTC()
}

// BitmapName is the name of the bitmap that records what changed on the disk
// since the checkpoint: its own, or else that of the checkpoint. It is empty for
// a disk that has no part.
func (d CheckpointDisk) BitmapName(c *Checkpoint) string {
	switch {
	case d.Checkpoint == "no":
		return ""
	case d.Bitmap != "":
		return d.Bitmap
	}
	return c.ResolvedName()
}

// Disk is what the checkpoint says of the disk with this target, which may be
// listed by its target or, where the document has the domain, by the path of its
// source. ok is false where it is not listed: it has no part then, unless no
// disk is listed at all.
func (c *Checkpoint) Disk(target string) (d CheckpointDisk, ok bool) {
	names := map[string]bool{target: true}
	for _, dom := range c.DomainDisks() {
		if dom.Target == target && dom.Source != "" {
			names[dom.Source] = true
		}
	}
	for _, d := range c.Disks {
		if names[d.Name] {
			return d, true
		}
	}
	return CheckpointDisk{}, false
}

// Validate says whether what Append writes can be parsed: a checkpoint that was
// put together by hand may have a name or a disk that it must not have.
func (c *Checkpoint) Validate() error {
	_, err := ParseCheckpoint(c.Append())
	return err
}
