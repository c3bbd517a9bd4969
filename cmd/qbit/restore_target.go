package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

// targetFlags say where a disk goes.
type targetFlags struct {
	out         string
	onto        string
	format      string
	clusterSize sizeValue
	force       bool
	keepZeros   bool
	reflink     string
	direct      bool
	bitmaps     []newBitmap // that a qcow2 OUT gets
}

func (t *targetFlags) register(fs *pflag.FlagSet) {
	fs.StringVarP(&t.out, "out", "o", "", "write the disk to the new file `OUT`; -: standard output")
	fs.StringVar(&t.onto, "onto", "", "write the disk over `PATH`, a block device or a file that\nis there and large enough")
	t.format = formatRaw
	addChoice(fs, &t.format, "output-format", "O", "the format of OUT, `FMT`: raw or qcow2", formatRaw, formatQcow2)
	t.clusterSize = qcow2.DefaultClusterSize
	fs.Var(&t.clusterSize, "cluster-size", "the cluster `SIZE` of a qcow2 OUT")
	fs.BoolVar(&t.force, "force", false, "replace OUT if it is there")
	fs.BoolVar(&t.keepZeros, "keep-zeros", false, "write zeros that are stored as data; otherwise they\nbecome holes")
	fs.BoolVar(&t.direct, "direct", false, "keep the page cache as it is: write around it (O_DIRECT),\nand leave nothing there of what was read; for disks\nlarger than memory")
	t.reflink = reflinkAuto
	addChoice(fs, &t.reflink, "reflink", "", "share blocks with the links where the filesystem can\n(XFS, Btrfs) instead of copying them, `WHEN`: auto or\nnever", reflinkAuto, reflinkNever)
}

// When blocks are shared: where that can be, or never.
const (
	reflinkAuto  = "auto"
	reflinkNever = "never"
)

// check finds what does not go together.
func (t *targetFlags) check(c *console) error {
	stdout := t.out == "-"
	switch {
	case (t.out == "") == (t.onto == ""):
		return usagef("say where the disk goes: -o OUT, or --onto PATH")
	case t.onto != "" && t.format != formatRaw:
		return usagef("--onto writes a raw disk; -O %s needs -o", t.format)
	case stdout && t.direct:
		return usagef("--direct is for files and devices; standard output has no blocks")
	case stdout && t.format != formatRaw:
		return usagef("-o - writes a raw disk; the header of a qcow2 comes last, and needs a file")
	case stdout && isTerminal(c.out):
		return usagef("-o -: standard output is a terminal")
	}
	return nil
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// open makes the target for a disk of size bytes. What o has open is never
// written over.
func (t *targetFlags) open(c *console, o *opener, size int64) (reconstruct.Target, error) {
	inputs, err := o.inputs()
	if err != nil {
		return nil, err
	}
	opts := &reconstruct.OutputOptions{Overwrite: t.force, Inputs: inputs, Direct: t.direct}
	var dst reconstruct.Target
	switch {
	case t.onto != "":
		onto, err := t.openOnto(c, size, inputs)
		if err != nil {
			return nil, err // no nil of a type
		}
		return onto, nil
	case t.out == "-":
		return reconstruct.NewStream(c.out), nil
	case t.format == formatQcow2:
		dst, err = t.createQcow2(c, size, opts)
	default:
		dst, err = reconstruct.CreateRaw(t.out, size, opts)
	}
	if errors.Is(err, fs.ErrExist) && !t.force {
		return nil, fmt.Errorf("%w; --force replaces it", plainError(t.out, err))
	}
	if err != nil {
		return nil, t.noDirect(plainError(t.out, err))
	}
	return dst, nil
}

// noDirect says what can be done where there is no direct I/O.
func (t *targetFlags) noDirect(err error) error {
	if errors.Is(err, reconstruct.ErrNoDirect) {
		return fmt.Errorf("%w; leave out --direct", err)
	}
	return err
}

func (t *targetFlags) openOnto(c *console, size int64, inputs []fs.FileInfo) (*reconstruct.OntoTarget, error) {
	dst, err := reconstruct.OpenOnto(t.onto, size, inputs)
	if err != nil {
		return nil, plainError(t.onto, err)
	}
	if t.direct {
		if err := dst.Direct(); err != nil {
			dst.Abort()
			return nil, t.noDirect(plainError(t.onto, err))
		}
	}
	if n := dst.Beyond(); n > 0 {
		c.note("%s: it is larger than the disk; its last %s stay as they are", escapeName(t.onto), formatSize(n))
	}
	return dst, nil
}

// createQcow2 is a new qcow2 image as a target. The format allows any size, but
// QEMU passes over what is behind the last whole sector.
func (t *targetFlags) createQcow2(c *console, size int64, opts *reconstruct.OutputOptions) (reconstruct.Target, error) {
	if over := size % 512; over != 0 {
		size += 512 - over
		c.note("%s: the disk ends within a sector, which QEMU would not read; the image has %d zero bytes more", escapeName(t.out), 512-over)
	}
	out, err := reconstruct.CreateOutput(t.out, opts)
	if err != nil {
		return nil, err
	}
	w, err := qcow2.Create(out.Storage(), qcow2.Layout{Size: size, ClusterSize: int64(t.clusterSize)})
	if err == nil {
		err = t.addBitmaps(w, size)
	}
	if err != nil {
		out.Abort()
		return nil, err
	}
	return reconstruct.NewFileTarget(out, qcow2Content{w, int64(t.clusterSize)}), nil
}

// qcow2Content has whole clusters written, so that a cluster of zeros stays
// unallocated.
type qcow2Content struct {
	*qcow2.Writer
	clusterSize int64
}

func (q qcow2Content) Traits() reconstruct.Traits {
	return reconstruct.Traits{Block: q.clusterSize}
}

// Place implements reconstruct.Placer.
func (q qcow2Content) Place(off, n int64) (host, run int64, err error) {
	at, run, err := q.Writer.Place(off, n)
	return int64(at), run, err
}

// name is what to call the target in a report.
func (t *targetFlags) name() string {
	switch {
	case t.onto != "":
		return t.onto
	case t.out == "-":
		return "standard output"
	}
	return t.out
}

// inputs are the files that are open for reading.
func (o *opener) inputs() ([]fs.FileInfo, error) {
	var infos []fs.FileInfo
	for _, f := range o.files {
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}
