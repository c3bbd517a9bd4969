package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

// writeLink writes a link of a chain: what the image does not hold is not written, and
// what is zero or lost is written as zero.
func (s *salvageCommand) writeLink(ctx context.Context, c *console, o *opener, job *salvageJob) error {
	inputs, err := o.inputs()
	if err != nil {
		return err
	}
	out, err := reconstruct.CreateOutput(s.target.out, &reconstruct.OutputOptions{Overwrite: s.target.force, Inputs: inputs})
	if err != nil {
		return outputError(s.target.out, err, s.target.force)
	}
	defer out.Abort()
	// No cluster of the link holds what is absent beside what is not.
	unit := job.disk.Image().Geometry().SubclusterSize()
	w, err := qcow2.Create(out.Storage(), qcow2.Layout{Size: job.disk.Size(), ClusterSize: unit})
	if err != nil {
		return plainError(s.target.out, err)
	}
	m := newMeter(c, &s.progressFlags, "salvage", job.disk.Size())
	defer m.clearLine()
	l := linkCopy{w: w, disk: job.disk, unit: unit, buf: make([]byte, max(unit, 1<<20))}
	if err := l.run(ctx, m.Set); err != nil {
		return plainError(s.target.out, err)
	}
	if err := w.Close(); err != nil {
		return plainError(s.target.out, err)
	}
	if err := out.Commit(); err != nil {
		return plainError(s.target.out, err)
	}
	m.Finish()
	return nil
}

func outputError(path string, err error, force bool) error {
	if errors.Is(err, fs.ErrExist) && !force {
		return fmt.Errorf("%w; --force replaces it", plainError(path, err))
	}
	return plainError(path, err)
}

// A linkCopy copies a disk with its three states.
type linkCopy struct {
	w    *qcow2.Writer
	disk qcow2.Disk
	unit int64 // clusters of both
	buf  []byte
}

// run copies run by run: what is absent, and what is not.
func (l *linkCopy) run(ctx context.Context, done func(int64)) error {
	size := l.disk.Size()
	for e, err := range l.disk.Extents(0, size) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if e.Kind == qcow2.Absent {
			continue
		}
		// A cluster that is zero in part only belongs to the run of its first byte.
		off := (e.Off + l.unit - 1) / l.unit * l.unit
		end := min((e.End()+l.unit-1)/l.unit*l.unit, size)
		if err := l.present(ctx, off, end); err != nil {
			return err
		}
		done(end)
	}
	return nil
}

// present copies whole clusters that are not absent.
func (l *linkCopy) present(ctx context.Context, off, end int64) error {
	for off < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := l.buf[:min(int64(len(l.buf)), end-off)]
		if _, err := l.disk.ReadAt(p, off); err != nil {
			return err
		}
		for at := int64(0); at < int64(len(p)); at += l.unit {
			if err := l.cluster(p[at:min(at+l.unit, int64(len(p)))], off+at); err != nil {
				return err
			}
		}
		off += int64(len(p))
	}
	return nil
}

func (l *linkCopy) cluster(p []byte, off int64) error {
	if len(bytes.TrimLeft(p, "\x00")) == 0 {
		return l.w.MarkZero(off, int64(len(p)))
	}
	_, err := l.w.WriteAt(p, off)
	return err
}
