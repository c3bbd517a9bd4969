package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/checkpoint"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// A backupRun is one run of backup: disks of which all is done at one moment.
type backupRun struct {
	b   *backupCommand
	c   *console
	o   *opener
	now time.Time

	disks      []*backupDisk
	domain     *libvirt.Domain     // nil: not given
	checkpoint *libvirt.Checkpoint // that is made; nil: none
	tree       *libvirt.Tree       // of the checkpoints that there are; nil: not known
	folder     string              // where documents go
	documents  []string            // that were written
	manifests  []string

	locked []*imageFile // for writing
	commit *reconstruct.BackupCommit
}

// A backupDisk is a disk that takes part: in the backup, the checkpoint, or both.
type backupDisk struct {
	target string // what documents call it
	source linkArg
	format string // as the domain says; "": the magic decides

	out       string // "": it has no part in the backup
	outFormat string
	device    bool   // out is a block device
	base      string // the checkpoint that the backup is incremental to; "": it is full
	bitmap    string // to be added; "": it has no part in the checkpoint

	layer   *layer
	disk    qcow2.Disk
	changed *bitmap.Bitmap // nil: everything
	since   []checkpoint.Part
	parent  *backupParent // nil: not found
	backing *qcow2.Ref    // nil: none
	dst     reconstruct.Target
	result  *reconstruct.BackupResult
}

func (d *backupDisk) incremental() bool { return d.base != "" }

// title is what a disk is called in messages.
func (d *backupDisk) title() string { return escapeName(d.source.name) }

// recover finishes or undoes what an earlier run left unfinished on the images.
func (r *backupRun) recover() error {
	for _, d := range r.disks {
		if d.source.raw {
			continue
		}
		err := recoverBackup(r.c, d.source.path, r.b.limits.limits)
		if errors.Is(err, qcow2.ErrLocked) && r.b.share {
			r.c.warn("%v", err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// recoverBackup finishes or undoes an interrupted backup with a checkpoint, of which an
// image is a disk, and says so.
func recoverBackup(c *console, path string, limits qcow2.Limits) error {
	done, err := reconstruct.RecoverBackup(path, limits)
	switch {
	case errors.Is(err, os.ErrNotExist) && !pathExists(path):
		return nil // opening it says so
	case err != nil:
		return err
	case done == nil:
		return nil
	case done.Finished:
		c.note("%s: an interrupted backup with checkpoint %s was finished: %s", escapeName(path), done.Bitmap,
			nameList(done.Named, "all files had their names"))
	default:
		c.note("%s: an interrupted backup with checkpoint %s was undone; make it again", escapeName(path), done.Bitmap)
	}
	return nil
}

func nameList(names []string, none string) string {
	if len(names) == 0 {
		return none
	}
	return strings.Join(names, ", ")
}

// close ends the run: what has no name goes, and locks end last.
func (r *backupRun) close(o *opener) {
	if r.commit != nil {
		r.commit.Abort()
	}
	o.close()
	for _, f := range r.locked {
		f.release()
	}
}

// run does all: lock, read, commit.
func (r *backupRun) run(ctx context.Context, o *opener) error {
	r.o = o
	r.commit = reconstruct.NewBackupCommit()
	for _, step := range []func() error{r.open, r.chooseParent, r.addCheckpoints, r.findChanges} {
		if err := step(); err != nil {
			return err
		}
	}
	if err := r.findParents(ctx); err != nil {
		return err
	}
	if err := r.create(ctx); err != nil {
		return err
	}
	for _, d := range r.disks {
		if d.out == "" {
			continue
		}
		if err := r.copy(ctx, d); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	return r.finish(ctx)
}

// finish gives everything its name, and reports.
func (r *backupRun) finish(ctx context.Context) error {
	if err := r.addDocuments(); err != nil {
		return err
	}
	if err := r.commit.Commit(); err != nil {
		if r.commit.Committed() {
			return fmt.Errorf("%w; the next qbit backup of the same image goes on from there", err)
		}
		return err
	}
	if err := r.seal(ctx); err != nil {
		return fmt.Errorf("%w; the backup itself is done, and qbit seal %s seals it", err, shellWord(r.folder))
	}
	return r.report()
}

// open locks and opens all disks before anything is read: they are of one moment.
func (r *backupRun) open() error {
	for _, d := range r.disks {
		var err error
		if d.bitmap != "" {
			d.layer, err = r.openForWriting(d)
		} else {
			d.layer, err = r.openForReading(d)
		}
		if err != nil {
			return err
		}
		if err := d.check(); err != nil {
			return err
		}
		r.warnCorrupt(d)
		d.disk = d.layer.disk
	}
	for _, d := range r.disks {
		for _, other := range r.disks {
			if d != other && os.SameFile(d.layer.file.info, other.layer.file.info) {
				return fmt.Errorf("%s: it is the file of disk %s and of disk %s", d.title(), escapeName(d.target), escapeName(other.target))
			}
		}
	}
	return r.stillInterrupted()
}

// warnCorrupt says that what is backed up may be wrong already.
func (r *backupRun) warnCorrupt(d *backupDisk) {
	for _, l := range d.layer.chain() {
		if l.image != nil && l.image.Corrupt() {
			r.c.warn("%s: the image is marked corrupt: a program found it broken, and any part of it may be wrong; qbit check says what", escapeName(l.path))
		}
	}
}

func (r *backupRun) openForReading(d *backupDisk) (*layer, error) {
	before := r.o.format
	defer func() { r.o.format = before }()
	if d.format != "" {
		r.o.format = d.format
	}
	return r.o.open(d.source, refsNeeded)
}

// openForWriting opens an image that gets a bitmap. It is locked until the run ends.
func (r *backupRun) openForWriting(d *backupDisk) (*layer, error) {
	if d.source.raw || d.format == formatRaw || r.b.sourceFlags.format == formatRaw {
		return nil, fmt.Errorf("%s: a raw disk cannot hold a bitmap, so there can be no checkpoint of it; "+
			"leave it out of the checkpoint (checkpoint='no'), or convert it (qbit convert -O qcow2)", d.title())
	}
	file, err := openLocked(r.c, d.source.path, qcow2.LockWrite, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	r.locked = append(r.locked, file)
	ours, err := isQcow2(file)
	switch {
	case err != nil:
		return nil, plainError(file.path, err)
	case !ours:
		return nil, fmt.Errorf("%w; a checkpoint is a bitmap in a qcow2 image", notQcow2(file))
	}
	l := &layer{name: d.source.name, path: d.source.path, file: file, format: formatQcow2}
	return l, r.o.loadImage(l, refsNeeded)
}

// check refuses what the disk cannot give.
func (d *backupDisk) check() error {
	switch {
	case d.base != "" && d.layer.image == nil:
		return fmt.Errorf("%s: a raw disk has no bitmap that would say what changed: it can only be backed up whole (of a domain, say so with --xml and backupmode='full')", d.title())
	case d.base != "" && d.source.snapshot != "":
		return usagef("%s: bitmaps speak of the disk as it is now, not of a snapshot: it can only be backed up whole", d.title())
	}
	return nil
}

// stillInterrupted finds a note that another run left between our look and our locks.
func (r *backupRun) stillInterrupted() error {
	for _, d := range r.disks {
		note, err := reconstruct.BackupIntentPath(d.source.path)
		if err == nil && d.bitmap != "" && pathExists(note) {
			return fmt.Errorf("%s: another backup was interrupted just now; run this again", d.title())
		}
	}
	return nil
}

// addCheckpoints finds at once whether the bitmaps can be added.
func (r *backupRun) addCheckpoints() error {
	for _, d := range r.disks {
		if d.bitmap == "" {
			continue
		}
		granularity := qcow2.DefaultGranularity(d.layer.image.Geometry().ClusterSize(), d.layer.image.Size())
		err := r.commit.AddCheckpoint(d.source.path, d.layer.file.File, &qcow2.Options{Limits: r.b.limits.limits}, d.bitmap, granularity)
		if err != nil {
			return explainCheckpoint(d, err)
		}
	}
	return nil
}

// explainCheckpoint says why an image cannot have the bitmap of a checkpoint.
func explainCheckpoint(d *backupDisk, err error) error {
	var exists *qcow2.ExistsError
	if errors.As(err, &exists) {
		return fmt.Errorf("%s: checkpoint %s: %w; a checkpoint needs a name of its own", d.title(), escapeName(d.bitmap), err)
	}
	return fmt.Errorf("checkpoint %s: %w", escapeName(d.bitmap), explainEdit(d.source.path, d.layer.file, err))
}

// findChanges loads what changed since the base of each increment.
func (r *backupRun) findChanges() error {
	for _, d := range r.disks {
		if d.out == "" || !d.incremental() {
			continue
		}
		if err := d.findChanges(r); err != nil {
			return err
		}
	}
	return nil
}

func (d *backupDisk) findChanges(r *backupRun) error {
	var images []*qcow2.Image
	for _, l := range d.layer.chain() {
		if l.image != nil {
			images = append(images, l.image)
		}
	}
	named := ""
	if r.tree != nil && r.tree.Checkpoint(d.base) != nil {
		named = d.target
	}
	changes, err := checkpoint.NewChain(images).Since(r.tree, named, d.base)
	if err != nil {
		return d.explainSince(err)
	}
	d.changed, d.since = changes.Bitmap, changes.Parts
	return nil
}

// explainSince names the image that breaks a rule, and says what can be done.
func (d *backupDisk) explainSince(err error) error {
	var rule *checkpoint.RuleError
	if !errors.As(err, &rule) {
		return fmt.Errorf("%s: %w", d.title(), err)
	}
	image := d.layer
	for range rule.Layer {
		if image.backing != nil {
			image = image.backing
		}
	}
	err = fmt.Errorf("%s: %w; make a full backup, with a new checkpoint (qbit backup --checkpoint)", escapeName(image.path), err)
	if rule.Rule == checkpoint.RuleTopmost && rule.Below < 0 {
		return fmt.Errorf("%w; qbit bitmap %s lists the bitmaps that there are", err, shellWord(image.path))
	}
	return badData{err}
}

// defaultName is what libvirt calls a backup that has no name: like the image, with
// the checkpoint's name or the time behind it.
func (r *backupRun) defaultName(d *backupDisk, folder string) string {
	suffix := fmt.Sprint(r.now.Unix())
	if r.checkpoint != nil {
		suffix = r.checkpoint.ResolvedName()
	}
	path := d.source.path + "." + suffix
	if folder != "" {
		path = filepath.Join(folder, filepath.Base(path))
	}
	return path
}
