package main

import (
	"context"
	"fmt"

	"github.com/qbitkit/qbit/reconstruct/checkpoint"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// show is `qbit checkpoint show`.
func (k *checkpointCommand) show(ctx context.Context, c *console, args []string) error {
	s, err := k.openSet(c)
	if err != nil {
		return err
	}
	cp := s.docs.tree.Checkpoint(args[0])
	if cp == nil {
		return fmt.Errorf("%s: %w; %s lists bitmaps without a document too", escapeName(s.folder),
			&libvirt.NotFoundError{What: "checkpoint", Name: args[0], Have: s.docs.tree.Names()}, s.command("list"))
	}
	if cp, err = libvirt.ParseCheckpoint(cp.Append()); err != nil {
		return err
	}
	if k.size {
		if err := k.measure(c, s, cp); err != nil {
			return err
		}
	}
	if k.noDomain {
		cp.SetDomain(nil)
	}
	_, err = c.out.Write(cp.Append())
	return err
}

// measure writes into a document how much changed since, on the disks where that is
// known.
func (k *checkpointCommand) measure(c *console, s *checkpointSet, cp *libvirt.Checkpoint) error {
	_, im, err := k.openAll(c)
	if err != nil {
		return err
	}
	defer im.close()
	if len(cp.Disks) == 0 {
		if err := cp.Align(s.disks); err != nil {
			return err
		}
	}
	for i := range cp.Disks {
		cp.Disks[i].Size = -1
	}
	for _, d := range im.disks {
		st := checkpoint.StandingOf(d, s.docs.tree, cp.ResolvedName(), true)
		if st.Err != nil {
			c.warn("disk %s: %v", d.Target, st.Err)
			continue
		}
		listed, _ := cp.Disk(d.Target)
		for i := range cp.Disks {
			if cp.Disks[i].Name == listed.Name && st.Bitmap != "" {
				cp.Disks[i].Size = st.Dirty
			}
		}
	}
	return nil
}
