package libvirt

import (
	"cmp"
	"iter"
	"slices"
	"strings"
)

// A Tree is the checkpoints of one domain by their parents. A checkpoint without
// a parent is a root; libvirt makes the checkpoint that is current the parent of
// the next, so that without deletions by hand and without --redefine there is one
// root and one branch. All lists are in the order of virsh: by name, whatever the
// case of letters.
//
// A Tree does not change; it may be used from many goroutines.
type Tree struct {
	points map[string]*Checkpoint
	names  []string
	parent map[string]string // without an entry: a root
	kids   map[string][]string
	roots  []string
}

// NewTree builds the tree. The problems say what does not fit; the tree is whole
// without it: of two checkpoints with one name the first counts, one whose parent
// is not there is a root, and so is every checkpoint that is its own ancestor. A
// checkpoint that comes twice with the same name, parent, time and disks is no
// problem.
func NewTree(cps []*Checkpoint) (*Tree, []Problem) {
	t := &Tree{points: map[string]*Checkpoint{}, parent: map[string]string{}, kids: map[string][]string{}}
	problems := t.gather(cps)
	t.names = sorted(t.points)
	for _, name := range t.names {
		parent := t.points[name].Parent
		if parent == "" {
			continue
		}
		if _, ok := t.points[parent]; !ok {
			problems = append(problems, Problem{Kind: ProblemNoParent, Name: name, Parent: parent})
			continue
		}
		t.parent[name] = parent
	}
	problems = append(problems, t.cutCycles()...)
	for _, name := range t.names {
		if parent, ok := t.parent[name]; ok {
			t.kids[parent] = append(t.kids[parent], name)
		} else {
			t.roots = append(t.roots, name)
		}
	}
	return t, problems
}

// byName is the order of virsh, and one that is always the same.
func byName(a, b string) int {
	return cmp.Or(strings.Compare(strings.ToLower(a), strings.ToLower(b)), strings.Compare(a, b))
}

// sorted is the names of points in that order.
func sorted(points map[string]*Checkpoint) []string {
	type entry struct{ lower, name string }
	entries := make([]entry, 0, len(points))
	for name := range points {
		entries = append(entries, entry{strings.ToLower(name), name})
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(strings.Compare(a.lower, b.lower), strings.Compare(a.name, b.name))
	})
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.name
	}
	return names
}

// Names are the names of all checkpoints.
func (t *Tree) Names() []string { return slices.Clone(t.names) }

// Checkpoint is the checkpoint with this name, nil if there is none.
func (t *Tree) Checkpoint(name string) *Checkpoint { return t.points[name] }

// Roots are the checkpoints without a parent.
func (t *Tree) Roots() []string { return slices.Clone(t.roots) }

// Children are the checkpoints whose parent this is.
func (t *Tree) Children(name string) []string { return slices.Clone(t.kids[name]) }

// Parent is the parent of a checkpoint; ok is false for a root and for a name
// that there is not.
func (t *Tree) Parent(name string) (parent string, ok bool) {
	parent, ok = t.parent[name]
	return parent, ok
}

// Leaves are the checkpoints without children.
func (t *Tree) Leaves() []string {
	return slices.DeleteFunc(t.Names(), func(name string) bool { return len(t.kids[name]) > 0 })
}

// Current is the checkpoint from which the domain goes on: libvirt takes the one
// that has no children. unique is false where several have none; libvirt, reading
// its files anew, then has no current one at all, and what is returned is the
// newest by its creation time, which is a guess. A tree without checkpoints
// returns nil and false.
func (t *Tree) Current() (c *Checkpoint, unique bool) {
	leaves := t.Leaves()
	for _, name := range leaves {
		if p := t.points[name]; c == nil || p.CreationTime > c.CreationTime {
			c = p
		}
	}
	return c, len(leaves) == 1
}

// Branches yields for each leaf the names from its root down to it.
func (t *Tree) Branches() iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		for _, leaf := range t.Leaves() {
			if !yield(t.line(leaf)) {
				return
			}
		}
	}
}

// line is the names from the root of name down to it.
func (t *Tree) line(name string) []string {
	line := []string{name}
	for at, ok := t.parent[name]; ok; at, ok = t.parent[at] {
		line = append(line, at)
	}
	slices.Reverse(line)
	return line
}

// Path is the names from one checkpoint down to another that descends from it,
// both included. An empty from is the root of to. Where to does not descend from
// from the error is a PathError, where there is no such checkpoint a
// NotFoundError.
func (t *Tree) Path(from, to string) ([]string, error) {
	for _, name := range [...]string{from, to} {
		if t.points[name] == nil && (name != "" || name == to) {
			return nil, &NotFoundError{What: "checkpoint", Name: name, Have: t.Names()}
		}
	}
	line := t.line(to)
	if from == "" {
		return line, nil
	}
	i := slices.Index(line, from)
	if i < 0 {
		return nil, &PathError{From: from, To: to}
	}
	return line[i:], nil
}

// ChangedSince is the checkpoints whose bitmaps, united, hold all that changed
// since the checkpoint name: itself and all its descendants, itself first. It is
// nil for a name that there is not.
//
// Why it is right whoever made the bitmaps: today each checkpoint has a bitmap
// that goes on recording, so that of name holds all, and those of its descendants,
// which began later, add nothing. Before libvirt 6 only the newest bitmap
// recorded, each holding what changed until the next, and the parts must be put
// together.
//
// Where the tree branches below name, only the branch that the disk went on is
// needed. Nothing in the documents says for certain which one that is (see
// Current), so all are given: too much is then copied, never too little. Who knows
// the current checkpoint asks Path(name, current), which gives that branch alone.
// Where the current checkpoint does not descend from name, as after the disk was
// taken back to an older state, no bitmaps say what changed.
func (t *Tree) ChangedSince(name string) []string {
	if t.points[name] == nil {
		return nil
	}
	var all []string
	for todo := []string{name}; len(todo) > 0; {
		last := len(todo) - 1
		at := todo[last]
		todo = todo[:last]
		all = append(all, at)
		for _, kid := range slices.Backward(t.kids[at]) {
			todo = append(todo, kid)
		}
	}
	return all
}
