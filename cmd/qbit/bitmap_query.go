package main

import (
	"context"
	"fmt"
	"os"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// A bitmapQuery reads bitmaps of an image that is open.
type bitmapQuery struct {
	b    *bitmapCommand
	c    *console
	o    *opener
	l    *layer
	name string // of the bitmap; "": all of them
}

// load loads the bitmap that was asked for, if it can be trusted.
func (q bitmapQuery) load() (*bitmap.Bitmap, qcow2.BitmapInfo, error) {
	return q.loadFrom(q.l, q.name)
}

func (q bitmapQuery) loadFrom(l *layer, name string) (*bitmap.Bitmap, qcow2.BitmapInfo, error) {
	info, err := l.image.BitmapInfo(name)
	if err != nil {
		return nil, info, explainBitmap(l.path, err)
	}
	bits, err := l.image.LoadBitmap(name)
	return bits, info, explainBitmap(l.path, err)
}

// ranges is --ranges.
func (q bitmapQuery) ranges(ctx context.Context) error {
	bits, _, err := q.load()
	if err != nil {
		return err
	}
	return writeRuns(ctx, newLineWriter(q.c.out), bits, q.b.json())
}

// export is --export, also of a bitmap that --salvage reads.
func (q bitmapQuery) export(ctx context.Context) error {
	out, err := q.state()
	if err != nil {
		return err
	}
	if q.b.export == "-" {
		return out.write(ctx, newLineWriter(q.c.out))
	}
	return q.exportTo(q.b.export, func(f *os.File) error { return out.write(ctx, newLineWriter(f)) })
}

// salvage is --salvage without --export.
func (q bitmapQuery) salvage(ctx context.Context) error {
	out, err := q.state()
	if err != nil {
		return err
	}
	w := newLineWriter(q.c.out)
	if q.b.json() {
		return out.write(ctx, w)
	}
	fmt.Fprintf(w, "# %s\n", escapeText(out.label(q.l.path)))
	return writeRuns(ctx, w, out.bits, false)
}

// state is the bitmap with all that an exported file says of it.
func (q bitmapQuery) state() (*exportedBitmap, error) {
	if !q.b.salvage {
		bits, info, err := q.load()
		return &exportedBitmap{info: info, bits: bits, state: stateConsistent}, err
	}
	info, err := q.l.image.BitmapInfo(q.name)
	if err != nil {
		return nil, explainBitmap(q.l.path, err)
	}
	bits, err := q.l.image.ReadBitmap(info)
	if err != nil {
		return nil, explainBitmap(q.l.path, err)
	}
	return &exportedBitmap{info: info, bits: bits, state: stateOf(q.l.image, info)}, nil
}

// diff is --diff.
func (q bitmapQuery) diff(ctx context.Context) error {
	bits, _, err := q.load()
	if err != nil {
		return err
	}
	other := q.l
	label := escapeName(q.b.diff)
	if q.b.source != "" {
		if other, err = openBitmaps(q.o, q.b.source); err != nil {
			return err
		}
		label += " of " + escapeName(q.b.source)
	}
	otherBits, _, err := q.loadFrom(other, q.b.diff)
	if err != nil {
		return err
	}
	if bits.Size() != otherBits.Size() {
		return fmt.Errorf("%s: bitmap %q is of a disk of %d bytes, and %s of one of %d: they cannot be compared",
			escapeName(q.l.path), q.name, bits.Size(), label, otherBits.Size())
	}
	d := bitmapDiff{w: newLineWriter(q.c.out), json: q.b.json(), names: [2]string{escapeName(q.name), label}}
	return d.write(ctx, bits, otherBits)
}
