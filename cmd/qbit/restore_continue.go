package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
	"github.com/qbitkit/qbit/reconstruct/plan"
)

// continueFlags are the flags of a restore after which incremental backups go on.
type continueFlags struct {
	names []string
	xml   string
}

func (f *continueFlags) register(fs *pflag.FlagSet) {
	fs.StringArrayVar(&f.names, "continue", nil, "with -O qcow2: put the bitmap of `CHECKPOINT` into OUT, so that\nthe next incremental backup can be made since it; NAME=POINT\n(NAME=LINK) calls that of a point NAME; may be repeated")
	fs.StringVar(&f.xml, "checkpoint-xml", "", "with --continue: write the checkpoint's XML to the new `FILE`;\notherwise to OUT.CHECKPOINT.xml")
}

const continueHelp = `With --continue CHECKPOINT the incremental backups go on after the restore: the qcow2
OUT gets a bitmap of that name which records, as libvirt and QEMU leave it. It is clean
for the checkpoint of the point that is restored; for an earlier one on the way to it,
it marks what the later links hold. Several disks have to be at one point. Beside OUT
comes the XML of the checkpoint, with the domain as of that point, as far as the set has
it, and the restored files as its disks; what it takes to tell libvirt of it is printed.
The parent of a checkpoint is the one before it that is named with --continue too, and
no other: libvirt wants a bitmap for each. Of links that you name, and where a set knows
no checkpoints, any name may be given: it is that of the last point, and NAME=LINK or
NAME=POINT that of another. A raw file has no place for bitmaps.`

// A continued is one checkpoint since which the incremental backups go on.
type continued struct {
	name  string // of the checkpoint and of its bitmap
	point string // the point or link that it belongs to; "": it says so itself, or is the last
}

// check finds what does not go together.
func (f *continueFlags) check(t *targetFlags) error {
	switch {
	case len(f.names) == 0 && f.xml != "":
		return usagef("--checkpoint-xml belongs to --continue")
	case len(f.names) == 0:
		return nil
	case t.format != formatQcow2:
		return usagef("--continue: a raw disk has no place for the bitmap of a checkpoint: write a qcow2 image, with -O qcow2 -o OUT")
	case f.xml != "" && len(f.names) > 1:
		return usagef("--checkpoint-xml names one file, and there are %d checkpoints: leave it out, and each gets its own", len(f.names))
	}
	var names []string
	for _, c := range f.all() {
		cp := libvirt.Checkpoint{Name: c.name, CreationTime: 1}
		if err := cp.Validate(); err != nil || c.name == "" {
			return usagef("--continue %q: a checkpoint's name is made of letters, digits, '_', '-' and '.', and does not begin with a dot", c.name)
		}
		if slices.Contains(names, c.name) {
			return usagef("--continue %s: it is named twice", c.name)
		}
		names = append(names, c.name)
	}
	return nil
}

// all are the checkpoints as the user named them. No name has a '=' in it.
func (f *continueFlags) all() []continued {
	var all []continued
	for _, arg := range f.names {
		name, point, _ := strings.Cut(arg, "=")
		all = append(all, continued{name, point})
	}
	return all
}

// A newBitmap is a bitmap that a new image gets.
type newBitmap struct {
	name string
	bits *bitmap.Bitmap
	link int // the link of whose point it is; of several, which is the older
}

// continueLinks makes the bitmaps of checkpoints for links that the user names.
func (r *restoreCommand) continueLinks(ctx context.Context, c *console, ch *chain) error {
	args := make([]linkArg, len(ch.layers))
	for i, l := range ch.layers {
		args[i] = linkArg{name: l.name, path: l.path}
	}
	for _, k := range r.cont.all() {
		at := len(args) - 1
		if k.point != "" {
			var err error
			if at, err = findPoint("--continue "+k.name, k.point, args); err != nil {
				return err
			}
		}
		if err := r.addBitmap(ctx, ch, k.name, at); err != nil {
			return err
		}
	}
	if len(r.cont.names) > 0 {
		return r.noDocument(c, "links that you name do not describe the domain")
	}
	return nil
}

// addBitmap adds the bitmap of what changed behind a link to those that the new image
// gets.
func (r *restoreCommand) addBitmap(ctx context.Context, ch *chain, name string, at int) error {
	d, err := reconstruct.NewDelta(ch.links[:at+1], ch.links)
	if err != nil {
		return err
	}
	bits, err := d.Bitmap(ctx, qcow2.DefaultGranularity(int64(r.target.clusterSize), ch.disk.Size()))
	if err != nil {
		return fmt.Errorf("the bitmap of checkpoint %s: %w", name, err)
	}
	r.target.bitmaps = append(r.target.bitmaps, newBitmap{name, bits, at})
	return nil
}

// addBitmaps puts the bitmaps into a new image, whose disk has size bytes.
func (t *targetFlags) addBitmaps(w *qcow2.Writer, size int64) error {
	for _, b := range t.bitmaps {
		if err := b.bits.Resize(size, false); err != nil { // what comes with the last sector is zero
			return err
		}
		if err := w.AddBitmap(b.name, b.bits, true); err != nil {
			return err
		}
	}
	return nil
}

// noDocument says that there will be no XML, which is an error where the user names a
// file for it.
func (r *restoreCommand) noDocument(c *console, why string) error {
	if r.cont.xml != "" {
		return usagef("--checkpoint-xml: libvirt wants the description of the domain in it, and %s; "+
			"leave it out, and make it with qbit checkpoint redefine --from-images --domain FILE", why)
	}
	c.note("no XML is written for the checkpoint: %s; "+
		"qbit checkpoint redefine --from-images --domain FILE makes it, with FILE as virsh dumpxml prints it", why)
	return nil
}

// continueAt is which backup on the way to a disk a checkpoint belongs to.
func (d diskRoute) continueAt(c *console, k continued) (int, error) {
	name := k.point
	if name == "" {
		name = k.name
	}
	for i := len(d.route) - 1; i >= 0; i-- {
		if b := d.route[i]; b.Point == name || k.point != "" && b.ID == name {
			return i, nil
		}
	}
	if k.point != "" || namesCheckpoints(d.disk.Tool) {
		var points []string
		for _, b := range d.route {
			points = append(points, b.Point)
		}
		return 0, usagef("--continue %s: there is no such point on the way to %s of %s, but %s; --continue NAME=POINT gives that of a point another name",
			escapeName(name), escapeName(d.point().Point), escapeName(diskTitle(d.disk)), escapeText(strings.Join(points, ", ")))
	}
	c.note("%s: the set knows no checkpoints; %s is taken to be that of the point %s, and its bitmap is clean", diskTitle(d.disk), k.name, d.point().Point)
	return len(d.route) - 1, nil
}

// namesCheckpoints says that the points of a tool are checkpoints.
func namesCheckpoints(t plan.Tool) bool {
	return t == plan.ToolLibvirt || t == plan.ToolVirtnbd || t == plan.ToolOvirt
}

// continueDisk makes the bitmaps of checkpoints for a disk of a set.
func (r *restoreCommand) continueDisk(ctx context.Context, c *console, ch *chain, d diskRoute) error {
	for i, k := range r.cont.all() {
		if err := r.addBitmap(ctx, ch, k.name, d.continued[i]); err != nil {
			return err
		}
	}
	return nil
}
