package main

import (
	"context"
	"slices"

	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/manifest"
	"github.com/qbitkit/qbit/reconstruct/plan"
)

// last is what a manifest says of the point at the end of a way; nil: nothing.
func last(e *expectation) *manifest.View {
	if e == nil {
		return nil
	}
	return e.views[len(e.views)-1]
}

// deltaRoute is the way to the point that the user wants, and that to the one which the
// device holds: of all pairs of ways the one with the fewest links that may differ.
func (f *fromSetFlags) deltaRoute(d *plan.Disk, m *manifest.Manifest) (diskRoute, error) {
	to, err := f.candidates(d)
	if err != nil {
		return diskRoute{}, err
	}
	held, err := d.At(f.held)
	if err != nil {
		return diskRoute{}, err
	}
	befores, err := f.allRoutes(d, held, m)
	if err != nil {
		return diskRoute{}, err
	}
	afters, err := f.allRoutes(d, to, m)
	if err != nil {
		return diskRoute{}, err
	}
	best := closest(befores, afters)
	if best.seal == nil {
		// What the device holds is compared with a manifest, but not what is missing
		// between the two points.
		if _, err := d.Route(best.before.point(), f.assume); err != nil {
			return diskRoute{}, err
		}
	}
	return best, nil
}

// closest is the pair of ways with the fewest links that may differ; with none in
// common only where there is no other.
func closest(befores, afters []diskRoute) diskRoute {
	best, fewest := diskRoute{}, -1
	for _, after := range afters {
		for _, before := range befores {
			n := commonBackups(before.route, after.route)
			differ := len(before.route) + len(after.route) - 2*n
			if n == 0 {
				differ += 1 << 30
			}
			if fewest < 0 || differ < fewest {
				fewest, best = differ, after
				best.before = &before
			}
		}
	}
	return best
}

// allRoutes are the ways to backups that can be gone; an error, if none can.
func (f *fromSetFlags) allRoutes(d *plan.Disk, backups []*plan.Backup, m *manifest.Manifest) ([]diskRoute, error) {
	var all []diskRoute
	var first error
	for _, b := range backups {
		r, err := f.routeTo(d, b, m)
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		all = append(all, r)
	}
	if len(all) > 0 {
		return all, nil
	}
	return nil, first
}

// commonBackups is how many backups stand at the beginning of both ways.
func commonBackups(a, b []*plan.Backup) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// restoreDiskDelta restores one disk of a set onto a device that holds another point.
func (r *restoreCommand) restoreDiskDelta(ctx context.Context, c *console, o *opener, s *set, d diskRoute) error {
	n := commonBackups(d.before.route, d.route)
	extra := d.before.route[n:]
	o.streams = countStreams(d.route) + countStreams(extra)
	ch, err := o.openRoute(s, d.route)
	if err != nil {
		return err
	}
	for _, b := range extra {
		if err := o.addBackup(s, ch, b); err != nil {
			return err
		}
	}
	if err := r.tell(c, d); err != nil {
		return err
	}
	for _, arg := range r.changed {
		if err := o.applyChanged(ch, arg, r.strict); err != nil {
			return err
		}
	}
	to := len(d.route)
	from := append(append([]reconstruct.Link(nil), ch.links[:n]...), ch.links[to:]...)
	if err := r.warnOfBoth(c, ch, from, n, to); err != nil {
		return err
	}
	if err := r.sums.start(ctx, ch)(); err != nil {
		return err
	}
	x := &deltaRun{restoreCommand: r, c: c, names: [2]string{d.before.point().Point, d.point().Point}, sealBefore: d.before.seal}
	x.witnesses = r.openWitnesses(c, o, s, d)
	return x.run(ctx, o, from, ch.links[:to], ch.layers[:to])
}

// openWitnesses opens the backups that stand on the point which the device holds, so
// that a newer one is told from it. One that cannot be opened is not needed.
func (r *restoreCommand) openWitnesses(c *console, o *opener, s *set, d diskRoute) []reconstruct.Link {
	if r.way.trust || r.way.all {
		return nil
	}
	var links []reconstruct.Link
	for _, b := range d.disk.Backups {
		if _, err := d.disk.Route(b, true); b.Parent != d.before.point() || slices.Contains(d.route, b) || err != nil {
			continue
		}
		l, err := o.openBackup(s, b)
		if err != nil {
			c.note("%s: it would show whether the disk is newer than point %s, and cannot be read: %v", b.ID, d.before.point().Point, err)
			continue
		}
		links = append(links, o.link(l, true))
	}
	return links
}

// warnOfBoth warns of the links of both ways, of those that both have once.
func (r *restoreCommand) warnOfBoth(c *console, ch *chain, from []reconstruct.Link, common, to int) error {
	after := reconstruct.Warnings(ch.links[:to])
	for _, w := range reconstruct.Warnings(from) {
		if w.Index >= common {
			after = append(after, w)
		}
	}
	return r.warnOf(c, after, ch.layers)
}
