package libvirt

import (
	"fmt"
	"slices"
	"strings"
)

// A ProblemKind says what does not fit in a set of checkpoints.
type ProblemKind uint8

const (
	ProblemUnnamed     ProblemKind = iota + 1 // no name, and no creation time to make one of
	ProblemDuplicate                          // another checkpoint has the same name and says something else
	ProblemNoParent                           // the parent is not in the set
	ProblemCycle                              // checkpoints are their own ancestors
	ProblemOtherDomain                        // made of another domain than the first
)

// A Problem is something about checkpoints that does not fit. It is an error.
type Problem struct {
	Kind   ProblemKind
	Name   string   // the checkpoint; of a cycle the first by name
	Parent string   // of ProblemNoParent: who is missing
	Cycle  []string // of ProblemCycle: each is the parent of the next, and the last that of the first
	Domain string   // of ProblemOtherDomain: its UUID
}

func (p Problem) Error() string {
	switch p.Kind {
	case ProblemUnnamed:
		return "a checkpoint has neither a name nor a creation time"
	case ProblemDuplicate:
		return fmt.Sprintf("checkpoint %.*q: another one has this name and differs", maxShown, p.Name)
	case ProblemNoParent:
		return fmt.Sprintf("checkpoint %.*q: its parent %.*q is missing", maxShown, p.Name, maxShown, p.Parent)
	case ProblemCycle:
		return "checkpoints that descend from themselves: " + chain(p.Cycle)
	case ProblemOtherDomain:
		return fmt.Sprintf("checkpoint %.*q: belongs to another domain, with the uuid %.*q", maxShown, p.Name, maxShown, p.Domain)
	}
	return "unknown problem"
}

// chain shows the first names of a cycle.
func chain(names []string) string {
	var told []string
	for i, name := range names {
		if i == maxNamesTold {
			told = append(told, fmt.Sprintf("%d more", len(names)-i))
			break
		}
		told = append(told, fmt.Sprintf("%.*q", maxShown, name))
	}
	return strings.Join(told, " -> ")
}

// A PathError says that a checkpoint does not descend from another.
type PathError struct {
	From, To string
}

func (e *PathError) Error() string {
	return fmt.Sprintf("checkpoint %.*q does not descend from %.*q", maxShown, e.To, maxShown, e.From)
}

// gather takes the checkpoints in by their names.
func (t *Tree) gather(cps []*Checkpoint) (problems []Problem) {
	domain := ""
	for _, c := range cps {
		name := c.ResolvedName()
		old := t.points[name]
		switch uuid := c.DomainUUID(); {
		case name == "":
			problems = append(problems, Problem{Kind: ProblemUnnamed})
			continue
		case uuid != "" && domain != "" && !strings.EqualFold(uuid, domain):
			problems = append(problems, Problem{Kind: ProblemOtherDomain, Name: name, Domain: uuid})
		case domain == "":
			domain = uuid
		}
		if old == nil {
			t.points[name] = c
		} else if !old.same(c) {
			problems = append(problems, Problem{Kind: ProblemDuplicate, Name: name})
		}
	}
	return problems
}

// same says whether two documents speak of one checkpoint.
func (c *Checkpoint) same(d *Checkpoint) bool {
	plain := func(c *Checkpoint) []CheckpointDisk {
		disks := slices.Clone(c.Disks)
		for i := range disks {
			disks[i] = CheckpointDisk{Name: disks[i].Name, Bitmap: disks[i].BitmapName(c)}
		}
		return disks
	}
	return c.Parent == d.Parent && c.CreationTime == d.CreationTime && strings.EqualFold(c.DomainUUID(), d.DomainUUID()) &&
		slices.EqualFunc(plain(c), plain(d), func(a, b CheckpointDisk) bool { return a.Name == b.Name && a.Bitmap == b.Bitmap })
}

// cutCycles makes roots of all checkpoints that descend from themselves.
func (t *Tree) cutCycles() (problems []Problem) {
	walked := map[string]int{} // by which walk
	for walk, name := range t.names {
		at, ok := name, true
		for ok && walked[at] == 0 {
			walked[at] = walk + 1
			at, ok = t.parent[at]
		}
		if ok && walked[at] == walk+1 {
			problems = append(problems, t.cut(at))
		}
	}
	slices.SortFunc(problems, func(a, b Problem) int { return byName(a.Name, b.Name) })
	return problems
}

// cut takes the parents from the cycle that a name is in.
func (t *Tree) cut(name string) Problem {
	var cycle []string
	for at, ok := name, true; ok; {
		cycle = append(cycle, at)
		next, has := t.parent[at]
		delete(t.parent, at)
		at, ok = next, has && next != name
	}
	slices.Reverse(cycle)
	first := slices.Index(cycle, slices.MinFunc(cycle, byName))
	cycle = slices.Concat(cycle[first:], cycle[:first])
	return Problem{Kind: ProblemCycle, Name: cycle[0], Cycle: cycle}
}
