package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/qbitkit/qbit/reconstruct"
)

// A restoreReport is what --output=json prints when a disk was restored.
type restoreReport struct {
	Target  string            `json:"target"`
	Format  string            `json:"format"`
	Size    int64             `json:"virtual-size"`
	Written int64             `json:"bytes-written"`
	Zero    int64             `json:"bytes-zero"`
	Shared  int64             `json:"bytes-shared"` // not copied: the links have the same blocks
	Links   []linkReport      `json:"links"`
	Digests map[string]string `json:"digests"`
	Delta   *proofReport      `json:"delta,omitempty"` // only what may differ was written
	Bitmaps []bitmapReport    `json:"bitmaps,omitempty"`
}

// A bitmapReport says which bitmap the new image got.
type bitmapReport struct {
	Name        string `json:"name"`
	Granularity int64  `json:"granularity"`
	Dirty       int64  `json:"dirty-bytes"`
}

// A linkReport says how many bytes of the disk came from a link.
type linkReport struct {
	Link    string `json:"link"`
	Data    int64  `json:"data"` // compressed or not
	Zero    int64  `json:"zero"`
	Changed bool   `json:"changed-bitmap"`
}

// report says what was restored; beside a disk on standard output it goes to
// standard error.
func (r *restoreCommand) report(c *console, ch *chain, result *reconstruct.Result) error {
	return r.tellReport(c, r.newReport(ch, result), result)
}

func (r *restoreCommand) newReport(ch *chain, result *reconstruct.Result) *restoreReport {
	var bitmaps []bitmapReport
	for _, b := range r.target.bitmaps {
		bitmaps = append(bitmaps, bitmapReport{b.name, b.bits.Granularity(), b.bits.Count()})
	}
	return &restoreReport{Bitmaps: bitmaps, Target: r.target.name(), Format: r.target.format, Size: result.Size,
		Written: result.Written, Zero: result.Zeroed, Shared: result.Shared, Links: ch.tally(result), Digests: digestMap(result.Digests)}
}

func (r *restoreCommand) tellReport(c *console, rep *restoreReport, result *reconstruct.Result) error {
	w := c.out
	if r.target.out == "-" {
		w = c.err
	}
	if r.json() {
		return json.NewEncoder(w).Encode(rep)
	}
	if r.quiet {
		return nil
	}
	return rep.print(w, result)
}

// tally is one report a link, oldest first.
func (ch *chain) tally(result *reconstruct.Result) []linkReport {
	var sums []reconstruct.Tally
	if point, ok := ch.disk.(*reconstruct.Chain); ok {
		sums = point.ByLink(result.Layers)
	} else {
		sums = []reconstruct.Tally{sumTallies(result.Layers)}
	}
	links := make([]linkReport, len(ch.links))
	for i, l := range ch.links {
		links[i] = linkReport{Link: l.Name, Data: sums[i].Data + sums[i].Compressed, Zero: sums[i].Zero, Changed: l.Changed != nil}
	}
	return links
}

func sumTallies(all []reconstruct.Tally) (sum reconstruct.Tally) {
	for _, t := range all {
		sum.Data += t.Data
		sum.Compressed += t.Compressed
		sum.Zero += t.Zero
		sum.Absent += t.Absent
	}
	return sum
}

func (r *restoreReport) print(w io.Writer, result *reconstruct.Result) error {
	if r.Delta != nil {
		r.printDelta(w)
	} else {
		fmt.Fprintf(w, "%s: restored %s (%d bytes), %s\n", escapeName(r.Target), formatSize(r.Size), r.Size, r.Format)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "data\tzero\t  link")
	for _, l := range r.Links {
		fmt.Fprintf(t, "%s\t%s\t  %s\n", formatSize(l.Data), formatSize(l.Zero), escapeName(l.Link))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.Shared > 0 {
		fmt.Fprintf(w, "%s in blocks that are shared with the links, and were not copied\n", formatSize(r.Shared))
	}
	for _, b := range r.Bitmaps {
		fmt.Fprintf(w, "bitmap %s: recording, %s dirty, granularity %s\n", escapeName(b.Name), formatSize(b.Dirty), formatSize(b.Granularity))
	}
	for _, d := range result.Digests {
		fmt.Fprintln(w, d)
	}
	if r.Delta != nil && len(result.Digests) > 0 {
		fmt.Fprintln(w, "that is the digest of the point, as the links have it")
	}
	if result.GivenUp {
		fmt.Fprintln(w, "digest: not computed, for that all would have to be read; --digest computes it")
	}
	return nil
}
