package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/qcow2"
)

func createVerb() verb {
	return verb{
		name:  "create",
		args:  "FILE [SIZE]",
		short: "make a new image: empty, or an overlay on a disk",
		long:  createHelp,
		new:   func() command { return new(createCommand) },
	}
}

const createHelp = `Makes FILE, a new image with an empty disk of SIZE. The options are those of
qemu-img create, but FILE is a qcow2 image unless -f raw asks for a raw disk (there it
is the other way round), and what is there already is not replaced, unless --force says
so. SIZE is in bytes or has a suffix: 65536, 64k, 1.5G (powers of 1024); it is rounded
up to whole sectors of 512 bytes.

With -b, FILE is an overlay: what is not written into it reads as BACKING does, which
is never written. So a restored disk can be tried out, and kept as it is:

  qbit restore full.qcow2 inc1.qcow2 -o disk.raw
  qbit create -b disk.raw -F raw try.qcow2

BACKING is found from the folder of FILE, and is written into it as you name it, always
with its format. Its magic says that it is qcow2; that it is raw you say with -F, for
what a guest has written must not decide how its disk is read. Without SIZE the overlay
is as large as BACKING. -u does not look at BACKING at all, which need not be there:
then -F and SIZE are needed.

With -o data_file=NAME the guest's bytes are kept in a file of their own, which is made
too. NAME is written as it is; qbit finds it from the folder of FILE, and QEMU from the
folder that it runs in, so an absolute one is safest.

-o takes a list NAME=VALUE,NAME=VALUE; -o help prints the names. FILE gets its name
when it is whole; an interrupted run leaves nothing there.`

// createCommand is `qbit create`.
type createCommand struct {
	outputFlag
	progressFlags
	format     string
	options    []string
	image      imageOptions
	backing    string
	backingFmt string
	unsafe     bool
	force      bool
	share      bool
	limits     limitsFlag
}

func (v *createCommand) setFlags(fs *pflag.FlagSet) {
	v.format = formatQcow2
	addChoice(fs, &v.format, "format", "f", "the format of FILE, `FMT`: qcow2 or raw", formatQcow2, formatRaw)
	fs.StringVarP(&v.backing, "backing", "b", "", "make FILE an overlay on `BACKING`")
	fs.VarP(choice{&v.backingFmt, []string{formatQcow2, formatRaw}}, "backing-format", "F", "the format of BACKING, `FMT`: qcow2 or raw")
	fs.StringArrayVarP(&v.options, "options", "o", nil, "options of FILE, `LIST`: NAME=VALUE,…; -o help prints them;\nmay be repeated")
	fs.BoolVarP(&v.unsafe, "unsafe", "u", false, "do not look at BACKING; only write its name and format")
	fs.BoolVarP(&v.share, "force-share", "U", false, "read the size of a BACKING that another process is writing")
	fs.BoolVar(&v.force, "force", false, "replace FILE, and its data file, if they are there")
	v.outputFlag.register(fs)
	v.progressFlags.register(fs)
	v.limits.register(fs)
}

func (v *createCommand) run(ctx context.Context, c *console, args []string) error {
	if wantsOptionHelp(v.options) {
		printOptionHelp(c.out, v.format)
		return nil
	}
	job, err := v.newJob(c, args)
	if err != nil {
		return err
	}
	defer job.close()
	if err := job.openBacking(); err != nil {
		return err
	}
	if err := job.plan(); err != nil {
		return err
	}
	if err := job.make(ctx); err != nil {
		return err
	}
	return v.report(c, job)
}

// newJob reads the command line.
func (v *createCommand) newJob(c *console, args []string) (*createJob, error) {
	if len(args) < 1 || len(args) > 2 {
		return nil, usagef("create takes FILE, and SIZE where there is no backing file to take it from")
	}
	if args[0] == "" {
		return nil, usagef("create: the name of FILE is empty")
	}
	var err error
	if v.image, err = parseImageOptions(v.format, v.withBacking()); err != nil {
		return nil, err
	}
	size, err := v.size(args[1:])
	if err == nil {
		err = errors.Join(v.checkBacking(), v.checkRaw())
	}
	return &createJob{v: v, c: c, path: args[0], size: size}, err
}

// withBacking are the options with what -b says as the first of them, so that
// backing_fmt has a backing file to speak of.
func (v *createCommand) withBacking() []string {
	if v.backing == "" || v.format == formatRaw {
		return v.options
	}
	return append([]string{"backing_file=" + strings.ReplaceAll(v.backing, ",", ",,")}, v.options...)
}

// size is what SIZE or -o size says; -1: nothing does.
func (v *createCommand) size(args []string) (int64, error) {
	if len(args) == 0 {
		return v.image.size, nil
	}
	if v.image.given["size"] {
		return 0, usagef("SIZE is %s, and -o gives a size too: say it once", escapeName(args[0]))
	}
	size, err := parseSize(args[0])
	if err != nil {
		return 0, usageError{err}
	}
	return size, nil
}

// checkBacking brings -b, -F and their likes in -o together.
func (v *createCommand) checkBacking() error {
	if v.backing == "" {
		v.backing = v.image.backing.Name
	} else if v.format == formatQcow2 && v.image.backing.Name != v.backing {
		return usagef("-b %s, and -o says backing_file=%s: say it once", escapeName(v.backing), escapeName(v.image.backing.Name))
	}
	if v.backingFmt == "" {
		v.backingFmt = v.image.backing.Format
	} else if v.image.given["backing_fmt"] && v.image.backing.Format != v.backingFmt {
		return usagef("-F %s, and -o says backing_fmt=%s: say it once", v.backingFmt, escapeName(v.image.backing.Format))
	}
	switch {
	case v.backing == "" && v.backingFmt != "":
		return usagef("-F %s is the format of BACKING, and no -b names one", escapeName(v.backingFmt))
	case v.backing == "" && v.unsafe:
		return usagef("-u is for -b: there is no BACKING to leave alone")
	case v.backing != "" && v.format == formatRaw:
		return usagef("-b: a raw disk has no backing file; leave out -f raw")
	case v.backingFmt != "" && v.backingFmt != formatQcow2 && v.backingFmt != formatRaw:
		return usagef("-F %s: qbit reads qcow2 and raw", escapeName(v.backingFmt))
	case v.unsafe && v.backingFmt == "":
		return usagef("-u needs -F: what is not looked at cannot show its format, and without it readers would have to guess")
	}
	return nil
}

// checkRaw refuses what a raw disk does not have.
func (v *createCommand) checkRaw() error {
	if v.format == formatRaw && v.image.preallocation == qcow2.PreallocationMetadata.String() {
		return usagef("-o preallocation=metadata: a raw disk has no metadata; it is off, falloc or full")
	}
	return nil
}

// noSize says why a size is needed.
func (v *createCommand) noSize() error {
	if v.unsafe {
		return usagef("create needs SIZE: with -u it is not taken from %s", escapeName(v.backing))
	}
	return usagef("create needs SIZE, or -b BACKING to take it from")
}

// rounded is a size in whole sectors.
func (j *createJob) rounded(size int64) (int64, error) {
	over := size % 512
	if over == 0 {
		return size, nil
	}
	if size += 512 - over; size < 0 {
		return 0, usagef("a disk of %d bytes is too large", j.size)
	}
	j.c.note("%s: the disk would end within a sector, which QEMU would not read; it has %d bytes more", escapeName(j.path), 512-over)
	return size, nil
}

// plan completes the layout and checks it, before anything is made.
func (j *createJob) plan() (err error) {
	if j.size < 0 {
		return j.v.noSize()
	}
	if j.size, err = j.rounded(j.size); err != nil {
		return err
	}
	j.layout = j.v.image.layout(j.size)
	j.layout.Backing = j.ref()
	if name := j.v.image.dataFile; name != "" {
		j.layout.DataFile = &qcow2.DataFileLayout{Name: name, Raw: j.v.image.dataFileRaw}
		if j.dataPath, err = plainPath(name, j.path); err != nil {
			return usagef("-o data_file=%s: %w", escapeName(name), err)
		}
		if filepath.Clean(j.dataPath) == filepath.Clean(j.path) {
			return usagef("-o data_file=%s: it is the image itself", escapeName(name))
		}
	}
	if j.v.format == formatRaw {
		return nil
	}
	if err := j.layout.Validate(); err != nil {
		return usageError{fmt.Errorf("%s: %w", escapeName(j.path), err)}
	}
	return nil
}

// ref is the backing file as the header is to name it; nil: there is none.
func (j *createJob) ref() *qcow2.Ref {
	if j.v.backing == "" {
		return nil
	}
	return &qcow2.Ref{Kind: qcow2.RefBacking, Name: j.v.backing, Format: j.v.backingFmt}
}
