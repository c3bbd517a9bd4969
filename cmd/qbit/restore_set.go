package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/manifest"
	"github.com/qbitkit/qbit/reconstruct/plan"
)

// fromSetFlags are the flags of restore for folders of backups.
type fromSetFlags struct {
	setFlags
	disks     []string
	at        string
	assume    bool
	domainXML string
	unsealed  bool

	held string // the point that the device holds already; "": that is not said
}

func (f *fromSetFlags) register(fs *pflag.FlagSet) {
	fs.StringArrayVar(&f.disks, "disk", nil, "of a FOLDER: restore only the disk `NAME` (vda, or\nDOMAIN/vda); may be repeated; otherwise all")
	fs.StringVar(&f.at, "at", "", "of a FOLDER: as of `POINT`, which is the name of a point, a\nfile, or a time; otherwise the newest point")
	fs.BoolVar(&f.assume, "assume", false, "of a FOLDER: accept links that are only assumed to belong\ntogether; never a gap or a contradiction")
	fs.StringVar(&f.domainXML, "domain-xml", "", "of a FOLDER: write the domain's XML as of that point to the\nnew `FILE`, with the restored files as its disks")
	fs.BoolVar(&f.unsealed, "no-manifest", false, "of a FOLDER: do not compare with its manifest (a chain\nmended by --changed is not what was sealed)")
	f.setFlags.register(fs)
}

// given says that one of the flags was used.
func (f *fromSetFlags) given() bool {
	return len(f.disks) > 0 || f.at != "" || f.assume || f.domainXML != "" || f.unsealed || len(f.moved) > 0
}

// A diskRoute is one disk to restore, and the way to it.
type diskRoute struct {
	disk  *plan.Disk
	route []*plan.Backup // whole backup first
	seal  *expectation   // what the manifest says of the content; nil: nothing
	out   string
	// before is the way to the point that the device holds already; nil: it is all
	// written.
	before *diskRoute
	// continued are the backups in route to which the checkpoints of --continue belong.
	continued []int
}

// point is the backup that the disk is brought back to.
func (d diskRoute) point() *plan.Backup { return d.route[len(d.route)-1] }

// goal says to which point the disk is brought.
func (d diskRoute) goal() string {
	if d.before == nil {
		return "point " + d.point().Point
	}
	return fmt.Sprintf("from point %s to %s", d.before.point().Point, d.point().Point)
}

// links are all backups that are needed.
func (d diskRoute) links() []*plan.Backup {
	if d.before == nil {
		return d.route
	}
	return append(slices.Clip(d.route), d.before.route[commonBackups(d.before.route, d.route):]...)
}

// runSet restores disks from a folder of backups. All ways are found before the
// first byte is written.
func (r *restoreCommand) runSet(ctx context.Context, c *console, args []string) error {
	if r.way.to != "" {
		return usagef("--to is for links that you name; of a FOLDER say --at %s", escapeName(r.way.to))
	}
	s, err := r.from.openSet(ctx, args, r.limits.limits)
	if err != nil {
		return err
	}
	defer s.close()
	routes, err := r.findRoutes(c, s)
	if err != nil {
		return err
	}
	docs, err := r.continueSet(c, s, routes)
	if err != nil {
		if r.made {
			os.Remove(r.target.out) // nothing is in it yet
		}
		return err
	}
	r.resume.whole = new([]*reconstruct.ResumeTarget)
	for _, d := range routes {
		if err := r.restoreDisk(ctx, c, s, d); err != nil {
			return err
		}
	}
	if r.from.domainXML != "" {
		if err := r.writeDomain(c, s, routes); err != nil {
			return err
		}
	}
	if err := r.writeCheckpoints(c, docs); err != nil {
		return err
	}
	return r.resume.forget()
}

// findRoutes finds the ways to all disks that are wanted, and where each goes.
func (r *restoreCommand) findRoutes(c *console, s *set) ([]diskRoute, error) {
	var m *manifest.Manifest
	var err error
	if !r.from.unsealed {
		if m, err = s.loadManifest(""); err != nil {
			return nil, err
		}
	}
	r.from.held = r.way.from
	routes, err := r.from.routes(s, m)
	if err != nil {
		return nil, err
	}
	if err := r.judgeMoments(c, routes); err != nil {
		return nil, err
	}
	return routes, r.nameOutputs(routes)
}

// routes finds the way to each disk that is wanted. What cannot be restored is an
// error for each of them.
func (f *fromSetFlags) routes(s *set, m *manifest.Manifest) ([]diskRoute, error) {
	disks, err := f.wanted(s)
	if err != nil {
		return nil, err
	}
	var routes []diskRoute
	var failed []error
	for _, d := range disks {
		route, err := f.route(d, m)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		routes = append(routes, route)
	}
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	return routes, nil
}

// wanted are the disks that the user named, or all.
func (f *fromSetFlags) wanted(s *set) ([]*plan.Disk, error) {
	if len(f.disks) == 0 {
		if len(s.Disks) == 0 {
			return nil, badData{fmt.Errorf("%s: no backup was found", escapeName(s.path))}
		}
		return s.Disks, nil
	}
	var all []*plan.Disk
	for _, name := range f.disks {
		d, err := s.disk(name)
		if err != nil {
			return nil, err
		}
		if slices.Contains(all, d) {
			return nil, usagef("--disk %s: it is named twice", escapeName(name))
		}
		all = append(all, d)
	}
	return all, nil
}

// route is the best way to the point that the user wants.
func (f *fromSetFlags) route(d *plan.Disk, m *manifest.Manifest) (diskRoute, error) {
	if f.held != "" {
		return f.deltaRoute(d, m)
	}
	found, err := f.candidates(d)
	if err != nil {
		return diskRoute{}, err
	}
	all, err := f.allRoutes(d, found, m)
	if err != nil {
		return diskRoute{}, err
	}
	return all[0], nil
}

// routeTo is the way to a backup. What is only assumed is good enough where a
// manifest says what the content has to be: every chunk is compared with it.
func (f *fromSetFlags) routeTo(d *plan.Disk, b *plan.Backup, m *manifest.Manifest) (diskRoute, error) {
	route, refused := d.Route(b, f.assume)
	if refused != nil {
		assumed, err := d.Route(b, true)
		if err != nil {
			return diskRoute{}, refused
		}
		route = assumed
	}
	seal, err := expect(m, d, route)
	switch {
	case err != nil:
		return diskRoute{}, err
	case refused != nil && seal == nil:
		return diskRoute{}, refused
	}
	return diskRoute{disk: d, route: route, seal: seal}, nil
}

func (f *fromSetFlags) candidates(d *plan.Disk) ([]*plan.Backup, error) {
	if f.at == "" {
		return d.Newest()
	}
	return d.At(f.at)
}

// nameOutputs says where each disk goes: one disk to OUT, or into the folder OUT;
// several into the folder OUT, which is made.
func (r *restoreCommand) nameOutputs(routes []diskRoute) error {
	if r.target.onto != "" || r.target.out == "-" {
		if len(routes) > 1 {
			return usagef("there are %d disks: name one with --disk, or a folder with -o", len(routes))
		}
		routes[0].out = r.target.out
		return nil
	}
	info, err := os.Stat(r.target.out)
	into := err == nil && info.IsDir()
	if len(routes) == 1 && !into && !strings.HasSuffix(r.target.out, "/") {
		routes[0].out = r.target.out
		return nil
	}
	if err == nil && !into {
		return usagef("-o %s: there are %d disks, and it is no folder; name one disk with --disk", escapeName(r.target.out), len(routes))
	}
	if !into {
		if err := os.Mkdir(r.target.out, 0o777); err != nil {
			return plainError(r.target.out, err)
		}
		r.made = true
	}
	return r.nameInFolder(routes)
}

// nameInFolder names the files of disks after them.
func (r *restoreCommand) nameInFolder(routes []diskRoute) error {
	taken := map[string]string{}
	for i, d := range routes {
		name := safeFileName(d.disk.Name)
		if _, twice := taken[name]; twice || len(routes) > 1 && d.disk.Domain != "" && severalDomains(routes) {
			name = safeFileName(d.disk.Domain + "-" + d.disk.Name)
		}
		if other, twice := taken[name]; twice {
			return fmt.Errorf("the disks %s and %s would both be written to %s: restore one at a time with --disk", other, diskTitle(d.disk), name)
		}
		taken[name] = diskTitle(d.disk)
		routes[i].out = filepath.Join(r.target.out, name+"."+r.target.format)
	}
	return nil
}

func severalDomains(routes []diskRoute) bool {
	return slices.ContainsFunc(routes, func(d diskRoute) bool { return d.disk.Domain != routes[0].disk.Domain })
}

// safeFileName makes a file name of the name of a disk, which a record chose: no
// separators, no dot in front, nothing that steers a terminal.
func safeFileName(name string) string {
	safe := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("-_.+@", r):
			return r
		}
		return '_'
	}, name)
	safe = strings.TrimLeft(safe, ".")
	if len(safe) > 200 {
		safe = safe[:200]
	}
	if safe == "" {
		return "disk"
	}
	return safe
}

// restoreDisk restores one disk.
func (r *restoreCommand) restoreDisk(ctx context.Context, c *console, s *set, d diskRoute) error {
	one := *r
	one.target.out, one.seal, one.sums = d.out, d.seal, newSumCheck(s, d)
	one.resume.point = fmt.Sprintf("%q of %q", d.point().Point, diskTitle(d.disk))
	o, err := one.newOpener(c)
	if err != nil {
		return err
	}
	defer o.close()
	if d.before != nil {
		return one.restoreDiskDelta(ctx, c, o, s, d)
	}
	ch, err := o.openRoute(s, d.route)
	if err != nil {
		return err
	}
	if err := one.tell(c, d); err != nil {
		return err
	}
	if err := one.addChanged(o, ch); err != nil {
		return err
	}
	if err := one.warn(c, ch); err != nil {
		return err
	}
	if err := one.continueDisk(ctx, c, ch, d); err != nil {
		return err
	}
	return one.restore(ctx, c, o, ch)
}

// tell says what the plan doubts of the way to a disk.
func (r *restoreCommand) tell(c *console, d diskRoute) error {
	if !r.quiet {
		sealed := ""
		if d.seal != nil {
			sealed = ", to be compared with the manifest"
		}
		c.note("%s: %s, %s%s", diskTitle(d.disk), d.goal(), plural(len(d.links()), "link", "links"), sealed)
	}
	var refused []error
	for _, p := range d.disk.Problems {
		c.warn("%s: %s", diskTitle(d.disk), p)
	}
	for _, b := range d.links() {
		for _, p := range b.Problems {
			switch {
			case p.Severity == plan.Note, p.Kind == plan.ProblemLossy, d.seal != nil:
			case r.strict && p.Kind != plan.ProblemAssumed:
				refused = append(refused, badData{fmt.Errorf("%s: %s (refused by --strict)", escapeName(b.ID), p)})
			default:
				c.warn("%s: %s", b.ID, p.Text)
			}
		}
	}
	return errors.Join(refused...)
}
