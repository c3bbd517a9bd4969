package main

import (
	"context"
	"fmt"
	"iter"

	"github.com/qbitkit/qbit/bitmap"
)

// A bitmapDiff writes where two bitmaps of one size differ, to the byte, whatever
// their granularities are.
type bitmapDiff struct {
	w     *lineWriter
	json  bool
	names [2]string // escaped

	bytes, ranges [2]int64 // dirty in this one only
}

// write writes the ranges, and for people sums.
func (d *bitmapDiff) write(ctx context.Context, a, b *bitmap.Bitmap) error {
	if d.json {
		d.w.WriteString("[\n")
	}
	for r, side := range differingRuns(a, b) {
		d.bytes[side] += r.Len
		if err := d.entry(ctx, r, side); err != nil {
			d.w.Flush()
			return err
		}
		d.ranges[side]++
	}
	d.end()
	return d.w.Flush()
}

func (d *bitmapDiff) entry(ctx context.Context, r bitmap.Range, side int) error {
	if !d.json {
		d.w.column(r.Off, 10)
		d.w.text(" ")
		d.w.column(r.Len, 11)
		d.w.text("  only in ")
		d.w.text(d.names[side])
		d.w.text("\n")
		return d.w.end(ctx)
	}
	if d.ranges[0]+d.ranges[1] > 0 {
		d.w.text(",\n")
	}
	d.w.text(`{ "offset": `)
	d.w.number(r.Off)
	d.w.text(`, "length": `)
	d.w.number(r.Len)
	d.w.text([2]string{`, "only-in": "bitmap"}`, `, "only-in": "other"}`}[side])
	return d.w.end(ctx)
}

func (d *bitmapDiff) end() {
	switch {
	case !d.json:
		for side, name := range d.names {
			fmt.Fprintf(d.w, "only in %s: %s (%d bytes) in %d ranges\n", name, formatSize(d.bytes[side]), d.bytes[side], d.ranges[side])
		}
	case d.ranges[0]+d.ranges[1] > 0:
		d.w.WriteString("\n]\n")
	default:
		d.w.WriteString("]\n")
	}
}

// differingRuns yields the ranges that are dirty in one bitmap alone, ascending,
// with 0 for those of a and 1 for those of b. Two of one side never touch: where one
// ends, a or b changes, and if both do it is the other's turn.
func differingRuns(a, b *bitmap.Bitmap) iter.Seq2[bitmap.Range, int] {
	return func(yield func(bitmap.Range, int) bool) {
		next, stop := iter.Pull(b.Runs(0, b.Size()))
		defer stop()
		var other bitmap.Run
		for r := range a.Runs(0, a.Size()) {
			for off, end := r.Off, r.Off+r.Len; off < end; {
				if off >= other.Off+other.Len {
					other, _ = next()
				}
				part := bitmap.Range{Off: off, Len: min(end, other.Off+other.Len) - off}
				side := 0
				if other.Dirty {
					side = 1
				}
				if r.Dirty != other.Dirty && !yield(part, side) {
					return
				}
				off += part.Len
			}
		}
	}
}
