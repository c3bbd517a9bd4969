package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/qbitkit/qbit/qcow2"
)

func TestImageOptions(t *testing.T) {
	o, err := parseImageOptions(formatQcow2, []string{"size=1.5G,cluster_size=4k,lazy_refcounts", "backing_file=a,,b.qcow2,backing_fmt=raw",
		"refcount_bits=1,refcount_bits=32", "preallocation=metadata", "compression_type=zstd,extended_l2=off"})
	if err != nil {
		t.Fatal(err)
	}
	want := qcow2.Layout{Size: 7, ClusterSize: 4096, RefcountBits: 32, LazyRefcounts: true, Compression: qcow2.CompressionZstd,
		Backing: &qcow2.Ref{Name: "a,b.qcow2", Format: "raw"}, Preallocation: qcow2.PreallocationMetadata}
	if diff := cmp.Diff(want, o.layout(7)); diff != "" {
		t.Errorf("the layout (-want +got):\n%s", diff)
	}
	if o.size != 3<<29 || !o.given["size"] || o.given["compat"] {
		t.Errorf("size %d, given %v", o.size, o.given)
	}
	if o, err := parseImageOptions(formatQcow2, nil); err != nil || o.size != -1 || cmp.Diff(qcow2.Layout{Size: 1}, o.layout(1)) != "" {
		t.Errorf("without any: %+v, %v", o, err)
	}
}

func TestImageOptionsRefused(t *testing.T) {
	for arg, why := range map[string]string{
		"": "no such option", "bogus=1": "no such option", "cluster_size": "it is cluster_size=SIZE", "cluster_size=3": "power of two",
		"cluster_size=4M": "power of two", "cluster_size=256": "power of two", "cluster_size=x": "not a number", "compat=2": "0.10",
		"compat=0.10,lazy_refcounts=on": "version 2", "compat=v2,data_file=x": "version 2", "compat=v2,refcount_bits=8": "version 2",
		"compat=v2,compression_type=zstd": "version 2", "extended_l2=maybe": "on or off", "extended_l2=on,cluster_size=8k": "16 KiB",
		"refcount_bits=3": "power of two", "refcount_bits=128": "power of two", "compression_type=lz4": "zlib", "preallocation=some": "off, metadata",
		"data_file_raw=on": "needs data_file", "backing_fmt=raw": "needs backing_file", "data_file=x,data_file_raw=on,backing_file=y": "do not go together",
		"encrypt.format=luks": "no encrypted", "nocow=on": "chattr", "extent_size_hint=1M": "XFS", "size=-1": "not a number",
	} {
		_, err := parseImageOptions(formatQcow2, []string{arg})
		if !errors.As(err, new(usageError)) || !strings.Contains(err.Error(), why) {
			t.Errorf("-o %q: %v; want %q", arg, err, why)
		}
	}
	if _, err := parseImageOptions(formatRaw, []string{"cluster_size=4k"}); err == nil || !strings.Contains(err.Error(), "raw image has no such option") {
		t.Errorf("of a raw image: %v", err)
	}
	if _, err := parseImageOptions(formatRaw, []string{"size=1M,preallocation=full"}); err != nil {
		t.Errorf("of a raw image: %v", err)
	}
}

func TestOptionHelp(t *testing.T) {
	for arg, want := range map[string]bool{"help": true, "?": true, "size=1,help": true, "size=help": false, "": false, "a,,help": false} {
		if got := wantsOptionHelp([]string{"x=1", arg}); got != want {
			t.Errorf("%q asks for help: %t", arg, got)
		}
	}
	var names []string
	for _, o := range imageOptionTable {
		names = append(names, o.name)
	}
	if !slices.IsSorted(names) {
		t.Errorf("not in order: %q", names)
	}
}

// Whatever the values, what is joined with commas comes apart again.
func TestSplitOptions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.StringMatching(`[a-z=,]{0,6}[a-z=]`), 1, 5).Draw(t, "parts")
		var quoted []string
		for i := range want {
			want[i] = strings.TrimLeft(want[i], ",") // one that begins with a comma has no written form
			quoted = append(quoted, strings.ReplaceAll(want[i], ",", ",,"))
		}
		if got := splitOptions(strings.Join(quoted, ",")); !slices.Equal(got, want) {
			t.Errorf("%q is %q", strings.Join(quoted, ","), got)
		}
	})
}
