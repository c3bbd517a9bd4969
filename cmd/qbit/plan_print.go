package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/qbitkit/qbit/reconstruct/plan"
)

// planVersion is that of the JSON of plan; it changes when a key changes its
// meaning.
const planVersion = 1

// A planJSON is what plan --output=json prints.
type planJSON struct {
	Version int `json:"version"`
	*plan.Plan
	Points []pointJSON `json:"points"`
}

// A pointJSON says whether a backup can be restored, and by which files.
type pointJSON struct {
	Disk    string         `json:"disk"`
	Domain  string         `json:"domain,omitempty"`
	Point   string         `json:"point"`
	ID      string         `json:"id"`
	Verdict plan.Verdict   `json:"verdict"`
	Why     []plan.Problem `json:"why,omitempty"`
	Route   []string       `json:"route,omitempty"` // whole backup first
}

func planReport(p *plan.Plan) planJSON {
	report := planJSON{Version: planVersion, Plan: p, Points: []pointJSON{}}
	for _, d := range p.Disks {
		for _, b := range d.Backups {
			j := pointJSON{Disk: d.Name, Domain: d.Domain, Point: b.Point, ID: b.ID}
			j.Verdict, j.Why = d.Judge(b)
			if route, err := d.Route(b, true); err == nil {
				for _, l := range route {
					j.Route = append(j.Route, l.ID)
				}
			}
			report.Points = append(report.Points, j)
		}
	}
	return report
}

// print shows the plan as a tree.
func (p *planCommand) print(c *console, s *set) error {
	w := bufio.NewWriter(c.out)
	for i, d := range s.Disks {
		if i > 0 {
			fmt.Fprintln(w)
		}
		p.printDisk(w, d)
	}
	for _, problem := range s.Problems {
		if problem.Kind != plan.ProblemNoBackup { // which the status says, with a message
			fmt.Fprintf(w, "%s\n", sentence(problem))
		}
	}
	switch {
	case p.verbose:
		for _, name := range s.Others {
			fmt.Fprintf(w, "no part of a backup: %s\n", escapeName(name))
		}
	case len(s.Others) > 0:
		fmt.Fprintf(w, "%s no part of a backup (-v names them)\n", plural(len(s.Others), "file is", "files are"))
	}
	return w.Flush()
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func (p *planCommand) printDisk(w io.Writer, d *plan.Disk) {
	fmt.Fprintf(w, "%s  (%s, %s)\n", escapeName(diskTitle(d)), d.Tool, plural(len(d.Backups), "backup", "backups"))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	levels := branchLevels(d)
	for i, b := range d.Backups {
		fmt.Fprintf(t, "  %s%s\t%s\t%s\t%s\t%s\t%s\n", strings.Repeat("  ", levels[i]), escapeName(b.Point), b.Kind, made(b), formatSize(b.Stored), standsOn(d, i), escapeName(b.ID))
	}
	t.Flush()
	if d.Live != "" {
		fmt.Fprintf(w, "  the disk as the guest left it: %s\n", escapeName(d.Live))
	}
	for _, problem := range d.Problems {
		fmt.Fprintf(w, "  %s\n", sentence(problem))
	}
	if p.verbose {
		printEvidence(w, d)
	}
	p.printProblems(w, d)
	fmt.Fprintf(w, "  %s\n", verdicts(d))
}

// branchLevels says how far to indent each backup: a chain goes straight down,
// and only where several stand on one they are moved in.
func branchLevels(d *plan.Disk) []int {
	children := map[*plan.Backup]int{}
	for _, b := range d.Backups {
		children[b.Parent]++
	}
	at := map[*plan.Backup]int{}
	levels := make([]int, len(d.Backups))
	for i, b := range d.Backups {
		if b.Parent != nil {
			levels[i] = at[b.Parent]
			if children[b.Parent] > 1 {
				levels[i]++
			}
		}
		at[b] = levels[i]
	}
	return levels
}

// made is when a backup was made, in UTC.
func made(b *plan.Backup) string {
	if b.Time.IsZero() {
		return "-"
	}
	return b.Time.UTC().Format("2006-01-02 15:04:05Z")
}

// standsOn says how well the parent of a backup is known, and which it is where
// that is not the one above.
func standsOn(d *plan.Disk, i int) string {
	b := d.Backups[i]
	switch {
	case b.Kind.Whole():
		return "-"
	case b.Parent == nil:
		return "on ?"
	case i > 0 && d.Backups[i-1] == b.Parent:
		return b.Edge.Grade.String()
	}
	return b.Edge.Grade.String() + ", on " + escapeName(b.Parent.Point)
}

// printEvidence says what speaks for the edges of a disk.
func printEvidence(w io.Writer, d *plan.Disk) {
	for _, b := range d.Backups {
		if b.Edge == nil {
			continue
		}
		for _, e := range b.Edge.Evidence {
			fmt.Fprintf(w, "  %s: %s: %s\n", escapeName(b.Point), e.Grade, escapeText(e.String()))
		}
	}
}

// printProblems says what is wrong with the backups of a disk. What is said of
// many is said of the first, unless all is asked for.
func (p *planCommand) printProblems(w io.Writer, d *plan.Disk) {
	type likeness struct {
		kind     plan.ProblemKind
		severity plan.Severity
		advice   string
	}
	seen := map[likeness]int{}
	alike := func(q plan.Problem) likeness { return likeness{q.Kind, q.Severity, q.Advice} }
	for _, b := range d.Backups {
		for _, q := range b.Problems {
			seen[alike(q)]++
		}
	}
	for _, b := range d.Backups {
		for _, q := range b.Problems {
			n := seen[alike(q)]
			if n == 0 {
				continue
			}
			fmt.Fprintf(w, "  %s: %s\n", escapeName(b.Point), sentence(q))
			if n > 2 && !p.verbose {
				fmt.Fprintf(w, "  and the same of %d more (-v shows them)\n", n-1)
				seen[alike(q)] = 0
			}
		}
	}
}

// sentence is a problem for people.
func sentence(p plan.Problem) string {
	word := map[plan.Severity]string{plan.Note: "note", plan.Doubt: "doubt", plan.Refuse: "refused"}[p.Severity]
	if p.Kind == plan.ProblemAssumed {
		word = "assumed"
	}
	return word + ": " + escapeText(p.String())
}

// verdicts sums up what can be restored.
func verdicts(d *plan.Disk) string {
	count := map[plan.Verdict]int{}
	for _, b := range d.Backups {
		verdict, why := d.Judge(b)
		if verdict == plan.Doubtful && slices.ContainsFunc(why, func(p plan.Problem) bool { return p.Kind == plan.ProblemAssumed }) {
			count["only with --assume"]++
			continue
		}
		count[verdict]++
	}
	var parts []string
	for _, v := range []plan.Verdict{plan.Restorable, plan.Doubtful, "only with --assume", plan.Lost} {
		if count[v] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[v], v))
		}
	}
	return strings.Join(parts, ", ")
}
