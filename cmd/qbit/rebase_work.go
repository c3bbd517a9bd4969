package main

import (
	"context"
	"fmt"
	"io"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

// safely writes what differs into IMAGE, has it stored, and then names the new backing
// file.
func (j *rebasing) safely(ctx context.Context) error {
	if err := j.openNew(); err != nil {
		return err
	}
	j.report = j.newReport("safe")
	differs, err := j.compare(ctx)
	if err != nil {
		return err
	}
	if err := j.copyOld(ctx, differs); err != nil {
		return err
	}
	return j.link()
}

func (j *rebasing) rebaseOptions(m *meter) *reconstruct.RebaseOptions {
	opts := &reconstruct.RebaseOptions{Granularity: max(j.image.image.Geometry().SubclusterSize(), bitmap.MinGranularity)}
	if m != nil {
		opts.Progress = func(p reconstruct.Progress) { m.Set(p.Done) }
	}
	return opts
}

// compare finds what IMAGE has to hold of the old backing file. Snapshots cannot be
// written to.
func (j *rebasing) compare(ctx context.Context) (*bitmap.Bitmap, error) {
	views, names, err := j.views()
	if err != nil {
		return nil, err
	}
	m := newMeter(j.c, &j.r.progressFlags, "compare", j.image.image.Size())
	defer m.clearLine()
	differs, err := reconstruct.PlanRebase(ctx, views, j.oldDisk(), j.newDisk, j.rebaseOptions(m))
	if err != nil {
		return nil, err
	}
	m.Finish()
	for i, d := range differs[1:] {
		if n := d.Count(); n > 0 {
			return nil, fmt.Errorf("%s: its snapshot %s reads %s from the backing file that differ in the new one, and would show other data; "+
				"take the snapshot out first (qbit convert %s), or give it up with --ignore-snapshots",
				escapeName(j.image.path), quote(escapeName(names[i+1])), formatSize(n), shellWord(j.image.path+"@"+names[i+1]))
		}
	}
	return differs[0], nil
}

// copyOld writes the bytes of the old backing file into IMAGE where the bitmap says.
func (j *rebasing) copyOld(ctx context.Context, differs *bitmap.Bitmap) error {
	size := j.image.image.Size()
	if err := differs.Resize(size, false); err != nil {
		return err
	}
	j.report.Copied = differs.Count()
	if j.report.Copied == 0 {
		return nil
	}
	opts := qcow2.GuestOptions{Changes: differs}
	opts.DataFile, opts.DataSize = j.image.dataFile()
	guest, err := j.image.editor.Guest(&opts)
	if err != nil {
		return explainChange(j.image.path, err)
	}
	m := newMeter(j.c, &j.r.progressFlags, "rebase", j.report.Copied)
	defer m.clearLine()
	old := grownDisk{j.oldDisk(), size}
	err = move(ctx, old, j.sink(guest), m.Add, old.in(differs))
	if closed := guest.Close(); err == nil {
		err = explainChange(j.image.path, closed)
	}
	if err == nil {
		m.Finish()
	}
	return err
}

// sink is where the bytes of the old backing file go. Version 2 knows no zero clusters:
// while its header names no backing file, zeros would be left out there, and the new
// one would show in their place.
func (j *rebasing) sink(guest *qcow2.Guest) sink {
	if j.image.image.Header().Version == 2 {
		return literalZeros{guest}
	}
	return guest
}

// literalZeros writes zeros as data.
type literalZeros struct{ *qcow2.Guest }

// Zero implements sink.
func (l literalZeros) Zero(off, n int64) error {
	zeros := make([]byte, min(n, 1<<20))
	for end := off + n; off < end; {
		done, err := l.WriteAt(zeros[:min(int64(len(zeros)), end-off)], off)
		if err != nil {
			return err
		}
		off += int64(done)
	}
	return nil
}

// A grownDisk goes on with zeros behind the end of a disk.
type grownDisk struct {
	qcow2.Disk
	size int64
}

// Size is that of the grown disk.
func (d grownDisk) Size() int64 { return d.size }

// ReadAt implements qcow2.Disk.
func (d grownDisk) ReadAt(p []byte, off int64) (int, error) {
	held := min(int64(len(p)), max(0, d.Disk.Size()-off))
	if held > 0 {
		if n, err := d.Disk.ReadAt(p[:held], off); int64(n) < held {
			return n, err
		}
	}
	clear(p[held:])
	if over := off + int64(len(p)) - d.size; over > 0 {
		return int(int64(len(p)) - over), io.EOF
	}
	return len(p), nil
}

// in yields the extents of the disk in the ranges of a bitmap; what is zero or absent
// in it is zero.
func (d grownDisk) in(ranges *bitmap.Bitmap) func(func(qcow2.Extent, error) bool) {
	return func(yield func(qcow2.Extent, error) bool) {
		held := d.Disk.Size()
		for r := range ranges.Ranges() {
			end := r.Off + r.Len
			if r.Off < held {
				for e, err := range d.Disk.Extents(r.Off, min(end, held)-r.Off) {
					if e.Kind == qcow2.Absent {
						e.Kind = qcow2.Zero
					}
					if !yield(e, err) || err != nil {
						return
					}
				}
			}
			if from := max(r.Off, held); from < end && !yield(qcow2.Extent{Off: from, Len: end - from, Kind: qcow2.Zero}, nil) {
				return
			}
		}
	}
}
