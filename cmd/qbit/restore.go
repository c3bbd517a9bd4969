package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/reconstruct"
)

func restoreVerb() verb {
	return verb{
		name:  "restore",
		args:  "FULL [INCREMENT…] | FOLDER -o OUT",
		short: "give a disk back from its backups, as it was at any point",
		long:  restoreHelp,
		new:   func() command { return new(restoreCommand) },
	}
}

const restoreHelp = `Gives back the disk as of the last of the links: a full backup and the
increments made after it, oldest first. Each block comes from the newest link
that holds it, as data or as zero; what no link holds is zero. The backing file
that an increment names is the disk as it is today, and is never opened.

Of a FOLDER of backups, or the zip archive of virtnbdbackup, the links are found
and proven first, as qbit plan shows them: all disks are brought back to their
newest point, or as --disk and --at say. With several disks OUT is a folder. What
has a gap or contradicts itself is refused, and what is only assumed needs
--assume. If the folder was sealed (qbit seal), every chunk is compared on the way;
otherwise streams that are not compressed are compared with their .chksum files.

The result is a new sparse raw file, or a qcow2 image with -O qcow2. It is
written under a temporary name, synced, and renamed when it is whole. With
-o - the raw disk goes to standard output. --onto writes over an existing block
device or file instead, which is really zeroed where the disk is zero. An
interrupted restore leaves nothing, or, with --resume, what the next run with
--resume goes on with: only chunks that read back as they were written are kept.

A raw increment, and one of qcow2 version 2 without a backing file, cannot tell
a range that was zeroed from one that did not change: old bytes come back. The
dirty bitmap of that interval mends it (--changed); it must be one that stopped
recording when that backup was made. Without it there is a warning, and with
--strict nothing is restored.

Where the result and links are on a filesystem that can share blocks between files
(XFS, Btrfs), what is stored as it is gets shared, not copied: a terabyte costs
what writing down its places costs. A block that goes bad is then bad in both, and
zeros that are stored stay stored; --reflink=never copies. Since shared blocks need not
be read, the digest is left out then, unless --digest asks for it. What a manifest
says of the content is compared all the same.

At the end it says how much came from each link, and the digest of the disk.
xxh64-4m is computed on the way at little cost; qbit digest says what it is.
sha256 and xxh64 are those of the raw disk, and have to pass over holes too.

` + deltaHelp + `

` + continueHelp + `

` + diskHelp + `

` + refHelp

// restoreCommand is `qbit restore`.
type restoreCommand struct {
	sourceFlags
	outputFlag
	progressFlags
	target  targetFlags
	resume  resumeFlags
	way     deltaFlags
	cont    continueFlags
	from    fromSetFlags
	seal    *expectation // what a manifest says of the content; nil: nothing
	sums    sumCheck
	changed []string
	strict  bool
	digests []string
	asked   func() bool // the user named the digests
	workers int
	memory  sizeValue
	made    bool // the folder OUT, by this run
}

func (r *restoreCommand) setFlags(fs *pflag.FlagSet) {
	r.target.register(fs)
	r.way.register(fs)
	r.cont.register(fs)
	r.resume.register(fs)
	fs.StringArrayVar(&r.changed, "changed", nil,
		"what changed in the interval of a link: the dirty bitmap\nBITMAP in IMAGE, as `LINK=IMAGE:BITMAP`; may be repeated")
	fs.BoolVar(&r.strict, "strict", false, "refuse what would only be warned about: bytes that may\nbe wrong, images that are marked corrupt")
	r.from.register(fs)
	registerDigests(fs, &r.digests, []string{reconstruct.Tree})
	r.asked = func() bool { return fs.Changed("digest") }
	fs.IntVarP(&r.workers, "workers", "m", 0, "read and write in this `NUMBER` of threads; 0: one a\nprocessor, but 2 to 8")
	r.memory = restoreMemory
	fs.Var(&r.memory, "memory", "use at most this `SIZE` of buffers, 64 MiB if not given; in\nall it is up to 110 MiB more, for decoded streams, tables\nand the program, whatever the chain")
	r.outputFlag.register(fs)
	r.progressFlags.register(fs)
	r.sourceFlags.register(fs)
}

func (r *restoreCommand) run(ctx context.Context, c *console, args []string) error {
	if len(args) == 0 {
		return usagef("restore takes the links of a chain, the full backup first")
	}
	if err := errors.Join(r.target.check(c), r.resume.check(&r.target), r.way.check(r), r.cont.check(&r.target), checkDigests(r.digests)); err != nil {
		return err
	}
	r.boundMemory(c)
	if len(args) == 1 && isSet(args[0]) || r.from.given() {
		return r.runSet(ctx, c, args)
	}
	o, err := r.newOpener(c)
	if err != nil {
		return err
	}
	defer o.close()
	if r.way.from != "" {
		return r.restoreDelta(ctx, c, o, args)
	}
	ch, err := r.openLinks(o, args)
	if err != nil {
		return err
	}
	if err := r.warn(c, ch); err != nil {
		return err
	}
	if err := r.continueLinks(ctx, c, ch); err != nil {
		return err
	}
	return r.restore(ctx, c, o, ch)
}

// openLinks opens the chain, with what the user knows of its bitmaps.
func (r *restoreCommand) openLinks(o *opener, args []string) (*chain, error) {
	ch, err := o.openLinks(args)
	if err != nil {
		return nil, notFull(parseDisks(args)[0], err)
	}
	return ch, r.addChanged(o, ch)
}

// addChanged gives links the bitmaps that the user knows.
func (r *restoreCommand) addChanged(o *opener, ch *chain) (err error) {
	for _, arg := range r.changed {
		if err := o.applyChanged(ch, arg, r.strict); err != nil {
			return err
		}
	}
	if len(r.changed) > 0 {
		ch.disk, err = reconstruct.Point(ch.links)
	}
	return err
}

// warn says what the chain cannot represent. With --strict that is an error.
func (r *restoreCommand) warn(c *console, ch *chain) error {
	return r.warnOf(c, reconstruct.Warnings(ch.links), ch.layers)
}

func (r *restoreCommand) warnOf(c *console, warnings []reconstruct.Warning, layers []*layer) error {
	var refused []error
	say := func(bad bool, format string, args ...any) {
		if r.strict && bad {
			refused = append(refused, badData{fmt.Errorf(format+" (refused by --strict)", args...)})
			return
		}
		c.warn(format, args...)
	}
	for _, w := range warnings {
		say(w.Kind.Lossy(), "%s: %s", escapeName(w.Link), w.Msg)
	}
	for _, top := range layers {
		for _, l := range top.chain() {
			if l.image != nil && l.image.Corrupt() {
				say(true, "%s: the image is marked corrupt: a program found it broken, and any part of it may be wrong", escapeName(l.path))
			}
		}
	}
	return errors.Join(refused...)
}

func (r *restoreCommand) restore(ctx context.Context, c *console, o *opener, ch *chain) error {
	size := ch.disk.Size()
	checking, stop := context.WithCancel(ctx)
	defer stop()
	sums := r.sums.start(checking, ch)
	if r.target.onto != "" { // what is written over is gone
		if err := sums(); err != nil {
			return err
		}
	}
	dst, err := r.openTarget(ctx, c, o, ch)
	if err != nil {
		return err
	}
	defer dst.Abort()
	var cache cacheKeeper
	if r.target.direct {
		cache = keepCache(o.files)
	}
	m := newMeter(c, &r.progressFlags, "restore", size)
	defer m.clearLine()
	result, err := reconstruct.Copy(ctx, dst, ch.disk, &reconstruct.CopyOptions{
		Workers: r.workers, Memory: int64(r.memory), KeepZeros: r.target.keepZeros, Digests: digestNames(r.digests),
		Share: r.target.reflink == reflinkAuto, DigestsIfRead: !r.asked(),
		Expect:   r.seal.chunk(),
		Progress: func(p reconstruct.Progress) { m.Set(p.Done); cache.passed(p.Read) },
	})
	cache.end()
	if err == nil {
		err = sums()
	}
	m.clearLine()
	if err := r.finish(c, dst, err); err != nil {
		return nameLayer(ch, r.seal.explain(ctx, ch, err))
	}
	m.Finish()
	return r.report(c, ch, result)
}
