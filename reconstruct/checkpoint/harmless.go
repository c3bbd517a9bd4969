package checkpoint

import (
	"maps"
	"slices"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// harmless refuses a plan after which a checkpoint that stays would say something else:
// nothing, too little, or what it did not before. goes are those that do not stay.
func (p *Plan) harmless(disks []Disk, tree *libvirt.Tree, goes map[string]bool) error {
	later := p.laterTree(tree)
	for i, d := range disks {
		after := Disk{Target: d.Target, Chain: p.laterChain(d.Chain, i)}
		for _, name := range tree.Names() {
			if goes[name] {
				continue
			}
			if err := p.same(i, d, after, tree, later, name); err != nil {
				err.Checkpoints = slices.Sorted(maps.Keys(goes))
				return err
			}
		}
	}
	return nil
}

// same compares what a checkpoint says on a disk before and after the plan.
func (p *Plan) same(disk int, before, after Disk, tree, later *libvirt.Tree, name string) *DependError {
	if before.bitmapOf(tree, name) == "" {
		return nil
	}
	parts, _, was := before.Chain.Verify(tree, before.Target, name)
	left, _, is := after.Chain.Verify(later, after.Target, name)
	wrong := &DependError{Needs: name, Target: before.Target, Why: "does not record (the older design), and would tell too little"}
	switch {
	case was != nil && is == nil:
		wrong.Why, wrong.Err = "would look whole afterwards, and is not", was
		return wrong
	case was != nil:
		return nil
	case is != nil:
		wrong.Why, wrong.Err = "would be lost", is
		return wrong
	}
	for _, part := range parts {
		if !slices.ContainsFunc(left, func(l Part) bool { return l.Layer == part.Layer && p.holds(disk, l, part.Info.Name) }) {
			return wrong
		}
	}
	return nil
}

// holds says whether a bitmap has the bits of one that there was in the same image.
func (p *Plan) holds(disk int, l Part, bitmap string) bool {
	if l.Info.Name == bitmap {
		return true
	}
	for _, s := range p.First {
		for _, put := range s.Put {
			if s.Place == (Place{disk, l.Layer}) && put.Bitmap == l.Info.Name && slices.Contains(put.From, bitmap) {
				return true
			}
		}
	}
	return false
}

// laterTree is the tree after the plan.
func (p *Plan) laterTree(tree *libvirt.Tree) *libvirt.Tree {
	later := map[string]*libvirt.Checkpoint{}
	for _, name := range tree.Names() {
		later[name] = tree.Checkpoint(name)
	}
	for _, cp := range p.Write {
		later[cp.ResolvedName()] = cp
	}
	for _, name := range p.Remove {
		delete(later, name)
	}
	t, _ := libvirt.NewTree(slices.Collect(maps.Values(later)))
	return t
}

// laterChain is a chain after the plan, as far as names and flags of bitmaps go.
func (p *Plan) laterChain(c *Chain, disk int) *Chain {
	later := &Chain{names: c.names}
	for i, l := range c.layers {
		l.bitmaps = maps.Clone(l.bitmaps)
		for _, s := range slices.Concat(p.First, p.Last) {
			if s.Place == (Place{disk, i}) {
				s.pretend(l.bitmaps)
			}
		}
		later.layers = append(later.layers, l)
	}
	return later
}

// pretend does to a directory what the step will do.
func (s Step) pretend(bitmaps map[string]qcow2.BitmapInfo) {
	for _, put := range s.Put {
		info := bitmaps[put.Bitmap]
		if put.New {
			info = qcow2.BitmapInfo{Name: put.Bitmap, Granularity: put.Granularity}
		}
		info.Auto = info.Auto || put.Auto
		bitmaps[put.Bitmap] = info
	}
	for _, name := range s.Remove {
		delete(bitmaps, name)
	}
}
