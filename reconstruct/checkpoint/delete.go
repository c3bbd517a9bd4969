package checkpoint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// A Design says how libvirt made the bitmaps; see the package's documentation.
type Design string

const (
	// DesignAuto: a checkpoint whose bitmap does not record is of the older design.
	DesignAuto Design = "auto"
	// DesignToday: every bitmap stands for itself, and is just removed; where another
	// checkpoint needs it, that is refused.
	DesignToday Design = "today"
	// DesignOlder: what is removed is always merged into what stays.
	DesignOlder Design = "older"
)

// A DependError reports checkpoints that cannot be deleted alone: without them another
// one would look whole that is not, or lose what it needs.
type DependError struct {
	Checkpoints []string // that were to be deleted
	Needs       string   // the one that stays
	Target      string   // the disk
	Why         string   // what would be wrong with it
	Err         error    // why it does not tell what changed since, now or afterwards; may be nil
}

func (e *DependError) Unwrap() error { return e.Err }

func (e *DependError) Error() string {
	why := e.Why
	if e.Err != nil {
		why += ": " + e.Err.Error()
	}
	return fmt.Sprintf("%.200s cannot be deleted without checkpoint %.100q: on disk %.100q that one %s",
		strings.Join(quoted(e.Checkpoints), ", "), e.Needs, e.Target, why)
}

func quoted(names []string) []string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = fmt.Sprintf("%.100q", name)
	}
	return all
}

// PlanDelete plans to delete checkpoints, in any order; with tree.ChangedSince(name) as
// names a checkpoint goes with all that descend from it. A name that has no document
// stands for left over bitmaps of that name. Children of what goes become children of
// the nearest ancestor that stays.
//
// Where that ancestor's bitmap does not record, it needs what is removed (the older
// design): it is merged into it before, and it records from then on if what was merged
// does. See Design for how that is decided.
//
// A bitmap that a checkpoint which stays has too (its document says so) is kept.
//
// Errors: *libvirt.NotFoundError, *DependError, *PlaceError for an image whose bitmaps
// are stale, or whose directory is broken.
func PlanDelete(disks []Disk, tree *libvirt.Tree, names []string, design Design) (*Plan, error) {
	if tree == nil {
		tree, _ = libvirt.NewTree(nil)
	}
	d := &deletion{disks: disks, tree: tree, names: names, goes: map[string]bool{}, design: design}
	for _, name := range names {
		if err := d.known(name); err != nil {
			return nil, err
		}
		d.goes[name] = true
	}
	plan, err := PlanForget(tree, names)
	if err != nil {
		return nil, err
	}
	for i := range disks {
		d.merges(i)
		d.removals(i)
	}
	plan.First, plan.Last = d.first, d.last
	if err := plan.possible(disks); err != nil {
		return nil, err
	}
	return plan, plan.harmless(disks, tree, d.goes)
}

// possible refuses a plan whose images cannot be changed, before anything is; and one
// that knows no more than a part of their bitmaps.
func (p *Plan) possible(disks []Disk) error {
	for _, d := range disks {
		for i, l := range d.Chain.layers {
			if l.err != nil {
				return &PlaceError{Target: d.Target, Layer: i, Err: l.err}
			}
		}
	}
	for _, at := range p.Places() {
		if disks[at.Disk].Chain.layers[at.Layer].img.BitmapsStale() {
			return &PlaceError{Target: disks[at.Disk].Target, Layer: at.Layer, Err: qcow2.ErrBitmapsStale}
		}
	}
	return nil
}

// PlanForget plans to delete the documents alone, as virsh checkpoint-delete --metadata
// does. Names without a document are passed over. See Dependents for when that is
// dangerous.
func PlanForget(tree *libvirt.Tree, names []string) (*Plan, error) {
	goes, plan := map[string]bool{}, &Plan{}
	for _, name := range names {
		if tree.Checkpoint(name) != nil && !goes[name] {
			goes[name] = true
			plan.Remove = append(plan.Remove, name)
		}
	}
	// A document goes before that of its parent, so that none is ever without.
	deep := map[string]int{}
	for _, name := range plan.Remove {
		deep[name] = depth(tree, name)
	}
	slices.SortStableFunc(plan.Remove, func(a, b string) int { return deep[b] - deep[a] })
	for _, name := range tree.Names() {
		cp := tree.Checkpoint(name)
		if goes[name] || !goes[cp.Parent] {
			continue
		}
		moved, err := copyOf(cp)
		if err != nil {
			return nil, err
		}
		moved.Parent = survivor(tree, goes, name)
		plan.Write = append(plan.Write, moved)
	}
	return plan, nil
}

// depth is how many ancestors a checkpoint has.
func depth(tree *libvirt.Tree, name string) (n int) {
	for at, ok := tree.Parent(name); ok; at, ok = tree.Parent(at) {
		n++
	}
	return n
}

// survivor is the nearest ancestor that does not go; empty: there is none.
func survivor(tree *libvirt.Tree, goes map[string]bool, name string) string {
	at, ok := tree.Parent(name)
	for ok && goes[at] {
		at, ok = tree.Parent(at)
	}
	if !ok {
		return ""
	}
	return at
}

// A deletion is a PlanDelete at work.
type deletion struct {
	disks  []Disk
	tree   *libvirt.Tree
	names  []string
	goes   map[string]bool
	design Design

	first, last steps
}

// known refuses a name that neither a document nor a bitmap has.
func (d *deletion) known(name string) error {
	if d.tree.Checkpoint(name) != nil {
		return nil
	}
	for _, disk := range d.disks {
		if disk.Chain.lowest(name) >= 0 {
			return nil
		}
	}
	return &libvirt.NotFoundError{What: "checkpoint", Name: name, Have: d.tree.Names()}
}

// keeper is the bitmap of the nearest ancestor that stays and in which the disk has a
// part; empty: there is none.
func (d *deletion) keeper(disk Disk, name string) string {
	for at, ok := d.tree.Parent(name); ok; at, ok = d.tree.Parent(at) {
		if bitmap := disk.bitmapOf(d.tree, at); bitmap != "" && !d.goes[at] {
			return bitmap
		}
	}
	return ""
}

// merges plans what ancestors that stay need of what goes, on one disk.
func (d *deletion) merges(disk int) {
	for _, name := range d.names {
		into := d.keeper(d.disks[disk], name)
		bitmap := d.disks[disk].bitmapOf(d.tree, name)
		if into == "" || bitmap == "" || bitmap == into || d.design == DesignToday || d.tree.Checkpoint(name) == nil {
			continue
		}
		for i := range d.disks[disk].Chain.layers {
			d.merge(Place{disk, i}, bitmap, into)
		}
	}
}

// merge plans to merge a bitmap that goes into one that stays, in one image, where that
// one needs it.
func (d *deletion) merge(p Place, bitmap, into string) {
	chain := d.disks[p.Disk].Chain
	l := chain.layers[p.Layer]
	from, ok := l.trusted(bitmap)
	if !ok {
		return
	}
	to, has := l.bitmaps[into]
	if _, ok := l.trusted(into); has && !ok { // it says nothing, before and after
		return
	}
	if has && to.Auto && d.design != DesignOlder || !has && !chain.endedBelow(into, p.Layer) {
		return
	}
	put := d.first.put(p, into)
	put.From = append(put.From, bitmap)
	put.Auto = put.Auto || from.Auto || to.Auto
	if put.New = !has; put.New {
		put.Granularity = max(put.Granularity, from.Granularity)
	}
}

// endedBelow says whether a bitmap is in an image further down, and does not record
// there: what came afterwards is in those of its descendants.
func (c *Chain) endedBelow(bitmap string, layer int) bool {
	for _, l := range c.layers[layer+1:] {
		if info, ok := l.bitmaps[bitmap]; ok {
			return !info.Auto
		}
	}
	return false
}

// removals plans to remove the bitmaps of what goes from one disk.
func (d *deletion) removals(disk int) {
	kept := map[string]bool{}
	for _, name := range d.tree.Names() {
		if !d.goes[name] {
			kept[d.disks[disk].bitmapOf(d.tree, name)] = true
		}
	}
	for _, name := range d.names {
		bitmap := d.disks[disk].bitmapOf(d.tree, name)
		if bitmap == "" || kept[bitmap] {
			continue
		}
		for i, l := range d.disks[disk].Chain.layers {
			if _, ok := l.bitmaps[bitmap]; ok {
				d.last.remove(Place{disk, i}, bitmap)
			}
		}
	}
}

// Dependents are the checkpoints that need the bitmap of another one, as an ancestor of
// the older design does: with that one's document gone they would look whole.
func Dependents(disks []Disk, tree *libvirt.Tree, name string) (all []string) {
	for _, at := range tree.Names() {
		if at != name && dependsOn(disks, tree, at, name) {
			all = append(all, at)
		}
	}
	return all
}

func dependsOn(disks []Disk, tree *libvirt.Tree, at, name string) bool {
	for _, d := range disks {
		parts, _, _ := d.Chain.Verify(tree, d.Target, at)
		for _, p := range parts {
			if p.Needed && p.Checkpoint == name {
				return true
			}
		}
	}
	return false
}

// trusted is the bitmap of a name in an image, if it is there and sound.
func (l layer) trusted(bitmap string) (qcow2.BitmapInfo, bool) {
	info, ok := l.bitmaps[bitmap]
	rule, _ := trustRule(l.img, info)
	return info, ok && rule == ""
}
