package main

import (
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/crash"
)

// FuzzImageOptions parses any bytes as an argument of -o. Property: it is an error, or
// the layout can be refused or made; what is made opens as it was asked for.
func FuzzImageOptions(f *testing.F) {
	for _, s := range []string{
		"", "cluster_size=4k", "compat=v2,refcount_bits=16", "extended_l2=on,cluster_size=16k,compression_type=zstd",
		"lazy_refcounts", "backing_file=a,,b=c,backing_fmt=raw", "data_file=d,data_file_raw=on", "preallocation=metadata,refcount_bits=1",
		"size=1.5M", "size=0", "size=1E", ",,,", "=", "help", "encrypt.format=luks", "refcount_bits=-0", "cluster_size=0x200",
		"backing_fmt=raw,backing_file=" + strings.Repeat("b", 300) + ",cluster_size=512",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		for _, format := range []string{formatQcow2, formatRaw} {
			o, err := parseImageOptions(format, []string{arg})
			if err != nil {
				continue
			}
			if o.size > 4<<20 || o.size < 0 {
				o.size = 1 << 20 // what is preallocated lies in memory
			}
			layoutHolds(t, &o)
		}
	})
}

// layoutHolds makes an image as the options say, and reads its header.
func layoutHolds(t *testing.T, o *imageOptions) {
	t.Helper()
	l := o.layout(o.size)
	if o.dataFile != "" {
		l.DataFile = &qcow2.DataFileLayout{File: crash.New(nil), Name: o.dataFile, Raw: o.dataFileRaw}
	}
	if l.Preallocation == qcow2.PreallocationFalloc {
		l.Preallocation = qcow2.PreallocationMetadata // memory has no space to set aside
	}
	file := crash.New(nil)
	w, err := qcow2.Create(file, l)
	if refused := l.Validate(); (err != nil) != (refused != nil) {
		t.Fatalf("%+v: Create says %v, Validate %v", l, err, refused)
	}
	if err != nil {
		return
	}
	if err := w.Close(); err != nil {
		t.Fatalf("%+v: %v", l, err)
	}
	img, err := qcow2.Open(file, file.Size(), nil)
	if err != nil {
		t.Fatalf("%+v: %v", l, err)
	}
	l = l.WithDefaults()
	g, ref := img.Geometry(), img.Backing()
	if img.Size() != l.Size || g.ClusterSize() != l.ClusterSize || g.RefcountBits() != l.RefcountBits || int(g.Version) != l.Version ||
		g.ExtendedL2 != l.ExtendedL2 || img.LazyRefcounts() != l.LazyRefcounts || img.CompressionType() != l.Compression.String() {
		t.Fatalf("%+v is made as %+v", l, img.Header())
	}
	if (ref == nil) != (l.Backing == nil) || ref != nil && *ref != *l.Backing {
		t.Fatalf("%+v: the backing file is %+v", l, ref)
	}
}
