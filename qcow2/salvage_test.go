package qcow2_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// salvage salvages an image with the files that it names.
func salvage(image, data, backing []byte, opts qcow2.SalvageOptions) (*qcow2.Salvaged, error) {
	opts.OpenRef = func(ref qcow2.Ref) (qcow2.Disk, error) {
		switch {
		case ref.Kind == qcow2.RefData && data != nil:
			return memDisk(data), nil
		case ref.Kind == qcow2.RefBacking && backing != nil:
			return memDisk(backing), nil
		}
		return nil, nil
	}
	return qcow2.Salvage(context.Background(), bytes.NewReader(image), int64(len(image)), &opts)
}

// verdictsOf wants verdicts that cover the disk exactly once, merged, and bytes of lost
// ranges that are zero.
func verdictsOf(s *qcow2.Salvaged) (list []qcow2.Verdict, disk []byte, err error) {
	size := min(s.Size(), 16<<20) // a damaged header can claim anything
	disk = make([]byte, size)
	if n, err := s.ReadAt(disk, 0); int64(n) != size || size > 0 && err != nil {
		return nil, nil, fmt.Errorf("%d of %d bytes: %v", n, size, err)
	}
	at := int64(0)
	for v, err := range s.Verdicts(0, size) {
		if err != nil || v.Off != at || v.Len <= 0 {
			return nil, nil, fmt.Errorf("verdict %+v at %d: %v", v, at, err)
		}
		if (v.Grade == qcow2.Sound) != (v.Reason == "") || v.Reason != "" && v.Reason.Text() == "" {
			return nil, nil, fmt.Errorf("verdict %+v: grade and reason do not fit", v)
		}
		if v.Grade == qcow2.Lost && !zeros(disk[v.Off:v.End()]) {
			return nil, nil, fmt.Errorf("verdict %+v: what is lost is not zero", v)
		}
		at = v.End()
		list = append(list, v)
	}
	if at != size {
		return nil, nil, fmt.Errorf("the verdicts end at %d of %d", at, size)
	}
	return list, disk, nil
}

// TestSalvageSound salvages images that nothing is wrong with: all of it is sound, and
// the bytes are those of a reader.
func TestSalvageSound(t *testing.T) {
	for seed := range seeds() {
		img := build.Random(seed)
		s, err := salvage(img.Bytes, img.Data, img.Backing, qcow2.SalvageOptions{})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		list, disk, err := verdictsOf(s)
		if err != nil || !bytes.Equal(disk, img.Guest()) {
			t.Fatalf("seed %d: %v, first difference at %d", seed, err, firstDifference(disk, img.Guest()))
		}
		for _, v := range list {
			if v.Grade != qcow2.Sound {
				t.Errorf("seed %d: %+v: %s; notes %q", seed, v, v.Reason.Text(), s.Notes())
				break
			}
		}
	}
}
