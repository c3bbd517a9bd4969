package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/qbitkit/qbit/reconstruct/checkpoint"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// openAll opens the set with the images of all disks that can have bitmaps.
func (k *checkpointCommand) openAll(c *console) (*checkpointSet, *checkpointImages, error) {
	s, err := k.openSet(c)
	if err != nil {
		return nil, nil, err
	}
	var disks []libvirt.DomainDisk
	for _, d := range s.disks {
		if !s.takesPart(d) {
			continue
		}
		if why := s.whyNoBitmaps(d); why != "" {
			if d.Driver == formatQcow2 && d.Source != "" && !d.ReadOnly {
				c.note("disk %s is left out: %s", d.Target, why)
			}
			continue
		}
		disks = append(disks, d)
	}
	im, err := s.openImages(c, disks)
	return s, im, err
}

// openChange is openAll for what changes documents that are there.
func (k *checkpointCommand) openChange(c *console) (*checkpointSet, *checkpointImages, error) {
	if len(k.disks) > 0 && k.domainFile != "" && slices.ContainsFunc(k.disks, func(arg string) bool { return !strings.Contains(arg, "=") }) {
		return nil, nil, usagef("checkpoint %s is about all disks of the domain; --disk NAME=PATH may say where they are", k.flags.Arg(0))
	}
	s, im, err := k.openAll(c)
	if err != nil {
		return nil, nil, err
	}
	if err := s.docs.whole(); err != nil {
		im.close()
		return nil, nil, err
	}
	return s, im, nil
}

// delete is `qbit checkpoint delete`.
func (k *checkpointCommand) delete(ctx context.Context, c *console, args []string) error {
	if k.children && k.childrenOnly {
		return usagef("--children and --children-only exclude each other")
	}
	s, im, err := k.openChange(c)
	if err != nil {
		return err
	}
	defer im.close()
	names, err := k.doomed(s.docs.tree, args)
	if err != nil {
		return err
	}
	if k.metadata {
		return k.forget(c, im, names)
	}
	im.unopened()
	plan := func() (*checkpoint.Plan, error) {
		return checkpoint.PlanDelete(im.disks, s.docs.tree, names, checkpoint.Design(k.design))
	}
	return k.do(ctx, c, im, plan)
}

// do does a plan, or tells it.
func (k *checkpointCommand) do(ctx context.Context, c *console, im *checkpointImages, plan func() (*checkpoint.Plan, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if k.dry {
		return k.tellPlan(c, im, plan)
	}
	return im.change(plan)
}

// doomed are the checkpoints that the command line names, with their descendants where
// it asks for them.
func (k *checkpointCommand) doomed(tree *libvirt.Tree, args []string) ([]string, error) {
	if !k.children && !k.childrenOnly {
		return args, nil
	}
	var names []string
	for _, name := range args {
		all := tree.ChangedSince(name)
		if all == nil {
			return nil, &libvirt.NotFoundError{What: "checkpoint", Name: name, Have: tree.Names()}
		}
		if k.childrenOnly {
			all = all[1:]
		}
		for _, name := range all {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// forget is delete --metadata.
func (k *checkpointCommand) forget(c *console, im *checkpointImages, names []string) error {
	docs := im.s.docs
	for _, name := range names {
		if docs.tree.Checkpoint(name) == nil {
			return &libvirt.NotFoundError{What: "checkpoint", Name: name, Have: docs.tree.Names()}
		}
		if need := checkpoint.Dependents(im.disks, docs.tree, name); len(need) > 0 {
			c.warn("checkpoint %s is of the older design: %s needs its bitmap, and does not show it without the document of %s; keep that, and put it back with redefine",
				name, strings.Join(need, ", "), name)
		}
	}
	plan := func() (*checkpoint.Plan, error) { return checkpoint.PlanForget(docs.tree, names) }
	if k.dry {
		return k.tellPlan(c, im, plan)
	}
	return im.change(plan)
}

// merge is `qbit checkpoint merge`.
func (k *checkpointCommand) merge(ctx context.Context, c *console, args []string) error {
	s, im, err := k.openChange(c)
	if err != nil {
		return err
	}
	defer im.close()
	from, to, err := splitPath(s.docs.tree, args[0])
	if err != nil {
		return err
	}
	if k.given("into") {
		if err := (&libvirt.Checkpoint{Name: k.into}).Validate(); err != nil || k.into == "" {
			return usagef("--into %q: no checkpoint can be called so", k.into)
		}
	}
	im.unopened()
	return k.do(ctx, c, im, func() (*checkpoint.Plan, error) {
		plan, err := checkpoint.PlanMerge(im.disks, s.docs.tree, from, to, k.into)
		if errors.As(err, new(*libvirt.PathError)) {
			err = badData{err}
		}
		return plan, err
	})
}

// splitPath takes FIRST..LAST apart. Names may hold dots: those that there are decide.
func splitPath(tree *libvirt.Tree, arg string) (from, to string, err error) {
	for i := 0; i+2 <= len(arg); i++ {
		if arg[i:i+2] != ".." || tree.Checkpoint(arg[:i]) == nil || tree.Checkpoint(arg[i+2:]) == nil {
			continue
		}
		if from != "" {
			return "", "", usagef("%q can be read in several ways: names of checkpoints hold dots too", arg)
		}
		from, to = arg[:i], arg[i+2:]
	}
	if from != "" {
		return from, to, nil
	}
	from, to, ok := strings.Cut(arg, "..")
	if !ok {
		return "", "", usagef("merge takes FIRST..LAST, not %q", arg)
	}
	for _, name := range []string{from, to} {
		if tree.Checkpoint(name) == nil {
			return "", "", &libvirt.NotFoundError{What: "checkpoint", Name: name, Have: tree.Names()}
		}
	}
	return from, to, nil
}

// tellPlan prints what a plan would do.
func (k *checkpointCommand) tellPlan(c *console, im *checkpointImages, plan func() (*checkpoint.Plan, error)) error {
	p, err := plan()
	if err != nil {
		return im.explain(err)
	}
	w := newLineWriter(c.out)
	for _, s := range p.First {
		im.tellStep(w, s)
	}
	for _, cp := range p.Write {
		fmt.Fprintf(w, "%s: write; parent %s\n", escapeName(im.s.docs.path(cp.ResolvedName())), orNone(cp.Parent))
	}
	for _, name := range p.Remove {
		fmt.Fprintf(w, "%s: remove\n", escapeName(im.s.docs.path(name)))
	}
	for _, s := range p.Last {
		im.tellStep(w, s)
	}
	fmt.Fprintln(w, "nothing was written")
	return w.Flush()
}

func orNone(name string) string {
	if name == "" {
		return "none"
	}
	return name
}

func (im *checkpointImages) tellStep(w io.Writer, s checkpoint.Step) {
	path := escapeName(im.layer(s.Place).path)
	for _, put := range s.Put {
		what := "change"
		if put.New {
			what = "add"
		}
		fmt.Fprintf(w, "%s: %s bitmap %s", path, what, quote(escapeName(put.Bitmap)))
		if len(put.From) > 0 {
			fmt.Fprintf(w, ", with what is dirty in %s", quoteAll(put.From))
		}
		if put.Auto {
			fmt.Fprint(w, "; it records")
		}
		fmt.Fprintln(w)
	}
	for _, name := range s.Remove {
		fmt.Fprintf(w, "%s: remove bitmap %s\n", path, quote(escapeName(name)))
	}
}

func quoteAll(names []string) string {
	var quoted []string
	for _, name := range names {
		quoted = append(quoted, quote(escapeName(name)))
	}
	return strings.Join(quoted, ", ")
}
