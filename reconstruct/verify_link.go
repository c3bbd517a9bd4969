package reconstruct

import (
	"context"
	"iter"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// VerifyCompressed decodes every compressed cluster of a disk, which no reading of
// its file checks, and gives what cannot be decoded to found, ascending; an error
// from that ends it. opts may be nil; only Workers, Memory and Progress count.
func VerifyCompressed(ctx context.Context, d qcow2.Disk, opts *CopyOptions, found func(*RangeError) error) error {
	c := copier{src: compressedOnly{d}, broken: found}
	if opts != nil {
		c.opts = CopyOptions{Workers: opts.Workers, Memory: opts.Memory, Progress: opts.Progress}
	}
	_, err := c.run(ctx)
	return err
}

// compressedOnly is a disk of which all but the compressed is zero.
type compressedOnly struct{ qcow2.Disk }

func (d compressedOnly) Extents(off, n int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		for e, err := range d.Disk.Extents(off, n) {
			if err == nil && e.Kind != qcow2.Compressed {
				e = qcow2.Extent{Off: e.Off, Len: e.Len, Kind: qcow2.Zero}
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// Missing finds what a bitmap says has changed and a link does not hold: ranges
// that come back with their old bytes. It returns the first most of them,
// ascending, and the bytes of all. What lies beyond the end of either is passed
// over.
func Missing(ctx context.Context, l Link, changed *bitmap.Bitmap, most int) ([]bitmap.Range, int64, error) {
	var first []bitmap.Range
	total, end := int64(0), min(l.Disk.Size(), changed.Size())
	for e, err := range walkRange(ctx, l.Disk.Extents, 0, end) {
		if err != nil {
			return nil, 0, nameLink(err, l.Name)
		}
		if e.Kind != qcow2.Absent {
			continue
		}
		for r := range changed.Runs(e.Off, e.Len) {
			if r.Dirty {
				total += r.Len
				first = addRange(first, bitmap.Range{Off: r.Off, Len: r.Len}, most)
			}
		}
	}
	return first, total, nil
}

// addRange appends a range, or makes the last one longer, unless there are enough.
func addRange(all []bitmap.Range, r bitmap.Range, most int) []bitmap.Range {
	if n := len(all); n > 0 && all[n-1].Off+all[n-1].Len == r.Off {
		all[n-1].Len += r.Len
		return all
	}
	if len(all) == most {
		return all
	}
	return append(all, r)
}
