package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

func squashVerb() verb {
	return verb{
		name:  "squash",
		args:  "LINK… | FOLDER -o OUT",
		short: "put backups that follow each other together into one",
		long:  squashHelp,
		new:   func() command { return new(squashCommand) },
	}
}

const squashHelp = `Puts links of a chain that follow each other, oldest first, together into one new
qcow2 image. Nothing that is read is changed.

If the first of them is a full backup, OUT is one too, as of the last link: a
synthetic full, of the disk that qbit restore would give. Otherwise OUT is one
increment, which brings the disk from where the first link began to where the last one
ended. It holds as data or as zero what any of the links holds; what none of them holds
stays absent, which means unchanged. Zeroes stay apart from that, as zero clusters.
Where the disk became smaller between two links and larger again later, what was cut
off is zero in OUT.

The first link is taken for an increment if it names a backing file, and for a full
backup if it names none. Some tools write increments that name none: say --increment.

Of a FOLDER of backups, or the zip archive of virtnbdbackup, the links are found and
proven first, as qbit plan shows them, and what qbit restore refuses is refused. --to
is the point to which OUT leads, the newest one if it is not given; --from is the
point from which it leads, so that the link which made that point is not part of it.
Without --from OUT is a full backup. In a sealed folder every chunk that OUT touches
is compared with the manifest as of --to, before OUT gets its name.

What is known of the disk in an increment begins and ends at multiples of some size,
and no cluster of OUT can be known in part. So the clusters of OUT are as large as the
largest of the links', or smaller if they have to be; --cluster-size is refused where
it is too large for that.

An increment names the backing file that its first link named, or NAME with --backing
(-B '' names none): for the chains of overlays of which each names the one before, OUT
fits in between. How a chain goes on: OUT takes the place of all its links, and what
came after the last one stands on it as before. So give OUT the name of the last link,
and take the others out of the folder. Records beside the files may speak of the links:
in a folder of libvirt's backups, <incremental> in the backup XML of the last link has
to name the checkpoint of --from (or goes away, for a full backup). qbit plan shows
whether all is proven again. A manifest still compares the content of the points that
are left; qbit seal --force writes it anew.

A raw increment, and one of qcow2 version 2 without a backing file, cannot tell a range
that was zeroed from one that did not change. What is lost in it is lost in OUT, where
nothing will show it any more: give the dirty bitmap of that interval (--changed), or
be refused with --strict.

` + diskHelp + `

` + refHelp

// squashCommand is `qbit squash`.
type squashCommand struct {
	sourceFlags
	outputFlag
	progressFlags
	out         string
	force       bool
	full        bool
	increment   bool
	changed     []string
	strict      bool
	clusterSize sizeValue
	compress    compressFlag
	backing     string
	named       func() bool // --backing is given
	backingFmt  string
	keepZeros   bool
	reflink     string
	direct      bool
	from        string
	set         fromSetFlags
	digests     []string
	asked       func() bool // the user named the digests
	workers     int
	memory      sizeValue
}

func (s *squashCommand) setFlags(fs *pflag.FlagSet) {
	fs.StringVarP(&s.out, "out", "o", "", "write the new qcow2 image `OUT`")
	fs.BoolVar(&s.force, "force", false, "replace OUT if it is there")
	fs.BoolVar(&s.full, "full", false, "the first link is a full backup; its backing files are\nopened, as far as they are allowed")
	fs.BoolVar(&s.increment, "increment", false, "the first link is an increment, whether it names a\nbacking file or not")
	fs.StringArrayVar(&s.changed, "changed", nil, "what changed in the interval of a link: the dirty bitmap\nBITMAP in IMAGE, as `LINK=IMAGE:BITMAP`; may be repeated")
	fs.BoolVar(&s.strict, "strict", false, "refuse what would only be warned about: bytes that may\nbe wrong, images that are marked corrupt")
	fs.Var(&s.clusterSize, "cluster-size", "the cluster `SIZE` of OUT; 0: as large as those of the\nlinks, or as large as can be")
	fs.Var(&s.compress, "compress", "compress the clusters: as deflate, or with\n--compress=zstd as zstd")
	fs.Lookup("compress").NoOptDefVal = "deflate"
	fs.StringVarP(&s.backing, "backing", "B", "", "write `NAME` into OUT as its backing file, and not the one\nthat the first link names; it is not opened")
	s.named = func() bool { return fs.Changed("backing") }
	s.backingFmt = formatQcow2
	addChoice(fs, &s.backingFmt, "backing-format", "F", "the format of the backing file, `FMT`", formatQcow2, formatRaw)
	fs.BoolVar(&s.keepZeros, "keep-zeros", false, "write zeros that are stored as data")
	s.reflink = reflinkAuto
	addChoice(fs, &s.reflink, "reflink", "", "share blocks with the links where the filesystem can\n(XFS, Btrfs) instead of copying them, `WHEN`: auto or\nnever", reflinkAuto, reflinkNever)
	fs.BoolVar(&s.direct, "direct", false, "keep the page cache as it is: write around it (O_DIRECT)")
	s.registerSet(fs)
	registerDigests(fs, &s.digests, []string{reconstruct.Tree})
	s.asked = func() bool { return fs.Changed("digest") }
	fs.IntVarP(&s.workers, "workers", "m", 0, "read, compress and write in this `NUMBER` of threads; 0: one\na processor, but 2 to 8")
	s.memory = 64 << 20
	fs.Var(&s.memory, "memory", "use at most this `SIZE` of buffers")
	s.outputFlag.register(fs)
	s.progressFlags.register(fs)
	s.sourceFlags.register(fs)
}

// registerSet registers what is for folders of backups.
func (s *squashCommand) registerSet(fs *pflag.FlagSet) {
	fs.StringArrayVar(&s.set.disks, "disk", nil, "of a FOLDER: the disk `NAME` (vda, or DOMAIN/vda)")
	fs.StringVar(&s.from, "from", "", "of a FOLDER: lead from `POINT` on, which is the name of a\npoint, a file, or a time; otherwise OUT is a full backup")
	fs.StringVar(&s.set.at, "to", "", "of a FOLDER: lead up to `POINT`; otherwise the newest point")
	fs.BoolVar(&s.set.assume, "assume", false, "of a FOLDER: accept links that are only assumed to belong\ntogether; never a gap or a contradiction")
	fs.BoolVar(&s.set.unsealed, "no-manifest", false, "of a FOLDER: do not compare with its manifest")
	s.set.setFlags.register(fs)
}

func (s *squashCommand) run(ctx context.Context, c *console, args []string) error {
	if err := s.check(args); err != nil {
		return err
	}
	if len(args) == 1 && isSet(args[0]) || s.from != "" || s.set.given() {
		return s.runSet(ctx, c, args)
	}
	o, err := s.newOpener(c)
	if err != nil {
		return err
	}
	defer o.close()
	j, err := s.open(c, o, args)
	if err != nil {
		return err
	}
	return s.squash(ctx, c, o, j)
}

// check finds what does not go together.
func (s *squashCommand) check(args []string) error {
	switch {
	case s.full && s.backing != "":
		return usagef("--full: a full backup stands on nothing, and --backing names something")
	case len(args) == 0:
		return usagef("squash takes the links of a chain, oldest first, or a FOLDER of backups")
	case s.out == "":
		return usagef("say where the result goes: -o OUT")
	case s.full && s.increment:
		return usagef("--full and --increment: the first link is one or the other")
	}
	if s.clusterSize != 0 {
		if err := checkClusterSize(int64(s.clusterSize)); err != nil {
			return usagef("--cluster-size %d: %w", s.clusterSize, err)
		}
	}
	return checkDigests(s.digests)
}

// squash writes OUT.
func (s *squashCommand) squash(ctx context.Context, c *console, o *opener, j *squashJob) error {
	if s.backing != "" && !j.increment() {
		return usagef("--backing: OUT is a full backup, and stands on nothing")
	}
	cluster, err := s.clusters(ctx, c, j)
	if err != nil {
		return err
	}
	inputs, err := o.inputs()
	if err != nil {
		return err
	}
	layout := s.layout(c, j, cluster)
	image, err := createImage(c, imageSpec{path: s.out, layout: layout, compress: s.compress.on,
		output: reconstruct.OutputOptions{Overwrite: s.force, Inputs: inputs, Direct: s.direct}})
	if err != nil {
		return err
	}
	defer image.dst.Abort()
	result, err := s.copy(ctx, c, o, j, image.dst)
	if err != nil {
		return err
	}
	return s.report(c, j, layout, result)
}

// layout is that of OUT.
func (s *squashCommand) layout(c *console, j *squashJob, cluster int64) qcow2.Layout {
	return qcow2.Layout{Size: j.disk.Size(), ClusterSize: cluster, Sparse: j.increment(), Compression: s.compress.kind,
		Backing: s.backingOf(c, j)}
}

// backingOf is the backing file that the header of OUT names; nil: none.
func (s *squashCommand) backingOf(c *console, j *squashJob) *qcow2.Ref {
	if s.backing != "" {
		return &qcow2.Ref{Kind: qcow2.RefBacking, Name: s.backing, Format: s.backingFmt}
	}
	first := j.chain.layers[j.first]
	if !j.increment() || s.named() || first.image == nil || first.image.Backing() == nil {
		return nil
	}
	ref := *first.image.Backing()
	if ref.Format == "" {
		c.warn("%s: %s names its backing file %s without a format, so it is not taken over; --backing and --backing-format name it",
			s.out, first.name, ref.Name)
		return nil
	}
	return &ref
}

func (s *squashCommand) copy(ctx context.Context, c *console, o *opener, j *squashJob, dst reconstruct.Target) (*reconstruct.Result, error) {
	var cache cacheKeeper
	if s.direct {
		cache = keepCache(o.files)
	}
	m := newMeter(c, &s.progressFlags, "squash", j.disk.Size())
	defer m.clearLine()
	result, err := reconstruct.Copy(ctx, dst, j.disk, &reconstruct.CopyOptions{
		Workers: s.workers, Memory: int64(s.memory), KeepZeros: s.keepZeros, Digests: s.digestsOf(j),
		Share: s.reflink == reflinkAuto, DigestsIfRead: !s.asked() && !j.increment(), Only: j.only, Expect: j.seal.chunk(),
		Progress: func(p reconstruct.Progress) { m.Set(p.Done); cache.passed(p.Read) },
	})
	cache.end()
	if err != nil {
		return nil, nameLayer(j.chain, j.seal.explain(ctx, j.chain, err))
	}
	if err := dst.Commit(); err != nil {
		return nil, plainError(s.out, err)
	}
	m.Finish()
	return result, nil
}

// digestsOf are the digests to compute. An increment alone has no content; one in a set
// has that of the point to which it leads, for which the whole disk has to be read.
func (s *squashCommand) digestsOf(j *squashJob) []string {
	if j.increment() && !s.asked() {
		return nil
	}
	return digestNames(s.digests)
}

// clusters is the cluster size of OUT.
func (s *squashCommand) clusters(ctx context.Context, c *console, j *squashJob) (int64, error) {
	want := int64(s.clusterSize)
	if want == 0 {
		want = j.largestCluster()
	}
	if !j.increment() {
		return want, nil
	}
	most, err := j.only.Granularity(ctx, j.disk)
	switch {
	case err != nil:
		return 0, nameLayer(j.chain, err)
	case most < 512:
		return 0, badData{fmt.Errorf("%s: it cannot be an increment: what its links hold begins or ends within a sector of 512 bytes; "+
			"squash from a full backup on", escapeName(s.out))}
	case s.clusterSize != 0 && most < want:
		return 0, usagef("--cluster-size %d: clusters of that size would be known in part; what the links hold begins and ends at multiples of %d bytes, "+
			"which is the largest size that works", want, most)
	case most < want:
		if !s.quiet {
			c.note("%s: its clusters have %s; larger ones would be known in part", escapeName(s.out), formatSize(most))
		}
		return most, nil
	}
	return want, nil
}
