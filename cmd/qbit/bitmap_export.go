package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

// What can be said of a bitmap's bits, as files and reports have it.
const (
	stateConsistent = "consistent"
	stateInUse      = "in-use"
	stateStale      = "stale"
)

// stateOf says whether the bits of a bitmap are all that changed.
func stateOf(img *qcow2.Image, info qcow2.BitmapInfo) string {
	switch {
	case img.BitmapsStale():
		return stateStale
	case info.InUse:
		return stateInUse
	}
	return stateConsistent
}

// The name and the version of the format; docs/bitmap-json.md describes it.
const (
	exportFormat  = "qbit-bitmap"
	exportVersion = 1
)

// An exportedBitmap is a bitmap on its way out of an image.
type exportedBitmap struct {
	info  qcow2.BitmapInfo
	bits  *bitmap.Bitmap
	state string
}

// An exportHead is all of an exported file but the ranges, which come last.
type exportHead struct {
	Format      string `json:"format"`
	Version     int    `json:"version"`
	Name        string `json:"name"`
	NameHex     string `json:"name-hex,omitempty"`
	Size        int64  `json:"virtual-size"`
	Granularity int64  `json:"granularity"`
	Recording   bool   `json:"recording"`
	Complete    bool   `json:"complete"`
	State       string `json:"state"`
	Note        string `json:"note,omitempty"`
	DirtyBytes  int64  `json:"dirty-bytes"`
}

// write writes the whole file. It goes over the bits once and holds no list.
func (x *exportedBitmap) write(ctx context.Context, w *lineWriter) error {
	head := exportHead{Format: exportFormat, Version: exportVersion, Name: x.info.Name, NameHex: hexOf(x.info.Name),
		Size: x.bits.Size(), Granularity: x.bits.Granularity(), Recording: x.info.Auto,
		Complete: x.state == stateConsistent, State: x.state, DirtyBytes: x.bits.Count()}
	if !head.Complete {
		head.Note = x.caveat()
	}
	text, err := json.MarshalIndent(head, "", "  ")
	if err != nil {
		return err
	}
	w.Write(text[:len(text)-len("\n}")])
	w.WriteString(",\n  \"ranges\": [")
	before := "\n"
	for r := range x.bits.Ranges() {
		w.text(before)
		before = ",\n"
		w.text(`    {"offset": `)
		w.number(r.Off)
		w.text(`, "length": `)
		w.number(r.Len)
		w.text("}")
		if err := w.end(ctx); err != nil {
			w.Flush()
			return err
		}
	}
	if before == ",\n" {
		w.WriteString("\n  ")
	}
	w.WriteString("]\n}\n")
	return w.Flush()
}

// label says in one line what the bits are worth.
func (x *exportedBitmap) label(path string) string {
	what := fmt.Sprintf("bitmap %s of %s: ", quote(escapeName(x.info.Name)), escapeName(path))
	if x.state == stateConsistent {
		return what + "consistent"
	}
	return what + x.caveat()
}

// caveat says what is wrong with bits that were salvaged.
func (x *exportedBitmap) caveat() string {
	if x.state == stateStale {
		return "NOT COMPLETE: stale; these are the bits as of the last clean close by a program that knows bitmaps, " +
			"and what others wrote since is missing"
	}
	text := "NOT COMPLETE: in use; these are the bits as of the last clean close, and what changed since is missing"
	if !x.info.Auto {
		text += " (it was not recording then: if nobody switched that on since, nothing is)"
	}
	return text
}

// exportTo writes a new file that gets its name when it is whole.
func (q bitmapQuery) exportTo(path string, write func(*os.File) error) error {
	inputs, err := q.o.inputs()
	if err != nil {
		return err
	}
	out, err := reconstruct.CreateOutput(path, &reconstruct.OutputOptions{Overwrite: q.b.force, Inputs: inputs})
	switch {
	case errors.Is(err, fs.ErrExist) && !q.b.force:
		return fmt.Errorf("%w; --force replaces it", plainError(path, err))
	case err != nil:
		return plainError(path, err)
	}
	defer out.Abort()
	if err := write(out.File()); err != nil {
		return plainError(path, err)
	}
	if err := out.Commit(); err != nil {
		return plainError(path, err)
	}
	return nil
}
