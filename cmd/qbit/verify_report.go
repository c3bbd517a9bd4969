package main

import (
	"bufio"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/qbitkit/qbit/reconstruct/plan"
)

// verifyVersion is that of the JSON of verify; it changes when a key changes its
// meaning.
const verifyVersion = 1

// A verifyReport is what verify --output=json prints.
type verifyReport struct {
	Version  int            `json:"version"`
	Folder   string         `json:"folder"`
	Manifest string         `json:"manifest,omitempty"`
	Points   []*pointReport `json:"points"`
	Files    []*fileReport  `json:"files"`
	Against  []*coverReport `json:"against,omitempty"`
	Problems []string       `json:"problems,omitempty"`
}

// report prints what was found; the error is the verdict.
func (v *verifier) report() error {
	for _, problem := range v.s.Problems {
		v.notes = append(v.notes, problem.String())
	}
	if v.k.json() {
		r := verifyReport{Version: verifyVersion, Folder: v.s.path, Points: v.points, Files: v.files, Against: v.covers, Problems: v.notes}
		if v.m != nil {
			r.Manifest = v.manifestName()
		}
		if err := writeJSON(v.c.out, r); err != nil {
			return err
		}
		return v.verdict()
	}
	w := bufio.NewWriter(v.c.out)
	v.print(w)
	if err := w.Flush(); err != nil {
		return err
	}
	return v.verdict()
}

func (v *verifier) print(w io.Writer) {
	for i, p := range v.points {
		if i == 0 || p.Disk != v.points[i-1].Disk || p.Domain != v.points[i-1].Domain {
			v.printDisk(w, i)
		}
	}
	v.printFiles(w)
	for _, c := range v.covers {
		c.print(w)
	}
	for _, note := range v.notes {
		fmt.Fprintf(w, "note: %s\n", escapeText(note))
	}
}

// printDisk prints the table of the disk whose points begin there, and the reasons
// below it.
func (v *verifier) printDisk(w io.Writer, first int) {
	head := v.points[first]
	fmt.Fprintln(w, escapeName(diskTitle(&plan.Disk{Domain: head.Domain, Name: head.Disk})))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	end := first
	for ; end < len(v.points) && v.points[end].Disk == head.Disk && v.points[end].Domain == head.Domain; end++ {
		p := v.points[end]
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", escapeName(p.Point), escapeName(p.Kind), p.Verdict, v.sealedWord(p), escapeName(p.ID))
	}
	t.Flush()
	for _, p := range v.points[first:end] {
		p.printReasons(w, v.k.quiet)
	}
}

// sealedWord says in a word or two how the content compares with the manifest.
func (v *verifier) sealedWord(p *pointReport) string {
	if v.m == nil {
		return ""
	}
	return map[sealedAs]string{sealedNot: "not sealed", sealedFiles: "as sealed", sealedChunks: "as sealed, chunk by chunk",
		sealedOther: "not as sealed", sealedOpen: "not compared"}[p.Sealed]
}

func (p *pointReport) printReasons(w io.Writer, quiet bool) {
	word := map[plan.Verdict]string{plan.Lost: "not restorable", plan.Doubtful: "doubt"}[p.Verdict]
	for _, why := range p.Why {
		fmt.Fprintf(w, "  %s: %s: %s\n", escapeName(p.Point), word, escapeText(why))
	}
	if quiet {
		return
	}
	for _, note := range p.Notes {
		fmt.Fprintf(w, "  %s: note: %s\n", escapeName(p.Point), escapeText(note))
	}
}

// printFiles prints what was found in files, and how many were read.
func (v *verifier) printFiles(w io.Writer) {
	var read, skipped int
	var bytes int64
	for _, f := range v.files {
		if f.Skipped {
			skipped++
		} else {
			read, bytes = read+1, bytes+f.Size
		}
		for _, found := range f.Findings {
			fmt.Fprintf(w, "%s: %s: %s\n", escapeName(f.File), foundWord(found.State), escapeText(found.Text))
		}
		if v.k.sha256 && f.SHA256 != "" && !v.k.quiet {
			fmt.Fprintf(w, "sha256:%s  %s\n", f.SHA256, escapeName(f.File))
		}
	}
	if v.k.quiet {
		return
	}
	fmt.Fprintf(w, "%s read, %s\n", plural(read, "file was", "files were"), formatSize(bytes))
	if skipped > 0 {
		fmt.Fprintf(w, "%s not read again: %s found sound before, says %s, and not touched since\n",
			plural(skipped, "file was", "files were"), map[bool]string{true: "it was", false: "they were"}[skipped == 1], escapeName(v.k.state))
	}
}

func foundWord(s fileState) string {
	if s == fileSound {
		return "note"
	}
	return string(s)
}

func (c *coverReport) print(w io.Writer) {
	if c.Missing == 0 {
		fmt.Fprintf(w, "%s: it holds all that bitmap %s says has changed (%s)\n", escapeName(c.Link), escapeName(c.Bitmap), formatSize(c.Dirty))
	} else {
		fmt.Fprintf(w, "%s: it does not hold %s of the %s that bitmap %s says have changed: they come back with their old bytes\n",
			escapeName(c.Link), formatSize(c.Missing), formatSize(c.Dirty), escapeName(c.Bitmap))
	}
	for _, r := range c.First {
		fmt.Fprintf(w, "  guest bytes %d to %d are missing\n", r.Start, r.Start+r.Length)
	}
	if len(c.First) == maxMissed {
		fmt.Fprintln(w, "  and perhaps more")
	}
	if c.Missing == 0 && c.Rounded > 0 {
		fmt.Fprintf(w, "  but rounded out to %s, as QEMU copies, %s are not in it: another program made it, or the bitmap is not of this interval\n",
			formatSize(c.Unit), formatSize(c.Rounded))
	}
}
