package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

// A squashReport is what --output=json prints when links were put together.
type squashReport struct {
	Target      string            `json:"target"`
	Kind        string            `json:"kind"` // full or increment
	Size        int64             `json:"virtual-size"`
	ClusterSize int64             `json:"cluster-size"`
	Written     int64             `json:"bytes-written"`
	Zero        int64             `json:"bytes-zero"`
	Shared      int64             `json:"bytes-shared"`           // not copied: the links have the same blocks
	On          string            `json:"stands-on,omitempty"`    // of an increment: the link before it, where it is known
	Backing     string            `json:"backing-file,omitempty"` // that its header names
	Links       []linkReport      `json:"links"`
	Digests     map[string]string `json:"digests"`
}

// report says what was put together.
func (s *squashCommand) report(c *console, j *squashJob, layout qcow2.Layout, result *reconstruct.Result) error {
	rep := squashReport{Target: s.out, Kind: "full", Size: result.Size, ClusterSize: layout.ClusterSize, Written: result.Written,
		Zero: result.Zeroed, Shared: result.Shared, Links: j.tally(result), Digests: digestMap(result.Digests)}
	if j.increment() {
		rep.Kind = "increment"
		if j.first > 0 {
			rep.On = j.chain.layers[j.first-1].name
		}
		if layout.Backing != nil {
			rep.Backing = layout.Backing.Name
		}
	}
	switch {
	case s.json():
		return json.NewEncoder(c.out).Encode(rep)
	case s.quiet:
		return nil
	}
	return rep.print(c.out, result)
}

// tally is one report a link that was put together, oldest first.
func (j *squashJob) tally(result *reconstruct.Result) []linkReport {
	if j.links == nil {
		return j.chain.tally(result)
	}
	sums := j.links.ByLink(result.Layers)
	var links []linkReport
	for i, l := range j.links.Links()[j.first:] {
		t := sums[j.first+i]
		links = append(links, linkReport{Link: l.Name, Data: t.Data + t.Compressed, Zero: t.Zero, Changed: l.Changed != nil})
	}
	return links
}

func (r *squashReport) print(w io.Writer, result *reconstruct.Result) error {
	kind := "a full backup"
	if r.Kind == "increment" {
		kind = "one increment"
	}
	fmt.Fprintf(w, "%s: squashed %s into %s, %s (%d bytes), clusters of %s\n", escapeName(r.Target),
		plural(len(r.Links), "link", "links"), kind, formatSize(r.Size), r.Size, formatSize(r.ClusterSize))
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
	r.printBase(w)
	for _, d := range result.Digests {
		fmt.Fprintln(w, d)
	}
	if result.GivenUp {
		fmt.Fprintln(w, "digest: not computed, for that all would have to be read; --digest computes it")
	}
	return nil
}

// printBase says on what an increment stands.
func (r *squashReport) printBase(w io.Writer) {
	if r.Kind != "increment" {
		return
	}
	on := "what " + escapeName(r.Links[0].Link) + " stood on"
	if r.On != "" {
		on = escapeName(r.On)
	}
	fmt.Fprintf(w, "stands on %s; its header names ", on)
	if r.Backing == "" {
		fmt.Fprintln(w, "no backing file")
		return
	}
	fmt.Fprintf(w, "the backing file %s\n", quote(escapeName(r.Backing)))
}
