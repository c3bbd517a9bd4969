package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
)

// A report gathers what was measured, prints it, and writes it as Markdown.
type report struct {
	order    []string                 // the parts that were measured
	sections map[string]*bytes.Buffer // Markdown of each
	summary  bytes.Buffer             // a line for each want
	part     string                   // that is being measured
	peak     int64                    // the most that a command of qbit's had resident
}

// begin names the part that what is added from now on belongs to.
func (p *report) begin(part string) {
	if p.sections == nil {
		p.sections = map[string]*bytes.Buffer{}
	}
	if p.sections[part] == nil {
		p.order = append(p.order, part)
		p.sections[part] = new(bytes.Buffer)
	}
	p.part = part
}

// section is the Markdown of the part that is being measured.
func (p *report) section() *bytes.Buffer { return p.sections[p.part] }

// add prints a race that was run.
func (p *report) add(r *race, s settings) error {
	head := fmt.Sprintf("%s (scale %d%%, load %s)", r.title, s.scale, load())
	rows := r.table()
	p.peak = max(p.peak, r.ownPeak())
	printTable(head, rows, r.outcomes())
	p.markdown(head, r.note, rows, r.outcomes())
	for _, o := range r.outcomes() {
		p.summary.WriteString(o.row(r.title))
	}
	return nil
}

// say adds a sentence to what was reported last.
func (p *report) say(text string) {
	fmt.Printf("  %s\n\n", text)
	fmt.Fprintf(p.section(), "\n%s\n", text)
}

// row is a line of the summary.
func (o outcome) row(title string) string {
	return fmt.Sprintf("| %s | %s | %s | %s |\n", title, o.Want, o.Found, o.verdict())
}

// wanted is the summary in Markdown.
func (p *report) wanted() string {
	return "| case | wanted | found | |\n|---|---|---|---|\n" + p.summary.String() + memoryOutcome(p.peak).row("all")
}

// finish prints what is wanted of all cases.
func (p *report) finish() {
	o := memoryOutcome(p.peak)
	fmt.Printf("all: wanted: %s; found: %s: %s\n", o.Want, o.Found, o.verdict())
}

// table is a row for each command, and the head above them.
func (r *race) table() [][]string {
	rows := [][]string{{"rounds", "median", "min", "max", "CPU", "ratio", "memory", "command"}}
	own := r.runs[0].median()
	for _, c := range r.runs {
		if len(c.elapsed) == 0 {
			continue
		}
		rows = append(rows, c.row(own))
	}
	return rows
}

func (c *contestant) row(own time.Duration) []string {
	ratio := fmt.Sprintf("%.2f", c.median().Seconds()/own.Seconds())
	if c.cut {
		over := ">" + shown(c.limit)
		return []string{fmt.Sprint(len(c.elapsed)), over, over, over, "", ">" + ratio, memory(c.peak), c.name}
	}
	return []string{fmt.Sprint(len(c.elapsed)), shown(c.median()), shown(c.least()),
		shown(slices.Max(c.elapsed)), shown(median(c.cpu)), ratio, memory(c.peak), c.name}
}

func memory(n int64) string { return humanize.IBytes(uint64(n)) }

// shown is a time as the tables have it.
func shown(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

func printTable(head string, rows [][]string, outcomes []outcome) {
	fmt.Println(head)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range rows {
		last := len(row) - 1
		fmt.Fprintf(w, "%s\t  %s\n", strings.Join(row[:last], "\t"), row[last])
	}
	w.Flush()
	for _, o := range outcomes {
		fmt.Printf("  wanted: %s; found: %s: %s\n", o.Want, o.Found, o.verdict())
	}
	fmt.Println()
}

// markdown adds the same to the section of its part.
func (p *report) markdown(head, note string, rows [][]string, outcomes []outcome) {
	b := p.section()
	fmt.Fprintf(b, "\n**%s**\n\n", head)
	if note != "" {
		fmt.Fprintf(b, "%s\n\n", note)
	}
	for i, row := range rows {
		last := len(row) - 1
		command := row[last]
		if i > 0 {
			command = "`" + command + "`"
		}
		fmt.Fprintf(b, "| %s | %s |\n", command, strings.Join(row[:last], " | "))
		if i == 0 {
			fmt.Fprintf(b, "|---|%s\n", strings.Repeat("--:|", last))
		}
	}
	b.WriteByte('\n')
	for _, o := range outcomes {
		fmt.Fprintf(b, "- wanted: %s; found: %s: **%s**\n", o.Want, o.Found, o.verdict())
	}
}
