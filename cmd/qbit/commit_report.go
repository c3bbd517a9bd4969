package main

import (
	"fmt"
	"io"
)

// A commitReport is what qbit commit prints with --output=json.
type commitReport struct {
	Filename   string            `json:"filename"`
	Base       string            `json:"base"`
	BaseFormat string            `json:"base-format"`
	Data       int64             `json:"bytes-data"`
	Zero       int64             `json:"bytes-zero"`
	OldSize    int64             `json:"base-old-virtual-size"`
	Size       int64             `json:"base-virtual-size"`
	Emptied    bool              `json:"emptied"`
	Bitmaps    []committedBitmap `json:"bitmaps"`
}

// warnBetween says which images are of no use any more.
func (k *committing) warnBetween() {
	if len(k.ch.between) == 0 {
		return
	}
	for _, l := range k.ch.between {
		k.c.warn("%s: it stands between %s and %s, and shows other data than before: only %s may still use it",
			escapeName(l.path), escapeName(k.ch.path), escapeName(k.ch.base.path), escapeName(k.ch.path))
	}
}

// tell says what was done.
func (k *committing) tell() error {
	switch {
	case k.m.json():
		return writeJSON(k.c.out, k.report)
	case k.m.quiet:
		return nil
	}
	return k.report.print(k.c.out)
}

func (r *commitReport) print(w io.Writer) error {
	text := fmt.Sprintf("%s: %s of data and %s of zeros are in %s now", escapeName(r.Filename),
		formatSize(r.Data), formatSize(r.Zero), escapeName(r.Base))
	if r.Size > r.OldSize {
		text += fmt.Sprintf(", which grew to %s (%d bytes)", formatSize(r.Size), r.Size)
	}
	if r.Emptied {
		text += fmt.Sprintf("; %s is empty", escapeName(r.Filename))
	}
	_, err := fmt.Fprintln(w, text)
	return err
}
