package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// A lyingDisk is a second reader that reads a byte wrong, fails there, or panics.
type lyingDisk struct {
	io.ReaderAt
	at  int64
	how string
}

func (d lyingDisk) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.ReaderAt.ReadAt(p, off)
	if i := d.at - off; i >= 0 && i < int64(n) {
		switch d.how {
		case "wrong":
			p[i] ^= 4
		case "fails":
			return int(i), errors.New("cannot")
		case "panics":
			panic("index out of range")
		}
	}
	return n, err
}

// TestSecondReader: what the second reader reads differently is found, and whatever
// it does, it is no more than a doubt.
func TestSecondReader(t *testing.T) {
	img := build.Must(build.Spec{Size: 20 << 20, ClusterBits: 16, Backing: "/etc/passwd", BackingFormat: "no such format",
		Clusters: map[uint64]build.Cluster{1: {Form: build.Normal}, 2: {Form: build.Packed}, 40: {Form: build.ZeroPlain}, 319: {Form: build.Normal}}})
	file := bytes.NewReader(img.Bytes)
	ours, err := qcow2.Open(file, file.Size(), nil)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := openSecond(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		at   int64
		how  string
		want string
	}{
		{0, "", ""},
		{1<<16 + 77, "wrong", "guest bytes 65536 to 131072: the second reader reads other bytes"},
		{2<<16 + 77, "wrong", "the second reader reads other bytes"},
		{40<<16 + 77, "wrong", "the second reader reads other bytes"},
		{319<<16 + 65535, "wrong", "the second reader reads other bytes"},
		{3 << 16, "wrong", ""}, // absent: it has no say
		{2 << 16, "fails", "cannot be compared with the second reader"},
		{2 << 16, "panics", "it panics: index out of range"},
	} {
		r := &fileReader{f: &fileReport{State: fileSound}, layer: &layer{image: ours}}
		if err := r.compareSecond(context.Background(), lyingDisk{theirs, tt.at, tt.how}); err != nil {
			t.Fatal(err)
		}
		switch {
		case tt.want == "" && len(r.f.Findings) > 0:
			t.Errorf("%d %s: %v", tt.at, tt.how, r.f.Findings)
		case tt.want != "" && (len(r.f.Findings) != 1 || !strings.Contains(r.f.Findings[0].Text, tt.want) || r.f.State != fileDoubt):
			t.Errorf("%d %s: %v", tt.at, tt.how, r.f)
		}
	}
}

// TestSecondReaderGuards: it is not asked about what it does not know, and hears
// nothing of backing files.
func TestSecondReaderGuards(t *testing.T) {
	for name, spec := range map[string]build.Spec{
		"external data file": {Size: 1 << 20, DataFile: &build.DataFile{Name: "d"}, Clusters: map[uint64]build.Cluster{0: {Form: build.Normal}}},
		"no L1 table":        {},
	} {
		b := build.Must(spec).Bytes
		img, err := qcow2.Open(bytes.NewReader(b), int64(len(b)), nil)
		if err != nil {
			t.Fatal(err)
		}
		if why := notForSecond(img); !strings.Contains(why, name) {
			t.Errorf("%s: %q", name, why)
		}
	}
	b := bytes.Repeat([]byte{0xee}, 64)
	for off := range int64(24) {
		for _, n := range []int{1, 4, 12, 40} {
			p := make([]byte, n)
			if _, err := (hiddenBacking{bytes.NewReader(b)}).ReadAt(p, off); err != nil {
				t.Fatal(err)
			}
			for i, got := range p {
				if at := off + int64(i); (got == 0) != (at >= 8 && at < 20) {
					t.Fatalf("byte %d of a read of %d at %d is %#x", at, n, off, got)
				}
			}
		}
	}
}
