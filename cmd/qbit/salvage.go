package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

func salvageVerb() verb {
	return verb{
		name:  "salvage",
		args:  "IMAGE | FULL+INC… -o OUT",
		short: "read what can be read of a broken image, and say what is lost",
		long:  salvageHelp,
		exits: salvageExits,
		new:   func() command { return new(salvageCommand) },
	}
}

const salvageHelp = `Reads an image that is too broken to trust: overwritten tables, lost refcounts, a
file that was cut, a damaged header, compressed clusters that cannot be decoded, a
device that gives errors. The disk goes to OUT, as raw (sparse) or with -O qcow2.
The image is only read, and is the same afterwards.

Every range of the disk gets a grade:
  sound     every rule holds, and nothing else in the image contradicts
  doubtful  there are bytes, and a reason why they may be wrong
  lost      the bytes cannot be had; OUT has zeros there
Totals and all that is not sound are printed, with reasons; --map FILE writes the
whole map as JSON (-: to standard output). What was overwritten inside a cluster of
plain guest data nobody can see, here or elsewhere: check the file systems too.

Where the header is lost, the tables are searched for in the whole file. What you
know of the image, say it: --cluster-size, --size, --l1-offset count more than what
is found. Where the active tables are lost, a snapshot that still names tables for
the range is read in their place: doubtful. --orphans lists clusters that look like
L2 tables nobody leads to; --l2 puts one where you think that it was.

A whole chain can be salvaged as FULL+INC1+INC2, oldest first. A range that the
newest link holds and lost is lost: older bytes are wrong there. With --older they
are taken all the same, and are doubtful.

--link salvages one increment as a link: -O qcow2 only, and what IMAGE does not
hold stays absent. No format has a word for "lost": such ranges become zeros that
hide older bytes, so that a later restore does not show them as unchanged. Keep
the map beside the link; better, salvage the whole chain.

` + diskHelp + `

` + refHelp

const salvageExits = `0  all of the disk is sound
1  could not: a file is missing, unreadable, in use, not allowed, encrypted, or
   OUT cannot be written
2  something is doubtful or lost: OUT and the map were written all the same; or
   there is nothing in the file that can be salvaged, and no OUT
3  the command line is wrong`

// salvageCommand is `qbit salvage`.
type salvageCommand struct {
	sourceFlags
	outputFlag
	progressFlags
	target                    targetFlags
	mapFile                   string
	dry                       bool
	snapshot                  string
	clusterSize, size, memory sizeValue
	l1Offset                  string
	tables                    []string
	link, older, noBacking    bool
	orphans                   bool
	workers                   int
}

func (s *salvageCommand) setFlags(fs *pflag.FlagSet) {
	t := &s.target
	fs.StringVarP(&t.out, "out", "o", "", "write the disk to the new file `OUT`; -: standard output")
	t.format, t.clusterSize = formatRaw, qcow2.DefaultClusterSize
	addChoice(fs, &t.format, "output-format", "O", "the format of OUT, `FMT`: raw or qcow2", formatRaw, formatQcow2)
	fs.BoolVar(&t.force, "force", false, "replace OUT and the map if they are there")
	fs.StringVar(&s.mapFile, "map", "", "write the map of the disk as JSON to the new file `FILE`")
	fs.BoolVarP(&s.dry, "dry-run", "n", false, "write no disk, only say what would be in it. Plain data is not\nread: what a device cannot give is not found")
	fs.StringVar(&s.snapshot, "snapshot", "", "the internal snapshot `NAME` (or its ID), as IMAGE@NAME")
	fs.Var(&s.clusterSize, "cluster-size", "the clusters of IMAGE have this `SIZE`, whatever its header\nsays")
	fs.Var(&s.size, "size", "the disk has this `SIZE`")
	fs.StringVar(&s.l1Offset, "l1-offset", "", "the L1 table stands at this `OFFSET` of the file")
	fs.StringArrayVar(&s.tables, "l2", nil, "the L2 table at HOST of the file maps the disk from OFFSET on, as\n`OFFSET=HOST`; may be repeated")
	fs.BoolVar(&s.orphans, "orphans", false, "list clusters that look like L2 tables nothing leads to")
	fs.BoolVar(&s.link, "link", false, "IMAGE is an increment: leave absent what it does not hold")
	fs.BoolVar(&s.older, "older", false, "where a newer link or overlay lost a range, take the older\nbytes")
	fs.BoolVar(&s.noBacking, "no-backing", false, "open no backing file: what it holds is lost")
	fs.IntVarP(&s.workers, "workers", "m", 0, "read and write in this `NUMBER` of threads")
	fs.Var(&s.memory, "memory", "use at most about `SIZE` for what has to be remembered of an\nimage; 256M by default")
	s.outputFlag.register(fs)
	s.progressFlags.register(fs)
	s.sourceFlags.register(fs)
}

func (s *salvageCommand) run(ctx context.Context, c *console, args []string) error {
	links, err := s.links(c, args)
	if err != nil {
		return err
	}
	o, err := s.newOpener(c)
	if err != nil {
		return err
	}
	defer o.close()
	job, err := s.open(ctx, c, o, links)
	if err != nil {
		return err
	}
	if err := s.write(ctx, c, o, job); err != nil {
		return err
	}
	return s.report(ctx, c, o, job)
}

// links checks the command line.
func (s *salvageCommand) links(c *console, args []string) ([]linkArg, error) {
	links := parseDisks(args)
	known := s.clusterSize != 0 || s.size != 0 || s.l1Offset != "" || len(s.tables) > 0
	switch {
	case len(links) == 0:
		return nil, usagef("salvage takes an image, or the links of a chain, the full backup first")
	case len(links) > 1 && (known || s.link || s.snapshot != "" || s.orphans):
		return nil, usagef("--cluster-size, --size, --l1-offset, --l2, --link, --orphans and --snapshot are about one image; name it alone")
	case s.sourceFlags.format == formatRaw || links[len(links)-1].raw:
		return nil, usagef("a raw disk has no tables that could be broken; copy it")
	case s.link && (s.target.format != formatQcow2 && !s.dry || s.older):
		return nil, usagef("--link writes a link of a chain: it needs -O qcow2, and there is nothing older")
	case s.dry:
		if s.target.out != "" {
			return nil, usagef("-n writes no disk; leave out -o")
		}
		return links, s.namedSnapshot(links)
	}
	if err := s.target.check(c); err != nil {
		return nil, err
	}
	if s.target.out == "-" && s.mapFile == "-" {
		return nil, usagef("the disk and the map cannot both go to standard output")
	}
	return links, s.namedSnapshot(links)
}

// namedSnapshot is --snapshot, as IMAGE@NAME.
func (s *salvageCommand) namedSnapshot(links []linkArg) error {
	for _, l := range links[1:] {
		if l.raw {
			return usagef("%s: a raw increment has no tables that could be broken, and its holes say nothing; restore knows such chains", escapeName(l.name))
		}
	}
	if s.snapshot == "" {
		return nil
	}
	if links[0].snapshot != "" {
		return usagef("%s: two snapshots are named", escapeName(links[0].name))
	}
	links[0].snapshot = s.snapshot
	return nil
}

// options are what the user knows of the image.
func (s *salvageCommand) options() (qcow2.SalvageOptions, error) {
	opts := qcow2.SalvageOptions{Limits: s.limits.limits, ClusterSize: int64(s.clusterSize), Size: int64(s.size),
		Link: s.link, Older: s.older, NoBacking: s.noBacking, Memory: int64(s.memory)}
	if n := opts.ClusterSize; n != 0 && (n < 512 || n > 2<<20 || n&(n-1) != 0) {
		return opts, usagef("--cluster-size: it must be a power of two from 512 to 2M")
	}
	if s.l1Offset != "" {
		n, err := parseOffset(s.l1Offset)
		if err != nil {
			return opts, usagef("--l1-offset: %w", err)
		}
		opts.L1Offset = qcow2.HostOffset(n)
	}
	return opts, nil
}

// parseOffset reads an offset: hex with 0x, as qbit prints them, or a size.
func parseOffset(text string) (int64, error) {
	if strings.HasPrefix(text, "0x") {
		n, err := strconv.ParseInt(text[2:], 16, 64)
		if err != nil {
			return 0, fmt.Errorf("%q is no offset", text)
		}
		return n, nil
	}
	return parseSize(text)
}

// A salvageJob is a disk that is being salvaged.
type salvageJob struct {
	links []*layer
	disk  *qcow2.Salvaged
}

// open opens the chain, every link on top of the one before it.
func (s *salvageCommand) open(ctx context.Context, c *console, o *opener, links []linkArg) (*salvageJob, error) {
	job := &salvageJob{}
	opts, err := s.options()
	if err != nil {
		return nil, err
	}
	var below qcow2.Disk
	for i, link := range links {
		mode := refsNeeded
		if i > 0 {
			mode = refsLink
		}
		o.salvage = func(l *layer, mode refMode) error {
			opts := opts
			if l.above != nil { // what was said is about the image that was named
				opts.ClusterSize, opts.Size, opts.L1Offset, opts.Link = 0, 0, 0, false
			} else {
				opts.Below = below
			}
			return s.salvageLayer(ctx, o, l, mode, opts)
		}
		l, err := o.open(link, mode)
		if err != nil {
			return nil, notFullIfSeveral(links, err)
		}
		if err := refuseTwice(job.links, l); err != nil {
			return nil, err
		}
		job.links = append(job.links, l)
		below = l.disk
	}
	job.disk = below.(*qcow2.Salvaged)
	for _, l := range job.links {
		tellNotes(c, l)
	}
	return job, nil
}

func notFullIfSeveral(links []linkArg, err error) error {
	if len(links) > 1 {
		return notFull(links[0], err)
	}
	return err
}

func refuseTwice(before []*layer, l *layer) error {
	ch := chain{layers: before}
	return ch.refuseTwice(l)
}

// tellNotes says what was found out about each image as a whole.
func tellNotes(c *console, l *layer) {
	for _, l := range l.chain() {
		s, ok := l.disk.(*qcow2.Salvaged)
		if !ok {
			continue
		}
		for _, note := range s.Notes() {
			c.note("%s: %s", escapeName(l.path), note)
		}
	}
}

// salvageLayer opens the image of a layer.
func (s *salvageCommand) salvageLayer(ctx context.Context, o *opener, l *layer, mode refMode, opts qcow2.SalvageOptions) error {
	if l.above != nil || opts.Below != nil {
		opts.Tables = nil
	}
	opts.Snapshot = l.snapshot
	var below error
	opts.OpenRef = func(ref qcow2.Ref) (d qcow2.Disk, err error) {
		d, below = o.openRef(l, ref, mode)
		return d, below
	}
	if len(s.tables) > 0 && l.above == nil {
		if err := s.assign(ctx, l, &opts); err != nil {
			return err
		}
	}
	disk, err := qcow2.Salvage(ctx, l.file, l.file.size, &opts)
	switch {
	case below != nil:
		return fmt.Errorf("%w; or leave it out with --no-backing", below)
	case err != nil:
		return fmt.Errorf("%s: %w", escapeName(l.path), err)
	}
	l.format, l.image, l.disk = formatQcow2, disk.Image(), disk
	return nil
}

// assign reads --l2: which L1 entry an offset of the disk has follows from the clusters.
func (s *salvageCommand) assign(ctx context.Context, l *layer, opts *qcow2.SalvageOptions) error {
	plain := *opts
	plain.OpenRef = nil
	disk, err := qcow2.Salvage(ctx, l.file, l.file.size, &plain)
	if err != nil {
		return fmt.Errorf("%s: %w", escapeName(l.path), err)
	}
	opts.Tables = map[int64]qcow2.HostOffset{}
	cover := disk.TableCoverage()
	for _, text := range s.tables {
		off, host, ok := strings.Cut(text, "=")
		at, err := parseOffset(off)
		to, err2 := parseOffset(host)
		switch {
		case !ok || err != nil || err2 != nil:
			return usagef("--l2 %q: it is OFFSET=HOST", text)
		case at%cover != 0 || at >= disk.Size():
			return usagef("--l2 %q: an L2 table of this image maps %s of the disk, so OFFSET is a multiple of %d below %d", text, formatSize(cover), cover, disk.Size())
		}
		opts.Tables[at/cover] = qcow2.HostOffset(to)
	}
	return nil
}

// write copies the disk.
func (s *salvageCommand) write(ctx context.Context, c *console, o *opener, job *salvageJob) error {
	if s.dry {
		return nil
	}
	size := job.disk.Size()
	if s.link {
		return s.writeLink(ctx, c, o, job)
	}
	dst, err := s.target.open(c, o, size)
	if err != nil {
		return err
	}
	defer dst.Abort()
	m := newMeter(c, &s.progressFlags, "salvage", size)
	defer m.clearLine()
	_, err = reconstruct.Copy(ctx, dst, job.disk, &reconstruct.CopyOptions{Workers: s.workers,
		Progress: func(p reconstruct.Progress) { m.Set(p.Done) }})
	if err == nil {
		err = dst.Commit()
	}
	if err == nil {
		m.Finish()
	}
	return err
}

// errNotSound is the end of a run that wrote all it could, and something is not sound.
var errNotSound = silent{badData{errors.New("not all of the disk is sound")}}
