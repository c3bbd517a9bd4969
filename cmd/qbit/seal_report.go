package main

import (
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/qbitkit/qbit/reconstruct/manifest"
	"github.com/qbitkit/qbit/reconstruct/plan"
)

// sealVersion is that of the JSON of seal; it changes when a key changes its
// meaning.
const sealVersion = 1

// A sealState is what became of a point.
type sealState string

const (
	stateSealed    sealState = "sealed"
	stateKept      sealState = "kept"       // sealed before; its files have the size that they had
	stateChecked   sealState = "unchanged"  // sealed before; its files have the checksums that they had
	stateChanged   sealState = "changed"    // sealed before, and something is not what it was
	stateNotSealed sealState = "not sealed" // it cannot be restored
	stateGone      sealState = "gone"       // sealed before, and not there now
	stateForgotten sealState = "forgotten"  // gone, and dropped from the manifest
)

// A sealReport is what seal --output=json prints.
type sealReport struct {
	Version  int          `json:"version"`
	Manifest string       `json:"manifest"`
	Written  bool         `json:"written"`
	Points   []sealedJSON `json:"points"`
}

// A sealedJSON is one point.
type sealedJSON struct {
	Domain string    `json:"domain,omitempty"`
	Disk   string    `json:"disk"`
	Point  string    `json:"point"`
	ID     string    `json:"id"`
	State  sealState `json:"state"`
	Root   string    `json:"xxh64-4m,omitempty"`
	SHA256 string    `json:"sha256,omitempty"`
	Why    []string  `json:"why,omitempty"`

	point *manifest.Point
}

// tell notes what became of a backup.
func (w *sealWork) tell(d *plan.Disk, b *plan.Backup, state sealState, why ...string) {
	var p *manifest.Point
	if sealed := sealedDisk(w.m, d); sealed != nil {
		p = sealedPoint(sealed, d, b)
	}
	w.tellPoint(d, b, p, state, why...)
}

func (w *sealWork) tellPoint(d *plan.Disk, b *plan.Backup, p *manifest.Point, state sealState, why ...string) {
	j := sealedJSON{Domain: d.Domain, Disk: d.Name, Point: b.Point, ID: b.ID, State: state, Why: why, point: p}
	if p != nil {
		j.Root, j.SHA256 = p.Root.String(), p.SHA256
	}
	w.points = append(w.points, j)
}

// report prints what became of the points. The error says what was not sealed.
func (w *sealWork) report() error {
	if w.k.json() {
		if err := writeJSON(w.c.out, sealReport{sealVersion, w.path, w.changed, w.points}); err != nil {
			return err
		}
	} else if err := w.print(); err != nil {
		return err
	}
	if w.failed {
		return badData{fmt.Errorf("%s: %w", escapeName(w.s.path), errNotAllSealed)}
	}
	return nil
}

func (w *sealWork) print() error {
	if !w.k.quiet {
		w.printTable()
	}
	for _, j := range w.points {
		for _, why := range j.Why {
			w.c.warn("%s, point %s: %s", j.title(), j.Point, why)
		}
	}
	if w.k.quiet {
		return nil
	}
	verb := "written"
	if !w.changed {
		verb = "left as it is"
	}
	_, err := fmt.Fprintf(w.c.out, "%s: %s\n", escapeName(w.path), verb)
	return err
}

func (w *sealWork) printTable() {
	t := tabwriter.NewWriter(w.c.out, 0, 0, 2, ' ', 0)
	for _, j := range w.points {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", escapeName(j.title()), escapeName(j.Point), j.State, j.Root, escapeName(j.ID))
	}
	t.Flush()
}

// title names the disk.
func (j sealedJSON) title() string { return diskTitle(&plan.Disk{Domain: j.Domain, Name: j.Disk}) }

var errNotAllSealed = errors.New("not every point is sealed and unchanged")
