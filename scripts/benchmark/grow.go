package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// A growth is how the cost of restoring grows with one thing.
type growth struct {
	title  string // "data": what grows
	fixed  string // what stays the same, in words
	format string // of the result
	at     []int64
	name   func(int64) string
	chain  func(int64) chain
	points []point
}

// A point is what restoring took: the least of some runs, for what disturbs a run is
// not what grows.
type point struct {
	x          int64
	label      string
	qbit, qemu time.Duration
	cut        bool // qemu is where it was ended
}

// growths are measured with less data at a smaller scale; links and disks stay.
func growths(s settings) []*growth {
	bytes := func(n int64) string { return strings.Replace(humanize.IBytes(uint64(n)), ".0 ", " ", 1) }
	full := func(size, data int64) chain {
		return chain{size: size, links: 1, fullData: data, unit: [2]int64{64 * kib, mib}, align: 64 * kib}
	}
	var amounts []int64
	for n := int64(16 * mib); n <= 4*gib; n *= 4 {
		amounts = append(amounts, s.part(n, mib/4))
	}
	deepData, wideData := s.part(512*mib, 16*mib), s.part(256*mib, 8*mib)
	return []*growth{
		{title: "data", fixed: "one image of 16 GiB", format: "raw", at: amounts, name: bytes,
			chain: func(n int64) chain { return full(16*gib, n) }},
		{title: "links", fixed: bytes(deepData) + " of data in a disk of 8 GiB", format: "raw",
			at: []int64{1, 2, 5, 10, 20, 50, 100, 200}, name: func(n int64) string { return fmt.Sprint(n) },
			chain: func(n int64) chain {
				c := full(8*gib, deepData)
				c.links, c.spread = int(n), true
				return c
			}},
		{title: "size of the disk", fixed: "one image with " + bytes(wideData) + " of data, to qcow2", format: "qcow2",
			at: []int64{gib, 16 * gib, 256 * gib, 4 * tib, 64 * tib}, name: bytes,
			chain: func(n int64) chain { return full(n, wideData) }},
	}
}

// runGrow measures how cost grows, and draws it where that is asked for.
func runGrow(s settings) error {
	s.rounds = min(s.rounds, 2)
	all := growths(s)
	for _, g := range all {
		for _, x := range g.at {
			if err := g.measure(s, x); err != nil {
				return fmt.Errorf("%s, %s: %w", g.title, g.name(x), err)
			}
		}
		g.report(s)
	}
	if s.plot == "" {
		return nil
	}
	f, err := os.Create(s.plot)
	if err != nil {
		return err
	}
	if err := draw(f, all); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// measure adds a point.
func (g *growth) measure(s settings, x int64) error {
	return inFolder(s, func(s settings) error {
		dir := s.dir
		c := g.chain(x)
		links, err := c.build(dir)
		if err != nil {
			return err
		}
		w := writers{dir}
		restore := append([]string{s.qbit, "restore", "-q", "-O", g.format}, links...)
		ours, qemu := w.add(restoreName, append(restore, "-o")...), w.convert(g.format, links[len(links)-1])
		qemu.limit = s.limit
		r := race{title: g.title, writes: c.data(), runs: []*contestant{ours, qemu}}
		if err := r.measure(s); err != nil {
			return err
		}
		s.report.peak = max(s.report.peak, r.ownPeak())
		g.points = append(g.points, point{x, g.name(x), ours.least(), qemu.least(), qemu.cut})
		return nil
	})
}

// report prints the points as a table.
func (g *growth) report(s settings) {
	rows := [][]string{{"qbit restore", "qemu-img convert", "ratio", g.title}}
	for _, p := range g.points {
		over := ""
		if p.cut {
			over = ">"
		}
		rows = append(rows, []string{shown(p.qbit), over + shown(p.qemu), fmt.Sprintf("%s%.2f", over, p.qemu.Seconds()/p.qbit.Seconds()), p.label})
	}
	head := fmt.Sprintf("how cost grows with the %s: %s (least times, scale %d%%, load %s)", g.title, g.fixed, s.scale, load())
	printTable(head, rows, nil)
	s.report.markdown(head, "", rows, nil)
}
