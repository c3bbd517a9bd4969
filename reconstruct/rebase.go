package reconstruct

import (
	"context"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// RebaseOptions are the options of PlanRebase.
type RebaseOptions struct {
	// Granularity is what the bitmaps of a plan have, in bytes: that of the images
	// that are to be changed, the size of a subcluster. 0 means 64 KiB.
	Granularity int64
	// Workers, Memory and Progress are those of CompareOptions.
	Workers  int
	Memory   int64
	Progress func(Progress)
}

const rebaseGranularity = 64 << 10

// PlanRebase finds what disks would no longer read the same if the disk below them,
// old, were exchanged for another. Each of views is a disk alone, opened without
// what lies below it: what it does not hold is Absent. There is one bitmap a view, of
// the size of the largest view: in it is dirty what the view leaves to the disk
// below, and where old and new differ. To write these bytes of old into the view is
// all that has to be done before the exchange.
//
// What lies beyond the end of old or new is zero. Old and new are read only where a
// view is absent, and there as Compare reads them; a file that belongs to both, which
// may have been opened twice, is not read. opts may be nil.
func PlanRebase(ctx context.Context, views []qcow2.Disk, old, new qcow2.Disk, opts *RebaseOptions) ([]*bitmap.Bitmap, error) {
	r, err := newRebaser(ctx, views, old, new, opts)
	if err != nil {
		return nil, err
	}
	differ, err := bitmap.New(r.size, r.opts.Granularity)
	if err != nil {
		return nil, err
	}
	compare := &CompareOptions{Workers: r.opts.Workers, Memory: r.opts.Memory, Progress: r.opts.Progress}
	for d, err := range Compare(ctx, r.old, r.new, compare) {
		if err != nil {
			return nil, err
		}
		differ.Set(d.Off, d.Len)
	}
	for _, absent := range r.absent {
		if err := absent.Intersect(differ); err != nil {
			return nil, err
		}
	}
	return r.absent, nil
}

// CostOfRebase is for how many bytes of the disk PlanRebase would have to read both old
// and new: 0 where the maps alone tell that nothing differs. It reads next to no guest
// bytes. opts may be nil.
func CostOfRebase(ctx context.Context, views []qcow2.Disk, old, new qcow2.Disk, opts *RebaseOptions) (int64, error) {
	r, err := newRebaser(ctx, views, old, new, opts)
	if err != nil {
		return 0, err
	}
	c := comparer{a: r.old, b: r.new, size: r.size}
	const most = 4096
	a, b := cursor{walk: c.a.Extents, most: most}, cursor{walk: c.b.Extents, most: most}
	cost := int64(0)
	for off := int64(0); off < c.size; {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		p, err := c.next(&a, &b, off)
		if err != nil {
			return 0, err
		}
		if !p.same() {
			cost += p.a.Len
		}
		off = p.a.End()
	}
	return cost, nil
}

// A rebaser has both disks as the views see them.
type rebaser struct {
	opts     RebaseOptions
	size     int64 // of the largest view
	absent   []*bitmap.Bitmap
	old, new qcow2.Disk
}

func newRebaser(ctx context.Context, views []qcow2.Disk, old, new qcow2.Disk, opts *RebaseOptions) (*rebaser, error) {
	r := &rebaser{}
	if opts != nil {
		r.opts = *opts
	}
	if r.opts.Granularity == 0 {
		r.opts.Granularity = rebaseGranularity
	}
	for _, v := range views {
		r.size = max(r.size, v.Size())
	}
	seen, err := bitmap.New(r.size, r.opts.Granularity)
	if err != nil {
		return nil, err
	}
	for _, v := range views {
		absent, err := absentIn(ctx, v, r.size, r.opts.Granularity)
		if err == nil {
			err = seen.Union(absent)
		}
		if err != nil {
			return nil, err
		}
		r.absent = append(r.absent, absent)
	}
	files := &fileNames{}
	r.old = &windowed{Disk: old, seen: seen, files: files}
	r.new = &windowed{Disk: new, seen: seen, files: files}
	return r, nil
}

// absentIn is what a disk leaves to the one below it, in a bitmap of a larger disk.
func absentIn(ctx context.Context, d qcow2.Disk, size, granularity int64) (*bitmap.Bitmap, error) {
	b, err := bitmap.New(size, granularity)
	if err != nil {
		return nil, err
	}
	for e, err := range walkRange(ctx, d.Extents, 0, d.Size()) {
		if err != nil {
			return nil, err
		}
		if e.Kind == qcow2.Absent {
			b.Set(e.Off, e.Len)
		}
	}
	return b, nil
}
