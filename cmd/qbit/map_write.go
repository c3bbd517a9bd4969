package main

import (
	"bufio"
	"fmt"
	"io"

	"github.com/qbitkit/qbit/qcow2"
)

// A mapWriter writes the entries of a map as they come.
type mapWriter interface {
	entry(e mapEntry) error
	end() error
	abandon() // ends a map that could not be finished
}

// A mapJSON writes what qemu-img map --output=json writes, byte for byte.
type mapJSON struct {
	w     *bufio.Writer
	wrote bool
}

func newMapJSON(w io.Writer) *mapJSON {
	j := &mapJSON{w: bufio.NewWriter(w)}
	j.w.WriteString("[")
	return j
}

func (j *mapJSON) entry(e mapEntry) error {
	if j.wrote {
		j.w.WriteString(",\n")
	}
	j.wrote = true
	_, err := fmt.Fprintf(j.w, `{ "start": %d, "length": %d, "depth": %d, "present": %t, "zero": %t, "data": %t`,
		e.start, e.length, e.depth, e.present, e.zero, e.data)
	if e.hasOffset {
		_, err = fmt.Fprintf(j.w, `, "offset": %d`, e.offset)
	}
	j.w.WriteString("}")
	return err
}

func (j *mapJSON) end() error {
	if !j.wrote {
		j.entry(mapEntry{}) // as qemu-img does for a disk of no bytes
	}
	j.w.WriteString("]\n")
	return j.w.Flush()
}

// abandon leaves the list open: what is not whole shall not parse.
func (j *mapJSON) abandon() {
	j.w.WriteString("\n")
	j.w.Flush()
}

// A mapTable writes a table like that of qemu-img map, with the kind of each
// range, and sums at its end.
type mapTable struct {
	w    *bufio.Writer
	sums [4]int64 // by qcow2.Kind
}

func newMapTable(w io.Writer) *mapTable {
	t := &mapTable{w: bufio.NewWriter(w)}
	fmt.Fprintf(t.w, mapTableRow, "Offset", "Length", "Mapped to", "Kind", "File")
	return t
}

const mapTableRow = "%-16s%-16s%-16s%-12s%s\n"

func (t *mapTable) entry(e mapEntry) error {
	t.sums[e.kind] += e.length
	if e.kind == qcow2.Absent {
		return nil
	}
	at := "-"
	if e.hasOffset {
		at = cHex(e.offset)
	}
	_, err := fmt.Fprintf(t.w, mapTableRow, cHex(e.start), cHex(e.length), at, e.kind, escapeName(e.file))
	return err
}

// cHex is a number as C prints it with %#x: a zero has no prefix.
func cHex(n int64) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%#x", n)
}

func (t *mapTable) end() error {
	fmt.Fprintln(t.w)
	for _, k := range []qcow2.Kind{qcow2.Data, qcow2.Compressed, qcow2.Zero, qcow2.Absent} {
		if t.sums[k] > 0 {
			fmt.Fprintf(t.w, "%-11s %s (%d bytes)\n", k, formatSize(t.sums[k]), t.sums[k])
		}
	}
	return t.w.Flush()
}

func (t *mapTable) abandon() { t.w.Flush() }
