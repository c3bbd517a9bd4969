package main

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/bitmap"
)

func bitmapVerb() verb {
	return verb{
		name:  "bitmap",
		args:  "[OPERATION]… IMAGE [BITMAP]",
		short: "list, read and change the dirty bitmaps in an image",
		long:  bitmapHelp,
		new:   func() command { return new(bitmapCommand) },
	}
}

const bitmapHelp = `Without an operation it lists the dirty bitmaps of a qcow2 IMAGE, and says for
each that is lost why, and what to do. With a BITMAP and one of --ranges,
--export, --diff and --salvage it reads that bitmap. Nothing is written then.

With operations it changes BITMAP: all of them in the order in which they stand,
in one transaction. Either all are done, or the image stays as it was. -n says
what would change and opens the image for reading alone.

A new bitmap is recording, as in qemu-img: QEMU marks in it what it writes to the
image from then on. --add --disable makes one that does not. After --rename the
next operations work on the new name; after --copy still on BITMAP. --import
makes the bitmap if it is not there, as the file says, and otherwise marks dirty
what the file says; --clear --import replaces what it held.

A RANGE is OFFSET+LENGTH or OFFSET-END, where END is the first byte behind it:
1M+64k and 1M-1088k are the same. A range is rounded to the granularity so that
the bitmap never says too little: --set marks every granule that the range
touches, and --unset cleans those that lie in it whole.

An image is changed only while no other process has it open, and refused if it
is marked dirty or corrupt, or is of version 2, which cannot hold bitmaps.`

// bitmapCommand is `qbit bitmap`.
type bitmapCommand struct {
	outputFlag
	flags *pflag.FlagSet

	operations  []bitmapOp
	source      string    // -b
	granularity sizeValue // -g; 0: not given
	dry         bool

	ranges, salvage bool
	export, diff    string

	dropAll, inconsistent bool
	force                 bool

	format, sourceFormat string
	share                bool
	limits               limitsFlag
}

func (b *bitmapCommand) setFlags(fs *pflag.FlagSet) {
	b.flags = fs
	b.setOperations(fs)
	fs.StringVarP(&b.source, "source-file", "b", "", "the source of every --merge, or the other bitmap of --diff,\nis in the image `FILE`")
	fs.VarP(&b.granularity, "granularity", "g", "the `SIZE` of what one bit stands for in a new bitmap: a power\nof two, 512 to 2G (default: the cluster size, but 4k to 64k)")
	fs.BoolVarP(&b.dry, "dry-run", "n", false, "say what would change, and change nothing")
	fs.BoolVar(&b.inconsistent, "inconsistent", false, "with --remove and without BITMAP: all that are inconsistent")
	fs.BoolVar(&b.dropAll, "drop-all", false, "remove all bitmaps, also stale ones and those of a broken\ndirectory")
	fs.BoolVar(&b.ranges, "ranges", false, "print which ranges are dirty and which are clean, in the\nform of nbdinfo --map")
	fs.StringVar(&b.export, "export", "", "write the dirty ranges as JSON to the new `FILE`; -: standard\noutput (docs/bitmap-json.md is its description)")
	fs.StringVar(&b.diff, "diff", "", "print what is dirty only in BITMAP, or only in `OTHER`")
	fs.BoolVar(&b.salvage, "salvage", false, "print what a bitmap that is in use or stale says: its bits as\nof the last clean close, which are not all; also with --export")
	fs.BoolVar(&b.force, "force", false, "replace the FILE of --export if it is there")
	b.outputFlag.register(fs)
	qcow2Only := []string{formatQcow2}
	fs.VarP(choice{&b.format, qcow2Only}, "format", "f", "the format `FMT` of IMAGE; only qcow2 has bitmaps")
	fs.VarP(choice{&b.sourceFormat, qcow2Only}, "source-format", "F", "the format `FMT` of the FILE of -b")
	fs.BoolVarP(&b.share, "force-share", "U", false, "read an image that another process is writing; what you get\nmay be torn")
	b.limits.register(fs)
}

func (b *bitmapCommand) run(ctx context.Context, c *console, args []string) error {
	if err := b.check(args); err != nil {
		return err
	}
	name := ""
	if len(args) == 2 {
		name = args[1]
	}
	if b.changes() {
		return b.change(ctx, c, args[0], name)
	}
	o := b.opener(c)
	defer o.close()
	l, err := openBitmaps(o, args[0])
	if err != nil {
		return err
	}
	switch q := (bitmapQuery{b, c, o, l, name}); {
	case b.given("diff"):
		return q.diff(ctx)
	case b.ranges:
		return q.ranges(ctx)
	case b.export != "":
		return q.export(ctx)
	case b.salvage:
		return q.salvage(ctx)
	default:
		return q.list(ctx)
	}
}

// changes says that the image is to be changed.
func (b *bitmapCommand) changes() bool { return len(b.operations) > 0 || b.dropAll }

// given says that a flag stands on the command line, also with an empty value.
func (b *bitmapCommand) given(flag string) bool { return b.flags.Changed(flag) }

// opener opens what is only read.
func (b *bitmapCommand) opener(c *console) *opener {
	return &opener{sourceFlags: sourceFlags{format: b.format, share: b.share, limits: b.limits}, c: c}
}

// openBitmaps opens an image for its bitmaps alone.
func openBitmaps(o *opener, arg string) (*layer, error) {
	if err := checkImageArg(arg); err != nil {
		return nil, err
	}
	return o.openAlone(arg)
}

// checkImageArg refuses what names no image of its own.
func checkImageArg(arg string) error {
	link := parseLink(arg, pathExists)
	switch {
	case link.raw:
		return usagef("%s: a raw disk has no bitmaps", escapeName(arg))
	case link.snapshot != "":
		return usagef("%s: bitmaps belong to an image, not to a snapshot of it", escapeName(arg))
	}
	return nil
}

// checkGranularity refuses what no bitmap can have.
func checkGranularity(g sizeValue) error {
	if _, err := bitmap.New(0, int64(g)); err != nil {
		return usagef("-g: %w", err)
	}
	return nil
}
