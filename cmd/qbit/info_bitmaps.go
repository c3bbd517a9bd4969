package main

import (
	"context"
	"iter"

	"github.com/qbitkit/qbit/qcow2"
)

// infoLimits are those of `qbit info`, unless the user says otherwise: below the
// library's, which are QEMU's, so that nobody's image keeps us busy for more than
// about two seconds. 6 MiB are 65536 entries with names of a dozen characters; 256
// MiB are two bitmaps with the usual 64 KiB of a disk of 64 TiB that is dirty in
// every part.
var infoLimits = qcow2.Limits{SnapshotTableBytes: 6 << 20, BitmapDirectoryBytes: 6 << 20, BitmapWork: 256 << 20}

type bitmapInfo struct {
	bitmapBrief
	NameHex     string `json:"name-hex,omitempty"`
	Type        uint8  `json:"type"`
	TableOffset uint64 `json:"table-offset"`
	TableSize   uint32 `json:"table-size"`
	// DirtyBytes is nil where Problem says why it cannot be told. What a bitmap
	// that is stale or in use says is not all that changed.
	DirtyBytes *int64 `json:"dirty-bytes,omitempty"`
	Problem    string `json:"problem,omitempty"`
}

// bitmaps lists the bitmaps, with what is dirty in them, and sets BitmapsError at
// the end. A broken bitmap is reported in its place.
func (q *qbitInfo) bitmaps(ctx context.Context, img *qcow2.Image) iter.Seq[bitmapInfo] {
	return func(yield func(bitmapInfo) bool) {
		counter := img.DirtyCounter()
		for b, err := range img.EachBitmap() {
			if err != nil {
				q.BitmapsError = escapeText(err.Error())
				return
			}
			info := bitmapInfo{bitmapBrief: briefOf(b), NameHex: hexOf(b.Name), Type: b.Type,
				TableOffset: uint64(b.TableOffset), TableSize: b.TableSize}
			info.count(ctx, counter, b)
			if !yield(info) {
				return
			}
		}
	}
}

// count counts what is dirty, unless the run was interrupted.
func (b *bitmapInfo) count(ctx context.Context, counter *qcow2.DirtyCounter, bits qcow2.BitmapInfo) {
	err := ctx.Err()
	if err == nil {
		var dirty int64
		if dirty, err = counter.Count(bits); err == nil {
			b.DirtyBytes = &dirty
			return
		}
	}
	b.Problem = escapeText(err.Error())
}

// reportBitmaps lists the bitmaps, in full and as qemu-img does.
func (r *infoReport) reportBitmaps(ctx context.Context, img *qcow2.Image) {
	q := r.Qbit
	q.BitmapsStale = img.BitmapsStale()
	q.eachBitmap = q.bitmaps(ctx, img)
	q.Bitmaps = listOf(q.eachBitmap)
	if q.BitmapsStale {
		return
	}
	r.FormatSpecific.Data.Bitmaps = func(yield func(any) bool) {
		for b, err := range img.EachBitmap() {
			if err != nil || !yield(briefOf(b)) {
				return
			}
		}
	}
}

// listOf is a jsonList of the values of an iterator.
func listOf[T any](values iter.Seq[T]) jsonList {
	return func(yield func(any) bool) {
		for v := range values {
			if !yield(v) {
				return
			}
		}
	}
}

func briefOf(b qcow2.BitmapInfo) bitmapBrief {
	return bitmapBrief{Flags: bitmapFlags(b), Name: b.Name, Granularity: b.Granularity}
}

func bitmapFlags(b qcow2.BitmapInfo) []string {
	flags := []string{}
	if b.InUse {
		flags = append(flags, "in-use")
	}
	if b.Auto {
		flags = append(flags, "auto")
	}
	return flags
}
