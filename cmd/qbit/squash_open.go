package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/manifest"
	"github.com/qbitkit/qbit/reconstruct/plan"
)

// A squashJob is what is put together.
type squashJob struct {
	chain *chain // its disk is not used
	first int    // which link is the first of those; before it stand those of a set that lead there
	links *reconstruct.Chain
	disk  qcow2.Disk
	only  reconstruct.Selection // nil: OUT is a full backup
	seal  *expectation          // what a manifest says; nil: nothing
}

func (j *squashJob) increment() bool { return j.only != nil }

// largestCluster is that of the links that are put together; streams and raw files
// have none.
func (j *squashJob) largestCluster() int64 {
	size := int64(0)
	for _, l := range j.chain.layers[j.first:] {
		if l.image != nil {
			size = max(size, l.image.Geometry().ClusterSize())
		}
	}
	if size == 0 {
		return qcow2.DefaultClusterSize
	}
	return size
}

// open opens links that the user names.
func (s *squashCommand) open(c *console, o *opener, args []string) (*squashJob, error) {
	increment, err := s.isIncrement(c, args)
	switch {
	case err != nil:
		return nil, err
	case increment && s.asked() && len(digestNames(s.digests)) > 0:
		return nil, usagef("--digest: an increment has no content of its own; the digest of the disk is that of the whole chain (qbit digest)")
	case increment:
		return s.openIncrements(c, o, args)
	}
	return s.openFull(c, o, args)
}

// looksIncremental are the names that tools and people give to increments.
var looksIncremental = regexp.MustCompile(`(?i)(^|[^a-z])(inc|incr|incremental|diff|differential|delta)([^a-z]|$)`)

// isIncrement says whether the first link is an increment.
func (s *squashCommand) isIncrement(c *console, args []string) (bool, error) {
	if s.full || s.increment {
		return s.increment, nil
	}
	o, err := s.newOpener(c)
	if err != nil {
		return false, err
	}
	defer o.close()
	arg := parseDisks(args)[0]
	l, err := o.open(arg, refsOwn)
	switch {
	case err != nil:
		return false, err
	case l.image != nil && l.image.Backing() != nil:
		return true, nil
	case looksIncremental.MatchString(filepath.Base(arg.path)):
		return false, usagef("%s: it names no backing file, and is called like an increment: say --increment, or --full if it is a full backup", escapeName(arg.name))
	}
	return false, nil
}

// openFull opens a full backup and increments, as restore does.
func (s *squashCommand) openFull(c *console, o *opener, args []string) (*squashJob, error) {
	r := s.asRestore()
	ch, err := r.openLinks(o, args)
	if err != nil {
		return nil, err
	}
	links, _ := ch.disk.(*reconstruct.Chain)
	return &squashJob{chain: ch, links: links, disk: ch.disk}, r.warn(c, ch)
}

// asRestore is a restore with the same flags, for what the two have in common.
func (s *squashCommand) asRestore() *restoreCommand {
	return &restoreCommand{sourceFlags: s.sourceFlags, outputFlag: s.outputFlag, progressFlags: s.progressFlags,
		changed: s.changed, strict: s.strict}
}

// openIncrements opens links of which none is a full backup. No backing file is
// opened.
func (s *squashCommand) openIncrements(c *console, o *opener, args []string) (*squashJob, error) {
	ch := &chain{}
	for _, arg := range parseDisks(args) {
		l, err := o.open(arg, refsLink)
		if err != nil {
			return nil, err
		}
		if err := ch.refuseTwice(l); err != nil {
			return nil, err
		}
		ch.layers = append(ch.layers, l)
		ch.links = append(ch.links, o.link(l, true))
	}
	if err := s.addChanged(o, ch); err != nil {
		return nil, err
	}
	disk, err := reconstruct.NewIncrement(ch.links)
	if err != nil {
		return nil, err
	}
	j := &squashJob{chain: ch, links: disk.Chain, disk: disk, only: reconstruct.Held}
	return j, s.warn(c, ch, disk.Warnings())
}

// addChanged gives increments the bitmaps that the user knows. The first link of a
// chain needs none and gets none: here another one stands in its place.
func (s *squashCommand) addChanged(o *opener, ch *chain) error {
	whole := &chain{links: append([]reconstruct.Link{{Name: "\x00"}}, ch.links...)}
	for _, arg := range s.changed {
		if err := o.applyChanged(whole, arg, s.strict); err != nil {
			return err
		}
	}
	copy(ch.links, whole.links[1:])
	return nil
}

// warn says what increments cannot represent. With --strict that is an error.
func (s *squashCommand) warn(c *console, ch *chain, warnings []reconstruct.Warning) error {
	var refused []error
	say := func(bad bool, format string, args ...any) {
		if s.strict && bad {
			refused = append(refused, badData{fmt.Errorf(format+" (refused by --strict)", args...)})
			return
		}
		c.warn(format, args...)
	}
	for _, w := range warnings {
		say(w.Kind.Lossy(), "%s: %s", escapeName(w.Link), w.Msg)
	}
	for _, l := range ch.layers {
		if l.image != nil && l.image.Corrupt() {
			say(true, "%s: the image is marked corrupt: a program found it broken, and any part of it may be wrong", escapeName(l.path))
		}
	}
	return errors.Join(refused...)
}

// runSet squashes links of a disk in a folder of backups.
func (s *squashCommand) runSet(ctx context.Context, c *console, args []string) error {
	if s.full || s.increment {
		return usagef("--full and --increment are for links that you name; a FOLDER says itself what they are")
	}
	set, err := s.set.openSet(ctx, args, s.limits.limits)
	if err != nil {
		return err
	}
	defer set.close()
	d, err := s.route(set)
	if err != nil {
		return err
	}
	first, err := s.firstOf(d)
	if err != nil {
		return err
	}
	o, err := s.newOpener(c)
	if err != nil {
		return err
	}
	defer o.close()
	j, err := s.openRoute(c, o, set, d, first)
	if err != nil {
		return err
	}
	return s.squash(ctx, c, o, j)
}

// route is the way to the point to which OUT leads.
func (s *squashCommand) route(set *set) (diskRoute, error) {
	var m *manifest.Manifest
	if !s.set.unsealed {
		var err error
		if m, err = set.loadManifest(""); err != nil {
			return diskRoute{}, err
		}
	}
	disks, err := s.set.wanted(set)
	if err != nil {
		return diskRoute{}, err
	}
	if len(disks) > 1 {
		var names []string
		for _, d := range disks {
			names = append(names, escapeName(diskTitle(d)))
		}
		return diskRoute{}, usagef("there are %d disks here, and one is squashed at a time: name it with --disk; there are %s", len(disks), strings.Join(names, ", "))
	}
	return s.set.route(disks[0], m)
}

// firstOf is the link after the one that made the point --from.
func (s *squashCommand) firstOf(d diskRoute) (int, error) {
	if s.from == "" {
		return 0, nil
	}
	found, err := d.disk.At(s.from)
	if err != nil {
		return 0, err
	}
	for i, b := range d.route {
		if !slices.Contains(found, b) {
			continue
		}
		if i == len(d.route)-1 {
			return 0, usagef("--from %s: it is the point %s itself, and there is nothing between the two", escapeName(s.from), escapeName(b.Point))
		}
		return i + 1, nil
	}
	return 0, fmt.Errorf("--from %s: the way to %s does not go over it; it goes over %s", escapeName(s.from), escapeName(d.point().Point), pointsOf(d.route))
}

func pointsOf(route []*plan.Backup) string {
	var names []string
	for _, b := range route {
		names = append(names, escapeName(b.Point))
	}
	return strings.Join(names, ", ")
}

// openRoute opens all links that lead to the point, with those before the first one
// that is squashed.
func (s *squashCommand) openRoute(c *console, o *opener, set *set, d diskRoute, first int) (*squashJob, error) {
	r := s.asRestore()
	ch, err := o.openRoute(set, d.route)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(r.tell(c, d), r.addChanged(o, ch), r.warn(c, ch)); err != nil {
		return nil, err
	}
	links, _ := ch.disk.(*reconstruct.Chain)
	j := &squashJob{chain: ch, first: first, links: links, disk: ch.disk, seal: d.seal}
	if first > 0 {
		j.only = links.From(first)
	}
	return j, nil
}
