package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/virtnbd"
)

// A layer is one opened image, or one raw disk, with what lies below it.
type layer struct {
	name     string // as the user, or the image above, wrote it
	path     string
	format   string // formatQcow2 or formatRaw
	file     *imageFile
	image    *qcow2.Image // nil where raw
	disk     qcow2.Disk   // the image, the snapshot that was asked for, or the raw disk
	snapshot string
	backing  *layer     // nil: it has none, or it was not opened
	data     *imageFile // the external data file; nil: none, or not opened
	above    *layer     // the layer that names this one
	closed   error      // why a backing file that is wanted was not opened
	// preallocated is what isPreallocated found; nil: nobody asked yet.
	preallocated *bool
}

// chain is the layer and those below it.
func (l *layer) chain() []*layer {
	var all []*layer
	for ; l != nil; l = l.backing {
		all = append(all, l)
	}
	return all
}

// refMode is what becomes of the files that an image names.
type refMode uint8

const (
	// refsNeeded: what cannot be opened is an error.
	refsNeeded refMode = iota
	// refsAllowed: what the user did not allow stays closed, and is noted.
	refsAllowed
	// refsReported: a backing file that cannot be opened stays closed, and
	// layer.closed says why. Data files are not needed.
	refsReported
	// refsOwn: nothing is opened but the image itself.
	refsOwn
	// refsLink: backing files stay closed without a word; data files are needed.
	refsLink
	// refsAlone: what lies below reads as zero, whatever the header names.
	refsAlone
)

// wants says whether files of a kind are to be opened.
func (m refMode) wants(kind qcow2.RefKind) bool {
	if kind == qcow2.RefData {
		return m != refsOwn && m != refsReported
	}
	return m != refsOwn && m != refsLink
}

// emptyDisk is what a backing file is that is to be passed over: all beyond the end
// of a backing file reads as zero.
var emptyDisk = reconstruct.NewRaw(bytes.NewReader(nil), 0, nil)

// An opener opens all that one run of a verb reads, and closes it.
type opener struct {
	sourceFlags
	// wholeSectors makes raw disks end with a whole sector, as QEMU counts them;
	// what is beyond the end of the file reads as zero.
	wholeSectors bool
	// salvage, where it is set, opens every image that is not raw, however broken.
	salvage func(l *layer, mode refMode) error

	c       *console
	files   []*os.File
	streams int // how many streams share the memory for what was decoded
	decoded *virtnbd.Memory
}

// sourceFlags are the flags of every verb that reads images.
type sourceFlags struct {
	format string
	share  bool
	policy refPolicy
	limits limitsFlag
}

func (s *sourceFlags) register(fs *pflag.FlagSet) {
	fs.VarP(choice{&s.format, []string{formatQcow2, formatRaw}}, "format", "f", "the format `FMT` of the images that you name: qcow2 or raw")
	fs.BoolVarP(&s.share, "force-share", "U", false, "read images that another process is writing; what you get may be torn")
	s.policy.register(fs)
	s.limits.register(fs)
}

// newOpener is the opener of one run; close it.
func (s *sourceFlags) newOpener(c *console) (*opener, error) {
	return &opener{sourceFlags: *s, c: c}, s.policy.check()
}

// close closes every file, and with it frees its locks.
func (o *opener) close() {
	for _, f := range o.files {
		f.Close()
	}
	o.files = nil
}

// open opens what the user names.
func (o *opener) open(arg linkArg, mode refMode) (*layer, error) {
	file, err := openFile(arg.path)
	if err != nil {
		return nil, err
	}
	l := &layer{name: arg.name, path: arg.path, file: file, format: o.format, snapshot: arg.snapshot}
	if arg.raw {
		if o.format == formatQcow2 {
			file.Close()
			return nil, usagef("%s: it is named as raw, and -f says qcow2", escapeName(arg.name))
		}
		l.format = formatRaw
	}
	return l, o.load(l, mode)
}

// load locks the file of a layer and opens the disk in it.
func (o *opener) load(l *layer, mode refMode) error {
	o.files = append(o.files, l.file.File)
	if err := o.lock(l.file); err != nil {
		return err
	}
	if l.format == formatRaw {
		l.disk = o.rawDisk(l.file, false)
		if l.snapshot != "" {
			return usagef("%s: a raw disk has no snapshots", escapeName(l.name))
		}
		return nil
	}
	if o.salvage != nil {
		return o.salvage(l, mode)
	}
	ours, err := isQcow2(l.file)
	switch {
	case err != nil:
		return plainError(l.path, err)
	case !ours:
		return notQcow2(l.file)
	}
	l.format = formatQcow2
	return o.loadImage(l, mode)
}

// loadImage opens the qcow2 image of a layer.
func (o *opener) loadImage(l *layer, mode refMode) error {
	var below error // of a file that the image names: it speaks for itself
	img, err := qcow2.Open(l.file, l.file.size, &qcow2.Options{
		Limits: o.limits.limits,
		OpenRef: func(ref qcow2.Ref) (d qcow2.Disk, err error) {
			d, below = o.openRef(l, ref, mode)
			return d, below
		},
	})
	switch {
	case below != nil:
		return below
	case err != nil:
		return fmt.Errorf("%s: %w", escapeName(l.path), err)
	}
	disk := qcow2.Disk(img)
	if l.snapshot != "" {
		if disk, err = img.SnapshotDisk(l.snapshot); err != nil {
			return fmt.Errorf("%s: %w", escapeName(l.path), err)
		}
	}
	l.image, l.disk = img, namedDisk{disk, l.path}
	return nil
}

// lock takes a reader's lock, or says that there can be none.
func (o *opener) lock(f *imageFile) error {
	mode := qcow2.LockRead
	if o.share {
		mode = qcow2.LockReadShared
	}
	err := qcow2.Lock(f.File, mode)
	switch {
	case errors.Is(err, qcow2.ErrNoLocks):
		o.c.warn("%s: %v; nothing keeps others from writing to it meanwhile", escapeName(f.path), err)
		return nil
	case errors.Is(err, qcow2.ErrLocked) && !o.share:
		return fmt.Errorf("%s: %w; end that process, or read all the same with -U", escapeName(f.path), err)
	case err != nil:
		return fmt.Errorf("%s: %w", escapeName(f.path), err)
	}
	return nil
}

// openRef opens a file that the image of l names, as far as the mode wants it.
func (o *opener) openRef(l *layer, ref qcow2.Ref, mode refMode) (qcow2.Disk, error) {
	switch {
	case mode == refsAlone && ref.Kind == qcow2.RefBacking:
		return emptyDisk, nil
	case !mode.wants(ref.Kind):
		return nil, nil
	}
	d, err := o.tryRef(l, ref, mode)
	switch {
	case err == nil:
		return d, nil
	case mode == refsReported:
	case mode == refsAllowed && ref.Kind == qcow2.RefBacking && errors.As(err, new(*refusedError)):
		o.c.note("%v", err)
	default:
		return nil, err
	}
	l.closed = err
	return nil, nil
}

// tryRef opens a file that the image of l names, if the policy allows it.
func (o *opener) tryRef(l *layer, ref qcow2.Ref, mode refMode) (qcow2.Disk, error) {
	file, target, err := o.openTarget(l, ref)
	if err != nil {
		return nil, err
	}
	if err := o.refuseLoop(l, ref, file); err != nil {
		file.Close()
		return nil, err
	}
	if ref.Kind == qcow2.RefData {
		return o.dataDisk(l, file)
	}
	below := &layer{name: ref.Name, path: target.path, file: file, above: l}
	if below.format, err = refFormat(l, ref, target, file); err != nil {
		file.Close()
		return nil, err
	}
	if err := o.load(below, mode); err != nil {
		return nil, err
	}
	l.backing = below
	return below.disk, nil
}

// openTarget resolves a name and opens the file that stands for it.
func (o *opener) openTarget(l *layer, ref qcow2.Ref) (*imageFile, refTarget, error) {
	target, err := o.policy.resolve(ref, l.path)
	if err != nil {
		return nil, target, err
	}
	var file *imageFile
	if target.root != "" {
		file, err = openBelow(target)
	} else {
		file, err = openFile(target.path)
	}
	if err != nil {
		return nil, target, fmt.Errorf("%s: its %s: %w", escapeName(l.path), ref.Kind, err)
	}
	return file, target, nil
}

// dataDisk is an external data file; it is raw by definition.
func (o *opener) dataDisk(l *layer, file *imageFile) (qcow2.Disk, error) {
	o.files = append(o.files, file.File)
	if err := o.lock(file); err != nil {
		return nil, err
	}
	l.data = file
	return o.rawDisk(file, false), nil
}

// refuseLoop refuses a file that stands above itself, and one that is too deep.
func (o *opener) refuseLoop(l *layer, ref qcow2.Ref, file *imageFile) error {
	depth := 1
	for above := l; above != nil; above = above.above {
		if os.SameFile(above.file.info, file.info) {
			return badData{fmt.Errorf("%s: its %s %s is a file of the chain above it: the chain never ends",
				escapeName(l.path), ref.Kind, quote(escapeName(ref.Name)))}
		}
		depth++
	}
	if most := o.limits.limits.WithDefaults().Depth; int64(depth) > most {
		return badData{fmt.Errorf("%s: its %s would be number %d in the chain; more than %d are not followed (the limit depth)",
			escapeName(l.path), ref.Kind, depth, most)}
	}
	return nil
}

// refFormat is the format in which a backing file is opened: the user's word, then
// the image's. Without either only the qcow2 magic counts: what has none is not
// taken for raw, since then its content would decide what is opened.
func refFormat(l *layer, ref qcow2.Ref, target refTarget, file *imageFile) (string, error) {
	said := escapeName(ref.Format)
	switch {
	case target.raw:
		return formatRaw, nil
	case ref.Format == formatRaw, ref.Format == formatQcow2:
		return ref.Format, nil
	case ref.Format != "":
		return "", fmt.Errorf("%s: its backing file %s is said to be %s, which qbit does not read", escapeName(l.path), quote(escapeName(ref.Name)), said)
	}
	ours, err := isQcow2(file)
	if err != nil {
		return "", plainError(file.path, err)
	}
	if ours {
		return formatQcow2, nil
	}
	if format := foreignFormat(file, file.size); format != "" {
		return "", &foreignError{file.path, format}
	}
	return "", fmt.Errorf("%s: its backing file %s has no format in the header and no qcow2 magic; if it is a raw disk, say so with --ref '%s=raw:%s'",
		escapeName(l.path), quote(escapeName(ref.Name)), escapeName(ref.Name), escapeName(file.path))
}
