package main

import (
	"fmt"
	"strings"
)

// A resizeReport is what qbit resize prints with --output=json.
type resizeReport struct {
	Filename string          `json:"filename"`
	Format   string          `json:"format"`
	Old      int64           `json:"old-virtual-size"`
	New      int64           `json:"virtual-size"`
	Bitmaps  []resizedBitmap `json:"bitmaps,omitempty"`
}

// A resizedBitmap is a bitmap that has the size of the disk.
type resizedBitmap struct {
	Name      string `json:"name"`
	NameHex   string `json:"name-hex,omitempty"`
	Recording bool   `json:"recording"`
}

// tell says what was done.
func (j *resizeJob) tell(report resizeReport) error {
	report.Filename = j.path
	switch {
	case j.r.json():
		return writeJSON(j.c.out, report)
	case j.r.quiet:
		return nil
	}
	_, err := fmt.Fprintf(j.c.out, "%s: %s\n", escapeName(j.path), report.text())
	return err
}

func (r *resizeReport) text() string {
	size := fmt.Sprintf("%s (%d bytes)", formatSize(r.New), r.New)
	if r.Old == r.New {
		return "the disk has " + size + "; nothing was to be done"
	}
	how := fmt.Sprintf("%s more", formatSize(r.New-r.Old))
	if r.New < r.Old {
		how = fmt.Sprintf("%s less", formatSize(r.Old-r.New))
	}
	text := fmt.Sprintf("the disk has %s, %s than before", size, how)
	if len(r.Bitmaps) == 0 {
		return text
	}
	var names []string
	for _, b := range r.Bitmaps {
		names = append(names, escapeName(b.Name))
	}
	return fmt.Sprintf("%s; its bitmaps have that size too: %s", text, strings.Join(names, ", "))
}
