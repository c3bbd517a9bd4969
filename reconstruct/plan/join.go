package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A group is the members of one disk.
type group struct {
	members []*member
	backups []*Backup // beside members
	byPoint map[string][]int
	byID    map[string]int
}

// groupKey is what members of one disk have in common.
type groupKey struct{ scope, domain, disk string }

// join makes disks of members: the claims of each are resolved among those of
// its group.
func join(members []*member) []*Disk {
	groups := map[groupKey]*group{}
	var keys []groupKey
	for _, m := range members {
		k := m.group()
		g := groups[k]
		if g == nil {
			g = &group{byPoint: map[string][]int{}, byID: map[string]int{}}
			groups[k] = g
			keys = append(keys, k)
		}
		g.add(m)
	}
	var disks []*Disk
	for _, k := range keys {
		disks = append(disks, groups[k].disk(k))
	}
	return disks
}

func (g *group) add(m *member) {
	i := len(g.members)
	g.members = append(g.members, m)
	g.backups = append(g.backups, m.planned())
	g.byPoint[m.point] = append(g.byPoint[m.point], i)
	g.byID[m.ID()] = i
}

// disk is the history of a group's disk.
func (g *group) disk(k groupKey) *Disk {
	for i := range g.members {
		g.resolve(i)
	}
	g.judgeRenamed()
	g.breakLoops()
	for i := range g.members {
		g.judgeEdge(i)
	}
	g.judgeSiblings()
	g.judgeRivals()
	d := &Disk{Domain: k.domain, Name: k.disk, Tool: g.members[0].tool, Backups: ordered(g.backups)}
	if d.Tool == ToolVirtnbd && slices.ContainsFunc(g.members, (*member).unknownLoss) {
		d.Problems = append(d.Problems, virtnbdLossy)
	}
	return d
}

// resolve finds the parent of a member. The best claim decides; another that is
// no hint and names another parent contradicts it.
func (g *group) resolve(i int) {
	m, b := g.members[i], g.backups[i]
	if m.kind.Whole() {
		return
	}
	claims := slices.Clone(m.claims)
	slices.SortStableFunc(claims, func(x, y claim) int {
		return cmp.Or(compareBool(x.hint, y.hint), -cmp.Compare(x.Grade, y.Grade))
	})
	if len(claims) == 0 {
		b.add(ProblemGap, Refuse, "name the links yourself: qbit restore FULL INCREMENT…", "%s", unclaimed(m))
		return
	}
	best := claims[0]
	parent, ok := g.find(i, best)
	if !ok {
		return
	}
	b.Edge = &Edge{Grade: best.Grade}
	for _, c := range claims {
		g.weigh(b, parent, best, c)
	}
	b.Parent, b.ParentID = g.backups[parent], g.backups[parent].ID
}

// unclaimed says what is known where nothing tells what an increment stands on.
func unclaimed(m *member) string {
	says := "nothing says on what this increment stands"
	if m.image != nil && m.image.backing != "" {
		says += fmt.Sprintf(" (its header names %s, which is not there)", m.image.backing)
	}
	return says + ", and no full backup before it is here"
}

func compareBool(x, y bool) int {
	switch {
	case x == y:
		return 0
	case y:
		return -1
	}
	return 1
}

// weigh takes a claim as evidence for the parent that was found, or against it.
func (g *group) weigh(b *Backup, parent int, best, c claim) {
	p := g.members[parent]
	same := c.id == p.ID() || c.id == "" && c.point == p.point
	switch {
	case same:
		b.Edge.Evidence = append(b.Edge.Evidence, c.Evidence)
	case c.hint:
		b.add(ProblemFlatRebase, Note, "", "%s, but %s: the latter counts, since headers and current checkpoints are hints only", c.Evidence, best.Evidence)
	default:
		b.add(ProblemContradiction, Refuse, "find out which of them is right, and name the links yourself: qbit restore FULL INCREMENT…",
			"%s, but %s", best.Evidence, c.Evidence)
	}
}

// find resolves a claim of member i. What is missing, or there twice, becomes a
// problem of its backup.
func (g *group) find(i int, c claim) (int, bool) {
	m, b := g.members[i], g.backups[i]
	if c.id != "" {
		at, ok := g.byID[c.id]
		switch {
		case !ok:
			b.add(ProblemGap, Refuse, cmp.Or(c.advice, "find that file"), "%s, and that is not here", c.Evidence)
		case at == i:
			b.add(ProblemLoop, Refuse, "it does not lie under the name that it had", "%s, which is itself", c.Evidence)
		}
		return at, ok && at != i
	}
	var found []int
	for _, at := range g.byPoint[c.point] {
		if k := g.members[at].kind; at != i && k != Differential && k != Copy {
			found = append(found, at)
		}
	}
	switch len(found) {
	case 0:
		b.add(ProblemGap, Refuse, fmt.Sprintf("find the backup of %s", c.point), "%s, and there is no backup of %s here", c.Evidence, c.point)
		return 0, false
	case 1:
		return found[0], true
	}
	return g.choose(m, b, c, found)
}

// choose decides between several backups of one point: the newest that was made
// before the member, where the records inside the backups have times.
func (g *group) choose(m *member, b *Backup, c claim, found []int) (int, bool) {
	var names []string
	for _, at := range found {
		names = append(names, g.members[at].ID())
	}
	best := -1
	for _, at := range found {
		t := g.members[at].time
		switch {
		case m.time.IsZero() || t.IsZero():
			best = -2
		case best == -2 || t.After(m.time):
		case best < 0 || t.After(g.members[best].time):
			best = at
		case t.Equal(g.members[best].time):
			best = -2
		}
	}
	if best < 0 {
		b.add(ProblemCandidates, Refuse, "take away the one that does not belong to it, or name the links yourself",
			"%s, and there is more than one backup of %s: %s", c.Evidence, c.point, strings.Join(names, ", "))
		return 0, false
	}
	b.add(ProblemCandidates, Note, "", "there is more than one backup of %s (%s): the newest one made before this increment, as its records say, is taken",
		c.point, strings.Join(names, ", "))
	return best, true
}

// breakLoops cuts the edges of backups that stand on themselves.
func (g *group) breakLoops() {
	for _, b := range g.backups {
		if !loops(b) {
			continue
		}
		b.add(ProblemLoop, Refuse, "its records or its header are wrong", "%s stands on %s, and that stands on it again", b.ID, b.Parent.ID)
	}
	for _, b := range g.backups {
		if b.Parent != nil && loops(b) {
			b.Parent, b.ParentID, b.Edge = nil, "", nil
		}
	}
}

// loops says that the way down from b comes back to b.
func loops(b *Backup) bool {
	slow, fast := b, b
	for fast != nil && fast.Parent != nil {
		slow, fast = slow.Parent, fast.Parent.Parent
		if slow == b {
			return true
		}
		if slow == fast { // a loop below, which b is no part of
			return slow == b
		}
	}
	return false
}

// ordered puts each backup after its parent, and those of one parent by time and
// then by their names, as people count.
func ordered(all []*Backup) []*Backup {
	children := map[*Backup][]*Backup{}
	for _, b := range all {
		children[b.Parent] = append(children[b.Parent], b)
	}
	out := make([]*Backup, 0, len(all))
	// A chain may be long: no recursion.
	stack := [][]*Backup{sorted(children[nil])}
	for len(stack) > 0 {
		top := stack[len(stack)-1]
		if len(top) == 0 {
			stack = stack[:len(stack)-1]
			continue
		}
		stack[len(stack)-1] = top[1:]
		out = append(out, top[0])
		if next := children[top[0]]; len(next) > 0 {
			stack = append(stack, sorted(next))
		}
	}
	return out
}

func sorted(all []*Backup) []*Backup {
	slices.SortStableFunc(all, func(a, b *Backup) int {
		return cmp.Or(a.Time.Compare(b.Time), compareNatural(a.ID, b.ID))
	})
	return all
}

// unknownLoss says that it cannot be known what an increment of virtnbdbackup left
// out.
func (m *member) unknownLoss() bool { return !m.kind.Whole() && m.lossy == "" && !m.lossless }
