package main

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/manifest"
)

func backupVerb() verb {
	return verb{
		name:  "backup",
		args:  "DISK -o OUT | --domain DOMAIN.XML [-o FOLDER]",
		short: "back up disks at rest, whole or what changed since a checkpoint",
		long:  backupHelp,
		new:   func() command { return new(backupCommand) },
	}
}

const backupHelp = `Backs up the disk in DISK, which no guest uses meanwhile: a qcow2 image with its
backing files, snapshots and data file, a snapshot in one, or a raw disk. DISK is only
read, and is the same afterwards, unless --checkpoint is asked for.

With --since BITMAP the backup is an increment: what the dirty bitmap of that name
marks, rounded out to 64 KiB or to the clusters of OUT, if those are larger. What reads
as zero there is a zero cluster; nothing else is in it. Over a chain of backing files
what counts is all bitmaps of the name together, by the rules of libvirt: the topmost
image has one, no image in between lacks one, all record, none is in use.

--checkpoint NAME adds a recording bitmap of that name to DISK, so that the next
increment can be made --since NAME. Backup and bitmap are of the same moment: the image
is locked for writing throughout. After a crash the next qbit backup or qbit checkpoint
of that image finishes the two, or undoes them both; docs/crash-safety.md says how.

Beside OUT stand the documents that libvirt has for backups and checkpoints, by which
qbit plan, restore and verify know what belongs together: CHECKPOINT.backup.xml (or
OUT.backup.xml) and CHECKPOINT.xml, which virsh checkpoint-create --redefine takes if
--domain was given. --manifest also writes down the checksums of the content in
` + manifest.FileName + `, from one backup to the next; of an increment only what it
touches is hashed.

An increment names a backing file, or it could be taken for a full backup: the backup
that it stands on, if that is found in the folder of OUT or named with --parent, so that
QEMU can open it as it is; otherwise DISK itself, as libvirt does. --backing NAME writes
another one, --no-backing none.

With --domain the disks are those of a domain of libvirt, all in one run and of one
moment, as virsh backup-begin does it while the guest runs: --xml is the
<domainbackup>, --checkpoint-xml the <domaincheckpoint>, and the defaults are libvirt's.
Without --xml all disks that can be written to are backed up whole, or --since a
checkpoint. Where the document names no file, the backup is called like the image, with
the name of the checkpoint, or the time, behind it; with -o it lies in that FOLDER.
The disks are the files that the domain names; --source says where one is instead.

` + refHelp

// backupCommand is `qbit backup`.
type backupCommand struct {
	sourceFlags
	outputFlag
	progressFlags
	out         string
	since       string
	checkpoint  string
	domain      string
	xml         string
	cpXML       string
	cpXMLOut    string
	noXML       bool
	checkpoints []string
	sources     []string
	disk        string
	format      string
	formatGiven func() bool
	clusterSize sizeValue
	compress    compressFlag
	manifest    bool
	parent      string
	backing     string
	backingFmt  string
	noBacking   bool
	force       bool
	keepZeros   bool
	digests     []string
	asked       func() bool // the user named the digests
	workers     int
	memory      sizeValue
}

func (b *backupCommand) setFlags(fs *pflag.FlagSet) {
	fs.StringVarP(&b.out, "out", "o", "", "write the backup to the new file `OUT`, or into the folder of\nthat name")
	fs.StringVar(&b.since, "since", "", "only what changed since the checkpoint with the dirty bitmap\n`BITMAP`")
	fs.StringVar(&b.checkpoint, "checkpoint", "", "add the recording bitmap `NAME`, from which the next\nincrement can be made")
	b.setDocumentFlags(fs)
	b.format = formatQcow2
	addChoice(fs, &b.format, "output-format", "O", "the format of OUT, `FMT`: qcow2, or raw for a full backup", formatQcow2, formatRaw)
	b.formatGiven = func() bool { return fs.Changed("output-format") }
	b.clusterSize = qcow2.DefaultClusterSize
	fs.Var(&b.clusterSize, "cluster-size", "the cluster `SIZE` of OUT")
	fs.Var(&b.compress, "compress", "compress the clusters: as deflate, or with\n--compress=zstd as zstd")
	fs.Lookup("compress").NoOptDefVal = "deflate"
	fs.BoolVar(&b.manifest, "manifest", false, "write the checksums of the content into the manifest of\nthe folder, "+manifest.FileName)
	fs.StringVar(&b.parent, "parent", "", "the increment stands on the backup `FILE`, if it is not found")
	fs.StringVarP(&b.backing, "backing", "B", "", "write `NAME` into an increment as its backing file; it is\nnot opened")
	b.backingFmt = formatQcow2
	addChoice(fs, &b.backingFmt, "backing-format", "F", "the format of NAME, `FMT`", formatQcow2, formatRaw)
	fs.BoolVar(&b.noBacking, "no-backing", false, "write no backing file into an increment; then only the\ndocuments say that it is one, and plan wants --assume")
	fs.BoolVar(&b.force, "force", false, "replace files that are there")
	fs.BoolVar(&b.keepZeros, "keep-zeros", false, "write zeros that are stored as data")
	registerDigests(fs, &b.digests, nil)
	fs.Lookup("digest").Usage += "\n(default for a full backup: xxh64-4m)"
	b.asked = func() bool { return fs.Changed("digest") }
	fs.IntVarP(&b.workers, "workers", "m", 0, "read, compress and write in this `NUMBER` of threads; 0: one\na processor, but 2 to 8")
	b.memory = 64 << 20
	fs.Var(&b.memory, "memory", "use at most this `SIZE` of buffers")
	b.outputFlag.register(fs)
	b.progressFlags.register(fs)
	b.sourceFlags.register(fs)
}

// setDocumentFlags registers what has to do with libvirt's documents.
func (b *backupCommand) setDocumentFlags(fs *pflag.FlagSet) {
	fs.StringVar(&b.domain, "domain", "", "the domain, as virsh dumpxml wrote it: `FILE`; without DISK\nall of its disks")
	fs.StringVar(&b.xml, "xml", "", "the <domainbackup> that says what is backed up: `FILE`")
	fs.StringVar(&b.cpXML, "checkpoint-xml", "", "the <domaincheckpoint> to make: `FILE`")
	fs.StringVar(&b.cpXMLOut, "checkpoint-xml-out", "", "write the checkpoint's document to `FILE`")
	fs.BoolVar(&b.noXML, "no-xml", false, "write no documents beside OUT")
	fs.StringArrayVar(&b.checkpoints, "checkpoints", nil, "the documents of the checkpoints that there are: `PATH` of\none, or of a folder; may be repeated. Otherwise those beside\nOUT")
	fs.StringArrayVar(&b.sources, "source", nil, "the disk with that target is in the file PATH, not where\nthe domain says, as `TARGET=PATH`; may be repeated")
	fs.StringVar(&b.disk, "disk", "", "what DISK is called in documents: its `TARGET` (otherwise\nthe domain says, or vda)")
}

func (b *backupCommand) run(ctx context.Context, c *console, args []string) error {
	if err := b.check(args); err != nil {
		return err
	}
	r := &backupRun{b: b, c: c, now: c.now()}
	if err := r.plan(args); err != nil {
		return err
	}
	if err := r.recover(); err != nil {
		return err
	}
	o, err := b.newOpener(c)
	if err != nil {
		return err
	}
	defer r.close(o)
	return r.run(ctx, o)
}

// check finds what does not go together.
func (b *backupCommand) check(args []string) error {
	switch {
	case len(args) > 1:
		return usagef("backup takes one DISK; several are those of a domain (--domain)")
	case len(args) == 0 && b.domain == "":
		return usagef("backup takes a DISK, or --domain")
	case len(args) == 1 && b.out == "":
		return usagef("say where the backup goes: -o OUT")
	case len(args) == 1 && (b.xml != "" || b.cpXML != "" || len(b.sources) > 0):
		return usagef("--xml, --checkpoint-xml and --source speak of the disks of a domain: leave out DISK")
	case len(args) == 0 && b.disk != "":
		return usagef("--disk names DISK; which disks of a domain take part, --xml says")
	case b.xml != "" && b.since != "":
		return usagef("--since and --xml: the document says it with <incremental>")
	case b.cpXML != "" && b.checkpoint != "":
		return usagef("--checkpoint and --checkpoint-xml: it is one or the other")
	case b.backing != "" && b.noBacking:
		return usagef("--backing and --no-backing: it is one or the other")
	case b.cpXMLOut != "" && b.checkpoint == "" && b.cpXML == "":
		return usagef("--checkpoint-xml-out: there is no checkpoint without --checkpoint or --checkpoint-xml")
	}
	return b.checkFormat()
}

func (b *backupCommand) checkFormat() error {
	if err := checkClusterSize(int64(b.clusterSize)); err != nil {
		return usagef("--cluster-size %d: %w", b.clusterSize, err)
	}
	switch {
	case b.format == formatRaw && b.since != "":
		return usagef("-O raw: a raw file cannot hold an increment: a range that was zeroed and one that did not change would look the same")
	case b.format == formatRaw && b.compress.on:
		return usagef("--compress: a raw file is not compressed")
	case b.parent != "" && b.domain != "" && b.xml != "":
		return usagef("--parent names the parent of one disk")
	}
	return checkDigests(b.digests)
}
