package main

import (
	"fmt"
	"strings"

	"github.com/qbitkit/qbit/qcow2"
)

// A rebaseReport is what qbit rebase prints with --output=json.
type rebaseReport struct {
	Filename  string  `json:"filename"`
	Mode      string  `json:"mode"` // "safe" or "unsafe"
	Old       *string `json:"old-backing-filename"`
	OldFormat string  `json:"old-backing-filename-format,omitempty"`
	New       *string `json:"backing-filename"`
	NewFormat string  `json:"backing-filename-format,omitempty"`
	Copied    int64   `json:"bytes-copied"`
	// Content says whether the disk stays the same: "same", "unknown" or "differs".
	Content string `json:"content"`
	Why     string `json:"why,omitempty"`
}

func (j *rebasing) newReport(mode string) rebaseReport {
	r := rebaseReport{Filename: j.image.path, Mode: mode, Content: contentSame}
	if j.old != nil {
		r.Old, r.OldFormat = &j.old.Name, j.old.Format
	}
	if j.ref != nil {
		r.New, r.NewFormat = &j.ref.Name, j.ref.Format
	}
	return r
}

// tell says what was done.
func (j *rebasing) tell() error {
	switch {
	case j.r.json():
		return writeJSON(j.c.out, j.report)
	case j.r.quiet:
		return nil
	}
	text := "it stands on " + refText(j.ref)
	if j.ref == nil {
		text = "it stands alone"
	}
	_, err := fmt.Fprintf(j.c.out, "%s: %s now; %s\n", escapeName(j.image.path), text, escapeText(j.report.text()))
	return err
}

func (r *rebaseReport) text() string {
	switch {
	case r.Mode != "safe":
		return r.Why
	case r.Copied > 0:
		return "the disk is the same: " + formatSize(r.Copied) + " of what showed through are in the image itself now"
	}
	return "the disk is the same: nothing had to be copied"
}

// refText is a backing file for people.
func refText(ref *qcow2.Ref) string {
	if ref == nil {
		return "none"
	}
	return strings.TrimSpace(quote(escapeName(ref.Name)) + " (" + escapeName(ref.Format) + ")")
}
