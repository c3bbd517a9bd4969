package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/qcow2"
)

func commitVerb() verb {
	return verb{
		name:  "commit",
		args:  "IMAGE",
		short: "write what an overlay holds into its backing file",
		long:  commitHelp,
		new:   func() command { return new(commitCommand) },
	}
}

const commitHelp = `Writes all that the qcow2 IMAGE holds into its backing file, and then empties IMAGE.
With -b BASE it writes what IMAGE and the images between it and BASE hold into BASE,
any backing file further down, and empties nothing.

Data becomes data, and what IMAGE records as zero is recorded as zero in a qcow2
backing file; in a raw one it becomes a hole. What IMAGE does not hold is left alone.
If its disk is larger, the backing file grows; if it is smaller, the backing file keeps
its size, and what lies beyond the end of IMAGE.

A guest that has IMAGE reads the same before, meanwhile and afterwards, whenever the
run ends: IMAGE still holds what is being written below it, and is emptied only when
the backing file is safely stored. After a crash or Ctrl-C run it again. But every
other image on that backing file (and with -b those between, and any on them) reads
other data from the first write on, and must not be used any more.

Recording bitmaps of the backing file mark what is written. Bitmaps of IMAGE, and of
those between, are merged into those of the same name there; the ones that only IMAGE
has are named, and with --bitmaps copied. Those in IMAGE stay as they are: they are
about its disk, which is the same. An internal snapshot of IMAGE that reads from the
backing file what now changes is refused; --ignore-snapshots gives it up.

The backing file is opened, for writing, only if you allow it with --allow-refs, --ref
or --trust, and only while no other process has it open. Names with a protocol (nbd:,
json:, https:, …) are never opened; --ref can stand in for them.`

// commitCommand is `qbit commit`.
type commitCommand struct {
	outputFlag
	progressFlags
	format          string
	base            string // -b; "": the immediate backing file
	drop            bool   // -d
	bitmaps         bool
	ignoreSnapshots bool
	policy          refPolicy
	limits          limitsFlag
}

func (m *commitCommand) setFlags(fs *pflag.FlagSet) {
	fs.StringVarP(&m.base, "base", "b", "", "write into `BASE`, a backing file further down; by its path, or\nas the header above it names it. IMAGE is not emptied")
	fs.BoolVarP(&m.drop, "drop", "d", false, "do not empty IMAGE: it is to be removed")
	fs.BoolVar(&m.bitmaps, "bitmaps", false, "copy bitmaps that the backing file does not have")
	fs.BoolVar(&m.ignoreSnapshots, "ignore-snapshots", false, "go on although internal snapshots of IMAGE will read other\ndata")
	fs.VarP(choice{&m.format, []string{formatQcow2}}, "format", "f", "the format `FMT` of IMAGE; only qcow2 has backing files")
	m.outputFlag.register(fs)
	m.progressFlags.register(fs)
	m.policy.register(fs)
	m.limits.register(fs)
}

func (m *commitCommand) run(ctx context.Context, c *console, args []string) error {
	if len(args) != 1 {
		return usagef("commit takes one image")
	}
	if err := checkChangeArg("commit", args[0]); err != nil {
		return err
	}
	o, err := (&sourceFlags{policy: m.policy, limits: m.limits}).newOpener(c)
	if err != nil {
		return err
	}
	defer o.close()
	ch, err := openCommit(o, args[0], m.base, m.drop)
	if err != nil {
		return err
	}
	defer ch.unlock()
	return (&committing{m: m, c: c, ch: ch}).run(ctx)
}

// A committing is one run, with all files open.
type committing struct {
	m      *commitCommand
	c      *console
	ch     *commitChain
	report commitReport
}

// run does the steps in the order that keeps the disk of IMAGE the same in any crash.
func (k *committing) run(ctx context.Context) error {
	plan, err := planCommit(ctx, k.ch.disk)
	if err != nil {
		return err
	}
	if err := k.checkSnapshots(ctx); err != nil {
		return err
	}
	marks, err := k.collectBitmaps()
	if err != nil {
		return err
	}
	k.report = commitReport{Filename: k.ch.path, Base: k.ch.base.path, BaseFormat: k.ch.base.format,
		Data: plan.data, Zero: plan.zero, OldSize: k.ch.target.Size(), Size: max(k.ch.target.Size(), k.ch.disk.Size())}
	k.warnBetween()
	if err := k.write(ctx, plan, marks); err != nil {
		return err
	}
	if err := k.empty(ctx); err != nil {
		return err
	}
	return k.tell()
}

// write brings the backing file to what IMAGE shows, and has it stored.
func (k *committing) write(ctx context.Context, plan commitPlan, marks *commitMarks) error {
	base := k.ch.target
	if err := base.Grow(k.ch.disk.Size()); err != nil {
		return err
	}
	// Dirty before it changes; copies come after it, for what is written is no change of
	// theirs.
	if err := marks.merge(base); err != nil {
		return err
	}
	held, err := k.ch.spread(ctx, k.ch.disk, base.Size(), holds)
	if err != nil {
		return err
	}
	base.Changes(held)
	m := newMeter(k.c, &k.m.progressFlags, "commit", plan.data+plan.zero)
	defer m.clearLine()
	err = moveHeld(ctx, k.ch.disk, base, m.Add)
	if closed := base.Finish(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("%w; %s shows the same as before: commit it again when that is mended", err, escapeName(k.ch.path))
	}
	m.Finish()
	if k.m.bitmaps {
		if err := marks.copy(base); err != nil {
			return err
		}
	}
	k.report.Bitmaps = marks.report(k.m.bitmaps)
	return nil
}

// empty takes out of IMAGE what its backing file holds now.
func (k *committing) empty(ctx context.Context) error {
	if k.ch.overlay == nil {
		return nil
	}
	if err := k.ch.overlay.editor.Empty(ctx); err != nil {
		return fmt.Errorf("%s: all is in %s, but emptying it failed: %w", escapeName(k.ch.path), quote(escapeName(k.ch.base.path)), err)
	}
	k.report.Emptied = true
	return nil
}

// checkSnapshots refuses to change what internal snapshots of IMAGE show.
func (k *committing) checkSnapshots(ctx context.Context) error {
	if k.m.ignoreSnapshots {
		return nil
	}
	img, err := openAlone(k.ch.layer, k.ch.refs, k.m.limits.limits)
	if err != nil {
		return err
	}
	disks, names, err := snapshotsAlone(img)
	if err != nil {
		return fmt.Errorf("%s: %w", escapeName(k.ch.path), err)
	}
	if len(disks) == 0 {
		return nil
	}
	held, err := k.ch.spread(ctx, k.ch.disk, k.ch.disk.Size(), holds)
	if err != nil {
		return err
	}
	for i, d := range disks {
		absent, err := k.ch.spread(ctx, d, k.ch.disk.Size(), isAbsent)
		if err != nil {
			return err
		}
		if err := absent.Intersect(held); err != nil {
			return err
		}
		if n := absent.Count(); n > 0 {
			return fmt.Errorf("%s: its snapshot %s reads %s of what would change from the backing file, and would show other data; "+
				"take the snapshot out first (qbit convert %s), or give it up with --ignore-snapshots",
				escapeName(k.ch.path), quote(escapeName(names[i])), formatSize(n), shellWord(k.ch.path+"@"+names[i]))
		}
	}
	return nil
}

func holds(k qcow2.Kind) bool    { return k != qcow2.Absent }
func isAbsent(k qcow2.Kind) bool { return k == qcow2.Absent }
