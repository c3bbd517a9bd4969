package qcow2

import (
	"context"
	"errors"
	"fmt"
)

// ErrDamaged reports an image in which something is worse than a leak, where only a
// sound one is changed.
var ErrDamaged = errors.New("the image is damaged: a check finds more than leaks")

// Empty takes all data out of the active disk, so that it shows its backing file, or
// zeros where there is none. Snapshots and bitmaps stay. It is for an overlay whose
// backing file holds all of it, safely stored: then the disk shows the same bytes in
// every state that a crash leaves.
//
// The entries of the L1 table are cleared in place: each of them, and so each sector,
// may be there or not. What they referred to is leaked until its refcounts are lowered,
// after a sync, as a repair of leaks does it. At last the file is cut behind what is
// still in use, where it can be. An image with anything worse than leaks is ErrDamaged,
// and nothing is written.
func (e *Editor) Empty(ctx context.Context) error {
	if err := e.ready(); err != nil {
		return err
	}
	result, err := e.img.Check(ctx, nil, func(Finding) error { return nil })
	switch {
	case err != nil:
		return err
	case result.Corruptions+result.CheckErrors > 0:
		return ErrDamaged
	}
	if e.failed = e.clearL1(); e.failed != nil {
		return e.failed
	}
	size, err := e.freeLeaks(ctx)
	if err != nil {
		e.failed = fmt.Errorf("nothing hides the backing file any more, but freeing the clusters failed, which are leaked: %w", err)
		return e.failed
	}
	e.failed = e.reopen(size)
	return e.failed
}

func (e *Editor) clearL1() error {
	h := &e.img.header
	if err := writeFull(e.f, make([]byte, int64(h.L1Size)*8), h.L1TableOffset); err != nil {
		return err
	}
	return e.f.Sync()
}

// freeLeaks frees what nothing refers to any more, and cuts the file behind what is in
// use; the result is its size then.
func (e *Editor) freeLeaks(ctx context.Context) (int64, error) {
	opts := e.opts
	opts.OpenRef = e.img.keepRefs(e.opts.OpenRef)
	repair, err := PlanRepair(ctx, e.f, e.img.size, &opts, RepairOptions{Mode: RepairLeaks})
	if err != nil {
		return 0, err
	}
	if err := repair.Apply(e.f); err != nil {
		return 0, err
	}
	end := repair.After.ImageEnd
	if end <= 0 || end >= e.img.size || e.f.Truncate(end) != nil {
		return e.img.size, nil // a device stays as long as it is
	}
	return end, e.f.Sync()
}
