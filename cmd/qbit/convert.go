package main

import (
	"context"
	"errors"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

func convertVerb() verb {
	return verb{
		name:  "convert",
		args:  "SRC… DST",
		short: "write a disk into a new image, raw or qcow2, compressed or not",
		long:  convertHelp,
		new:   func() command { return new(convertCommand) },
	}
}

const convertHelp = `Writes what a guest would read from SRC into DST, a new file that stands alone: what
SRC reads from backing files is in it too. The options are those of qemu-img convert
where the job is the same; so DST is raw unless -O qcow2 asks for qcow2. Unlike there
DST is not replaced if it is there, unless --force says so; it is written under a
temporary name, synced, and renamed when it is whole.

SRC is a DISK, as below; several are put one behind the other, as qemu-img does. A
chain of backups is one SRC, its links joined by '+' (or is what qbit restore is for).
qbit squash joins increments to one: an increment that is converted alone would lose
which of its ranges are zero and which are unchanged.

With -B, DST is an overlay on BACKING: what reads there as it should stays absent.
Everything is compared for that, also where SRC does not stand on BACKING at all. The
name is written as you give it, with the format, and is found from the folder of DST;
-F raw says that BACKING is raw.

-c compresses: every cluster that gets smaller, as deflate or as -o compression_type
says. --bitmaps copies the persistent bitmaps of SRC, of the top image alone, with
their granularity and whether they record. One that is in_use is of no use to anybody
and is an error, or left out with --skip-broken-bitmaps.

-n writes into DST as it is, a device or a raw file that is large enough, and really
zeroes what is zero; with --target-is-zero it is taken to be zero already.

-o takes a list NAME=VALUE,NAME=VALUE; -o help prints the names.

` + diskHelp + `

` + refHelp

// convertCommand is `qbit convert`.
type convertCommand struct {
	sourceFlags
	outputFlag
	progressFlags
	to         string // format of DST
	options    []string
	image      imageOptions
	plain      bool // -c
	compress   compressFlag
	backing    string
	backingFmt string
	snapshot   string
	sparse     sizeValue
	bitmaps    bool
	skipBroken bool
	existing   bool // -n
	zeroed     bool // --target-is-zero
	force      bool
	offload    bool // -C
	direct     bool
	cacheOut   string
	cacheIn    string
	digests    []string
	asked      func() bool // the user named the digests
	workers    int
	memory     sizeValue
}

func (v *convertCommand) setFlags(fs *pflag.FlagSet) {
	v.to = formatRaw
	addChoice(fs, &v.to, "output-format", "O", "the format of DST, `FMT`: raw or qcow2", formatRaw, formatQcow2)
	fs.BoolVarP(&v.plain, "compressed", "c", false, "compress the clusters of DST")
	fs.Var(&v.compress, "compress", "the same, as deflate, or with --compress=zstd as zstd")
	fs.Lookup("compress").NoOptDefVal = "deflate"
	fs.StringArrayVarP(&v.options, "options", "o", nil, "options of DST, `LIST`: NAME=VALUE,…; -o help prints them;\nmay be repeated")
	fs.StringVarP(&v.backing, "backing", "B", "", "make DST an overlay on `BACKING`")
	fs.VarP(choice{&v.backingFmt, []string{formatQcow2, formatRaw}}, "backing-format", "F", "the format of BACKING, `FMT`")
	fs.StringVarP(&v.snapshot, "snapshot", "l", "", "convert the internal snapshot `SNAPSHOT` of SRC, by ID or\nname; snapshot.id=ID or snapshot.name=NAME says which")
	v.sparse = 4096
	fs.VarP(&v.sparse, "sparse", "S", "look for zeros in blocks of `SIZE`, a multiple of 512,\nrounded up to a power of two; 0: store all zeros as data")
	fs.BoolVar(&v.bitmaps, "bitmaps", false, "copy the persistent bitmaps of SRC")
	fs.BoolVar(&v.skipBroken, "skip-broken-bitmaps", false, "leave out bitmaps that are in_use or broken")
	fs.BoolVarP(&v.existing, "no-create", "n", false, "write into DST, a device or raw file that is there")
	fs.BoolVar(&v.zeroed, "target-is-zero", false, "with -n: DST reads as zero already")
	fs.BoolVar(&v.force, "force", false, "replace DST if it is there")
	fs.BoolVarP(&v.offload, "reflink", "C", false, "share blocks with SRC where the filesystem can (XFS,\nBtrfs) instead of copying them; zeros that are stored\nstay stored, and a block that goes bad is bad in both")
	fs.BoolVar(&v.direct, "direct", false, "keep the page cache as it is: -t none and -T none")
	v.cacheOut, v.cacheIn = "writeback", "writeback"
	addChoice(fs, &v.cacheOut, "target-cache", "t", "write DST in `MODE`: none and directsync write around the\npage cache (O_DIRECT); it is synced at the end in any", cacheModes...)
	addChoice(fs, &v.cacheIn, "source-cache", "T", "read SRC in `MODE`: none and directsync leave nothing in\nthe page cache that was not there", cacheModes...)
	fs.BoolP("out-of-order", "W", false, "nothing: what is written comes in any order anyway")
	registerDigests(fs, &v.digests, []string{reconstruct.Tree})
	v.asked = func() bool { return fs.Changed("digest") }
	fs.IntVarP(&v.workers, "workers", "m", 0, "read, compress and write in this `NUMBER` of threads; 0: one\na processor, but 2 to 8")
	v.memory = 64 << 20
	fs.Var(&v.memory, "memory", "use at most this `SIZE` of buffers")
	v.outputFlag.register(fs)
	v.progressFlags.register(fs)
	v.sourceFlags.register(fs)
}

func (v *convertCommand) run(ctx context.Context, c *console, args []string) error {
	if wantsOptionHelp(v.options) {
		printOptionHelp(c.out, v.to)
		return nil
	}
	if err := v.check(args); err != nil {
		return err
	}
	o, err := v.newOpener(c)
	if err != nil {
		return err
	}
	defer o.close()
	src, err := v.openSources(o, args[:len(args)-1])
	if err != nil {
		return err
	}
	return v.convert(ctx, c, o, src, args[len(args)-1])
}

// check finds what does not go together, and reads the options.
func (v *convertCommand) check(args []string) (err error) {
	if len(args) < 2 {
		return usagef("convert takes SRC and DST")
	}
	if v.image, err = parseImageOptions(v.to, v.options); err != nil {
		return err
	}
	return errors.Join(v.checkTarget(), v.checkBacking(), v.checkCompression(), v.checkBitmaps(args), checkDigests(v.digests))
}

func (v *convertCommand) checkTarget() error {
	switch {
	case v.image.given["size"]:
		return usagef("-o size: the disk has the size of SRC; qbit resize changes it afterwards")
	case v.existing && v.to != formatRaw:
		return usagef("-n writes a raw disk into what is there; for -O %s a new file is needed", v.to)
	case v.existing && (len(v.options) > 0 || v.force):
		return usagef("-n makes nothing anew: -o and --force have nothing to say")
	case v.zeroed && !v.existing:
		return usagef("--target-is-zero is for -n; a new file is zero anyway")
	case v.sparse%512 != 0 || v.sparse > reconstruct.ChunkSize:
		return usagef("-S %d: it is a multiple of 512, up to %d", v.sparse, reconstruct.ChunkSize)
	}
	return nil
}

// cacheModes are qemu-img's.
var cacheModes = []string{"none", "writeback", "unsafe", "directsync", "writethrough"}

// around says that a mode goes around the page cache.
func (v *convertCommand) around(mode string) bool {
	return v.direct || mode == "none" || mode == "directsync"
}

// checkBacking brings -B and -o backing_file together.
func (v *convertCommand) checkBacking() error {
	if v.backing == "" {
		v.backing = v.image.backing.Name
	} else if v.image.backing.Name != "" && v.image.backing.Name != v.backing {
		return usagef("-B %s, and -o says backing_file=%s: say it once", escapeName(v.backing), escapeName(v.image.backing.Name))
	}
	if v.backingFmt == "" {
		v.backingFmt = v.image.backing.Format
	}
	switch {
	case v.backing == "" && v.backingFmt != "":
		return usagef("-F %s is the format of BACKING, and no -B names one", v.backingFmt)
	case v.backing != "" && v.to != formatQcow2:
		return usagef("-B needs -O qcow2: a raw disk has no backing file")
	case v.backing != "" && v.image.dataFileRaw:
		return usagef("-B does not go with data_file_raw: a raw data file holds the whole disk")
	case v.backingFmt != "" && v.backingFmt != formatQcow2 && v.backingFmt != formatRaw:
		return usagef("-F %s: qbit reads qcow2 and raw", escapeName(v.backingFmt))
	}
	return nil
}

// checkCompression brings -c, --compress and -o compression_type together.
func (v *convertCommand) checkCompression() error {
	if v.compress.on {
		if v.image.given["compression_type"] && v.image.compression != v.compress.kind {
			return usagef("--compress=%s, and -o says compression_type=%s: say it once", v.compress.text, v.image.compression)
		}
		v.plain, v.image.compression = true, v.compress.kind
		if err := v.image.check(); err != nil {
			return usageError{err}
		}
	}
	switch {
	case v.plain && v.to != formatQcow2:
		return usagef("-c needs -O qcow2: a raw disk is not compressed")
	case v.plain && v.image.dataFile != "":
		return usagef("-c does not go with data_file: an external data file holds the bytes as they are")
	case v.plain && v.image.preallocation != "" && v.image.preallocation != "off":
		return usagef("-c does not go with preallocation: what is compressed has no place in advance")
	}
	return nil
}

func (v *convertCommand) checkBitmaps(args []string) error {
	switch {
	case v.skipBroken && !v.bitmaps:
		return usagef("--skip-broken-bitmaps is for --bitmaps")
	case v.bitmaps && (v.to != formatQcow2 || v.image.version == 2):
		return usagef("--bitmaps needs -O qcow2, version 3: nothing else holds bitmaps")
	case v.bitmaps && len(args) > 2:
		return usagef("--bitmaps takes one SRC: bitmaps describe one disk")
	}
	return nil
}

// layout is that of a qcow2 DST.
func (v *convertCommand) layout(size int64) qcow2.Layout {
	l := v.image.layout(size)
	l.Backing = nil // convertBacking sets it, with the format that was found
	return l
}
