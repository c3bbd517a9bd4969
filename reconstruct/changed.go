package reconstruct

import (
	"iter"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// copyUnit is the least that QEMU's backup job copies: an increment holds at
// least what its bitmap says, rounded out to this many bytes.
const copyUnit = 64 << 10

// A changedView is the disk of a link, told what changed.
type changedView struct {
	disk    qcow2.Disk
	changed *bitmap.Bitmap
	copied  *bitmap.Bitmap // for a raw file: what may hold data; nil for others
}

// linkExtents returns the walk of a link above the oldest one.
func linkExtents(l Link) (extentsFunc, error) {
	if l.Changed == nil {
		return l.Disk.Extents, nil
	}
	v := &changedView{disk: l.Disk, changed: l.Changed}
	if l.Raw {
		v.copied = l.Changed
		if l.Changed.Granularity() < copyUnit {
			var err error
			if v.copied, err = l.Changed.WithGranularity(copyUnit); err != nil {
				return nil, err
			}
		}
	}
	return v.extents, nil
}

// extents yields the extents of the disk; neighbours of one kind may follow
// each other.
func (v *changedView) extents(off, n int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		for e, err := range v.disk.Extents(off, n) {
			if err != nil {
				yield(qcow2.Extent{}, err)
				return
			}
			if !v.extent(e, yield) {
				return
			}
		}
	}
}

// extent yields the parts of one extent of the disk.
func (v *changedView) extent(e qcow2.Extent, yield func(qcow2.Extent, error) bool) bool {
	truth := v.truth(e.Kind)
	if truth == nil {
		return yield(e, nil)
	}
	for r := range truth.Runs(e.Off, e.Len) {
		if !yield(decide(e.Slice(r.Off, r.Off+r.Len), r.Dirty), nil) {
			return false
		}
	}
	return true
}

// truth is the bitmap that decides about extents of a kind; nil where the disk
// itself does.
func (v *changedView) truth(k qcow2.Kind) *bitmap.Bitmap {
	switch {
	case k == qcow2.Absent:
		return v.changed
	case v.copied == nil:
		return nil
	case k == qcow2.Zero:
		return v.changed // a hole, or the zeros of one
	}
	return v.copied
}

// decide gives the part of an extent its meaning, now that it is known whether
// it changed.
func decide(e qcow2.Extent, changed bool) qcow2.Extent {
	switch {
	case !changed:
		return qcow2.Extent{Off: e.Off, Len: e.Len}
	case e.Kind == qcow2.Absent:
		return qcow2.Extent{Off: e.Off, Len: e.Len, Kind: qcow2.Zero}
	}
	return e
}
