package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/manifest"
	"github.com/qbitkit/qbit/reconstruct/plan"
)

// A sealWork is one run of seal.
type sealWork struct {
	k     *sealCommand
	c     *console
	s     *set
	m     *manifest.Manifest // what is written in the end
	path  string
	there bool // a manifest is at path
	whole bool // all files of the folder were looked at
	meter *meter

	views   map[*manifest.Point]*manifest.View
	before  int64 // done, of the meter's total
	points  []sealedJSON
	changed bool // m is not what is at path
	failed  bool // a point is not sealed, or not what was sealed
}

// total is the work in bytes, as far as it can be known: each new file is read once
// for its own checksum, and about once for that of the content.
func (w *sealWork) total() int64 {
	n := int64(0)
	for _, d := range w.s.Disks {
		for _, b := range d.Backups {
			switch {
			case sealedPoint(sealedDisk(w.m, d), d, b) == nil:
				n += 2 * b.Stored
			case w.k.recheck:
				n += b.Stored
			}
		}
	}
	return n
}

// step says that done of all of a part of the work is done, which counts size.
func (w *sealWork) step(size int64) func(reconstruct.Progress) {
	before := w.before
	w.before += size
	return func(p reconstruct.Progress) {
		if p.Total > 0 {
			w.meter.Set(before + int64(float64(size)*float64(p.Done)/float64(p.Total)))
		}
	}
}

// view is that of a point in the manifest; those of a chain are made one from
// another.
func (w *sealWork) view(d *manifest.Disk, p *manifest.Point) (*manifest.View, error) {
	if v := w.views[p]; v != nil {
		return v, nil
	}
	var way []*manifest.Point // from p down to one whose view is known
	var v *manifest.View
	for at := p; at != nil && v == nil; {
		way = append(way, at)
		if at.Parent == nil {
			break
		}
		at = d.Point(at.Parent.ID)
		v = w.views[at]
	}
	for _, at := range slices.Backward(way) {
		var err error
		if v, err = manifest.NewView(at, v); err != nil {
			return nil, err
		}
		w.keep(v)
	}
	return v, nil
}

func (w *sealWork) keep(v *manifest.View) {
	if w.views == nil {
		w.views = map[*manifest.Point]*manifest.View{}
	}
	w.views[v.Point()] = v
}

// disk seals the backups of a disk, each after its parent.
func (w *sealWork) disk(ctx context.Context, d *plan.Disk) error {
	sealed := sealedDisk(w.m, d)
	if sealed == nil {
		sealed = w.m.AddDisk(d.Domain, d.Name)
	}
	for _, b := range d.Backups {
		if p := sealedPoint(sealed, d, b); p != nil {
			if err := w.check(ctx, d, sealed, p, b); err != nil {
				return err
			}
			continue
		}
		if err := w.seal(ctx, d, sealed, b); err != nil {
			return err
		}
	}
	return nil
}

// seal seals a backup. What is wrong with the backup is reported; the error is for
// what ends the run.
func (w *sealWork) seal(ctx context.Context, d *plan.Disk, sealed *manifest.Disk, b *plan.Backup) error {
	route, err := d.Route(b, w.k.assume)
	if err == nil {
		err = w.sealRoute(ctx, d, sealed, route)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil {
		return nil
	}
	w.failed = true
	if route := new(plan.RouteError); errors.As(err, &route) && route.Problem.Kind == plan.ProblemAssumed {
		err = fmt.Errorf("%w; --assume seals it all the same", err)
	}
	w.tell(d, b, stateNotSealed, err.Error())
	return nil
}

func (w *sealWork) sealRoute(ctx context.Context, d *plan.Disk, sealed *manifest.Disk, route []*plan.Backup) error {
	o, err := w.k.newOpener(w.c)
	if err != nil {
		return err
	}
	defer o.close()
	ch, err := o.openRoute(w.s, route)
	if err != nil {
		return err
	}
	b, top := route[len(route)-1], ch.layers[len(ch.layers)-1]
	files, err := w.hashFiles(ctx, b, top)
	if err != nil {
		return err
	}
	v, err := w.content(ctx, sealed, d, route, ch)
	if err != nil {
		return nameLayer(ch, err)
	}
	p := v.Point()
	p.ID, p.Name, p.Kind, p.Files, p.Assumed = b.ID, b.Point, string(b.Kind), files, assumed(route)
	sealed.Put(p)
	w.keep(v)
	w.changed = true
	w.tell(d, b, stateSealed, doubts(ch.links)...)
	return nil
}

// doubts are what the newest link cannot say, which the manifest then cannot know
// either.
func doubts(links []reconstruct.Link) (all []string) {
	for _, warning := range reconstruct.Warnings(links) {
		if warning.Kind.Lossy() && warning.Index == len(links)-1 {
			all = append(all, fmt.Sprintf("%s: %s", warning.Link, warning.Msg))
		}
	}
	return all
}

func assumed(route []*plan.Backup) bool {
	return slices.ContainsFunc(route, func(b *plan.Backup) bool { return b.Edge != nil && b.Edge.Grade == plan.Assumed })
}

// content hashes what a route brings back; what the last link does not touch is
// known from its parent, if that is sealed.
func (w *sealWork) content(ctx context.Context, sealed *manifest.Disk, d *plan.Disk, route []*plan.Backup, ch *chain) (*manifest.View, error) {
	opts := &reconstruct.SealOptions{SHA256: w.k.sha256, Workers: w.k.workers, Memory: int64(w.k.memory),
		Progress: w.step(route[len(route)-1].Stored)}
	if len(route) > 1 {
		if p := sealedPoint(sealed, d, route[len(route)-2]); p != nil && !w.isDoubtful(p) {
			v, err := w.view(sealed, p)
			if err != nil {
				return nil, badData{err}
			}
			opts.Parent = v
		}
	}
	return reconstruct.Seal(ctx, ch.links, opts)
}

// isDoubtful says that the files of a point are not what was sealed.
func (w *sealWork) isDoubtful(p *manifest.Point) bool {
	return slices.ContainsFunc(w.points, func(j sealedJSON) bool { return j.point == p && j.State == stateChanged })
}

// hashFiles hashes the files of a backup itself.
func (w *sealWork) hashFiles(ctx context.Context, b *plan.Backup, l *layer) ([]manifest.File, error) {
	own, err := hashFile(ctx, l.file, w.fileOptions(b.Stored))
	if err != nil {
		return nil, err
	}
	own.Path, own.Member = b.Source.Path, b.Source.Member
	files := []manifest.File{own}
	if l.data == nil {
		return files, nil
	}
	data, err := hashFile(ctx, l.data, w.fileOptions(0))
	if err != nil {
		return nil, err
	}
	if data.Path, err = relativeTo(w.s.path, l.data.path); err != nil {
		return nil, err
	}
	return append(files, data), nil
}

func (w *sealWork) fileOptions(size int64) *reconstruct.CopyOptions {
	opts := &reconstruct.CopyOptions{Workers: w.k.workers, Memory: int64(w.k.memory), Digests: []string{reconstruct.Tree}, Progress: w.step(size)}
	if w.k.sha256 {
		opts.Digests = append(opts.Digests, reconstruct.SHA256)
	}
	return opts
}

// gone looks at the points whose backups are no longer there, if the whole folder
// was looked at.
func (w *sealWork) gone() {
	if !w.whole {
		return
	}
	for _, sealed := range w.m.Disks {
		for _, p := range slices.Clone(sealed.Points) {
			if w.seen(p) {
				continue
			}
			w.forget(sealed, p)
		}
	}
	w.m.Disks = slices.DeleteFunc(w.m.Disks, func(d *manifest.Disk) bool { return len(d.Points) == 0 })
}

func (w *sealWork) seen(p *manifest.Point) bool {
	return slices.ContainsFunc(w.points, func(j sealedJSON) bool { return j.point == p })
}

// forget drops a point, if that is wanted and nothing that is left stands on it.
func (w *sealWork) forget(sealed *manifest.Disk, p *manifest.Point) {
	j := sealedJSON{Domain: sealed.Domain, Disk: sealed.Name, Point: p.Name, ID: p.ID, State: stateGone, point: p}
	stands := func(q *manifest.Point) bool { return q.Parent != nil && q.Parent.ID == p.ID && w.seen(q) }
	switch {
	case w.k.forget && !slices.ContainsFunc(sealed.Points, stands):
		j.State = stateForgotten
		w.drop(sealed, p)
	case w.k.forget:
		j.Why = []string{"a point that is still there stands on it"}
		w.failed = true
	default:
		j.Why = []string{fmt.Sprintf("its file is not there, or no part of a backup any more; --forget drops it (%s)", fileNames(p))}
	}
	w.points = append(w.points, j)
}

// drop takes a point away, and those that stand on it, which are gone too.
func (w *sealWork) drop(sealed *manifest.Disk, p *manifest.Point) {
	sealed.Remove(p.ID)
	w.changed = true
	for _, q := range slices.Clone(sealed.Points) {
		if q.Parent != nil && q.Parent.ID == p.ID {
			w.points = append(w.points, sealedJSON{Domain: sealed.Domain, Disk: sealed.Name, Point: q.Name, ID: q.ID, State: stateForgotten, point: q})
			w.drop(sealed, q)
		}
	}
}

func fileNames(p *manifest.Point) string {
	var names []string
	for _, f := range p.Files {
		names = append(names, escapeName(f.Name()))
	}
	return strings.Join(names, ", ")
}
