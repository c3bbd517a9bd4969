package main

import (
	"fmt"
	"strings"

	"github.com/qbitkit/qbit/qcow2"
)

// A checkPrinter prints what a check finds, for people.
type checkPrinter struct {
	c     *console
	path  string
	quiet bool
	meter *meter
	kinds []qcow2.FindingKind // in the order of the first of each
	seen  map[qcow2.FindingKind]bool
}

// begin prints which of several images is next.
func (p *checkPrinter) begin(i int) {
	if i > 0 {
		fmt.Fprintln(p.c.out)
	}
	fmt.Fprintf(p.c.out, "%s:\n", escapeName(p.path))
}

func (p *checkPrinter) start(m *meter) {
	p.meter, p.seen = m, map[qcow2.FindingKind]bool{}
}

// found prints a line.
func (p *checkPrinter) found(f qcow2.Finding) error {
	if p.quiet && f.Severity == qcow2.SeverityNotice {
		return nil
	}
	if !p.seen[f.Kind] {
		p.seen[f.Kind] = true
		p.kinds = append(p.kinds, f.Kind)
	}
	if p.meter != nil {
		p.meter.clearLine()
	}
	_, err := fmt.Fprintln(p.c.out, escapeText(findingLine(f)))
	return err
}

// findingLine is a finding in one line.
func findingLine(f qcow2.Finding) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s", f.Severity, f.Kind, f.Structure)
	if f.Field != "" {
		fmt.Fprintf(&b, " %s", f.Field)
	}
	if f.Host != 0 || f.Clusters == 0 {
		fmt.Fprintf(&b, " at %s", f.Host)
	}
	fmt.Fprintf(&b, ": %s, wanted %s", f.Found, f.Wanted)
	switch {
	case f.Clusters > 1:
		fmt.Fprintf(&b, "; %d clusters from %s", f.Clusters, f.Cluster)
	case f.Clusters == 1 || f.Cluster != 0:
		fmt.Fprintf(&b, "; cluster %s", f.Cluster)
	}
	if f.GuestLen > 0 {
		fmt.Fprintf(&b, "; guest bytes %d, +%d", f.GuestOff, f.GuestLen)
	}
	if f.Snapshot != "" {
		fmt.Fprintf(&b, " of snapshot %s", f.Snapshot)
	}
	return b.String()
}

// end prints what the findings mean, and the sum.
func (p *checkPrinter) end(img *qcow2.Image, res *qcow2.CheckResult) error {
	if p.quiet {
		return nil
	}
	p.explain()
	fmt.Fprintln(p.c.out, summaryLine(img, res))
	if img == nil {
		return nil
	}
	if res.AllocatedClusters > 0 && res.TotalClusters > 0 {
		fmt.Fprintf(p.c.out, "%d/%d = %s allocated, %s fragmented, %s compressed clusters\n",
			res.AllocatedClusters, res.TotalClusters, percent(res.AllocatedClusters, res.TotalClusters),
			percent(res.FragmentedClusters, res.AllocatedClusters), percent(res.CompressedClusters, res.AllocatedClusters))
	}
	_, err := fmt.Fprintf(p.c.out, "Image end offset: %d\n", res.ImageEnd)
	return err
}

func percent(part, whole int64) string {
	return fmt.Sprintf("%.2f%%", float64(part)*100/float64(whole))
}

func (p *checkPrinter) explain() {
	if len(p.kinds) == 0 {
		return
	}
	fmt.Fprintln(p.c.out, "\nWhat this means:")
	for _, kind := range p.kinds {
		means, _ := qcow2.Explain(kind)
		fmt.Fprintf(p.c.out, "  %s: %s\n", kind, means)
		if mend := mendCommand(kind, p.path); mend != "" {
			fmt.Fprintf(p.c.out, "      mend it with: %s\n", mend)
		}
	}
	fmt.Fprintln(p.c.out)
}

// summaryLine says how many of each there are.
func summaryLine(img *qcow2.Image, res *qcow2.CheckResult) string {
	if res.Clean() {
		line := "No errors were found."
		if res.Notices > 0 {
			line = fmt.Sprintf("No errors were found, %s.", counted(res.Notices, "notice"))
		}
		return line
	}
	var parts []string
	if res.Corruptions > 0 {
		parts = append(parts, counted(res.Corruptions, "corruption"))
	}
	if res.Leaks > 0 {
		parts = append(parts, fmt.Sprintf("%s (%s)", counted(res.Leaks, "leaked cluster"), formatSize(res.Leaks*img.Geometry().ClusterSize())))
	}
	if res.CheckErrors > 0 {
		parts = append(parts, counted(res.CheckErrors, "place")+" that could not be read")
	}
	if res.Notices > 0 {
		parts = append(parts, counted(res.Notices, "notice"))
	}
	line := "Found " + strings.Join(parts, ", ") + "."
	if res.Incomplete {
		line += " A reference is broken: what it led to is not known, and may show up as leaks."
	}
	return line
}

func counted(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
