package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/qbitkit/qbit/reconstruct"
)

// A convertReport is what --output=json prints when a disk was converted.
type convertReport struct {
	Target  string            `json:"target"`
	Format  string            `json:"format"`
	Size    int64             `json:"virtual-size"`
	Written int64             `json:"bytes-written"`
	Zero    int64             `json:"bytes-zero"`
	Shared  int64             `json:"bytes-shared"` // not copied: SRC has the same blocks
	Bitmaps []string          `json:"bitmaps,omitempty"`
	Digests map[string]string `json:"digests"`
}

// report says what was written.
func (v *convertCommand) report(c *console, path string, bitmaps []string, result *reconstruct.Result) error {
	rep := convertReport{Target: path, Format: v.to, Size: result.Size, Written: result.Written, Zero: result.Zeroed,
		Shared: result.Shared, Bitmaps: bitmaps, Digests: digestMap(result.Digests)}
	switch {
	case v.json():
		return json.NewEncoder(c.out).Encode(rep)
	case v.quiet:
		return nil
	}
	return rep.print(c.out, result)
}

func (r *convertReport) print(w io.Writer, result *reconstruct.Result) error {
	fmt.Fprintf(w, "%s: converted %s (%d bytes), %s, %s of data\n", escapeName(r.Target), formatSize(r.Size), r.Size, r.Format, formatSize(r.Written+r.Shared))
	if r.Shared > 0 {
		fmt.Fprintf(w, "%s in blocks that are shared with the source, and were not copied\n", formatSize(r.Shared))
	}
	if len(r.Bitmaps) > 0 {
		var names []string
		for _, name := range r.Bitmaps {
			names = append(names, escapeName(name))
		}
		fmt.Fprintf(w, "bitmaps: %s\n", strings.Join(names, ", "))
	}
	for _, d := range result.Digests {
		fmt.Fprintln(w, d)
	}
	if result.GivenUp {
		fmt.Fprintln(w, "digest: not computed, for that all would have to be read; --digest computes it")
	}
	return nil
}
