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
}

// point is the backup that the disk is brought back to.
func (d diskRoute) point() *plan.Backup { return d.route[len(d.route)-1] }

// runSet restores disks from a folder of backups. All ways are found before the
// first byte is written.
func (r *restoreCommand) runSet(ctx context.Context, c *console, args []string) error {
	s, err := r.from.openSet(ctx, args, r.limits.limits)
	if err != nil {
		return err
	}
	defer s.close()
	var m *manifest.Manifest
	if !r.from.unsealed {
		if m, err = s.loadManifest(""); err != nil {
			return err
		}
	}
	routes, err := r.from.routes(s, m)
	if err != nil {
		return err
	}
	if err := r.nameOutputs(routes); err != nil {
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
	return r.resume.forget()
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
	return routes, samePoint(f.at, routes)
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
	found, err := f.candidates(d)
	if err != nil {
		return diskRoute{}, err
	}
	var first error
	for _, b := range found {
		r, err := f.routeTo(d, b, m)
		if err == nil {
			return r, nil
		}
		if first == nil {
			first = err
		}
	}
	return diskRoute{}, first
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

// samePoint refuses to put disks of different moments together where the user has
// not named the point: they are not the disks of one guest.
func samePoint(at string, routes []diskRoute) error {
	if at != "" {
		return nil
	}
	first := map[string]diskRoute{}
	for _, d := range routes {
		before, ok := first[d.disk.Domain]
		if !ok {
			first[d.disk.Domain] = d
			continue
		}
		if a, b := before.point().Point, d.point().Point; a != b && before.disk.Tool == d.disk.Tool && shares(d.disk, a) != shares(before.disk, b) {
			return badData{fmt.Errorf("the newest point of %s is %s, that of %s is %s: name the point with --at, or one disk with --disk",
				escapeName(diskTitle(before.disk)), escapeName(a), escapeName(diskTitle(d.disk)), escapeName(b))}
		}
	}
	return nil
}

// shares says that a disk has a point of that name.
func shares(d *plan.Disk, point string) bool {
	return slices.ContainsFunc(d.Backups, func(b *plan.Backup) bool { return b.Point == point })
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
	one.target.out, one.seal = d.out, d.seal
	one.resume.point = fmt.Sprintf("%q of %q", d.point().Point, diskTitle(d.disk))
	o, err := one.newOpener(c)
	if err != nil {
		return err
	}
	defer o.close()
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
	return one.restore(ctx, c, o, ch)
}

// tell says what the plan doubts of the way to a disk.
func (r *restoreCommand) tell(c *console, d diskRoute) error {
	if !r.quiet {
		sealed := ""
		if d.seal != nil {
			sealed = ", to be compared with the manifest"
		}
		c.note("%s: point %s, %s%s", diskTitle(d.disk), d.point().Point, plural(len(d.route), "link", "links"), sealed)
	}
	var refused []error
	for _, p := range d.disk.Problems {
		c.warn("%s: %s", diskTitle(d.disk), p)
	}
	for _, b := range d.route {
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
