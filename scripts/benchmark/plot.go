package main

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"time"
)

//go:embed plot.svg.tmpl
var plotText string

// The drawing, in pixels: panels side by side, each with axes at its left and bottom.
const (
	panelWidth  = 250.0
	panelHeight = 190.0
	panelLeft   = 52.0 // of the first: room for the words at the axis
	panelTop    = 58.0
	panelGap    = 34.0
)

// A plot is what the template draws.
type plot struct {
	Width, Height float64
	Right         float64 // of a panel
	Bottom        float64
	Panels        []panel
}

// A panel is one diagram.
type panel struct {
	Left         float64 // of its axes in the drawing
	Title, Fixed string
	XTicks       []tick
	YTicks       []tick
	Lines        []line
}

// A tick is a mark on an axis.
type tick struct {
	At   float64
	Text string
}

// A line is what one program took.
type line struct {
	Class  string
	Points string
	Dots   []dot
}

// A dot is one measurement.
type dot struct {
	X, Y float64
	Cut  bool // it took longer
	Text string
}

// draw writes an SVG with logarithmic axes. All panels have the same times at their
// left side.
func draw(w io.Writer, all []*growth) error {
	t, err := template.New("plot").Parse(plotText)
	if err != nil {
		return err
	}
	p := plot{Right: panelWidth, Bottom: panelHeight, Height: panelTop + panelHeight + 44,
		Width: panelLeft + float64(len(all))*(panelWidth+panelGap)}
	y := timeScale(all)
	for i, g := range all {
		p.Panels = append(p.Panels, g.panel(panelLeft+float64(i)*(panelWidth+panelGap), i == 0, y))
	}
	return t.Execute(w, p)
}

// A scale maps values to pixels, by their logarithm.
type scale struct{ low, high, from, to float64 }

func (s scale) at(v float64) float64 {
	part := (math.Log(v) - math.Log(s.low)) / (math.Log(s.high) - math.Log(s.low))
	return math.Round(10*(s.from+part*(s.to-s.from))) / 10
}

// timeScale is for seconds, of whole decades that hold all points.
func timeScale(all []*growth) scale {
	low, high := math.Inf(1), 0.0
	for _, g := range all {
		for _, p := range g.points {
			low, high = min(low, p.qbit.Seconds(), p.qemu.Seconds()), max(high, p.qbit.Seconds(), p.qemu.Seconds())
		}
	}
	decade := func(v float64, round func(float64) float64) float64 { return math.Pow(10, round(math.Log10(v))) }
	return scale{decade(low, math.Floor), max(decade(high, math.Ceil), 10*decade(low, math.Floor)), panelHeight, 0}
}

// ticks are the decades; words stand only at the first panel.
func (s scale) ticks(words bool) (all []tick) {
	for v := s.low; v <= 1.001*s.high; v *= 10 {
		t := tick{At: s.at(v)}
		if words {
			t.Text = strings.NewReplacer(".0 ", " ", ".00 ", " ").Replace(shown(time.Duration(math.Round(v * 1e9))))
		}
		all = append(all, t)
	}
	return all
}

func (g *growth) panel(left float64, first bool, y scale) panel {
	last := g.points[len(g.points)-1].x
	x := scale{float64(g.points[0].x), float64(max(last, g.points[0].x+1)), 12, panelWidth - 12}
	p := panel{Left: left, Title: "with the " + g.title, Fixed: g.fixed, YTicks: y.ticks(first)}
	for _, v := range g.points {
		p.XTicks = append(p.XTicks, tick{x.at(float64(v.x)), v.label})
	}
	ours := func(v point) (time.Duration, bool) { return v.qbit, false }
	qemu := func(v point) (time.Duration, bool) { return v.qemu, v.cut }
	p.Lines = []line{g.line("qemu", x, y, qemu), g.line("qbit", x, y, ours)}
	return p
}

func (g *growth) line(class string, x, y scale, took func(point) (time.Duration, bool)) line {
	l := line{Class: class}
	var points []string
	for _, v := range g.points {
		d, cut := took(v)
		at := dot{X: x.at(float64(v.x)), Y: y.at(d.Seconds()), Cut: cut, Text: v.label + ": " + shown(d)}
		if cut {
			at.Text = v.label + ": more than " + shown(d)
		}
		l.Dots = append(l.Dots, at)
		points = append(points, fmt.Sprintf("%g,%g", at.X, at.Y))
	}
	l.Points = strings.Join(points, " ")
	return l
}
