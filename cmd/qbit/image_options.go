package main

import (
	"fmt"
	"io"
	"math/bits"
	"strconv"
	"strings"

	"github.com/qbitkit/qbit/qcow2"
)

// imageOptions are what -o says of a new image. What is not given is qemu-img's
// default.
type imageOptions struct {
	size          int64 // bytes of the virtual disk; -1: not given
	clusterSize   int64 // bytes; 0: not given
	version       int   // 2 or 3; 0: not given
	refcountBits  int   // 1 to 64; 0: not given
	extendedL2    bool
	lazyRefcounts bool
	compression   qcow2.CompressionType
	backing       qcow2.Ref // Name is empty where none is given
	dataFile      string    // as the header is to have it; "": none
	dataFileRaw   bool
	preallocation string // off, metadata, falloc, full; "": not given
	// given has the name of every option that the user wrote.
	given map[string]bool
}

// parseImageOptions reads the arguments of -o, each a list NAME=VALUE,NAME=VALUE in
// which ",," stands for a comma, for a new image of a format (formatQcow2 or
// formatRaw). Of an option that is given twice the last one counts. What is wrong, or
// does not go together, is a usageError.
func parseImageOptions(format string, args []string) (imageOptions, error) {
	o := imageOptions{size: -1, given: map[string]bool{}}
	for _, arg := range args {
		for _, part := range splitOptions(arg) {
			if err := o.parse(format, part); err != nil {
				return o, usagef("-o %s: %w", escapeName(part), err)
			}
		}
	}
	if err := o.check(); err != nil {
		return o, usagef("-o: %w", err)
	}
	return o, nil
}

// wantsOptionHelp says that one of the arguments of -o asks what options there are.
func wantsOptionHelp(args []string) bool {
	for _, arg := range args {
		for _, part := range splitOptions(arg) {
			if part == "help" || part == "?" {
				return true
			}
		}
	}
	return false
}

// printOptionHelp prints what -o takes for a format.
func printOptionHelp(w io.Writer, format string) {
	fmt.Fprintf(w, "Options of -o for %s:\n", format)
	for _, o := range imageOptionTable {
		if o.in(format) {
			fmt.Fprintf(w, "  %-28s %s\n", o.name+"="+o.value, o.text)
		}
	}
}

// splitOptions splits at commas; two of them stand for one in a value.
func splitOptions(arg string) []string {
	var parts []string
	var part strings.Builder
	for i := 0; i < len(arg); i++ {
		switch {
		case arg[i] != ',':
			part.WriteByte(arg[i])
		case i+1 < len(arg) && arg[i+1] == ',':
			part.WriteByte(',')
			i++
		default:
			parts = append(parts, part.String())
			part.Reset()
		}
	}
	return append(parts, part.String())
}

func (o *imageOptions) parse(format, part string) error {
	name, value, ok := strings.Cut(part, "=")
	if !ok {
		value = "on"
	}
	for _, option := range imageOptionTable {
		switch {
		case option.name != name:
		case !option.in(format):
			return fmt.Errorf("a %s image has no such option", format)
		case !ok && option.value != "on|off":
			return fmt.Errorf("it is %s=%s", name, option.value)
		default:
			o.given[name] = true
			return option.set(o, value)
		}
	}
	if why := foreignOption(name); why != "" {
		return fmt.Errorf("%s", why)
	}
	return fmt.Errorf("there is no such option; -o help lists them")
}

// foreignOption says what to do instead of an option of qemu-img that qbit does not
// have.
func foreignOption(name string) string {
	switch {
	case strings.HasPrefix(name, "encrypt"):
		return "qbit writes no encrypted images"
	case name == "nocow":
		return "it is a matter of the folder on Btrfs: chattr +C there before the image is made"
	case name == "extent_size_hint":
		return "it is a matter of the file on XFS: xfs_io -c extsize sets it for a folder"
	}
	return ""
}

// An imageOption is one option of -o.
type imageOption struct {
	name, value, text string
	raw               bool // raw images have it too
	set               func(o *imageOptions, value string) error
}

func (o imageOption) in(format string) bool { return format == formatQcow2 || o.raw }

// imageOptionTable has the options in alphabetic order, with qemu-img's names.
var imageOptionTable = []imageOption{
	{"backing_file", "NAME", "the backing file, as the header is to name it", false,
		func(o *imageOptions, v string) error { o.backing.Name = v; return nil }},
	{"backing_fmt", "FMT", "the format of the backing file", false,
		func(o *imageOptions, v string) error { o.backing.Format = v; return nil }},
	{"cluster_size", "SIZE", "a power of two from 512 bytes to 2 MiB (default 64k)", false, setClusterSize},
	{"compat", "0.10|1.1", "version 2 or version 3 (default 1.1); also v2, v3", false, setCompat},
	{"compression_type", "zlib|zstd", "how compressed clusters are compressed (default zlib)", false, setCompression},
	{"data_file", "NAME", "an external data file, as the header is to name it", false,
		func(o *imageOptions, v string) error { o.dataFile = v; return nil }},
	{"data_file_raw", "on|off", "the external data file stays valid as a raw disk", false,
		func(o *imageOptions, v string) error { return setBool(&o.dataFileRaw, v) }},
	{"extended_l2", "on|off", "L2 entries with 32 subclusters each", false,
		func(o *imageOptions, v string) error { return setBool(&o.extendedL2, v) }},
	{"lazy_refcounts", "on|off", "QEMU may postpone refcount updates", false,
		func(o *imageOptions, v string) error { return setBool(&o.lazyRefcounts, v) }},
	{"preallocation", "MODE", "off, metadata, falloc or full (default off)", true, setPreallocation},
	{"refcount_bits", "N", "the width of a refcount: 1, 2, 4, … 64 (default 16)", false, setRefcountBits},
	{"size", "SIZE", "the size of the virtual disk", true, setSize},
}

func setBool(to *bool, v string) error {
	switch v {
	case "on", "yes", "true", "y":
		*to = true
	case "off", "no", "false", "n":
		*to = false
	default:
		return fmt.Errorf("it is on or off")
	}
	return nil
}

func setSize(o *imageOptions, v string) (err error) {
	o.size, err = parseSize(v)
	return err
}

func setClusterSize(o *imageOptions, v string) (err error) {
	if o.clusterSize, err = parseSize(v); err != nil {
		return err
	}
	return checkClusterSize(o.clusterSize)
}

// checkClusterSize refuses what qcow2 does not have.
func checkClusterSize(n int64) error {
	if n < 512 || n > 2<<20 || bits.OnesCount64(uint64(n)) != 1 {
		return fmt.Errorf("a cluster is a power of two from 512 bytes to 2 MiB")
	}
	return nil
}

func setCompat(o *imageOptions, v string) error {
	switch v {
	case "0.10", "v2":
		o.version = 2
	case "1.1", "v3":
		o.version = 3
	default:
		return fmt.Errorf("it is 0.10 (version 2) or 1.1 (version 3)")
	}
	return nil
}

func setCompression(o *imageOptions, v string) (err error) {
	o.compression, err = parseCompression(v)
	return err
}

// parseCompression reads the name of a compression type; deflate is what zlib is
// in qcow2.
func parseCompression(v string) (qcow2.CompressionType, error) {
	switch v {
	case "zlib", "deflate":
		return qcow2.CompressionZlib, nil
	case "zstd":
		return qcow2.CompressionZstd, nil
	}
	return 0, fmt.Errorf("there is no compression %s: it is zlib (also called deflate) or zstd", escapeName(v))
}

func setPreallocation(o *imageOptions, v string) error {
	switch v {
	case "off", "metadata", "falloc", "full":
		o.preallocation = v
		return nil
	}
	return fmt.Errorf("it is off, metadata, falloc or full")
}

func setRefcountBits(o *imageOptions, v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > 64 || bits.OnesCount(uint(n)) != 1 {
		return fmt.Errorf("it is a power of two from 1 to 64")
	}
	o.refcountBits = n
	return nil
}

// check finds what does not go together.
func (o *imageOptions) check() error {
	if o.version == 2 {
		if what := o.needsVersion3(); what != "" {
			return fmt.Errorf("compat=0.10 is version 2, which has no %s", what)
		}
	}
	switch {
	case o.extendedL2 && o.clusterSize != 0 && o.clusterSize < 16<<10:
		return fmt.Errorf("extended_l2 needs clusters of at least 16 KiB, cluster_size is %d", o.clusterSize)
	case o.dataFileRaw && o.dataFile == "":
		return fmt.Errorf("data_file_raw needs data_file")
	case o.dataFileRaw && o.backing.Name != "":
		return fmt.Errorf("data_file_raw and backing_file do not go together: a raw data file holds the whole disk")
	case o.backing.Format != "" && o.backing.Name == "":
		return fmt.Errorf("backing_fmt needs backing_file")
	}
	return nil
}

// needsVersion3 names what was asked for and version 2 does not have.
func (o *imageOptions) needsVersion3() string {
	switch {
	case o.refcountBits != 0 && o.refcountBits != 16:
		return "refcount_bits other than 16"
	case o.lazyRefcounts:
		return "lazy_refcounts"
	case o.extendedL2:
		return "extended_l2"
	case o.dataFile != "":
		return "data_file"
	case o.compression != qcow2.CompressionZlib:
		return "compression_type other than zlib"
	}
	return ""
}

// layout is what the options say of an image with a disk of size bytes. The external
// data file is left out: who makes the image opens it. So is what a Layout has as its
// default.
func (o *imageOptions) layout(size int64) qcow2.Layout {
	l := qcow2.Layout{Size: size, ClusterSize: o.clusterSize, Version: o.version, RefcountBits: o.refcountBits,
		ExtendedL2: o.extendedL2, LazyRefcounts: o.lazyRefcounts, Compression: o.compression}
	if o.backing.Name != "" {
		l.Backing = &qcow2.Ref{Kind: qcow2.RefBacking, Name: o.backing.Name, Format: o.backing.Format}
	}
	for p := qcow2.PreallocationOff; p <= qcow2.PreallocationFull; p++ {
		if p.String() == o.preallocation {
			l.Preallocation = p
		}
	}
	return l
}
