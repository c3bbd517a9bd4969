package checkpoint

import (
	"fmt"
	"slices"

	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// PlanMerge plans to make one checkpoint of those on the way from one down to another
// that descends from it (both included): it stands for the moment of the first, and
// says what changed since then; the moments of all others are given up. It is called
// into: a new name, or one of those merged; empty: that of the first. Children of all
// of them become its children, and its parent is that of the first.
//
// A disk takes part where it took part in the first checkpoint; what others recorded of
// other disks goes. Where the first records everything itself (today's design), its
// bitmap is what is kept, and merging is deleting the others; in the older design the
// bitmaps are united.
//
// Errors: those of tree.Path; *RuleError where what changed since the first checkpoint
// is not known on a disk; *ExistsError for a new name that is taken; *DependError.
func PlanMerge(disks []Disk, tree *libvirt.Tree, from, to, into string) (*Plan, error) {
	path, err := tree.Path(from, to)
	if err != nil {
		return nil, err
	}
	if into == "" {
		into = from
	}
	for _, d := range disks {
		if BitmapOf(tree, d.Target, from) == "" {
			continue
		}
		if _, _, err := d.Chain.Verify(tree, d.Target, from); err != nil {
			return nil, &PlaceError{Target: d.Target, Err: err}
		}
	}
	if tree.Checkpoint(into) != nil && !slices.Contains(path, into) {
		return nil, &ExistsError{Name: into}
	}
	plan, err := PlanDelete(disks, tree, path[1:], DesignAuto)
	if err != nil || into == from {
		return plan, err
	}
	r := &renaming{disks: disks, tree: tree, plan: plan, path: path, from: from, into: into}
	for i := range disks {
		if err := r.disk(i); err != nil {
			return nil, err
		}
	}
	if err := r.documents(); err != nil {
		return nil, err
	}
	goes := map[string]bool{}
	for _, name := range path {
		goes[name] = true
	}
	return plan, plan.harmless(disks, tree, goes)
}

// A renaming turns a plan to delete all checkpoints of a path but the first into one
// that gives that one another name.
type renaming struct {
	disks      []Disk
	tree       *libvirt.Tree
	plan       *Plan
	path       []string
	from, into string
}

// disk renames the first checkpoint's bitmap on one disk: the one with the new name
// is made, or gets all that the first has, and the first goes with the others.
func (r *renaming) disk(disk int) error {
	d := r.disks[disk]
	old := d.bitmapOf(r.tree, r.from)
	if old == "" {
		return nil
	}
	for i := range d.Chain.layers {
		if err := r.image(Place{disk, i}, old); err != nil {
			return err
		}
	}
	return nil
}

// image renames the first checkpoint's bitmap in one image. One that cannot be trusted
// is not needed (else what changed since would not be known), and goes.
func (r *renaming) image(p Place, old string) error {
	d := r.disks[p.Disk]
	l := d.Chain.layers[p.Layer]
	first, last := steps(r.plan.First), steps(r.plan.Last)
	moved := first.take(p, old)
	info, has := l.trusted(old)
	if _, any := l.bitmaps[old]; any {
		last.remove(p, old)
	}
	if has || moved != nil {
		there, taken := l.bitmaps[r.into]
		if err := r.free(d, p.Layer); err != nil {
			return err
		}
		put := Put{Bitmap: r.into, New: !taken, Auto: info.Auto || there.Auto, Granularity: info.Granularity}
		if has {
			put.From = append(put.From, old)
		}
		if moved != nil {
			put.From = append(put.From, moved.From...)
			put.Auto, put.Granularity = put.Auto || moved.Auto, max(put.Granularity, moved.Granularity)
		}
		first.at(p).Put = append(first.at(p).Put, put)
		last.keep(p, r.into)
	}
	r.plan.First, r.plan.Last = first, last
	return nil
}

// free refuses a new name that a bitmap in an image has, unless it is that of one of the
// merged checkpoints, and sound.
func (r *renaming) free(d Disk, layer int) error {
	l := d.Chain.layers[layer]
	there, taken := l.bitmaps[r.into]
	switch {
	case !taken:
		return nil
	case !r.merges(d, r.into):
		return &ExistsError{Name: r.into, Bitmap: r.into, Target: d.Target, Layer: layer}
	}
	if _, err := trustRule(l.img, there); err != nil {
		return &PlaceError{Target: d.Target, Layer: layer, Err: fmt.Errorf("bitmap %.100q: %w", r.into, err)}
	}
	return nil
}

// merges says whether a bitmap is that of one of the merged checkpoints.
func (r *renaming) merges(d Disk, bitmap string) bool {
	return slices.ContainsFunc(r.path, func(name string) bool { return d.bitmapOf(r.tree, name) == bitmap })
}

// documents writes the first checkpoint's under the new name, and has the children of
// all of them find it.
func (r *renaming) documents() error {
	cp, err := copyOf(r.tree.Checkpoint(r.from))
	if err != nil {
		return err
	}
	cp.Name = r.into
	for i := range cp.Disks {
		if cp.Disks[i].Checkpoint != "no" {
			cp.Disks[i].Bitmap = r.into
		}
	}
	r.plan.Remove = slices.DeleteFunc(append(r.plan.Remove, r.from), func(name string) bool { return name == r.into })
	for _, moved := range r.plan.Write {
		if moved.Parent == r.from {
			moved.Parent = r.into
		}
	}
	for _, kid := range r.tree.Children(r.from) {
		if slices.Contains(r.path, kid) {
			continue
		}
		moved, err := copyOf(r.tree.Checkpoint(kid))
		if err != nil {
			return err
		}
		moved.Parent = r.into
		r.plan.Write = append(r.plan.Write, moved)
	}
	r.plan.Write = append([]*libvirt.Checkpoint{cp}, r.plan.Write...)
	return nil
}

// take removes the Put of a bitmap at a place, and returns it; nil: there was none.
func (s *steps) take(p Place, bitmap string) *Put {
	step := s.at(p)
	for i, put := range step.Put {
		if put.Bitmap == bitmap {
			step.Put = slices.Delete(step.Put, i, i+1)
			return &put
		}
	}
	return nil
}

// keep takes back the removal of a bitmap.
func (s *steps) keep(p Place, bitmap string) {
	step := s.at(p)
	step.Remove = slices.DeleteFunc(step.Remove, func(name string) bool { return name == bitmap })
}
