package main

import (
	"context"
	"fmt"
	"os"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

// A belowDisk is the backing file of a new overlay, opened.
type belowDisk struct {
	*opener
	disk   qcow2.Disk
	format string
}

// openBacking opens BACKING, which is found from the folder of DST. Where it is part of
// what SRC stands on, it is read as that, so that nothing has to be compared with
// itself.
func (v *convertCommand) openBacking(c *console, src *convertSource, dst string) (*belowDisk, error) {
	path, err := plainPath(v.backing, dst)
	if err != nil {
		return nil, usagef("-B %s: %w", escapeName(v.backing), err)
	}
	flags := v.sourceFlags
	flags.format = v.backingFmt
	o, err := flags.newOpener(c)
	if err != nil {
		return nil, err
	}
	below := &belowDisk{opener: o}
	l, err := o.open(linkArg{name: v.backing, path: path, raw: v.backingFmt == formatRaw}, refsNeeded)
	if err != nil {
		o.close()
		return nil, err
	}
	below.disk, below.format = l.disk, l.format
	if same := src.layerOf(l); same != nil {
		below.disk = same.disk
	}
	return below, nil
}

// layerOf is the layer of the source that the file of another one is; nil: none.
func (s *convertSource) layerOf(l *layer) *layer {
	for _, ch := range s.chains {
		for _, top := range ch.layers {
			for _, own := range top.chain() {
				if own.snapshot == "" && own.format == l.format && os.SameFile(own.file.info, l.file.info) {
					return own
				}
			}
		}
	}
	return nil
}

// differs selects the clusters of the source that are not what the backing file has.
func (v *convertCommand) differs(ctx context.Context, c *console, src *convertSource, below *belowDisk, cluster int64) (reconstruct.Selection, error) {
	size := src.disk.Size()
	changed, err := bitmap.New(size, cluster)
	if err != nil {
		return nil, err
	}
	m := newMeter(c, &v.progressFlags, "compare", max(size, below.disk.Size()))
	defer m.clearLine()
	opts := &reconstruct.CompareOptions{Workers: v.workers, Memory: int64(v.memory), Progress: func(p reconstruct.Progress) { m.Set(p.Done) }}
	for r, err := range reconstruct.Compare(ctx, src.disk, below.disk, opts) {
		if err != nil {
			return nil, fmt.Errorf("comparing with %s: %w", escapeName(v.backing), err)
		}
		changed.Set(r.Off, r.Len)
	}
	return reconstruct.Dirty(changed), nil
}
