package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/reconstruct/manifest"
)

func verifyVerb() verb {
	return verb{
		name:  "verify",
		args:  "FOLDER | FILE…",
		short: "read all backups and say which points can be restored",
		long:  verifyHelp,
		exits: verifyExits,
		new:   func() command { return new(verifyCommand) },
	}
}

const verifyHelp = `Reads every file of the backups once: every frame of virtnbdbackup's streams with
the checksums in them and beside them (.chksum), every compressed cluster of qcow2
images, and all their tables, as qbit check does. Then it looks at the chains, as
qbit plan and restore do, and says of each point whether it can be restored, can be
restored with doubt (and which), or cannot (and why).

With a manifest (qbit seal) it finds every file that is not what was sealed. Points
whose files all are the sealed ones hold what they held. Of the others the content is
read and compared chunk by chunk, and what differs is named: chunk, guest bytes, the
link that it comes from. --chunks reads the content of all points.

--resume STATE keeps a journal of the files that were found sound. A run that was
interrupted goes on where it was: files whose size, modification time and inode are
those in the journal are not read again, and that is said. Remove STATE to read all.

--against BITMAPS shows that an increment holds at least what a dirty bitmap says
has changed: LINK=IMAGE:BITMAP, or IMAGE:BITMAP with --point. What is missing comes
back with its old bytes.

--second-reader also reads qcow2 files with another reader (go-qcow2reader), which
other people wrote, and compares the bytes.

` + setHelp

const verifyExits = `0  every point can be restored, perhaps with doubt
1  could not: a file is missing, unreadable, in use, or not allowed
2  a point cannot be restored
3  the command line is wrong`

// verifyCommand is `qbit verify`.
type verifyCommand struct {
	folder setFlags
	sourceFlags
	outputFlag
	progressFlags
	manifest string
	chunks   bool
	state    string
	sha256   bool
	second   bool
	against  []string
	point    string
	disk     string
	workers  int
	memory   sizeValue
}

func (k *verifyCommand) setFlags(fs *pflag.FlagSet) {
	fs.StringVar(&k.manifest, "manifest", "", "compare with the manifest `FILE`, and not with the one in the\nfolder")
	fs.BoolVar(&k.chunks, "chunks", false, "read and compare the content of all sealed points, also of\nthose whose files are the sealed ones")
	fs.BoolVar(&k.sha256, "sha256", false, "also compute the sha256 of files, and compare it and that of\nthe content with the manifest, where it has them")
	fs.StringVar(&k.state, "resume", "", "keep the journal `STATE`, and go on where it ends")
	fs.BoolVar(&k.second, "second-reader", false, "read qcow2 files with a second reader too, and compare")
	fs.StringArrayVar(&k.against, "against", nil, "show that a link holds at least what a dirty bitmap says has\nchanged: `LINK=IMAGE:BITMAP`, or IMAGE:BITMAP with --point;\nmay be repeated")
	fs.StringVar(&k.point, "point", "", "the `POINT` of --against")
	fs.StringVar(&k.disk, "disk", "", "the disk `NAME` of --point, where several have that point")
	fs.IntVarP(&k.workers, "workers", "m", 0, "read so many `FILES` at once; 0: one a processor, at most 8")
	k.memory = 64 << 20
	fs.Var(&k.memory, "memory", "use at most about this `SIZE` of buffers")
	k.folder.register(fs)
	k.outputFlag.register(fs)
	k.progressFlags.register(fs)
	k.sourceFlags.register(fs)
}

// check finds what does not go together.
func (k *verifyCommand) check() error {
	if k.point != "" && len(k.against) == 0 || k.disk != "" && k.point == "" {
		return usagef("--point and --disk say what --against is about")
	}
	return nil
}

func (k *verifyCommand) run(ctx context.Context, c *console, args []string) error {
	if err := k.check(); err != nil {
		return err
	}
	s, err := k.folder.openSet(ctx, args, k.limits.limits)
	if err != nil {
		return err
	}
	defer s.close()
	if len(s.Disks) == 0 {
		return badData{fmt.Errorf("%s: no backup was found", escapeName(s.path))}
	}
	v := &verifier{k: k, c: c, s: s, whole: len(args) == 1 && isFolder(args[0])}
	if err := v.verify(ctx); err != nil {
		return err
	}
	return v.report()
}

// A verifier is one run of verify.
type verifier struct {
	k     *verifyCommand
	c     *console
	s     *set
	whole bool               // all files of the folder were looked at
	m     *manifest.Manifest // nil: there is none
	meter *meter

	journal *journal
	files   []*fileReport // in the order of the plan
	byName  map[string]*fileReport
	points  []*pointReport
	covers  []*coverReport
	bad     bool // of what is sealed, something is not sound: the manifest itself
	notes   []string
}

func (v *verifier) verify(ctx context.Context) error {
	against, err := v.parseAgainst()
	if err != nil {
		return err
	}
	if err := v.openManifest(); err != nil {
		return err
	}
	v.listFiles()
	if v.journal, err = openJournal(v.k.state, v.s); err != nil {
		return err
	}
	defer v.journal.close()
	v.meter = newMeter(v.c, &v.k.progressFlags, "verify", v.bytesToRead())
	defer v.meter.clearLine()
	if err := v.readFiles(ctx); err != nil {
		return err
	}
	v.meter.Finish()
	if err := v.judgePoints(ctx); err != nil {
		return err
	}
	if err := v.compareContent(ctx); err != nil {
		return err
	}
	return v.coverAll(ctx, against)
}

// openManifest reads the manifest. One that is broken is a finding of its own, and
// does not keep the files from being read.
func (v *verifier) openManifest() error {
	m, err := v.s.loadManifest(v.k.manifest)
	if errors.As(err, new(badData)) {
		v.bad = true
		v.notes = append(v.notes, fmt.Sprintf("%v; nothing is compared with it", err))
		return nil
	}
	v.m = m
	return err
}

// manifestName is how the manifest is called in messages.
func (v *verifier) manifestName() string {
	if v.k.manifest != "" {
		return v.k.manifest
	}
	return filepath.Join(v.s.path, manifest.FileName)
}
