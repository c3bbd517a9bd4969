package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/qcow2"
)

func resizeVerb() verb {
	return verb{
		name:  "resize",
		args:  "IMAGE [+|-]SIZE",
		short: "make the disk in an image larger or smaller",
		long:  resizeHelp,
		new:   func() command { return new(resizeCommand) },
	}
}

const resizeHelp = `Changes the virtual size of the disk in a qcow2 IMAGE or, named raw:IMAGE or with
-f raw, in a raw file. SIZE is the new size; with a sign it is what the disk gains
or loses: 20G, +512M, -1T.

What is added reads as zero, also where a backing file is longer than the disk was.
Dirty bitmaps grow along, and what was added is dirty in those that record. To make
a disk smaller takes --shrink: what lies beyond the new end is gone, from the bitmaps
too. Partitions and file systems in the disk stay as they are: a guest's tools make
them smaller before, or larger afterwards. Internal snapshots keep their size.

The change is one transaction: a crash leaves the disk as it was, or resized, and at
most clusters that nothing uses. An image is changed only while no other process has
it open, and refused if it is marked dirty or corrupt.

If the image has a backing file, its size is looked at where the disk grows. That
file is opened only if you allow it with --allow-refs, --ref or --trust; otherwise all
that is added is recorded as zero, which costs a table for each 512 MiB (with
clusters of 64 KiB).`

// resizeCommand is `qbit resize`.
type resizeCommand struct {
	outputFlag
	flags         *pflag.FlagSet
	format        string
	shrink        bool
	preallocation string
	quiet         bool
	policy        refPolicy
	limits        limitsFlag
}

func (r *resizeCommand) setFlags(fs *pflag.FlagSet) {
	// The arguments end the flags: -1G is a size.
	fs.SetInterspersed(false)
	r.flags = fs
	fs.BoolVar(&r.shrink, "shrink", false, "allow the disk to become smaller")
	fs.VarP(choice{&r.format, []string{formatQcow2, formatRaw}}, "format", "f", "the format `FMT` of IMAGE: qcow2 or raw")
	r.preallocation = "off"
	addChoice(fs, &r.preallocation, "preallocation", "", "what is allocated for what is added: `MODE` is off, the only\none that there is", "off", "metadata", "falloc", "full")
	fs.BoolVarP(&r.quiet, "quiet", "q", false, "say nothing but warnings and errors")
	r.outputFlag.register(fs)
	r.policy.register(fs)
	r.limits.register(fs)
}

func (r *resizeCommand) run(_ context.Context, c *console, args []string) error {
	args, err := r.arguments(args)
	if help, asked := r.flags.GetBool("help"); help && asked == nil {
		printVerb(c.out, resizeVerb())
		return nil
	}
	if err != nil {
		return err
	}
	image, raw := strings.CutPrefix(args[0], "raw:")
	change, err := parseResize(args[1])
	if err := errors.Join(err, r.check(raw)); err != nil {
		return err
	}
	job := resizeJob{r: r, c: c, path: image, change: change}
	if raw || r.format == formatRaw {
		return job.raw()
	}
	return job.qcow2()
}

func (r *resizeCommand) check(raw bool) error {
	switch {
	case raw && r.format == formatQcow2:
		return usagef("the image is named as raw, and -f says qcow2")
	case r.preallocation != "off":
		return usagef("--preallocation=%s: qbit allocates nothing for what is added; a new image can be preallocated (qbit create, qbit convert)", r.preallocation)
	}
	return r.policy.check()
}

// arguments finds the image and the size, with flags before, between and behind them.
func (r *resizeCommand) arguments(args []string) ([]string, error) {
	var words []string
	for len(args) > 0 {
		switch word := args[0]; {
		case word == "--":
			words, args = append(words, args[1:]...), nil
		case word == "" || word[0] != '-' || isSigned(word):
			words, args = append(words, word), args[1:]
		default:
			if err := r.flags.Parse(args); err != nil {
				return nil, usagef("%w; see qbit resize --help", err)
			}
			args = r.flags.Args()
		}
	}
	if len(words) != 2 {
		return nil, usagef("resize takes an image and a size, like 20G, +512M or -1G")
	}
	return words, nil
}

// isSigned says that a word is no flag but a size to take away.
func isSigned(word string) bool {
	return len(word) > 1 && word[0] == '-' && word[1] >= '0' && word[1] <= '9'
}

// A sizeChange is a new size, or a change of the one that there is.
type sizeChange struct {
	sign byte // '+', '-', or 0: it is the new size
	n    int64
}

// parseResize reads [+|-]SIZE.
func parseResize(s string) (sizeChange, error) {
	change, number := sizeChange{}, s
	if s != "" && (s[0] == '+' || s[0] == '-') {
		change.sign, number = s[0], s[1:]
	}
	var err error
	if change.n, err = parseSize(number); err != nil {
		return change, usageError{err}
	}
	return change, nil
}

// from is the new size of a disk of that size.
func (s sizeChange) from(size int64) (int64, error) {
	switch {
	case s.sign == '+' && s.n > math.MaxInt64-size:
		return 0, usagef("+%d: the disk has %d bytes, and would have more than %d", s.n, size, int64(math.MaxInt64))
	case s.sign == '+':
		return size + s.n, nil
	case s.sign == '-' && s.n >= size, s.sign == 0 && s.n == 0:
		return 0, usagef("nothing would be left of the disk, which has %d bytes", size)
	case s.sign == '-':
		return size - s.n, nil
	}
	return s.n, nil
}

// A resizeJob is one run.
type resizeJob struct {
	r      *resizeCommand
	c      *console
	path   string
	change sizeChange
}

// newSize is the size that a disk is to get.
func (j *resizeJob) newSize(size int64, name string) (int64, error) {
	to, err := j.change.from(size)
	if err == nil && to < size && !j.r.shrink {
		err = usagef("%s: the disk has %s (%d bytes), and would have %d less; --shrink allows that, and what lies beyond the new end is lost",
			escapeName(name), formatSize(size), size, size-to)
	}
	return to, err
}

// raw resizes a raw file.
func (j *resizeJob) raw() error {
	file, err := openLocked(j.c, j.path, qcow2.LockWrite, os.O_RDWR)
	if err != nil {
		return err
	}
	defer file.release()
	if !file.info.Mode().IsRegular() {
		return fmt.Errorf("%s: it is a block device, whose size is not qbit's to change", escapeName(j.path))
	}
	to, err := j.newSize(file.size, j.path)
	if err != nil {
		return err
	}
	if to != file.size {
		if err = file.Truncate(to); err == nil {
			err = file.Sync()
		}
	}
	if err != nil {
		return plainError(j.path, err)
	}
	return j.tell(resizeReport{Format: formatRaw, Old: file.size, New: to})
}

// qcow2 resizes an image.
func (j *resizeJob) qcow2() error {
	o, err := (&sourceFlags{policy: j.r.policy, limits: j.r.limits}).newOpener(j.c)
	if err != nil {
		return err
	}
	defer o.close()
	image, err := o.openEditable(j.path, o.byMode(refsReported), true)
	if err != nil {
		return err
	}
	defer image.unlock()
	size := image.image.Size()
	to, err := j.newSize(size, j.path)
	if err != nil {
		return err
	}
	if to%512 != 0 {
		return usagef("the new size, %d bytes, is no multiple of 512: QEMU has no such disks; the next ones are %d and %d", to, to&^511, to&^511+512)
	}
	if to > size && image.closed != nil {
		j.c.note("%v; so all that is added is recorded as zero", image.closed)
	}
	if to != size {
		opts := qcow2.ResizeOptions{Shrink: j.r.shrink}
		opts.DataFile, opts.DataSize = image.dataFile()
		if err := image.editor.Resize(to, &opts); err != nil {
			return explainChange(j.path, err)
		}
	}
	report := resizeReport{Format: formatQcow2, Old: size, New: to, Bitmaps: []resizedBitmap{}}
	list, _ := image.editor.Image().Bitmaps()
	for _, b := range list {
		report.Bitmaps = append(report.Bitmaps, resizedBitmap{b.Name, hexOf(b.Name), b.Auto && !b.InUse})
	}
	return j.tell(report)
}
