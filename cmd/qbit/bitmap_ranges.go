package main

import (
	"bufio"
	"context"
	"io"
	"strconv"

	"github.com/qbitkit/qbit/bitmap"
)

// A lineWriter writes millions of short lines; its first error ends all.
type lineWriter struct {
	*bufio.Writer
	line []byte
	n    int
}

func newLineWriter(w io.Writer) *lineWriter {
	return &lineWriter{Writer: bufio.NewWriterSize(w, 64<<10)}
}

// end writes the line that was put together. Now and then it looks whether it
// shall go on.
func (w *lineWriter) end(ctx context.Context) error {
	_, err := w.Write(w.line)
	w.line = w.line[:0]
	if w.n++; err == nil && w.n%4096 == 0 {
		return ctx.Err()
	}
	return err
}

func (w *lineWriter) text(s string) { w.line = append(w.line, s...) }

func (w *lineWriter) number(n int64) { w.line = strconv.AppendInt(w.line, n, 10) }

// column is a number at the right of a column.
func (w *lineWriter) column(n int64, width int) {
	start := len(w.line)
	w.number(n)
	for have := len(w.line) - start; have < width; have++ {
		w.line = append(w.line, 0)
		copy(w.line[start+1:], w.line[start:])
		w.line[start] = ' '
	}
}

// writeRuns writes what is dirty and what is clean, byte for byte as nbdinfo --map
// (--json) does for the context qemu:dirty-bitmap of an export.
func writeRuns(ctx context.Context, w *lineWriter, bits *bitmap.Bitmap, json bool) error {
	write, first := w.runText, true
	if json {
		w.WriteString("[\n")
		write = w.runJSON
	}
	for r := range bits.Runs(0, bits.Size()) {
		if json && !first {
			w.text(",\n")
		}
		first = false
		write(r)
		if err := w.end(ctx); err != nil {
			w.Flush() // the list stays open, so that it does not parse
			return err
		}
	}
	switch {
	case json && first:
		w.WriteString("]\n")
	case json:
		w.WriteString("\n]\n")
	}
	return w.Flush()
}

// runWords are what nbdinfo calls clean and dirty.
func runWords(r bitmap.Run) (kind int64, description string) {
	if r.Dirty {
		return 1, "dirty"
	}
	return 0, "clean"
}

func (w *lineWriter) runText(r bitmap.Run) {
	kind, description := runWords(r)
	w.column(r.Off, 10)
	w.text(" ")
	w.column(r.Len, 11)
	w.text(" ")
	w.column(kind, 4)
	w.text("  ")
	w.text(description)
	w.text("\n")
}

func (w *lineWriter) runJSON(r bitmap.Run) {
	kind, description := runWords(r)
	w.text(`{ "offset": `)
	w.number(r.Off)
	w.text(`, "length": `)
	w.number(r.Len)
	w.text(`, "type": `)
	w.number(kind)
	w.text(`, "description": "`)
	w.text(description)
	w.text(`"}`)
}
