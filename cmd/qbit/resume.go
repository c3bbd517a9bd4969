package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/reconstruct"
)

// resumeFlags are the flags of a restore that can go on after it was interrupted.
type resumeFlags struct {
	on      bool
	journal string

	point string // of a set: disk and point that are restored
	// whole are the disks of a set that are done; nil: there is one disk.
	whole *[]*reconstruct.ResumeTarget
}

func (f *resumeFlags) register(fs *pflag.FlagSet) {
	fs.BoolVar(&f.on, "resume", false, "keep what is done when the restore is interrupted, and go\non with what an interrupted one has left")
	fs.StringVar(&f.journal, "journal", "", "with --resume and --onto: note in `FILE` what is done; with\n-o there is a hidden file beside OUT")
}

// check finds what does not go together.
func (f *resumeFlags) check(t *targetFlags) error {
	switch {
	case !f.on && f.journal != "":
		return usagef("--journal belongs to --resume")
	case !f.on:
		return nil
	case t.out == "-":
		return usagef("--resume: what went to standard output cannot be read back; name a file with -o")
	case t.format != formatRaw:
		return usagef("--resume writes a raw disk: what the clusters of a %s are is only written at its end; "+
			"restore it raw, then convert it with: qbit restore -f raw RAW -O %s -o OUT", t.format, t.format)
	case t.onto != "" && f.journal == "":
		return usagef("--resume: beside %s there is no place for the journal; name one with --journal FILE", escapeName(t.onto))
	case t.out != "" && f.journal != "":
		return usagef("--journal is for --onto; with -o the journal is a hidden file beside OUT")
	}
	return nil
}

// openTarget makes the target for a chain.
func (r *restoreCommand) openTarget(ctx context.Context, c *console, o *opener, ch *chain) (reconstruct.Target, error) {
	if !r.resume.on {
		return r.target.open(c, o, ch.disk.Size())
	}
	inputs, err := o.inputs()
	if err != nil {
		return nil, err
	}
	job, err := r.job(o, ch)
	if err != nil {
		return nil, err
	}
	t, err := r.openResumable(ctx, c, ch.disk.Size(), job, inputs)
	var stale *reconstruct.ResumeError
	switch {
	case errors.As(err, &stale):
		return nil, stale
	case errors.Is(err, fs.ErrExist) && !r.target.force:
		return nil, fmt.Errorf("%w; --force replaces it", plainError(r.target.name(), err))
	case err != nil:
		return nil, plainError(r.target.name(), err)
	}
	return t, nil
}

func (r *restoreCommand) openResumable(ctx context.Context, c *console, size int64, job []reconstruct.ResumeFact, inputs []fs.FileInfo) (*reconstruct.ResumeTarget, error) {
	if r.target.onto == "" {
		opts := &reconstruct.OutputOptions{Overwrite: r.target.force, Inputs: inputs, Direct: r.target.direct}
		return reconstruct.ResumeRaw(ctx, r.target.out, size, job, opts)
	}
	onto, err := r.target.openOnto(c, size, inputs)
	if err != nil {
		return nil, err
	}
	t, err := reconstruct.ResumeOnto(r.resume.journal, onto, job, inputs)
	if err != nil {
		onto.Abort()
		return nil, err
	}
	return t, nil
}

// finish ends a restore: a result that is whole gets its name, and of another one
// the user hears what is left.
func (r *restoreCommand) finish(c *console, dst reconstruct.Target, err error) error {
	t, resumed := dst.(*reconstruct.ResumeTarget)
	if err == nil {
		err = dst.Commit()
	}
	if resumed {
		r.tellKept(c, t)
	}
	switch {
	case !resumed:
		return err
	case err != nil:
		if failed := t.Abort(); failed != nil {
			err = errors.Join(err, failed)
		}
		if t.Recorded() {
			c.note("%s: what is done is kept; the same command goes on with it", r.target.name())
		}
		return err
	case r.resume.whole != nil:
		*r.resume.whole = append(*r.resume.whole, t)
		return nil
	}
	return t.Forget()
}

// tellKept says what was taken over.
func (r *restoreCommand) tellKept(c *console, t *reconstruct.ResumeTarget) {
	if n := t.Spoilt(); n > 0 {
		c.warn("%s: %s noted as done, and did not read back as it was written; that was done again. No crash causes this: doubt the disk, or what else writes there",
			r.target.name(), plural(int(n), "chunk of 4 MiB was", "chunks of 4 MiB were"))
	}
	if n := t.Kept(); n > 0 && !r.quiet {
		c.note("%s: %s of an earlier run were read back and kept", r.target.name(), formatSize(n))
	}
}

// forget removes the journals of the disks of a set, when all are done.
func (f *resumeFlags) forget() error {
	var failed []error
	for _, t := range *f.whole {
		failed = append(failed, t.Forget())
	}
	return errors.Join(failed...)
}
