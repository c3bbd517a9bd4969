package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
)

// progressFlags say how a long run shows how far it is.
type progressFlags struct {
	mode  string
	bar   bool
	quiet bool
}

func (p *progressFlags) register(fs *pflag.FlagSet) {
	p.mode = "auto"
	addChoice(fs, &p.mode, "progress", "", "show progress on standard error as `MODE`: a bar, plain lines, json lines, none, or auto: a bar on a terminal, else a plain line every ten seconds",
		"auto", "bar", "plain", "json", "none")
	fs.BoolVarP(&p.bar, "show-progress", "p", false, "show progress from the start: a bar on a terminal, else plain lines")
	fs.BoolVarP(&p.quiet, "quiet", "q", false, "say nothing but warnings and errors")
}

// style is what a run shows: "bar", "plain", "json" or "none".
func (p *progressFlags) style(terminal bool) string {
	switch {
	case p.quiet:
		return "none"
	case p.mode != "auto":
		return p.mode
	case terminal:
		return "bar"
	}
	return "plain"
}

// How often each style writes.
const (
	barEvery   = 200 * time.Millisecond
	plainEvery = 10 * time.Second
	jsonEvery  = time.Second
	// rateOver is the time over which the rate is averaged, so that the time
	// left does not jump about.
	rateOver = 5 * time.Second
)

// A meter shows how far a run is, while it runs. It writes only when it is told
// of progress, and only as often as its style says. It may be used from several
// goroutines.
type meter struct {
	mu    sync.Mutex
	w     io.Writer
	now   func() time.Time
	width func() int
	style string
	every time.Duration
	what  string // "restore", "digest", …
	total int64  // bytes; 0: not known

	start, last time.Time // of the run, of the last line
	done        int64
	rated       int64     // done when the rate was last taken
	ratedAt     time.Time // when that was
	rate        float64   // bytes a second, recently
	shown       bool      // something was written
	barLen      int       // characters that the bar's line holds
}

// newMeter starts a meter for total bytes of work; end it with Finish.
func newMeter(c *console, flags *progressFlags, what string, total int64) *meter {
	now := c.now()
	m := &meter{w: c.err, now: c.now, width: c.errWidth, what: what, total: total,
		start: now, last: now, ratedAt: now, style: flags.style(c.errWidth() > 0)}
	switch m.style {
	case "bar":
		m.every = barEvery
	case "plain":
		m.every = plainEvery
	case "json":
		m.every = jsonEvery
	}
	if flags.bar && m.style != "none" {
		m.show(now, false)
	}
	return m
}

// Add says that n more bytes are done.
func (m *meter) Add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(m.done + n)
}

// Set says that done bytes are done in all.
func (m *meter) Set(done int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(done)
}

func (m *meter) set(done int64) {
	m.done = done
	if m.style == "none" {
		return
	}
	now := m.now()
	if now.Sub(m.last) >= m.every {
		m.show(now, false)
	}
}

// Finish ends the display: the last line says how long all of it took, or how
// far it came. Where nothing was shown before, plain lines stay away altogether.
func (m *meter) Finish() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.style == "none" || m.style == "plain" && !m.shown {
		return
	}
	m.show(m.now(), true)
	m.style = "none"
}

// clearLine takes the bar away, so that a message can be written in its place.
func (m *meter) clearLine() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.style == "bar" && m.barLen > 0 {
		fmt.Fprintf(m.w, "\r%*s\r", m.barLen, "")
		m.barLen = 0
	}
}

func (m *meter) show(now time.Time, last bool) {
	m.updateRate(now, last)
	m.last, m.shown = now, true
	switch m.style {
	case "bar":
		m.showBar(now, last)
	case "plain":
		fmt.Fprintf(m.w, "qbit: %s\n", m.text(now, last))
	case "json":
		m.showJSON(now, last)
	}
}

// updateRate takes the rate since the last line into the average; the last rate
// is that of the whole run.
func (m *meter) updateRate(now time.Time, last bool) {
	since, from := now.Sub(m.ratedAt), m.rated
	if last {
		since, from = now.Sub(m.start), 0
	}
	if since <= 0 {
		return
	}
	recent := float64(m.done-from) / since.Seconds()
	weight := 1 - math.Exp(-since.Seconds()/rateOver.Seconds())
	if last || m.rated == 0 && m.rate == 0 {
		weight = 1
	}
	m.rate += weight * (recent - m.rate)
	m.rated, m.ratedAt = m.done, now
}

// left is the time that the rest will take; false where nobody can tell.
func (m *meter) left() (time.Duration, bool) {
	if m.total <= 0 || m.rate <= 0 {
		return 0, false
	}
	seconds := float64(max(m.total-m.done, 0)) / m.rate
	if seconds > 1e6 {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)).Round(time.Second), true
}

// percent is how much is done; done never goes beyond the total here.
func (m *meter) percent() float64 {
	if m.total <= 0 {
		return 100
	}
	return math.Floor(min(float64(m.done)/float64(m.total), 1) * 100)
}

// text is a line for people without the bar itself.
func (m *meter) text(now time.Time, last bool) string {
	s := fmt.Sprintf("%s %3.0f%%  %s of %s", m.what, m.percent(), formatSize(m.done), formatSize(m.total))
	if m.total <= 0 {
		s = fmt.Sprintf("%s  %s", m.what, formatSize(m.done))
	}
	if m.rate > 0 {
		s += fmt.Sprintf("  %s/s", formatSize(int64(m.rate)))
	}
	if last {
		return s + "  in " + clock(now.Sub(m.start))
	}
	if left, ok := m.left(); ok {
		s += "  " + clock(left) + " left"
	}
	return s
}

// showBar writes the line over the one before; the last one stays.
func (m *meter) showBar(now time.Time, last bool) {
	line := m.text(now, last)
	width := m.width()
	if width == 0 {
		width = 80
	}
	if room := min(width-1-len(line)-4, 40); room >= 8 && m.total > 0 {
		full := int(float64(room) * m.percent() / 100)
		line += "  [" + strings.Repeat("#", full) + strings.Repeat(".", room-full) + "]"
	}
	line = line[:min(len(line), width-1)]
	fmt.Fprintf(m.w, "\r%-*s", m.barLen, line)
	m.barLen = len(line)
	if last {
		fmt.Fprintln(m.w)
	}
}

// A progressLine is one line of --progress json.
type progressLine struct {
	Verb    string   `json:"verb"`
	Done    int64    `json:"done"`
	Total   int64    `json:"total"`
	Percent float64  `json:"percent"`
	Rate    int64    `json:"bytes-per-second"`
	Elapsed float64  `json:"elapsed-seconds"`
	Left    *float64 `json:"left-seconds,omitempty"`
	Last    bool     `json:"finished"`
}

func (m *meter) showJSON(now time.Time, last bool) {
	line := progressLine{Verb: m.what, Done: m.done, Total: m.total, Percent: m.percent(),
		Rate: int64(m.rate), Elapsed: now.Sub(m.start).Seconds(), Last: last}
	if left, ok := m.left(); ok {
		seconds := left.Seconds()
		line.Left = &seconds
	}
	b, err := json.Marshal(line)
	if err != nil {
		return // no number in it can be refused
	}
	fmt.Fprintf(m.w, "%s\n", b)
}

// clock prints a duration as 1:02:03 or 02:03.
func clock(d time.Duration) string {
	s := int64(d.Round(time.Second).Seconds())
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%02d:%02d", s/60, s%60)
}
