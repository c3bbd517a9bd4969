package main

import (
	"bufio"
	"fmt"
	"io"
)

// maxLossesTold is how many lost bitmaps are explained for people.
const maxLossesTold = 8

// print prints the list for people: a table, and below it what is wrong and what to
// do.
func (l *bitmapList) print(out io.Writer) error {
	w := bufio.NewWriter(out)
	fmt.Fprintf(w, "image: %s\nvirtual size: %s (%d bytes)\n", escapeName(l.Filename), formatSize(l.Size), l.Size)
	var (
		lost []listedBitmap
		more int
	)
	t := longTable{w: w, title: "Bitmaps:", head: "NAME\tGRANULARITY\tRECORDING\tCONSISTENT\tDIRTY\tRANGES"}
	for b := range l.each {
		t.row(b.cells()...)
		switch {
		case b.Why == "":
		case len(lost) < maxLossesTold:
			lost = append(lost, b)
		default:
			more++
		}
	}
	t.flush()
	printLoss(w, "", l.Why, l.Todo)
	for _, b := range lost {
		printLoss(w, escapeName(b.Name)+": ", b.Why, b.Todo)
	}
	if more > 0 {
		fmt.Fprintf(w, "\n%d more bitmaps are lost; --output=json says why of each.\n", more)
	}
	return w.Flush()
}

// cells is a row of the table.
func (b *listedBitmap) cells() []string {
	dirty, ranges := "-", "-"
	switch {
	case b.DirtyBytes != nil:
		dirty = fmt.Sprintf("%s (%d bytes)", formatSize(*b.DirtyBytes), *b.DirtyBytes)
		if b.Ranges != nil {
			ranges = fmt.Sprint(*b.Ranges)
		}
	case b.Why == "": // else it is told below
		dirty = b.Problem
	}
	consistent := "yes"
	if !b.Consistent {
		consistent = "no: " + b.State
	}
	return []string{escapeName(b.Name), fmt.Sprint(b.Granularity), yesNo(b.Recording), consistent, dirty, ranges}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// printLoss prints a paragraph for what is lost, if it is.
func printLoss(w io.Writer, what, why, todo string) {
	if why == "" {
		return
	}
	fmt.Fprintln(w)
	for _, line := range wrap(what+why, 80) {
		fmt.Fprintln(w, line)
	}
	for i, line := range wrap("What to do: "+todo+".", 78) {
		if i > 0 {
			line = "  " + line
		}
		fmt.Fprintln(w, line)
	}
}
