package main

import (
	"bufio"
	"fmt"
	"io"
	"sort"
	"strings"
	"text/tabwriter"
)

// printReports prints reports for people, in the manner of qemu-img info, with a
// blank line between them.
func printReports(w io.Writer, reports []*infoReport, more bool) {
	out := bufio.NewWriter(w)
	defer out.Flush()
	for i, r := range reports {
		if more || i > 0 {
			fmt.Fprintln(out)
		}
		r.print(out)
	}
}

func (r *infoReport) print(w io.Writer) {
	fmt.Fprintf(w, "image: %s\n", escapeName(r.Filename))
	if r.Qbit.Error != "" {
		fmt.Fprintf(w, "not read: %s\n", r.Qbit.Error)
		return
	}
	fmt.Fprintf(w, "file format: %s\n", r.Format)
	fmt.Fprintf(w, "virtual size: %s (%d bytes)\n", formatSize(*r.Qbit.Size), *r.Qbit.Size)
	fmt.Fprintf(w, "disk size: %s\n", formatSize(*r.ActualSize))
	if r.Encrypted {
		fmt.Fprintln(w, "encrypted: yes")
	}
	if r.ClusterSize > 0 {
		fmt.Fprintf(w, "cluster_size: %d\n", r.ClusterSize)
	}
	r.printRefs(w)
	r.printSnapshots(w)
	if r.FormatSpecific != nil {
		r.printSpecific(w)
		r.printBitmaps(w)
		r.Qbit.printFeatures(w)
		r.Qbit.printExtensions(w)
		r.Qbit.printHeader(w)
	}
}

// printRefs prints the files that the image names.
func (r *infoReport) printRefs(w io.Writer) {
	for _, ref := range r.Qbit.Refs {
		fmt.Fprintf(w, "%s: %s", ref.Kind, escapeName(ref.Name))
		switch {
		case ref.Opened != "" && ref.Opened != ref.Name:
			fmt.Fprintf(w, " (actual path: %s)", escapeName(ref.Opened))
		case ref.Kind == "backing file" && r.FullBacking != ref.Name:
			fmt.Fprintf(w, " (actual path: %s)", escapeName(r.FullBacking))
		}
		fmt.Fprintln(w)
		if ref.Format != "" {
			fmt.Fprintf(w, "%s format: %s\n", ref.Kind, escapeName(ref.Format))
		}
		if ref.Problem != "" {
			fmt.Fprintf(w, "%s not opened: %s\n", ref.Kind, ref.Problem)
		}
	}
}

func (r *infoReport) printSnapshots(w io.Writer) {
	if r.Qbit.eachSnapshot == nil {
		return
	}
	t := longTable{w: w, title: "Snapshot list:", head: "ID\tTAG\tVM SIZE\tDISK SIZE\tDATE\tVM CLOCK\tICOUNT"}
	for s := range r.Qbit.eachSnapshot {
		icount := "-"
		if s.ICount != nil {
			icount = fmt.Sprint(*signed(s.ICount))
		}
		t.row(escapeName(s.ID), escapeName(s.Name), formatSize(int64(s.VMStateSize)), formatSize(int64(s.DiskSize)),
			s.Date.Format("2006-01-02 15:04:05"), vmClock(s.VMClock), icount)
	}
	t.flush()
	if r.Qbit.SnapshotsError != "" {
		fmt.Fprintf(w, "snapshot table broken: %s\n", r.Qbit.SnapshotsError)
	}
}

// vmClock is how long the guest had run, as qemu-img prints it.
func vmClock(nanoseconds uint64) string {
	n := nanoseconds / 1e9
	return fmt.Sprintf("%02d:%02d:%02d.%03d", n/3600, n/60%60, n%60, nanoseconds%1e9/1e6)
}

// A longTable is a table that may have any number of rows. It is laid out a part
// at a time, since a column is as wide as the widest cell.
type longTable struct {
	w           io.Writer
	title, head string // are left out where there are no rows
	t           *tabwriter.Writer
	rows, bytes int // of the part
}

// What a part of a longTable has at most.
const (
	partRows  = 1000
	partBytes = 256 << 10
)

func (t *longTable) row(cells ...string) {
	if t.t == nil {
		fmt.Fprintln(t.w, t.title)
		t.t = newTable(t.w, t.head)
	}
	line := strings.Join(cells, "\t") + "\n"
	io.WriteString(t.t, line)
	if t.rows, t.bytes = t.rows+1, t.bytes+len(line); t.rows >= partRows || t.bytes >= partBytes {
		t.t.Flush()
		t.rows, t.bytes = 0, 0
	}
}

func (t *longTable) flush() {
	if t.t != nil {
		t.t.Flush()
	}
}

// newTable starts a table; its cells are separated by tabs.
func newTable(w io.Writer, head string) *tabwriter.Writer {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, head)
	return t
}

func (r *infoReport) printSpecific(w io.Writer) {
	s := &r.FormatSpecific.Data
	fmt.Fprintln(w, "Format specific information:")
	row := func(name string, value any) { fmt.Fprintf(w, "    %s: %v\n", name, value) }
	row("compat", s.Compat)
	row("compression type", s.Compression)
	optional := func(name string, value *bool) {
		if value != nil {
			row(name, *value)
		}
	}
	optional("lazy refcounts", s.LazyRefcounts)
	row("refcount bits", s.RefcountBits)
	printEncrypt(w, s.Encrypt)
	optional("data file raw", s.DataFileRaw)
	optional("corrupt", s.Corrupt)
	optional("extended l2", s.ExtendedL2)
	if *r.DirtyFlag {
		row("dirty", true)
	}
}

// printEncrypt prints the encryption; of the key slots only how many are in use.
func printEncrypt(w io.Writer, info map[string]any) {
	if info == nil {
		return
	}
	fmt.Fprintln(w, "    encrypt:")
	var keys []string
	for key := range info {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		value := info[key]
		if slots, ok := value.([]map[string]any); ok {
			active := 0
			for _, slot := range slots {
				if slot["active"] == true {
					active++
				}
			}
			value = fmt.Sprintf("%d of %d in use", active, len(slots))
		}
		fmt.Fprintf(w, "        %s: %s\n", key, escapeName(fmt.Sprint(value)))
	}
}

func (r *infoReport) printBitmaps(w io.Writer) {
	q := r.Qbit
	if q.BitmapsStale {
		fmt.Fprintln(w, "bitmaps stale: a program that knows no bitmaps has written to the image; do not trust them")
	}
	t := longTable{w: w, title: "Bitmaps:", head: "NAME\tGRANULARITY\tDIRTY\tFLAGS"}
	for b := range q.eachBitmap {
		dirty := b.Problem
		if b.DirtyBytes != nil {
			dirty = fmt.Sprintf("%s (%d bytes)", formatSize(*b.DirtyBytes), *b.DirtyBytes)
		}
		t.row(escapeName(b.Name), fmt.Sprint(b.Granularity), dirty, oneLine(b.Flags))
	}
	t.flush()
	if q.BitmapsError != "" {
		fmt.Fprintf(w, "bitmap directory broken (the guest's data is not affected): %s\n", q.BitmapsError)
	}
}

func (q *qbitInfo) printFeatures(w io.Writer) {
	if len(q.Features) == 0 {
		return
	}
	fmt.Fprintln(w, "Features:")
	for _, f := range q.Features {
		fmt.Fprintf(w, "    %s (%s bit %d)\n", escapeName(f.Name), f.Kind, f.Bit)
	}
}

func (q *qbitInfo) printExtensions(w io.Writer) {
	if len(q.Extensions) == 0 {
		return
	}
	fmt.Fprintln(w, "Header extensions:")
	for _, e := range q.Extensions {
		fmt.Fprintf(w, "    %#08x %s: %d bytes at %#x\n", e.Type, e.Name, e.Length, e.Offset)
	}
}

// printHeader prints the header's fields; places and bit sets in hex.
func (q *qbitInfo) printHeader(w io.Writer) {
	fmt.Fprintln(w, "Header:")
	for _, f := range q.fields {
		format := "    %s: %d\n"
		if f.hex {
			format = "    %s: %#x\n"
		}
		fmt.Fprintf(w, format, f.name, f.value)
	}
}
