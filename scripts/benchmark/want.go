package main

import (
	"fmt"
	"strings"
	"time"
)

// A want is a figure that a race is to have.
type want struct {
	text  string // what is wanted
	found func(r *race) (figure string, reached bool)
}

// An outcome is a want beside what was found.
type outcome struct {
	Want, Found string
	Reached     bool
}

func (o outcome) verdict() string {
	if o.Reached {
		return "reached"
	}
	return "not reached"
}

// outcomes of all wants of a race.
func (r *race) outcomes() []outcome {
	var all []outcome
	for _, w := range r.wants {
		if figure, reached := w.found(r); figure != "" {
			all = append(all, outcome{w.text, figure, reached})
		}
	}
	return all
}

// named is the contestant of that name; nil where it does not take part or never ran.
func (r *race) named(name string) *contestant {
	for _, c := range r.runs {
		if c.name == name && len(c.elapsed) > 0 {
			return c
		}
	}
	return nil
}

// atMost wants qbit to take at most limit times what another command takes.
func atMost(limit float64, other string) want {
	return want{fmt.Sprintf("at most %.4g times %s", limit, other), func(r *race) (string, bool) {
		c := r.named(other)
		if c == nil {
			return "", false
		}
		own := r.runs[0]
		found := own.median().Seconds() / c.median().Seconds()
		return by(found, own.least().Seconds()/c.least().Seconds()), found <= limit
	}}
}

// resumeWant wants a restore that can be resumed to take at most limit times one that
// cannot.
func resumeWant(limit float64) want {
	return want{fmt.Sprintf("--resume at most %.4g times without", limit), func(r *race) (string, bool) {
		c := r.named(resumeName)
		if c == nil {
			return "", false
		}
		own := r.runs[0]
		found := c.median().Seconds() / own.median().Seconds()
		return by(found, c.least().Seconds()/own.least().Seconds()), found <= limit
	}}
}

// timesAsFast wants qbit to be so many times as fast as the fastest of the commands
// whose names begin with a word.
func timesAsFast(limit float64, word string) want {
	return want{fmt.Sprintf("%.4g times as fast as the fastest %s", limit, word), func(r *race) (string, bool) {
		var fastest *contestant
		for _, c := range r.runs {
			if strings.HasPrefix(c.name, word) && len(c.elapsed) > 0 && (fastest == nil || c.median() < fastest.median()) {
				fastest = c
			}
		}
		if fastest == nil {
			return "", false
		}
		own := r.runs[0]
		found := fastest.median().Seconds() / own.median().Seconds()
		if fastest.cut {
			return fmt.Sprintf("more than %.2f times", found), found >= limit
		}
		return by(found, fastest.least().Seconds()/own.least().Seconds()), found >= limit
	}}
}

// within wants qbit to need no more than a time.
func within(limit time.Duration) want {
	return want{fmt.Sprintf("in less than %s", limit), func(r *race) (string, bool) {
		found := r.runs[0].median()
		return shown(found), found < limit && !r.runs[0].cut
	}}
}

// wantedMemory is how much the commands of qbit may have resident, each of them.
const wantedMemory = 200 * mib

// ownPeak is the most that a command of qbit's had resident.
func (r *race) ownPeak() int64 {
	peak := int64(0)
	for _, c := range r.runs {
		if strings.Contains(c.name, "qbit") {
			peak = max(peak, c.peak)
		}
	}
	return peak
}

// memoryOutcome is the one of all cases.
func memoryOutcome(peak int64) outcome {
	return outcome{"peak memory under " + memory(wantedMemory), memory(peak), peak < wantedMemory}
}

// by says what a figure is by the medians, and by the least times, which a busy
// machine disturbs less.
func by(medians, least float64) string {
	return fmt.Sprintf("%.2f times (by the least times %.2f)", medians, least)
}
