package main

import (
	"fmt"

	"github.com/qbitkit/qbit/qcow2"
)

// A repairReport is what a repair did, or would do.
type repairReport struct {
	Filename string        `json:"filename"`
	Format   string        `json:"format"`
	Repair   string        `json:"repair"`
	DryRun   bool          `json:"dry-run"`
	To       string        `json:"to,omitempty"`
	Journal  string        `json:"journal,omitempty"`
	Before   repairCounts  `json:"before"`
	After    repairCounts  `json:"after"`
	Done     []string      `json:"done"`
	Lost     []lostRange   `json:"lost,omitempty"`
	Left     []jsonFinding `json:"left,omitempty"`
	Bytes    int64         `json:"bytes-written"`
	plan     *qcow2.Repair
}

type repairCounts struct {
	Corruptions int64 `json:"corruptions"`
	Leaks       int64 `json:"leaks"`
}

// A lostRange is guest bytes that could not be read before the repair either.
type lostRange struct {
	Snapshot string `json:"snapshot,omitempty"`
	Start    int64  `json:"start"`
	Length   int64  `json:"length"`
}

func newRepairReport(path string, plan *qcow2.Repair, k *checkCommand) *repairReport {
	r := &repairReport{Filename: path, Format: formatQcow2, Repair: k.repair, DryRun: k.dry, To: k.to, plan: plan,
		Before: repairCounts{plan.Before.Corruptions, plan.Before.Leaks},
		After:  repairCounts{plan.After.Corruptions, plan.After.Leaks}, Done: []string{}}
	for _, s := range plan.Done {
		r.Done = append(r.Done, escapeText(s))
	}
	for _, l := range plan.Lost {
		r.Lost = append(r.Lost, lostRange{l.Snapshot, l.Off, l.Len})
	}
	for _, f := range plan.Left {
		r.Left = append(r.Left, newJSONFinding(f, path))
	}
	for _, p := range plan.Phases {
		for _, c := range p.Changes {
			r.Bytes += int64(len(c.New))
		}
	}
	return r
}

// tell prints the report.
func (k *checkCommand) tell(c *console, r *repairReport) error {
	if k.json() {
		return writeJSON(c.out, r)
	}
	if k.quiet {
		return nil
	}
	fmt.Fprintf(c.out, "Found %s and %s.\n", counted(r.Before.Corruptions, "corruption"), counted(r.Before.Leaks, "leaked cluster"))
	switch {
	case len(r.plan.Phases) == 0:
		fmt.Fprintf(c.out, "Nothing to repair with -r %s.\n", k.repair)
	case r.DryRun:
		fmt.Fprintln(c.out, "The repair, of which nothing is written now:")
	default:
		fmt.Fprintln(c.out, "The repair:")
	}
	for _, s := range r.Done {
		fmt.Fprintf(c.out, "  %s\n", s)
	}
	k.tellLost(c, r)
	return k.tellEnd(c, r)
}

func (k *checkCommand) tellLost(c *console, r *repairReport) {
	if len(r.Lost) > 0 {
		fmt.Fprintln(c.out, "Lost, and not to be read before either; it reads as zero, or as the backing file:")
	}
	for _, l := range r.Lost {
		where := "the disk"
		if l.Snapshot != "" {
			where = "snapshot " + escapeName(l.Snapshot)
		}
		fmt.Fprintf(c.out, "  guest bytes %d, +%d of %s\n", l.Start, l.Length, where)
	}
	if len(r.plan.Left) > 0 {
		fmt.Fprintln(c.out, "Left:")
	}
	for _, f := range r.plan.Left {
		fmt.Fprintf(c.out, "  %s\n", escapeText(findingLine(f)))
	}
}

func (k *checkCommand) tellEnd(c *console, r *repairReport) error {
	if r.DryRun || len(r.plan.Phases) == 0 && r.To == "" {
		return nil
	}
	target := r.Filename
	if r.To != "" {
		target = r.To
	}
	_, err := fmt.Fprintf(c.out, "%s: %s and %s are left.\n", escapeName(target),
		counted(r.After.Corruptions, "corruption"), counted(r.After.Leaks, "leaked cluster"))
	if r.Journal != "" {
		_, err = fmt.Fprintf(c.out, "To undo it: qbit check --undo %s %s\n", shellWord(r.Journal), shellWord(target))
	}
	return err
}
