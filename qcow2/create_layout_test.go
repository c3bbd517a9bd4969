package qcow2

import (
	"fmt"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// What cannot be is refused before anything is written, with the reason.
func TestCreateRefusesLayouts(t *testing.T) {
	data := func(raw bool) *DataFileLayout {
		return &DataFileLayout{File: crash.New([]byte("kept")), Name: "d", Raw: raw}
	}
	backing := &Ref{Name: "b", Format: "raw"}
	for _, c := range []struct {
		want   string
		layout Layout
	}{
		{"version 4", Layout{Version: 4}},
		{"version 1", Layout{Version: 1}},
		{"version -3", Layout{Version: -3}},
		{"refcounts of 3 bits", Layout{RefcountBits: 3}},
		{"refcounts of 128 bits", Layout{RefcountBits: 128}},
		{"refcounts of -1 bits", Layout{RefcountBits: -1}},
		{"at least 16384", Layout{ExtendedL2: true, ClusterSize: 8192}},
		{"version 3 is needed", Layout{Version: 2, RefcountBits: 8}},
		{"version 3 is needed", Layout{Version: 2, ExtendedL2: true}},
		{"version 3 is needed", Layout{Version: 2, LazyRefcounts: true}},
		{"version 3 is needed", Layout{Version: 2, Compression: CompressionZstd}},
		{"version 3 is needed", Layout{Version: 2, DataFile: data(false)}},
		{"must be zlib or zstd", Layout{Compression: 2}},
		{"1 to 1023 bytes", Layout{Backing: &Ref{Format: "raw"}}},
		{"1 to 1023 bytes", Layout{Backing: &Ref{Name: strings.Repeat("b", 1024), Format: "raw"}}},
		{"its format must be said", Layout{Backing: &Ref{Name: "b"}}},
		{"must not have a backing file", Layout{Backing: backing, DataFile: data(true)}},
		{"no file is given", Layout{DataFile: &DataFileLayout{Name: "d"}}},
		{"needs a name", Layout{DataFile: &DataFileLayout{File: crash.New(nil)}}},
		{"nothing in such an image can be absent", Layout{Sparse: true, DataFile: data(true)}},
		{"must be off, metadata, falloc or full", Layout{Preallocation: 4}},
		{"exclude each other", Layout{Backing: backing, Preallocation: PreallocationFull}},
		{"leaves nothing absent", Layout{Sparse: true, Preallocation: PreallocationMetadata}},
		{"must fit into one cluster", Layout{ClusterSize: 512, Backing: &Ref{Name: strings.Repeat("b", 512-112-16-8+1), Format: "raw"}}},
		{"must fit into one cluster", Layout{ClusterSize: 512, Version: 2, Backing: &Ref{Name: strings.Repeat("b", 512-72-16-8+1), Format: "raw"}}},
		{"must fit into one cluster", Layout{ClusterSize: 512, DataFile: &DataFileLayout{File: crash.New([]byte("kept")), Name: strings.Repeat("d", 400)}}},
	} {
		f := crash.New([]byte("kept"))
		c.layout.Size = 1 << 20
		if _, err := Create(f, c.layout); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.layout, err, c.want)
		}
		if string(f.Bytes()) != "kept" {
			t.Errorf("%+v: the file was changed", c.layout)
		}
		if d := c.layout.DataFile; d != nil && d.File != nil && d.Name != "" {
			if b := d.File.(*crash.File).Bytes(); string(b) != "kept" {
				t.Errorf("%+v: the data file was changed", c.layout)
			}
		}
	}
}

// A name that just fits is taken, up to the last byte of the cluster.
func TestCreateHeaderRoom(t *testing.T) {
	for _, version := range []int{2, 3} {
		room := map[int]int{2: 512 - 72 - 16 - 8, 3: 512 - 112 - 16 - 8}[version]
		f := crash.New(nil)
		w, err := Create(f, Layout{Size: 1, ClusterSize: 512, Version: version, Backing: &Ref{Name: strings.Repeat("b", room), Format: "raw"}})
		if err != nil {
			t.Fatal(err)
		}
		if b := newBits(t, 1, 512); version == 3 {
			if err := w.AddBitmap("b", b, false); err == nil || !strings.Contains(err.Error(), "must fit into one cluster") {
				t.Errorf("a bitmap for which the header has no room: %v", err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		img, err := Open(f, f.Size(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if ref := img.Backing(); ref == nil || len(ref.Name) != room || ref.Format != "raw" {
			t.Errorf("version %d: the backing file is %v", version, ref)
		}
	}
}

func newBits(t *testing.T, size, granularity int64) *bitmap.Bitmap {
	t.Helper()
	b, err := bitmap.New(size, granularity)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWriterAddBitmapRefuses(t *testing.T) {
	w, err := Create(crash.New(nil), Layout{Size: 1 << 20, ClusterSize: 512})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.AddBitmap("one", newBits(t, 1<<20, 512), true); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		bits       *bitmap.Bitmap
	}{
		{"one", `bitmap "one" already`, newBits(t, 1<<20, 512)},
		{"", "1 to 1023 bytes", newBits(t, 1<<20, 512)},
		{strings.Repeat("n", 1024), "1 to 1023 bytes", newBits(t, 1<<20, 512)},
		{"two", "is for a disk of", newBits(t, 1<<19, 512)},
	} {
		if err := w.AddBitmap(c.name, c.bits, false); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.20q: %v, want %q", c.name, err, c.want)
		}
	}
	if err := w.Close(); err != nil {
		t.Errorf("what was refused must not matter: %v", err)
	}
	if err := w.AddBitmap("late", newBits(t, 1<<20, 512), false); err == nil {
		t.Error("a bitmap is added to an image that is finished")
	}
	large, err := Create(crash.New(nil), Layout{Size: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	if err := large.AddBitmap("b", newBits(t, 1<<40, 512), false); err == nil || !strings.Contains(err.Error(), "larger granularity") {
		t.Errorf("a bitmap that QEMU does not read: %v", err)
	}
	old, err := Create(crash.New(nil), Layout{Size: 1 << 20, Version: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := old.AddBitmap("b", newBits(t, 1<<20, 512), false); err == nil || !strings.Contains(err.Error(), "version 3 is needed") {
		t.Errorf("a bitmap in version 2: %v", err)
	}
}

// Clusters of a bitmap that are all ones or all zero take none in the file.
func TestWriterBitmapRuns(t *testing.T) {
	const size = 16 << 20                                              // eight clusters of bits
	for _, set := range [][]int64{nil, {0, 8}, {1, 5}, {0, 3, 7, 8}} { // from and to, in clusters of bits
		f := crash.New(nil)
		w, err := Create(f, Layout{Size: size, ClusterSize: 512})
		if err != nil {
			t.Fatal(err)
		}
		b := newBits(t, size, 512)
		for i := 0; i < len(set); i += 2 {
			b.Set(set[i]*512*4096, (set[i+1]-set[i])*512*4096)
		}
		if err := w.AddBitmap("b", b, false); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		a, err := build.AuditFile(f, f.Size())
		if err != nil {
			t.Fatal(err)
		}
		stored := 0
		for _, cluster := range a.Clusters {
			if cluster.Use == build.UsedByBitmapData {
				stored++
			}
		}
		img, err := Open(f, f.Size(), nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := img.LoadBitmap("b")
		if err != nil || !got.Equal(b) || stored != 0 {
			t.Errorf("%v: %v, %d clusters of bits are stored", set, err, stored)
		}
	}
}

// The caller may go on with the bits that it gave.
func TestWriterAddBitmapCopies(t *testing.T) {
	f := crash.New(nil)
	w, err := Create(f, Layout{Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	b := newBits(t, 1<<20, 512)
	if err := w.AddBitmap("b", b, false); err != nil {
		t.Fatal(err)
	}
	b.SetAll()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := Open(f, f.Size(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := img.LoadBitmap("b"); err != nil || got.Count() != 0 {
		t.Errorf("the bitmap has %v dirty bytes, %v", got.Count(), err)
	}
}

// Zero of a version 2 image without a backing file would be the same as absent.
func TestWriterZeroRefuses(t *testing.T) {
	for _, c := range []struct {
		layout Layout
		want   string
	}{
		{Layout{Version: 2, Sparse: true}, "version 3 is needed"},
		{Layout{Version: 2}, ""},
		{Layout{}, ""},
		{Layout{Sparse: true}, ""},
		{Layout{Version: 2, Backing: &Ref{Name: "b", Format: "raw"}}, ""},
	} {
		c.layout.Size = 1 << 20
		w, err := Create(crash.New(nil), c.layout)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Zero(4096, 0); err != nil {
			t.Errorf("%+v: nothing is zeroed: %v", c.layout, err)
		}
		if err := w.Zero(4096, 4096); (err != nil) != (c.want != "") || c.want != "" && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.layout, err, c.want)
		}
		if err := w.Zero(1<<20-1, 2); (err != nil) != w.layout.Sparse {
			t.Errorf("%+v: outside of the disk: %v", c.layout, err)
		}
	}
}

// An overlay keeps zero apart from absent, whatever the layout says of it.
func TestWriterOverlayIsSparse(t *testing.T) {
	f := crash.New(nil)
	w, err := Create(f, Layout{Size: 1 << 20, Backing: &Ref{Name: "b", Format: "raw"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Zero(0, 64<<10); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := Open(f, f.Size(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []Kind
	for e, err := range img.Extents(0, 1<<20) {
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, e.Kind)
	}
	if fmt.Sprint(kinds) != fmt.Sprint([]Kind{Zero, Absent}) {
		t.Errorf("the extents are %v", kinds)
	}
}

// Full preallocation really writes every byte of the disk.
func TestWriterFullIsWritten(t *testing.T) {
	const size = 1 << 20
	for _, separate := range []bool{false, true} {
		f, data := crash.New(nil), crash.New(nil)
		l, where := Layout{Size: size, Preallocation: PreallocationFull}, f
		if separate {
			l.DataFile, where = &DataFileLayout{File: data, Name: "d"}, data
		}
		if _, err := Create(f, l); err != nil {
			t.Fatal(err)
		}
		written := int64(0)
		for _, o := range where.Ops() {
			if o.Kind == crash.Write {
				written += o.Len
			}
		}
		if written != size {
			t.Errorf("data file %t: %d bytes were written", separate, written)
		}
	}
}

// A File that can set no space aside says so, and nothing is half made.
func TestWriterFallocUnsupported(t *testing.T) {
	f := crash.New(nil)
	_, err := Create(f, Layout{Size: 1 << 20, Preallocation: PreallocationFalloc})
	if err == nil || !strings.Contains(err.Error(), "setting space aside") {
		t.Errorf("%v", err)
	}
}

func TestPreallocationString(t *testing.T) {
	if s := fmt.Sprint(PreallocationOff, PreallocationMetadata, PreallocationFalloc, PreallocationFull, Preallocation(9)); s != "off metadata falloc full preallocation 9" {
		t.Error(s)
	}
}
