package reconstruct

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// TestVerifyCompressed: all that is compressed is read, and nothing else, and all
// that cannot be is told.
func TestVerifyCompressed(t *testing.T) {
	d := blocksOf("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa........")
	for _, i := range []int{0, 1, 2, 9, 17, 20} {
		d.blocks[i].kind = qcow2.Compressed
	}
	if err := VerifyCompressed(context.Background(), d, nil, nil); err != nil || d.read.Load() != 6*blockSize {
		t.Errorf("%d bytes were read, %v", d.read.Load(), err)
	}
	disk := &twiceBroken{d, []int64{0, 2, 17}}
	var found []int64
	err := VerifyCompressed(context.Background(), disk, &CopyOptions{Workers: 3, Digests: []string{"none such"}}, func(e *RangeError) error {
		if !errors.Is(e, errBroken) {
			t.Error(e)
		}
		found = append(found, e.Off/blockSize)
		return nil
	})
	if err != nil || !slices.Equal(found, []int64{0, 2, 17}) {
		t.Errorf("%v, %v", found, err)
	}
	stop := errors.New("stop")
	if err := VerifyCompressed(context.Background(), disk, nil, func(*RangeError) error { return stop }); err != stop {
		t.Error(err)
	}
	if err := VerifyCompressed(context.Background(), disk, nil, nil); !errors.Is(err, errBroken) {
		t.Error(err)
	}
}

// twiceBroken is a disk with some blocks that cannot be read.
type twiceBroken struct {
	*blockDisk
	bad []int64
}

func (d *twiceBroken) ReadAt(p []byte, off int64) (int, error) {
	for _, b := range d.bad {
		if off < (b+1)*blockSize && off+int64(len(p)) > b*blockSize {
			return 0, errBroken
		}
	}
	return d.blockDisk.ReadAt(p, off)
}

func TestMissing(t *testing.T) {
	link := Link{Name: "inc", Disk: blocksOf("..a0....b.")}
	dirty := func(blocks string) *bitmap.Bitmap {
		b := mustBitmap(t, int64(len(blocks))*blockSize, blockSize)
		for i, ch := range blocks {
			if ch == '#' {
				b.Set(int64(i)*blockSize, blockSize)
			}
		}
		return b
	}
	for _, tt := range []struct {
		dirty string
		want  string // blocks that are missing
		most  int
	}{
		{"..##....#.", "", 9},
		{"..........", "", 9},
		{"###.......", "##", 9},
		{"##.#..##..", "##    ##", 9},
		{"##.#..##.#", "##    ## #", 9},
		{"##.#..##.#", "##", 1},
		{"..##....#.####", "", 9},
		{"#", "#", 9},
	} {
		got, total, err := Missing(context.Background(), link, dirty(tt.dirty), tt.most)
		if err != nil {
			t.Fatal(err)
		}
		var want []bitmap.Range
		for i, ch := range tt.want {
			if ch == '#' {
				want = addRange(want, bitmap.Range{Off: int64(i) * blockSize, Len: blockSize}, 99)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", tt.dirty, diff)
		}
		if n := int64(strings.Count(tt.want, "#")); tt.most > 1 && total != n*blockSize {
			t.Errorf("%s: %d bytes in all", tt.dirty, total)
		}
	}
}
