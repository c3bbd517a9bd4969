package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/qbitkit/qbit/reconstruct/checkpoint"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// redefine is `qbit checkpoint redefine`.
func (k *checkpointCommand) redefine(ctx context.Context, c *console, args []string) error {
	if k.fromImages == (len(args) > 0) {
		return usagef("checkpoint redefine takes FILEs with documents, or --from-images")
	}
	s, im, err := k.openAll(c)
	if err != nil {
		return err
	}
	defer im.close()
	if len(s.docs.broken) > 0 {
		return s.docs.whole()
	}
	var taken []*libvirt.Checkpoint
	if k.fromImages {
		taken = s.recovered(c, im)
	} else if taken, err = s.readAll(c, args); err != nil {
		return err
	}
	tree, err := s.with(taken)
	if err != nil {
		return err
	}
	if err := k.prove(c, im, tree, taken); err != nil {
		return err
	}
	for _, cp := range taken {
		if k.dry {
			fmt.Fprintf(c.out, "%s: write; parent %s\n", escapeName(s.docs.path(cp.ResolvedName())), orNone(cp.Parent))
			continue
		}
		if err := s.docs.Put(cp); err != nil {
			return err
		}
		c.note("checkpoint %s: its document is %s", cp.ResolvedName(), s.docs.path(cp.ResolvedName()))
	}
	return nil
}

// recovered are the checkpoints made of left over bitmaps.
func (s *checkpointSet) recovered(c *console, im *checkpointImages) []*libvirt.Checkpoint {
	made, passed := checkpoint.Recover(im.disks, s.docs.tree, s.disks, c.now())
	for _, p := range passed {
		c.warn("disk %s: no checkpoint is made of the bitmap %q: %v", p.Target, p.Bitmap, p.Err)
	}
	for _, cp := range made {
		if s.domain != nil {
			cp.SetDomain(s.domain)
		}
	}
	if len(made) == 0 {
		c.note("no bitmap is left over that a checkpoint can be made of")
	}
	return made
}

// readAll reads the documents that the command line names.
func (s *checkpointSet) readAll(c *console, paths []string) (all []*libvirt.Checkpoint, err error) {
	for _, path := range paths {
		b, err := s.k.readDocument(c, path)
		if err != nil {
			return nil, err
		}
		cp, err := libvirt.ParseCheckpoint(b)
		if err != nil {
			return nil, badData{fmt.Errorf("%s: %w", escapeName(path), err)}
		}
		if err := s.complete(cp); err != nil {
			return nil, badData{fmt.Errorf("%s: %w", escapeName(path), err)}
		}
		all = append(all, cp)
	}
	return all, nil
}

// complete refuses what libvirt refuses to redefine: a document without name or time, or
// of another domain.
func (s *checkpointSet) complete(cp *libvirt.Checkpoint) error {
	switch {
	case cp.Name == "":
		return errors.New("the document has no <name>: a checkpoint that is redefined must have its own")
	case cp.CreationTime == 0:
		return errors.New("the document has no <creationTime>: a checkpoint that is redefined must have its own")
	case s.domain != nil && s.domain.UUID != "" && cp.DomainUUID() != "" && !strings.EqualFold(s.domain.UUID, cp.DomainUUID()):
		return fmt.Errorf("it is of the domain with the uuid %s, and %s has %s", escapeName(cp.DomainUUID()), escapeName(s.k.domainFile), escapeName(s.domain.UUID))
	}
	return nil
}

// with is the tree that there is with documents added to it, or put in the place of
// those with their names.
func (s *checkpointSet) with(taken []*libvirt.Checkpoint) (*libvirt.Tree, error) {
	all := slices.DeleteFunc(slices.Clone(s.docs.all), func(old *libvirt.Checkpoint) bool {
		return slices.ContainsFunc(taken, func(cp *libvirt.Checkpoint) bool { return cp.ResolvedName() == old.ResolvedName() })
	})
	tree, problems := libvirt.NewTree(append(all, taken...))
	for _, p := range problems {
		if !slices.ContainsFunc(s.docs.problems, func(old libvirt.Problem) bool { return old.Error() == p.Error() }) {
			return nil, badData{fmt.Errorf("with what is to be redefined the tree does not hold: %w", p)}
		}
	}
	return tree, nil
}

// prove compares documents with the images.
func (k *checkpointCommand) prove(c *console, im *checkpointImages, tree *libvirt.Tree, taken []*libvirt.Checkpoint) error {
	names := map[string]bool{}
	for _, cp := range taken {
		names[cp.ResolvedName()] = true
	}
	var wrong []error
	for _, p := range checkpoint.Compare(im.disks, tree, nil, true) {
		if !names[p.Checkpoint] {
			continue
		}
		told := im.tell(p)
		if p.Notice() || k.force {
			c.warn("%s", told.Why)
			continue
		}
		wrong = append(wrong, badData{fmt.Errorf("%s; --force takes the document all the same", told.Why)})
	}
	return errors.Join(wrong...)
}
