package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/bits"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// A bitmapList is what `qbit bitmap IMAGE` prints. An image can have tens of
// thousands of bitmaps: they are read while the list is written.
type bitmapList struct {
	Filename string `json:"filename"`
	Size     int64  `json:"virtual-size"`
	// State is that of all bitmaps: consistent if nothing but a single one is
	// wrong.
	State   string   `json:"state"`
	Why     string   `json:"why,omitempty"`
	Todo    string   `json:"what-to-do,omitempty"`
	Bitmaps jsonList `json:"bitmaps"`

	each   iter.Seq[listedBitmap]
	broken error // of the directory
}

func (*bitmapList) streamed() {}

// A listedBitmap is one bitmap of a bitmapList.
type listedBitmap struct {
	Name        string `json:"name"`
	NameHex     string `json:"name-hex,omitempty"`
	Granularity int64  `json:"granularity"`
	Recording   bool   `json:"recording"`
	Consistent  bool   `json:"consistent"`
	State       string `json:"state"`
	// DirtyBytes or Ranges are nil where Problem says why.
	DirtyBytes *int64 `json:"dirty-bytes,omitempty"`
	Ranges     *int64 `json:"ranges,omitempty"`
	Problem    string `json:"problem,omitempty"`
	Why        string `json:"why,omitempty"`
	Todo       string `json:"what-to-do,omitempty"`
}

// errListed is the status of a list that shows a broken directory.
var errListed = silent{badData{errors.New("the bitmap directory is broken")}}

// list is `qbit bitmap IMAGE [BITMAP]`.
func (q bitmapQuery) list(ctx context.Context) error {
	list, err := q.survey(ctx)
	if err != nil {
		return err
	}
	if q.b.json() {
		err = writeStream(q.c.out, list)
	} else {
		err = list.print(q.c.out)
	}
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case list.broken != nil:
		return errListed
	}
	return nil
}

// survey finds what concerns all bitmaps of the image; the bitmaps themselves are
// read later.
func (q bitmapQuery) survey(ctx context.Context) (*bitmapList, error) {
	img := q.l.image
	list := &bitmapList{Filename: q.l.path, Size: img.Size(), each: q.each(ctx)}
	list.Bitmaps = listOf(list.each)
	n := 0
	for _, err := range img.EachBitmap() {
		if list.broken = err; err == nil {
			n++
		}
	}
	if err := list.broken; err != nil && !errors.As(err, new(*qcow2.FormatError)) {
		return nil, explainBitmap(q.l.path, err)
	}
	list.State = listState(img, n, list.broken)
	if loss := lossOfImage(list.State, q.l.path, list.broken); loss != nil {
		list.Why, list.Todo = escapeText(loss.why), escapeText(loss.todo)
	}
	if q.name != "" && list.broken == nil {
		if _, err := img.BitmapInfo(q.name); err != nil {
			return nil, explainBitmap(q.l.path, err)
		}
	}
	return list, nil
}

// listState is the state of all bitmaps together.
func listState(img *qcow2.Image, bitmaps int, broken error) string {
	switch {
	case img.Header().Version < 3:
		return stateVersion2
	case broken != nil:
		return stateDirectoryBroken
	case img.BitmapsStale():
		return stateStale
	case bitmaps == 0:
		return stateAbsent
	}
	return stateConsistent
}

// each yields the bitmaps that were asked for, as far as the directory can be read.
func (q bitmapQuery) each(ctx context.Context) iter.Seq[listedBitmap] {
	return func(yield func(listedBitmap) bool) {
		counter := q.l.image.DirtyCounter()
		for info, err := range q.l.image.EachBitmap() {
			if err != nil || ctx.Err() != nil {
				return // survey found what is wrong
			}
			if q.name != "" && info.Name != q.name {
				continue
			}
			if !yield(q.describe(counter, info)) {
				return
			}
		}
	}
}

func (q bitmapQuery) describe(counter *qcow2.DirtyCounter, info qcow2.BitmapInfo) listedBitmap {
	state := stateOf(q.l.image, info)
	d := listedBitmap{Name: info.Name, NameHex: hexOf(info.Name), Granularity: info.Granularity, Recording: info.Auto}
	dirty, ranges, err := q.measure(counter, info)
	switch {
	case err == nil:
		d.DirtyBytes = &dirty
		if ranges >= 0 {
			d.Ranges = &ranges
		} else {
			d.Problem = "ranges not counted: the bitmap is large; name it to have them"
		}
	case errors.As(err, new(*qcow2.LimitError)):
		d.Problem = escapeText(err.Error())
	case errors.As(err, new(*qcow2.UnsupportedError)):
		state, d.Problem = stateUnsupported, escapeText(err.Error())
	case errors.As(err, new(*qcow2.FormatError)):
		state, d.Problem = stateBroken, escapeText(err.Error())
	default:
		state, d.Problem = stateUnread, escapeText(err.Error())
	}
	d.State, d.Consistent = state, state == stateConsistent
	if loss := lossOfBitmap(state, q.l.path, info, q.b.share, err); loss != nil {
		d.Why, d.Todo = escapeText(loss.why), escapeText(loss.todo)
	}
	return d
}

// maxListedBits is how many bytes of bits are loaded to count the ranges of a bitmap
// that was not asked for by its name. A disk of 32 TiB has as many with 64 KiB.
const maxListedBits = 64 << 20

// measure counts the dirty bytes and ranges of one bitmap; -1 ranges: not counted.
// The counter bounds the work for all of them together: thousands of bitmaps can
// share their clusters.
func (q bitmapQuery) measure(counter *qcow2.DirtyCounter, info qcow2.BitmapInfo) (dirty, ranges int64, err error) {
	if dirty, err = counter.Count(info); err != nil || dirty == 0 {
		return 0, 0, err
	}
	if q.name == "" && q.l.image.Size()/info.Granularity/8 > maxListedBits {
		return dirty, -1, nil
	}
	b, err := q.l.image.ReadBitmap(info)
	if err != nil {
		return 0, 0, err
	}
	if n := b.Count(); n != dirty {
		return 0, 0, fmt.Errorf("it changed while it was read: %d bytes were dirty, now %d", dirty, n)
	}
	return dirty, countRanges(b), nil
}

// countRanges is the number of dirty ranges, counted a word at a time.
func countRanges(b *bitmap.Bitmap) int64 {
	const piece = 64 << 10
	var (
		n    int64
		buf  []byte
		last uint64 // the bit before the word
	)
	for off := int64(0); off < b.WireSize(); off += piece {
		if zero, _ := b.WireState(off, piece); zero {
			last = 0
			continue
		}
		buf = b.AppendWire(buf[:0], off, piece)
		for i := 0; i < len(buf); i += 8 {
			w := binary.LittleEndian.Uint64(buf[i:])
			n += int64(bits.OnesCount64(w &^ (w<<1 | last)))
			last = w >> 63
		}
	}
	return n
}
