package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/qbitkit/qbit/qcow2"
)

// What counting dirty bytes may cost. A bitmap of a disk of 32 TiB with the usual
// 64 KiB has 64 MiB of bits. The total bounds the time that an image can take whose
// thousands of bitmaps share their clusters.
const (
	maxCountedBitmap = 64 << 20
	maxCountedTotal  = 8 << 30
)

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

// reportBitmaps lists the bitmaps, with what is dirty in them. A broken directory
// or bitmap is reported in its place.
func (q *qbitInfo) reportBitmaps(ctx context.Context, img *qcow2.Image) {
	q.BitmapsStale = img.BitmapsStale()
	list, err := img.Bitmaps()
	if err != nil {
		q.BitmapsError = escapeText(err.Error())
	}
	left := int64(maxCountedTotal)
	for _, b := range list {
		info := bitmapInfo{
			bitmapBrief: bitmapBrief{Flags: bitmapFlags(b), Name: b.Name, Granularity: b.Granularity},
			NameHex:     hexOf(b.Name), Type: b.Type, TableOffset: uint64(b.TableOffset), TableSize: b.TableSize,
		}
		dirty, err := countDirty(ctx, img, b, &left)
		if err == nil {
			info.DirtyBytes = &dirty
		} else {
			info.Problem = escapeText(err.Error())
		}
		q.Bitmaps = append(q.Bitmaps, info)
	}
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

// countDirty counts the dirty bytes of one bitmap, if that costs no more than left.
func countDirty(ctx context.Context, img *qcow2.Image, b qcow2.BitmapInfo, left *int64) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if b.Granularity > 0 {
		bits := img.Size()/b.Granularity/8 + 1
		if bits > maxCountedBitmap {
			return 0, fmt.Errorf("not counted: its %d bytes of bits are more than %d", bits, maxCountedBitmap)
		}
		if *left -= bits; *left < 0 {
			return 0, errors.New("not counted: there are too many bitmaps")
		}
	}
	bits, err := img.ReadBitmap(b)
	if err != nil {
		return 0, err
	}
	return bits.Count(), nil
}
