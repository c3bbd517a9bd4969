package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/reconstruct/plan"
)

func planVerb() verb {
	return verb{
		name:  "plan",
		args:  "FOLDER | FILE…",
		short: "which backups belong together, in which order, and how that is proven",
		long:  planHelp,
		exits: planExits,
		new:   func() command { return new(planCommand) },
	}
}

const planHelp = `Finds out which tool wrote what lies in a folder, and shows the history of each
disk as a tree: every backup below what it stands on, with the evidence.

An edge is proven where a record that was written with the backup names the
parent: libvirt's backup XML, the stream of virtnbdbackup, OADP's index. It is
implied where records say so in a roundabout way that would show a missing link:
the checkpoint XML, backing file names, numbers without a gap. It is assumed where
only an order speaks for it, of times or of names: then nothing would show that a
backup between the two is missing, and restore wants --assume. File times are never
evidence. Records speak of files by their names: that the content is still that
of the day is shown by a manifest (qbit seal) alone.

Gaps, contradictions, two candidates for one place, backups of another disk, full
backups under an increment's name, flatly rebased chains, increments that cannot
tell zeroes, and changes of size are said in sentences, with what to do.

It knows the folders of libvirt (push mode, with its XML or without), virtnbdbackup
(folders and zip archives), qmpbackup, oVirt, OpenNebula, CloudStack, KubeVirt and
OADP, and chains of qcow2 images that name each other.

` + setHelp

const planExits = `0  every point can be restored, as far as the records say
1  could not: the folder is missing or unreadable
2  a point cannot be restored, or there is nothing to restore
3  the command line is wrong`

// planCommand is `qbit plan`.
type planCommand struct {
	folder setFlags
	outputFlag
	limits  limitsFlag
	verbose bool
}

func (p *planCommand) setFlags(fs *pflag.FlagSet) {
	fs.BoolVarP(&p.verbose, "verbose", "v", false, "show all the evidence, and the files that are no part of a\nbackup")
	p.folder.register(fs)
	p.limits.register(fs)
	p.outputFlag.register(fs)
}

func (p *planCommand) run(ctx context.Context, c *console, args []string) error {
	s, err := p.folder.openSet(ctx, args, p.limits.limits)
	if err != nil {
		return err
	}
	defer s.close()
	if p.json() {
		err = writeJSON(c.out, planReport(s.Plan))
	} else {
		err = p.print(c, s)
	}
	if err != nil {
		return err
	}
	return s.lost()
}

// lost counts the points that cannot be restored.
func (s *set) lost() error {
	n := 0
	for _, d := range s.Disks {
		for _, b := range d.Backups {
			if verdict, _ := d.Judge(b); verdict == plan.Lost {
				n++
			}
		}
	}
	switch {
	case len(s.Disks) == 0:
		return badData{fmt.Errorf("%s: no backup was found", escapeName(s.path))}
	case n == 1:
		return badData{fmt.Errorf("%s: one backup cannot be restored", escapeName(s.path))}
	case n > 1:
		return badData{fmt.Errorf("%s: %d backups cannot be restored", escapeName(s.path), n)}
	}
	return nil
}
