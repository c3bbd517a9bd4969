package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/qbitkit/qbit/reconstruct/libvirt"
	"github.com/qbitkit/qbit/reconstruct/plan"
)

// A checkpointDoc is the XML of a checkpoint that is to be written.
type checkpointDoc struct {
	name, domain string
	path         string
	content      []byte
	at           int // of the first disk: which link on the way
}

// continueSet finds to which backups the checkpoints belong, and makes their XML,
// before anything is restored. Each checkpoint comes after its parent.
func (r *restoreCommand) continueSet(c *console, s *set, routes []diskRoute) ([]checkpointDoc, error) {
	if len(r.cont.names) == 0 {
		return nil, nil
	}
	for _, d := range routes[1:] {
		if d.disk.Domain != routes[0].disk.Domain {
			return nil, usagef("--continue: the disks belong to several domains; name those of one with --disk")
		}
		if a, b := routes[0].point().Point, d.point().Point; a != b {
			return nil, badData{fmt.Errorf("--continue: %s is at point %s, and %s at %s: name a point of both with --at, or one disk with --disk",
				escapeName(diskTitle(routes[0].disk)), escapeName(a), escapeName(diskTitle(d.disk)), escapeName(b))}
		}
	}
	all := r.cont.all()
	for i := range routes {
		for _, k := range all {
			at, err := routes[i].continueAt(c, k)
			if err != nil {
				return nil, err
			}
			routes[i].continued = append(routes[i].continued, at)
		}
	}
	return r.checkpointDocs(c, s, routes, all)
}

func (r *restoreCommand) checkpointDocs(c *console, s *set, routes []diskRoute, all []continued) ([]checkpointDoc, error) {
	var docs []checkpointDoc
	for i, k := range all {
		at := routes[0].continued[i]
		if routes[0].route[at].DomainXML == nil {
			return nil, r.noDocument(c, fmt.Sprintf("the set does not describe the domain as of point %s", escapeName(routes[0].route[at].Point)))
		}
		docs = append(docs, checkpointDoc{name: k.name, at: at, path: r.checkpointPath(k.name)})
	}
	slices.SortStableFunc(docs, func(a, b checkpointDoc) int { return a.at - b.at })
	parent := ""
	for i := range docs {
		err := r.fillDoc(c, s, routes, &docs[i], parent)
		if missing := (*libvirt.NotFoundError)(nil); errors.As(err, &missing) {
			return nil, r.noDocument(c, fmt.Sprintf("which disk of the domain is %s is not known", escapeName(missing.Name)))
		}
		if err != nil {
			return nil, err
		}
		parent = docs[i].name
	}
	return docs, nil
}

// checkpointPath is where the XML of a checkpoint goes.
func (r *restoreCommand) checkpointPath(name string) string {
	if r.cont.xml != "" {
		return r.cont.xml
	}
	if info, err := os.Stat(r.target.out); err == nil && info.IsDir() {
		return filepath.Join(r.target.out, name+".xml")
	}
	return r.target.out + "." + name + ".xml"
}

// fillDoc makes the XML of a checkpoint.
func (r *restoreCommand) fillDoc(c *console, s *set, routes []diskRoute, doc *checkpointDoc, parent string) error {
	if _, err := os.Lstat(doc.path); !errors.Is(err, fs.ErrNotExist) && !r.target.force {
		return fmt.Errorf("%s: %w; --force replaces it", escapeName(doc.path), fs.ErrExist)
	}
	b := routes[0].route[doc.at]
	cp, err := s.checkpointOf(b, doc.name)
	if err != nil {
		return err
	}
	domain := cp.Domain()
	if domain == nil {
		return fmt.Errorf("%s: it has no description of the domain, which libvirt wants with a checkpoint", escapeName(b.DomainXML.Path))
	}
	if err := r.placeDisks(domain, routes, b.DomainXML.Path); err != nil {
		return err
	}
	if cp.CreationTime == 0 {
		cp.CreationTime = c.now().Unix()
	}
	cp.Parent, cp.Disks, doc.domain = parent, continuedDisks(domain, routes, doc.name), domain.Name
	cp.SetDomain(domain)
	if doc.content = cp.Append(); err == nil {
		err = cp.Validate()
	}
	return err
}

// placeDisks makes the restored files the disks of a domain.
func (r *restoreCommand) placeDisks(domain *libvirt.Domain, routes []diskRoute, from string) error {
	for _, d := range routes {
		path, err := filepath.Abs(r.diskPath(d))
		if err != nil {
			return err
		}
		if err := domain.SetDiskPath(d.disk.Name, path, r.target.format); err != nil {
			return fmt.Errorf("%s: disk %s: %w", escapeName(from), escapeName(d.disk.Name), err)
		}
	}
	return nil
}

// checkpointOf is the document of a checkpoint of that name, made with a backup: that
// of the set, or a new one with the domain of that point.
func (s *set) checkpointOf(b *plan.Backup, name string) (*libvirt.Checkpoint, error) {
	raw, err := s.read(b.DomainXML)
	if err != nil {
		return nil, err
	}
	made := &libvirt.Checkpoint{Name: name}
	if !b.Time.IsZero() {
		made.CreationTime = b.Time.Unix()
	}
	if !b.DomainXML.Checkpoint {
		domain, err := libvirt.ParseDomain(raw)
		if err == nil {
			made.SetDomain(domain)
		}
		return made, err
	}
	cp, err := libvirt.ParseCheckpoint(raw)
	if err != nil || cp.ResolvedName() == name {
		return cp, err
	}
	made.SetDomain(cp.Domain())
	return made, nil
}

// continuedDisks are the disks of a domain as a checkpoint lists them: those that were
// restored have the bitmap.
func continuedDisks(domain *libvirt.Domain, routes []diskRoute, name string) []libvirt.CheckpointDisk {
	var all []libvirt.CheckpointDisk
	for _, disk := range domain.Disks {
		if disk.Device != "" && disk.Device != "disk" {
			continue
		}
		d := libvirt.CheckpointDisk{Name: disk.Target, Checkpoint: "no", Size: -1}
		if slices.ContainsFunc(routes, func(r diskRoute) bool { return r.disk.Name == disk.Target }) {
			d.Checkpoint, d.Bitmap = "bitmap", name
		}
		all = append(all, d)
	}
	return all
}

// A continueReport is what --output=json prints after the disks.
type continueReport struct {
	Checkpoints []checkpointReport `json:"checkpoints"`
	Commands    []string           `json:"commands"`
}

type checkpointReport struct {
	Name string `json:"name"`
	XML  string `json:"xml"`
}

// writeCheckpoints writes the XML of checkpoints, and says what tells libvirt of them.
func (r *restoreCommand) writeCheckpoints(c *console, docs []checkpointDoc) error {
	rep := continueReport{}
	if r.from.domainXML != "" && len(docs) > 0 {
		rep.Commands = append(rep.Commands, "virsh define "+shellWord(r.from.domainXML))
	}
	for _, d := range docs {
		if err := writeNew(d.path, d.content, r.target.force); err != nil {
			return err
		}
		rep.Checkpoints = append(rep.Checkpoints, checkpointReport{d.name, d.path})
		rep.Commands = append(rep.Commands, fmt.Sprintf("virsh checkpoint-create %s %s --redefine", shellWord(d.domain), shellWord(d.path)))
	}
	switch {
	case len(docs) == 0 || r.quiet && !r.json():
		return nil
	case r.json():
		return json.NewEncoder(c.out).Encode(rep)
	}
	_, err := fmt.Fprintf(c.out, "The incremental backups go on when libvirt knows the domain and its checkpoint:\n  %s\n", strings.Join(rep.Commands, "\n  "))
	return err
}
