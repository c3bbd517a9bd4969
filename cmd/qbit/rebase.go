package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/qcow2"
)

func rebaseVerb() verb {
	return verb{
		name:  "rebase",
		args:  "-b NEW IMAGE",
		short: "give an overlay another backing file",
		long:  rebaseHelp,
		exits: rebaseExits,
		new:   func() command { return new(rebaseCommand) },
	}
}

const rebaseHelp = `Has the qcow2 IMAGE stand on another backing file, NEW. A guest that has IMAGE reads
the same before and afterwards, and in any crash in between: where IMAGE holds nothing
of its own, the old backing file and NEW are compared, what differs is written into
IMAGE, and only then NEW is named in it, by one write. Nothing is read that both have
in the same file at the same place. -b '' makes IMAGE stand alone.

NEW is written into IMAGE as you give it; a relative name is one as seen from the
folder of IMAGE. -F is its format, which is always written; without -F NEW must be
qcow2. What lies beyond the end of a backing file reads as zero.

-u only changes the name, as when backing files were moved: then the old ones need not
be there. What IMAGE shows is then what NEW holds, right or wrong; so it says what is
known: whether NEW is there, what a comparison without reading data tells, what sizes
tell. With --prove it is changed only if the disk is shown to stay the same:
  - by comparing NEW with the old backing file, if that can be opened; or
  - by a manifest (qbit seal): --manifest, or qbit-manifest.json in the folder of NEW
    or of IMAGE. Either IMAGE on NEW reads as the point of IMAGE that was sealed, or
    NEW holds the sealed point that IMAGE was made on: the parent of its own, or the
    one whose file the old name names, or --at POINT.

An internal snapshot of IMAGE that would read other data on NEW is refused, for what
it shows cannot be kept; --ignore-snapshots gives it up. Dirty bitmaps stay valid:
those that record mark what is written into IMAGE.

NEW is opened because you name it. The old backing file, and all that these two name,
are opened only if you allow it with --allow-refs, --ref or --trust. Names with a
protocol (nbd:, json:, https:, …) are never opened; -u can write them.`

const rebaseExits = `0  done
1  could not: a file is missing, unreadable, in use, not allowed, or uses
   a feature that is not supported; or --prove could show nothing
2  the data is bad; or --prove showed that the disk would change
3  the command line is wrong`

// rebaseCommand is `qbit rebase`.
type rebaseCommand struct {
	outputFlag
	progressFlags
	flags           *pflag.FlagSet
	format          string
	backing         string // -b
	backingFormat   string // -F
	unsafe          bool   // -u
	prove           bool
	manifest, point string
	ignoreSnapshots bool
	policy          refPolicy
	limits          limitsFlag
}

func (r *rebaseCommand) setFlags(fs *pflag.FlagSet) {
	r.flags = fs
	fs.StringVarP(&r.backing, "backing-file", "b", "", "the new backing file, `NEW`; '': none")
	fs.StringVarP(&r.backingFormat, "backing-format", "F", "", "the format `FMT` of NEW: qcow2 or raw; with -u any word")
	fs.BoolVarP(&r.unsafe, "unsafe", "u", false, "change the name alone")
	fs.BoolVar(&r.prove, "prove", false, "with -u: change it only if it is shown that the disk stays\nthe same, and read what that takes")
	fs.StringVar(&r.manifest, "manifest", "", "with --prove: the manifest `FILE` that says what NEW should hold")
	fs.StringVar(&r.point, "at", "", "with --prove: IMAGE was made on the sealed `POINT`, by its name or file")
	fs.BoolVar(&r.ignoreSnapshots, "ignore-snapshots", false, "go on although internal snapshots of IMAGE will read other\ndata")
	fs.VarP(choice{&r.format, []string{formatQcow2}}, "format", "f", "the format `FMT` of IMAGE; only qcow2 has backing files")
	r.outputFlag.register(fs)
	r.progressFlags.register(fs)
	r.policy.register(fs)
	r.limits.register(fs)
}

func (r *rebaseCommand) check(args []string) error {
	switch {
	case len(args) != 1:
		return usagef("rebase takes one image")
	case !r.flags.Changed("backing-file"):
		return usagef("-b names the new backing file; -b '' is none")
	case len(r.backing) > 1023:
		return usagef("-b: the name has %d bytes; an image has room for 1023", len(r.backing))
	case r.backing == "" && r.backingFormat != "":
		return usagef("-F is the format of a backing file, and -b '' is none")
	case r.prove && !r.unsafe:
		return usagef("--prove belongs to -u; without -u the disk always stays the same")
	case (r.manifest != "" || r.point != "") && !r.prove:
		return usagef("--manifest and --at belong to --prove")
	case !r.unsafe && r.backingFormat != "" && r.backingFormat != formatQcow2 && r.backingFormat != formatRaw:
		return usagef("-F %s: qbit reads qcow2 and raw; -u only changes the name", escapeName(r.backingFormat))
	}
	return checkChangeArg("rebase", args[0])
}

func (r *rebaseCommand) run(ctx context.Context, c *console, args []string) error {
	if err := r.check(args); err != nil {
		return err
	}
	o, err := (&sourceFlags{policy: r.policy, limits: r.limits}).newOpener(c)
	if err != nil {
		return err
	}
	defer o.close()
	mode := refsNeeded
	if r.unsafe {
		mode = refsReported
	}
	image, err := o.openEditable(args[0], o.byMode(mode), !r.unsafe)
	if err != nil {
		return r.hintUnsafe(err)
	}
	defer image.unlock()
	job := &rebasing{r: r, c: c, o: o, image: image, old: image.image.Backing()}
	if r.unsafe {
		return job.rename(ctx)
	}
	return job.safely(ctx)
}

// hintUnsafe says what to do where the old backing file is gone.
func (r *rebaseCommand) hintUnsafe(err error) error {
	if r.unsafe || !isMissing(err) {
		return err
	}
	return fmt.Errorf("%w; if it was moved, -u changes the name alone", err)
}

// A rebasing is one run.
type rebasing struct {
	r     *rebaseCommand
	c     *console
	o     *opener
	image *editable
	old   *qcow2.Ref // what the header names; nil: none

	ref     *qcow2.Ref // what it is to name; nil: none
	newDisk qcow2.Disk // what it names, open; nil: it is not
	newPath string
	report  rebaseReport
}

// link has the header name the new backing file.
func (j *rebasing) link() error {
	if j.ref != nil {
		j.image.refs[*j.ref] = j.newDisk
	}
	if err := j.image.editor.SetBacking(j.ref); err != nil {
		return explainChange(j.image.path, err)
	}
	return j.tell()
}

// oldDisk is the old backing file, open; nil: it is not. No backing file is one without
// bytes.
func (j *rebasing) oldDisk() qcow2.Disk {
	if j.old == nil {
		return emptyDisk
	}
	return j.image.refs[*j.old]
}
