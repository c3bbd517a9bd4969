// Command benchmark times qbit beside qemu-img, cp and others on images that it makes
// itself, and prints tables. scripts/bench builds and runs it; docs/performance.md says
// what the tables mean.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

type settings struct {
	qbit     string
	dir      string
	rounds   int
	scale    int64         // percent of the full amount of data
	limit    time.Duration // of commands that could take minutes
	only     []string      // parts; none: all
	plot     string        // the SVG to write; "": none
	markdown string        // the file to put the tables into; "": none
	report   *report
}

// part is n by the scale, but not less than least.
func (s settings) part(n, least int64) int64 { return max(least, n*s.scale/100) }

// A part is a group of cases that can be measured alone.
type part struct {
	name string
	run  func(settings) error
	only bool // measured where it is asked for, not as one of all
}

// parts in the order in which they are measured and reported.
var parts = []part{
	{name: "startup", run: runStartup},
	{name: "chains", run: runChains},
	{name: "deep", run: runDeep},
	{name: "clusters", run: runClusters},
	{name: "compressed", run: runCompressed},
	{name: "wide", run: runWide},
	{name: "reflink", run: runReflink},
	{name: "reads", run: runReads},
	{name: "streams", run: runStreams},
	{name: "backups", run: runBackups},
	{name: "check", run: runChecks},
	{name: "bitmaps", run: runBitmaps},
	{name: "many", run: runMany},
	{name: "grow", run: runGrow, only: true},
}

func main() {
	if len(os.Args) > 3 && os.Args[1] == launchWord {
		exit(launch(os.Args[2:]))
	}
	s, err := parse()
	if err == nil {
		err = run(s)
	}
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchmark:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// parse reads the command line. What -quick sets, other flags still change.
func parse() (settings, error) {
	s := settings{report: new(report)}
	var only string
	quick := slices.ContainsFunc(os.Args[1:], func(a string) bool { return strings.TrimLeft(a, "-") == "quick" })
	rounds, scale, limit := 3, int64(100), 30*time.Second
	if quick {
		rounds, scale, limit = 3, 5, 5*time.Second
	}
	flag.StringVar(&s.qbit, "qbit", "qbit", "the qbit to measure")
	flag.StringVar(&s.dir, "dir", os.TempDir(), "where images are made; about 14 GiB are needed")
	flag.IntVar(&s.rounds, "rounds", rounds, "how often each command runs")
	flag.Int64Var(&s.scale, "scale", scale, "percent of the full amount of data")
	flag.DurationVar(&s.limit, "limit", limit, "end commands that could take minutes after this long")
	flag.StringVar(&only, "only", "", "measure nothing but these parts, separated by commas: "+partNames())
	flag.StringVar(&s.plot, "plot", "", "measure how cost grows (part grow), and draw it into this SVG")
	flag.StringVar(&s.markdown, "markdown", "", "put the tables into this Markdown file")
	flag.Bool("quick", false, "everything on little data, in some minutes: -scale 5 -rounds 3 -limit 5s")
	flag.Parse()
	if only != "" {
		s.only = strings.Split(only, ",")
	}
	return s, s.check(flag.Args())
}

func partNames() string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

func (s settings) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case s.rounds < 1 || s.scale < 1:
		return fmt.Errorf("-rounds and -scale must be 1 or more, not %d and %d", s.rounds, s.scale)
	}
	for _, name := range s.only {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			return fmt.Errorf("there is no part %q, but %s", name, partNames())
		}
	}
	return nil
}

// wanted says that a part is to be measured.
func (s settings) wanted(p part) bool {
	switch {
	case slices.Contains(s.only, p.name):
		return true
	case p.only:
		return s.plot != ""
	}
	return len(s.only) == 0
}

func run(s settings) error {
	for _, tool := range []string{"qemu-img", "qemu-io", "cp"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	for _, p := range parts {
		if !s.wanted(p) {
			continue
		}
		s.report.begin(p.name)
		start := time.Now()
		if err := p.run(s); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Fprintf(os.Stderr, "%s: %s\n", p.name, time.Since(start).Round(time.Second))
	}
	s.report.finish()
	if s.markdown == "" {
		return nil
	}
	return s.report.write(s.markdown, len(s.only) == 0)
}
