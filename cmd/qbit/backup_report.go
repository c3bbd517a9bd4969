package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/qbitkit/qbit/reconstruct"
)

// A backupReport is what --output=json prints when disks were backed up.
type backupReport struct {
	Checkpoint string             `json:"checkpoint,omitempty"` // that was made
	Parent     string             `json:"parent,omitempty"`     // of the checkpoint
	Disks      []backupDiskReport `json:"disks"`
	Documents  []string           `json:"documents"`
	Manifests  []string           `json:"manifests"`
}

// A backupDiskReport says what was done with one disk.
type backupDiskReport struct {
	Disk    string            `json:"disk"`
	Source  string            `json:"source"`
	Bitmap  string            `json:"bitmap,omitempty"` // that was added
	Backup  string            `json:"backup,omitempty"` // the file; empty: only the checkpoint
	Format  string            `json:"format,omitempty"`
	Since   string            `json:"since,omitempty"` // the checkpoint; empty: a full backup
	Backing string            `json:"backing-file,omitempty"`
	Size    int64             `json:"virtual-size"`
	Covered int64             `json:"bytes-covered"` // of the disk, that the backup holds
	Written int64             `json:"bytes-written"`
	Zero    int64             `json:"bytes-zero"`
	Digests map[string]string `json:"digests"`
}

// report says what was done.
func (r *backupRun) report() error {
	rep := backupReport{Documents: append([]string{}, r.documents...), Manifests: append([]string{}, r.manifests...)}
	if r.checkpoint != nil {
		rep.Checkpoint, rep.Parent = r.checkpoint.Name, r.checkpoint.Parent
	}
	for _, d := range r.disks {
		rep.Disks = append(rep.Disks, d.report())
	}
	switch {
	case r.b.json():
		return json.NewEncoder(r.c.out).Encode(rep)
	case r.b.quiet:
		return nil
	}
	return rep.print(r.c.out)
}

func (d *backupDisk) report() backupDiskReport {
	rep := backupDiskReport{Disk: d.target, Source: d.source.name, Bitmap: d.bitmap, Size: d.disk.Size(), Digests: map[string]string{}}
	if d.result == nil {
		return rep
	}
	rep.Backup, rep.Format, rep.Since = d.out, d.outFormat, d.base
	rep.Covered, rep.Written, rep.Zero = d.result.Covered, d.result.Written, d.result.Zeroed
	rep.Digests = digestMap(d.result.Digests)
	if d.backing != nil {
		rep.Backing = d.backing.Name
	}
	if d.result.View != nil {
		rep.Digests[reconstruct.Tree] = d.result.View.Point().Root.String()
	}
	return rep
}

func (r *backupReport) print(w io.Writer) error {
	for _, d := range r.Disks {
		d.print(w)
	}
	if r.Checkpoint != "" {
		after := ""
		if r.Parent != "" {
			after = ", after " + escapeName(r.Parent)
		}
		fmt.Fprintf(w, "checkpoint %s%s: made in the same moment\n", escapeName(r.Checkpoint), after)
	}
	for _, path := range append(append([]string{}, r.Documents...), r.Manifests...) {
		if _, err := fmt.Fprintf(w, "wrote %s\n", escapeName(path)); err != nil {
			return err
		}
	}
	return nil
}

func (d *backupDiskReport) print(w io.Writer) {
	if d.Backup == "" {
		return
	}
	what := "full"
	if d.Since != "" {
		what = "what changed since " + escapeName(d.Since)
	}
	fmt.Fprintf(w, "%s: backed up %s (%s), %s, %s (%d bytes), %s\n", escapeName(d.Backup), escapeName(d.Disk), escapeName(d.Source),
		what, formatSize(d.Size), d.Size, d.Format)
	fmt.Fprintf(w, "%s data, %s zero", formatSize(d.Written), formatSize(d.Zero))
	if d.Since != "" {
		fmt.Fprintf(w, ", %s unchanged", formatSize(d.Size-d.Covered))
	}
	if d.Backing != "" {
		fmt.Fprintf(w, "; backing file %s", escapeName(d.Backing))
	}
	fmt.Fprintln(w)
	for _, name := range reconstruct.DigestNames() {
		if sum, ok := d.Digests[name]; ok {
			fmt.Fprintf(w, "%s:%s\n", name, sum)
		}
	}
}
