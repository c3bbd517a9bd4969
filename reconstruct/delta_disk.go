package reconstruct

import (
	"iter"
	"sort"

	"github.com/qbitkit/qbit/qcow2"
)

// cutBy yields the extents of [off, off+n) of a walk, cut where those of a mask end and
// changed by paint, which is told whether the mask marks them. Where that does not, and
// skip is set, the walk is not asked, and the extent is Absent.
func cutBy(mask, walk extentsFunc, off, n int64, skip bool, paint func(e *qcow2.Extent, marked bool)) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		const most = 4096 // beginning anew costs a chain a step in each link
		m := merger{emit: func(e qcow2.Extent) bool { return yield(e, nil) }}
		marks, disk := cursor{walk: mask, most: most}, cursor{walk: walk, most: most}
		for at, end := off, off+n; at < end; {
			e, marked, err := cutOne(&marks, &disk, at, end, skip)
			if err != nil {
				if m.flush() {
					yield(qcow2.Extent{}, err)
				}
				return
			}
			paint(&e, marked)
			if !m.add(e) {
				return
			}
			at = e.End()
		}
		m.flush()
	}
}

// cutOne is the extent that begins at off and ends where one of both walks does.
func cutOne(marks, disk *cursor, off, end int64, skip bool) (e qcow2.Extent, marked bool, err error) {
	mark, err := marks.extent(off, end)
	if err != nil {
		return e, false, err
	}
	end, marked = min(end, mark.End()), mark.Kind != qcow2.Absent
	if !marked && skip {
		return qcow2.Extent{Off: off, Len: end - off}, false, nil
	}
	if e, err = disk.extent(off, end); err != nil {
		return e, marked, err
	}
	return e.Slice(off, min(end, e.End())), marked, nil
}

// A deltaDisk is the second point of a delta, of which what does not differ stands
// out by its depth.
type deltaDisk struct {
	*Delta
	unchanged int  // the depth of what does not differ
	whole     bool // what does not differ is shown too, and not as absent
}

func (d *deltaDisk) Size() int64                             { return d.to.Size() }
func (d *deltaDisk) ReadAt(p []byte, off int64) (int, error) { return d.to.ReadAt(p, off) }
func (d *deltaDisk) checkAbsent(e qcow2.Extent) error        { return d.to.checkAbsent(e) }
func (d *deltaDisk) Layers() int                             { return d.unchanged + 1 }

func (d *deltaDisk) Extents(off, n int64) iter.Seq2[qcow2.Extent, error] {
	return cutBy(d.mask, d.to.Extents, off, n, !d.whole, func(e *qcow2.Extent, marked bool) {
		if !marked {
			e.Depth = d.unchanged
		}
	})
}

// A maskedDisk is a disk of which all that a mask does not mark is zero.
type maskedDisk struct {
	qcow2.Disk
	mask extentsFunc
}

// checkAbsent is that of the disk: what is shown as absent is absent there.
func (d maskedDisk) checkAbsent(e qcow2.Extent) error { return checkAbsent(d.Disk, e) }

func (d maskedDisk) Extents(off, n int64) iter.Seq2[qcow2.Extent, error] {
	return cutBy(d.mask, d.Disk.Extents, off, n, true, func(e *qcow2.Extent, marked bool) {
		if !marked {
			e.Kind = qcow2.Zero
		}
	})
}

// maskOf is the mask that marks chunks of a disk of size bytes.
func maskOf(chunks []ChunkRange, size int64) extentsFunc {
	return func(off, n int64) iter.Seq2[qcow2.Extent, error] {
		return func(yield func(qcow2.Extent, error) bool) {
			end := off + n
			i := sort.Search(len(chunks), func(i int) bool { return chunks[i].End()*ChunkSize > off })
			for ; off < end; i++ {
				first, last := end, end
				if i < len(chunks) {
					first, last = chunks[i].bytes(size)
				}
				first, last = max(off, min(first, end)), min(last, end)
				if first > off && !yield(qcow2.Extent{Off: off, Len: first - off}, nil) {
					return
				}
				if last > first && !yield(qcow2.Extent{Off: first, Len: last - first, Kind: qcow2.Data}, nil) {
					return
				}
				off = last
			}
		}
	}
}
