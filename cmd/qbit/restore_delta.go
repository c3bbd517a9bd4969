package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

// deltaFlags are the flags of restore for a device that holds another point of the
// disk already.
type deltaFlags struct {
	from  string
	to    string
	trust bool
	all   bool
}

func (f *deltaFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.from, "from", "", "with --onto: what is there holds the disk as of `POINT`, and\nonly what may differ is written; POINT is one of the FOLDER,\nor one of the links that you name")
	fs.StringVar(&f.to, "to", "", "with --from, of links that you name: as of `LINK`; otherwise\nof the last")
	fs.BoolVar(&f.trust, "trust-from", false, "with --from: do not look whether it does hold that point")
	fs.BoolVar(&f.all, "verify-all", false, "with --from: look at all of it first, not just at what is to\nbe written")
}

const deltaHelp = `With --onto PATH --from POINT what changed between two points is written, and
nothing else: PATH holds the disk as of POINT, and gets it as of the last link, or of
--to LINK, or of --at of a FOLDER; forwards, backwards, or over to another branch.
Of links that you name, FULL INC1 … lead to the newer of both, and a link stands for
the point as of it: qbit restore FULL INC1 INC2 --onto PATH --from INC2 --to INC1.
What may differ is what the links behind the last common one hold, on both sides.
Before anything is written, PATH is compared with POINT, by the backups, or by a
manifest (qbit seal) in whole chunks: where it is to be written, and where POINT differs
from the points next to it. What differs is refused with status 2. What lies elsewhere
has to be as of POINT too, and is only looked at with --verify-all: say so where you do
not know what was done to PATH. A run that was interrupted leaves a mix of both points:
the same command goes on with it, for it knows what is as of the new one; with
--trust-from it does so whatever it finds. Without --from all is written, and mended.`

// check finds what does not go together.
func (f *deltaFlags) check(r *restoreCommand) error {
	switch {
	case f.from == "" && f.to != "":
		return usagef("--to belongs to --from; what is restored is as of the last link that you name, or as --at says of a FOLDER")
	case f.from == "" && (f.trust || f.all):
		return usagef("--trust-from and --verify-all belong to --from")
	case f.from == "":
		return nil
	case r.target.onto == "":
		return usagef("--from is for a disk that is there: --onto PATH")
	case f.trust && f.all:
		return usagef("--trust-from does not look, and --verify-all looks at all")
	case r.resume.on:
		return usagef("--resume: with --from there is nothing to note; the same command goes on with what was interrupted")
	}
	return nil
}

// A deltaRun is a restore onto a device that holds another point of the disk.
type deltaRun struct {
	*restoreCommand
	c          *console
	delta      *reconstruct.Delta
	to         *chain    // as it is to be
	names      [2]string // of the points
	witnesses  []reconstruct.Link
	sealBefore *expectation // what a manifest says of the point that the device holds
	onto       *reconstruct.OntoTarget
	proof      *reconstruct.Proof // nil: the user's word was taken
}

// restoreDelta restores links that the user names.
func (r *restoreCommand) restoreDelta(ctx context.Context, c *console, o *opener, args []string) error {
	links := parseDisks(args)
	from, err := findPoint("--from", r.way.from, links)
	if err != nil {
		return err
	}
	to := len(links) - 1
	if r.way.to != "" {
		if to, err = findPoint("--to", r.way.to, links); err != nil {
			return err
		}
	}
	need := max(from, to) + 1
	witness := to <= from && from+1 < len(links)
	if witness {
		need = from + 2
	}
	all, err := o.openChain(links[:need], refsNeeded)
	if err != nil {
		return notFull(links[0], err)
	}
	if err := r.addChanged(o, all); err != nil {
		return err
	}
	x := &deltaRun{restoreCommand: r, c: c, names: [2]string{links[from].name, links[to].name}}
	if err := r.warn(c, all); err != nil {
		return err
	}
	if witness {
		x.witnesses = all.links[from+1:]
	}
	return x.run(ctx, o, all.links[:from+1], all.links[:to+1], all.layers[:to+1])
}

// findPoint finds a link by its name, as the user wrote it, or by its file name.
func findPoint(flag, name string, links []linkArg) (int, error) {
	found := -1
	for i, l := range links {
		switch {
		case l.name == name:
			return i, nil
		case filepath.Base(l.path) != name:
		case found >= 0:
			return 0, usagef("%s %s: it means both %s and %s", flag, escapeName(name), escapeName(links[found].name), escapeName(l.name))
		default:
			found = i
		}
	}
	if found < 0 {
		return 0, usagef("%s %s: it is none of the links that you name", flag, escapeName(name))
	}
	return found, nil
}

// run brings the device from one point to the other.
func (x *deltaRun) run(ctx context.Context, o *opener, from, to []reconstruct.Link, layers []*layer) error {
	var err error
	if x.delta, err = reconstruct.NewDelta(from, to); err != nil {
		var chain *reconstruct.ChainError
		if errors.As(err, &chain) && chain.Index < 0 {
			return fmt.Errorf("%w; leave out --from, and all of it is written", err)
		}
		return err
	}
	x.to = &chain{links: to, layers: layers, disk: x.delta.To()}
	inputs, err := o.inputs()
	if err != nil {
		return err
	}
	if x.onto, err = x.target.openOnto(x.c, x.delta.To().Size(), inputs); err != nil {
		return err
	}
	defer x.onto.Abort()
	if err := x.prove(ctx); err != nil {
		return err
	}
	result, err := x.write(ctx)
	if err != nil {
		return nameLayer(x.to, x.seal.explain(ctx, x.to, err))
	}
	return x.reportDelta(result)
}

// write writes what may differ.
func (x *deltaRun) write(ctx context.Context) (*reconstruct.Result, error) {
	m := newMeter(x.c, &x.progressFlags, "restore", x.delta.To().Size())
	defer m.clearLine()
	opts := &reconstruct.CopyOptions{Workers: x.workers, Memory: int64(x.memory), KeepZeros: x.target.keepZeros,
		Share: x.target.reflink == reflinkAuto, Expect: x.seal.chunk(),
		Progress: func(p reconstruct.Progress) { m.Set(p.Done) }}
	if x.asked() {
		opts.Digests = digestNames(x.digests)
	}
	result, err := x.delta.Copy(ctx, x.onto, opts)
	if err == nil {
		err = x.onto.Commit()
	}
	m.clearLine()
	if err != nil {
		x.c.note("%s: it may hold a mix of the points %s and %s now; the same command goes on with it, with --trust-from whatever it finds there; "+
			"without --from all of it is written", escapeName(x.target.onto), escapeName(x.names[0]), escapeName(x.names[1]))
		return nil, err
	}
	m.Finish()
	return result, nil
}

// held is the disk that the device holds, as of the first point.
func (x *deltaRun) held() (qcow2.Disk, error) {
	size := x.delta.From().Size()
	if have := x.onto.Size(); have < size {
		return nil, badData{fmt.Errorf("%s: it has %d bytes, and the disk as of point %s has %d: it does not hold that point",
			escapeName(x.target.onto), have, escapeName(x.names[0]), size)}
	}
	return x.onto.Disk(size)
}
