package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/qbitkit/qbit/reconstruct/checkpoint"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// create is `qbit checkpoint create`.
func (k *checkpointCommand) create(ctx context.Context, c *console, args []string) error {
	s, err := k.openSet(c)
	if err != nil {
		return err
	}
	if err := s.docs.whole(); err != nil {
		return err
	}
	cp, err := s.newCheckpoint(c, args)
	if err != nil {
		return err
	}
	disks, err := s.parts(cp)
	if err != nil {
		return err
	}
	im, err := s.openImages(c, disks)
	if err != nil {
		return err
	}
	defer im.close()
	if err := ctx.Err(); err != nil {
		return err
	}
	plan := func() (*checkpoint.Plan, error) {
		return checkpoint.PlanCreate(im.disks, s.docs.tree, cp, int64(k.granularity))
	}
	if k.dry {
		return k.tellPlan(c, im, plan)
	}
	if err := im.change(plan); err != nil {
		return hintLeftOver(err)
	}
	return k.created(c, s, cp)
}

// created prints the document.
func (k *checkpointCommand) created(c *console, s *checkpointSet, cp *libvirt.Checkpoint) error {
	c.note("checkpoint %s was made; its document is %s", cp.Name, s.docs.path(cp.Name))
	if k.noDomain {
		cp.SetDomain(nil)
	}
	_, err := c.out.Write(cp.Append())
	return err
}

// newCheckpoint is the checkpoint that the command line asks for, aligned to the disks.
func (s *checkpointSet) newCheckpoint(c *console, args []string) (*libvirt.Checkpoint, error) {
	cp, err := s.wanted(c, args)
	if err != nil {
		return nil, err
	}
	now := c.now()
	cp.CreationTime = now.Unix()
	cp.Name = cp.ResolvedName()
	current, unique := s.docs.tree.Current()
	switch {
	case current != nil && !unique:
		return nil, fmt.Errorf("%s: several checkpoints have no children (%s), so that none is current; delete the branches that the disks did not go on, or name another folder",
			escapeName(s.docs.folder), strings.Join(s.docs.tree.Leaves(), ", "))
	case current != nil:
		cp.Parent = current.ResolvedName()
	}
	if err := cp.Validate(); err != nil {
		return nil, usagef("%w", err)
	}
	if err := cp.Align(s.disks); err != nil {
		return nil, fmt.Errorf("%s: %w", escapeName(s.source()), err)
	}
	for _, d := range cp.Disks {
		if d.Bitmap != "" && d.Bitmap != cp.Name {
			c.warn("disk %s: the bitmap is to be called %q, and not like the checkpoint; libvirt makes no such checkpoint, and looks for %q", d.Name, d.Bitmap, cp.Name)
		}
	}
	if s.domain != nil {
		cp.SetDomain(s.domain)
	}
	return cp, nil
}

// source is where the disks come from, for messages.
func (s *checkpointSet) source() string {
	if s.k.domainFile != "" {
		return s.k.domainFile
	}
	return "--disk"
}

// wanted is what --xml and the other options say of the checkpoint. Of a document only
// what libvirt takes from it counts.
func (s *checkpointSet) wanted(c *console, args []string) (*libvirt.Checkpoint, error) {
	cp := &libvirt.Checkpoint{Description: s.k.description}
	if s.k.xml != "" {
		b, err := s.k.readDocument(c, s.k.xml)
		if err != nil {
			return nil, err
		}
		said, err := libvirt.ParseCheckpoint(b)
		if err != nil {
			return nil, badData{fmt.Errorf("%s: %w", escapeName(s.k.xml), err)}
		}
		if err := s.agree(said, args); err != nil {
			return nil, err
		}
		cp.Name = said.Name
		if !s.k.given("description") {
			cp.Description = said.Description
		}
		for _, d := range said.Disks {
			cp.Disks = append(cp.Disks, libvirt.CheckpointDisk{Name: d.Name, Checkpoint: d.Checkpoint, Bitmap: d.Bitmap, Size: -1})
		}
	}
	if len(args) == 1 {
		cp.Name = args[0]
	}
	for _, name := range s.chosen {
		cp.Disks = append(cp.Disks, libvirt.CheckpointDisk{Name: name, Size: -1})
	}
	return cp, nil
}

// agree refuses a document that says what the command line says too.
func (s *checkpointSet) agree(said *libvirt.Checkpoint, args []string) error {
	switch {
	case len(args) == 1 && said.Name != "" && said.Name != args[0]:
		return usagef("%s calls the checkpoint %s, and the command line calls it %s", escapeName(s.k.xml), said.Name, escapeName(args[0]))
	case len(said.Disks) > 0 && len(s.chosen) > 0:
		return usagef("%s lists disks, and --disk chooses some; let one of them say", escapeName(s.k.xml))
	}
	return nil
}

// parts are the disks that take part. One that cannot have a bitmap is refused, as
// libvirt does.
func (s *checkpointSet) parts(cp *libvirt.Checkpoint) ([]libvirt.DomainDisk, error) {
	var disks []libvirt.DomainDisk
	for i, d := range s.disks { // cp has them in this order
		if cp.Disks[i].Checkpoint == "no" {
			continue
		}
		if why := s.whyNoBitmaps(d); why != "" {
			return nil, fmt.Errorf("%s: disk %s cannot take part: %s; leave it out with checkpoint='no' in --xml, or choose others with --disk",
				escapeName(s.source()), escapeName(d.Target), why)
		}
		disks = append(disks, d)
	}
	if len(disks) == 0 {
		return nil, fmt.Errorf("%s: no disk takes part in the checkpoint", escapeName(s.source()))
	}
	return disks, nil
}

// hintLeftOver says what can be done about a bitmap without a document, which is what a
// run leaves that was killed.
func hintLeftOver(err error) error {
	var exists *checkpoint.ExistsError
	if errors.As(err, &exists) && exists.Bitmap != "" {
		return fmt.Errorf("%w; if it is left over from a run that did not end, qbit checkpoint redefine --from-images makes its document, "+
			"and qbit bitmap --remove takes it away; qbit checkpoint list shows it", err)
	}
	return err
}
