package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
)

// A race is one case: commands that do the same work, in turn. The first is qbit's,
// and what the others took is divided by what it took.
type race struct {
	title  string
	note   string // what is to be known of it, a sentence or two; may be ""
	runs   []*contestant
	writes int64                     // about what each that has an output writes, in bytes
	before func(r *contestant) error // what a run needs anew; nil: nothing
	same   func(a, b *contestant) error
	wants  []want
}

// run measures and reports.
func (r *race) run(s settings) error {
	if err := r.measure(s); err != nil {
		return err
	}
	return s.report.add(r, s)
}

// measure runs each command in every round, every other round in reverse, so that none
// has the better place each time. What the first one wrote stays while the case runs:
// the others are compared to it with same, where they have written something (so that
// no speed is won by being wrong), and cp copies it. What the others wrote is removed at
// once, which drops what was not stored of it.
func (r *race) measure(s settings) error {
	if err := settle(s.dir); err != nil {
		return err
	}
	for round := range s.rounds {
		order := slices.Clone(r.runs)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, c := range order {
			if c.done(round) {
				continue
			}
			if err := r.once(c, round == 0); err != nil {
				return fmt.Errorf("%s: %s: %w", r.title, c.name, err)
			}
		}
	}
	for _, c := range r.runs {
		os.Remove(c.output)
	}
	return nil
}

// once runs one command, the first time with a look at what it did.
func (r *race) once(c *contestant, first bool) error {
	os.Remove(c.output)
	if r.before != nil {
		if err := r.before(c); err != nil {
			return err
		}
	}
	if c.output == "" {
		warm(0)
	} else {
		warm(r.writes)
	}
	if err := c.measure(); err != nil || c == r.runs[0] {
		return err
	}
	if first && r.same != nil && !c.cut && !c.other {
		if err := r.same(r.runs[0], c); err != nil {
			return err
		}
	}
	if c.output != "" {
		os.Remove(c.output)
	}
	return nil
}

// sameFile wants two commands to have written the same bytes.
func sameFile(a, b *contestant) error { return sameBy(a, b, "cmp") }

// sameDisk wants two commands to have written the same disk.
func sameDisk(a, b *contestant) error { return sameBy(a, b, "qemu-img", "compare") }

func sameBy(a, b *contestant, compare ...string) error {
	if b.output == "" {
		return nil
	}
	args := append(compare[1:], a.output, b.output)
	if out, err := exec.Command(compare[0], args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s and %s wrote different disks: %.1000s", a.name, b.name, out)
	}
	return nil
}
