package qcow2

import (
	"bytes"
	"testing"

	"github.com/qbitkit/qbit/testimages/crash"
)

// What is placed and filled in the file itself is what the guest reads, beside what is
// written; what is placed and not filled reads as zero in a new file.
func TestWriterPlace(t *testing.T) {
	const size, cluster = 100<<10 + 512, 4096
	f := crash.New(nil)
	w, err := Create(f, Layout{Size: size, ClusterSize: cluster})
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][2]int64{{-1, 1}, {0, 0}, {0, -1}, {size, 1}, {size - 1, 2}, {size + 1, 1}} {
		if _, _, err := w.Place(bad[0], bad[1]); err == nil {
			t.Errorf("[%d, +%d) has a place", bad[0], bad[1])
		}
	}
	want := make([]byte, size)
	fill := func(off, n int64, value byte, place bool) {
		p := bytes.Repeat([]byte{value}, int(n))
		copy(want[off:], p)
		for len(p) > 0 {
			host, run, err := HostOffset(0), int64(len(p)), error(nil)
			if place {
				host, run, err = w.Place(off, run)
				if run < 1 || run > int64(len(p)) || (int64(host)-off)%cluster != 0 {
					t.Fatalf("%d bytes at %d are placed at %d, %d of them", len(p), off, host, run)
				}
				if err == nil {
					_, err = f.WriteAt(p[:run], int64(host))
				}
			} else {
				_, err = w.WriteAt(p, off)
			}
			if err != nil {
				t.Fatal(err)
			}
			p, off = p[run:], off+run
		}
	}
	fill(8192, 4096, 1, false)
	fill(0, 40960, 2, true) // around what is there
	fill(50000, 700, 3, true)
	fill(4096, 4096, 4, false) // over what was placed
	fill(size-600, 600, 5, true)
	if _, _, err := w.Place(60<<10, 8192); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Place(0, 1); err == nil {
		t.Error("there is place in an image that is finished")
	}
	img, err := Open(f, f.Size(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	if n, _ := img.ReadAt(got, 0); n != size || !bytes.Equal(got, want) {
		t.Error("the guest reads something else")
	}
}
