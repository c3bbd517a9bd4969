package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/qbitkit/qbit/qcow2"
)

// A createReport is what --output=json prints of a new image, with the names of
// qemu-img info where it has them.
type createReport struct {
	Target        string        `json:"target"`
	Format        string        `json:"format"`
	Size          int64         `json:"virtual-size"`
	Preallocation string        `json:"preallocation"`
	Qcow2         *createdQcow2 `json:"qcow2,omitempty"`
}

// A createdQcow2 is what a new qcow2 image has.
type createdQcow2 struct {
	ClusterSize   int64  `json:"cluster-size"`
	Compat        string `json:"compat"`
	RefcountBits  int    `json:"refcount-bits"`
	ExtendedL2    bool   `json:"extended-l2"`
	LazyRefcounts bool   `json:"lazy-refcounts"`
	Compression   string `json:"compression-type"`
	Backing       string `json:"backing-filename,omitempty"`
	BackingFormat string `json:"backing-filename-format,omitempty"`
	DataFile      string `json:"data-file,omitempty"`
	DataFileRaw   bool   `json:"data-file-raw,omitempty"`
}

// report says what was made.
func (v *createCommand) report(c *console, j *createJob) error {
	rep := createReport{Target: j.path, Format: v.format, Size: j.size, Preallocation: j.layout.Preallocation.String()}
	if v.format == formatQcow2 {
		rep.Qcow2 = newCreatedQcow2(j.layout.WithDefaults())
		rep.Preallocation = j.layout.WithDefaults().Preallocation.String()
	}
	switch {
	case v.json():
		return json.NewEncoder(c.out).Encode(rep)
	case v.quiet:
		return nil
	}
	return rep.print(c.out)
}

func newCreatedQcow2(l qcow2.Layout) *createdQcow2 {
	q := &createdQcow2{ClusterSize: l.ClusterSize, Compat: "1.1", RefcountBits: l.RefcountBits, ExtendedL2: l.ExtendedL2,
		LazyRefcounts: l.LazyRefcounts, Compression: l.Compression.String()}
	if l.Version == 2 {
		q.Compat = "0.10"
	}
	if l.Backing != nil {
		q.Backing, q.BackingFormat = l.Backing.Name, l.Backing.Format
	}
	if l.DataFile != nil {
		q.DataFile, q.DataFileRaw = l.DataFile.Name, l.DataFile.Raw
	}
	return q
}

// print writes a line of what was made, and one for every file that it stands on.
func (r *createReport) print(w io.Writer) error {
	words := []string{r.Format}
	if q := r.Qcow2; q != nil {
		words = append(words, q.words()...)
	}
	if r.Preallocation != qcow2.PreallocationOff.String() {
		words = append(words, "preallocation "+r.Preallocation)
	}
	_, err := fmt.Fprintf(w, "%s: created %s (%d bytes), %s\n", escapeName(r.Target), formatSize(r.Size), r.Size, strings.Join(words, ", "))
	if q := r.Qcow2; q != nil && err == nil {
		err = q.printFiles(w)
	}
	return err
}

// words are what an image has, and of what is seldom changed only what was.
func (q *createdQcow2) words() []string {
	words := []string{"version 3", "clusters of " + formatSize(q.ClusterSize)}
	if q.Compat == "0.10" {
		words[0] = "version 2"
	}
	for _, x := range []struct {
		is   bool
		word string
	}{
		{q.RefcountBits != 16, fmt.Sprintf("refcounts of %d bits", q.RefcountBits)},
		{q.ExtendedL2, "extended L2 entries"},
		{q.LazyRefcounts, "lazy refcounts"},
		{q.Compression != "zlib", "compression " + q.Compression},
	} {
		if x.is {
			words = append(words, x.word)
		}
	}
	return words
}

func (q *createdQcow2) printFiles(w io.Writer) (err error) {
	if q.Backing != "" {
		_, err = fmt.Fprintf(w, "backing file: %s (%s)\n", escapeName(q.Backing), q.BackingFormat)
	}
	if q.DataFile != "" && err == nil {
		raw := ""
		if q.DataFileRaw {
			raw = " (a raw disk by itself)"
		}
		_, err = fmt.Fprintf(w, "data file: %s%s\n", escapeName(q.DataFile), raw)
	}
	return err
}
