package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

const (
	salvageFormat  = "qbit-salvage-map"
	salvageVersion = 1
	// maxSalvageRows is how many ranges the table for people has.
	maxSalvageRows = 200
)

// A salvageMap is the JSON of a salvage. It is written while the disk is judged: the
// fields behind the ranges are filled by that.
type salvageMap struct {
	Format  string          `json:"format"`
	Version int             `json:"version"`
	Image   []string        `json:"image"`
	Out     string          `json:"out,omitempty"`
	Size    int64           `json:"virtual-size"`
	Notes   []string        `json:"notes"`
	Ranges  jsonList        `json:"ranges"`
	Totals  *salvageTotals  `json:"totals"`
	Reasons []salvageReason `json:"reasons"`
	Orphans []salvageOrphan `json:"orphans,omitempty"`

	links []*layer
	rows  []qcow2.Verdict // that are not sound, joined by grade and reason; the first
	more  int             // those that are left out
	disk  *qcow2.Salvaged
	err   error
}

func (*salvageMap) streamed() {}

type salvageTotals struct {
	Sound    int64 `json:"sound"`
	Doubtful int64 `json:"doubtful"`
	Lost     int64 `json:"lost"`
}

// A salvageReason is how much of a disk is not sound for one reason.
type salvageReason struct {
	Grade  string `json:"grade"`
	Reason string `json:"reason"`
	Length int64  `json:"length"`
	Ranges int64  `json:"ranges"`
	Text   string `json:"text"`
}

// A salvageRange is an element of ranges.
type salvageRange struct {
	Start  int64   `json:"start"`
	Length int64   `json:"length"`
	Grade  string  `json:"grade"`
	Reason string  `json:"reason,omitempty"`
	Kind   string  `json:"kind"`
	Host   *uint64 `json:"host-offset,omitempty"`
	Entry  *uint64 `json:"entry-offset,omitempty"`
	Depth  int     `json:"depth"`
	File   string  `json:"file,omitempty"`
}

// A salvageOrphan is a cluster that looks like an L2 table.
type salvageOrphan struct {
	Host      uint64 `json:"host-offset"`
	Entries   int64  `json:"entries"`
	Unclaimed int64  `json:"unclaimed"`
	Copied    int64  `json:"copied"`
	Counted   bool   `json:"counted"`
	Score     int    `json:"score"`
	// Guest is where it most likely belongs.
	Guest *jsonGuest `json:"guest,omitempty"`
}

// report judges the disk, after it was read, and says what came out.
func (s *salvageCommand) report(ctx context.Context, c *console, o *opener, job *salvageJob) error {
	m := s.newMap(job)
	if err := s.judge(ctx, c, o, m); err != nil {
		return err
	}
	w := c.out
	if s.target.out == "-" || s.mapFile == "-" {
		w = c.err
	}
	if !s.json() && !s.quiet {
		if err := m.print(w, s); err != nil {
			return err
		}
	}
	if s.link && m.Totals.Lost > 0 {
		c.warn("%s: %s of this link are lost and are zeros now, which hide older bytes; keep the map with it, or salvage the whole chain",
			escapeName(s.target.out), formatSize(m.Totals.Lost))
	}
	if m.Totals.Lost+m.Totals.Doubtful > 0 {
		return errNotSound
	}
	return nil
}

func (s *salvageCommand) newMap(job *salvageJob) *salvageMap {
	m := &salvageMap{Format: salvageFormat, Version: salvageVersion, Out: s.target.out, Size: job.disk.Size(),
		Notes: []string{}, Totals: &salvageTotals{}, Reasons: []salvageReason{}, links: job.links, disk: job.disk}
	for _, l := range job.links {
		m.Image = append(m.Image, l.name)
		if d, ok := l.disk.(*qcow2.Salvaged); ok {
			m.Notes = append(m.Notes, d.Notes()...)
		}
	}
	return m
}

// judge goes over the disk once and writes the map where it is wanted.
func (s *salvageCommand) judge(ctx context.Context, c *console, o *opener, m *salvageMap) error {
	m.Ranges = func(yield func(any) bool) { m.ranges(ctx, s.orphans, yield) }
	var to []io.Writer
	if s.json() || s.mapFile == "-" {
		w := c.out
		if s.target.out == "-" {
			w = c.err
		}
		to = append(to, w)
	}
	write := func(extra ...io.Writer) error {
		err := writeStream(io.MultiWriter(append(to, extra...)...), m)
		if m.err != nil {
			return m.err
		}
		return err
	}
	if s.mapFile == "" || s.mapFile == "-" {
		return write()
	}
	return s.writeMap(o, write)
}

// writeMap writes the map to a new file that gets its name when it is whole.
func (s *salvageCommand) writeMap(o *opener, write func(...io.Writer) error) error {
	inputs, err := o.inputs()
	if err != nil {
		return err
	}
	if s.target.out != "" && s.target.out != "-" {
		info, err := os.Stat(s.target.out)
		if err != nil {
			return err
		}
		inputs = append(inputs, info)
	}
	out, err := reconstruct.CreateOutput(s.mapFile, &reconstruct.OutputOptions{Overwrite: s.target.force, Inputs: inputs})
	if err != nil {
		return outputError(s.mapFile, err, s.target.force)
	}
	defer out.Abort()
	if err := write(out.File()); err != nil {
		return err
	}
	if err := out.Commit(); err != nil {
		return plainError(s.mapFile, err)
	}
	return nil
}

// ranges judges the disk; all other fields that depend on it are set when it is done.
func (m *salvageMap) ranges(ctx context.Context, orphans bool, yield func(any) bool) {
	for v, err := range m.disk.Verdicts(0, m.Size) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			m.err = err
			return
		}
		m.count(v)
		if !yield(m.rangeOf(v)) {
			return
		}
	}
	slices.SortFunc(m.Reasons, func(a, b salvageReason) int {
		if a.Grade != b.Grade {
			return -compareText(a.Grade, b.Grade) // lost first
		}
		return int(min(1, max(-1, b.Length-a.Length)))
	})
	if orphans {
		m.err = m.listOrphans(ctx)
	}
}

func compareText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// count adds a verdict to the totals and to the table.
func (m *salvageMap) count(v qcow2.Verdict) {
	switch v.Grade {
	case qcow2.Sound:
		m.Totals.Sound += v.Len
		return
	case qcow2.Doubtful:
		m.Totals.Doubtful += v.Len
	default:
		m.Totals.Lost += v.Len
	}
	m.reason(v)
	n := len(m.rows)
	switch {
	case n > 0 && m.more == 0 && m.rows[n-1].End() == v.Off && m.rows[n-1].Grade == v.Grade && m.rows[n-1].Reason == v.Reason && m.rows[n-1].Depth == v.Depth:
		m.rows[n-1].Len += v.Len
	case n < maxSalvageRows:
		m.rows = append(m.rows, v)
	default:
		m.more++
	}
}

func (m *salvageMap) reason(v qcow2.Verdict) {
	for i := range m.Reasons {
		if r := &m.Reasons[i]; r.Grade == v.Grade.String() && r.Reason == string(v.Reason) {
			r.Length += v.Len
			r.Ranges++
			return
		}
	}
	m.Reasons = append(m.Reasons, salvageReason{Grade: v.Grade.String(), Reason: string(v.Reason), Length: v.Len, Ranges: 1, Text: v.Reason.Text()})
}

func (m *salvageMap) rangeOf(v qcow2.Verdict) salvageRange {
	r := salvageRange{Start: v.Off, Length: v.Len, Grade: v.Grade.String(), Reason: string(v.Reason), Kind: v.Kind.String(), Depth: v.Depth}
	if v.HasHost {
		host := uint64(v.Host)
		r.Host = &host
	}
	if v.Entry != 0 {
		entry := uint64(v.Entry)
		r.Entry = &entry
	}
	if l := m.layerAt(v.Depth); l != nil {
		r.File = l.storageFile().path
	}
	return r
}

// layerAt is the layer of a depth: the newest link is 0, and below the oldest come its
// backing files.
func (m *salvageMap) layerAt(depth int) *layer {
	return (&chain{layers: m.links}).layerAt(depth)
}

func (m *salvageMap) listOrphans(ctx context.Context) error {
	for o, err := range m.disk.Orphans(ctx) {
		if err != nil {
			return err
		}
		j := salvageOrphan{Host: uint64(o.Host), Entries: o.Entries, Unclaimed: o.Unclaimed, Copied: o.Copied, Counted: o.Counted, Score: o.Score()}
		if o.GuestLen > 0 {
			j.Guest = &jsonGuest{o.GuestOff, o.GuestLen}
		}
		m.Orphans = append(m.Orphans, j)
		if len(m.Orphans) == maxOrphans {
			break
		}
	}
	slices.SortStableFunc(m.Orphans, func(a, b salvageOrphan) int { return b.Score - a.Score })
	return nil
}

// maxOrphans is how many orphans are listed.
const maxOrphans = 10000

// print writes what came out for people, the totals first.
func (m *salvageMap) print(w io.Writer, s *salvageCommand) error {
	if s.dry {
		fmt.Fprintf(w, "a disk of %s (%d bytes); plain data was not read\n", formatSize(m.Size), m.Size)
	} else {
		fmt.Fprintf(w, "%s: salvaged %s (%d bytes), %s\n", escapeName(s.target.name()), formatSize(m.Size), m.Size, s.target.format)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range []struct {
		name string
		n    int64
	}{{"sound", m.Totals.Sound}, {"doubtful", m.Totals.Doubtful}, {"lost", m.Totals.Lost}} {
		fmt.Fprintf(t, "%s\t%s\t%d bytes\t%s\n", row.name, formatSize(row.n), row.n, shareOf(row.n, m.Size))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	m.printReasons(w)
	if err := m.printRows(w); err != nil {
		return err
	}
	return m.printOrphans(w)
}

// shareOf is a part of a disk; what is not nothing and not all is never rounded to that.
func shareOf(n, of int64) string {
	switch {
	case n == 0 || of == 0:
		return "0%"
	case n == of:
		return "100%"
	}
	return fmt.Sprintf("%.1f%%", min(99.9, max(0.1, float64(n)*100/float64(of))))
}

// salvageHints say what the user can do about a reason.
var salvageHints = map[qcow2.Reason]string{
	qcow2.ReasonNoBacking:   "; if there was none, say --no-backing",
	qcow2.ReasonAmbiguous:   "; --l1-offset chooses one",
	qcow2.ReasonL1Found:     "; --l1-offset chooses another",
	qcow2.ReasonWiped:       "; --orphans lists those that look like L2 tables",
	qcow2.ReasonL1Entry:     "; --orphans lists clusters that may be L2 tables",
	qcow2.ReasonEvidence:    "; more --memory may help",
	qcow2.ReasonBackingFile: "; allow it with --allow-refs, --ref or --trust",
}

func (m *salvageMap) printReasons(w io.Writer) {
	if len(m.Reasons) > 0 {
		fmt.Fprintln(w)
	}
	for _, r := range m.Reasons {
		fmt.Fprintf(w, "%s, %s (%s):\n", r.Grade, r.Reason, formatSize(r.Length))
		for _, line := range wrap(r.Text+salvageHints[qcow2.Reason(r.Reason)], 76) {
			fmt.Fprintf(w, "    %s\n", line)
		}
	}
}

func (m *salvageMap) printRows(w io.Writer) error {
	if len(m.rows) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "start\tlength\tgrade\treason\thost offset\tfile")
	for _, v := range m.rows {
		host, file := "-", ""
		if v.HasHost {
			host = v.Host.String()
		}
		if l := m.layerAt(v.Depth); l != nil {
			file = escapeName(l.storageFile().path)
		}
		fmt.Fprintf(t, "%#x\t%#x\t%s\t%s\t%s\t%s\n", v.Off, v.Len, v.Grade, v.Reason, host, file)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if m.more > 0 {
		fmt.Fprintf(w, "and %d more; --map FILE has them all\n", m.more)
	}
	return nil
}

func (m *salvageMap) printOrphans(w io.Writer) error {
	if len(m.Orphans) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\nclusters that look like L2 tables nothing leads to; --l2 OFFSET=HOST uses one:")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "host\tentries\tunclaimed\tscore\tmost likely")
	for _, o := range m.Orphans {
		guess := "-"
		if o.Guest != nil {
			guess = fmt.Sprintf("--l2 %#x=%#x", o.Guest.Start, o.Host)
		}
		fmt.Fprintf(t, "%#x\t%d\t%d\t%d\t%s\n", o.Host, o.Entries, o.Unclaimed, o.Score, guess)
	}
	return t.Flush()
}
