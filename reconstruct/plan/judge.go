package plan

import "slices"

// judgeEdge looks at an increment and what it stands on.
func (g *group) judgeEdge(i int) {
	b := g.backups[i]
	if b.Parent == nil {
		return
	}
	if b.Edge.Grade == Assumed {
		b.add(ProblemAssumed, Refuse, "--assume restores all the same",
			"it %s, and nothing more says that it stands on %s: a backup that is missing between the two would not be seen", b.Edge.Evidence[0].Says, b.ParentID)
	}
	b.judgeSize()
	b.judgeTime()
}

// judgeTime doubts two backups of which the one that stands on the other was made
// before it, as the records inside them say: one of them may be of another disk.
func (b *Backup) judgeTime() {
	p := b.Parent
	if b.Time.IsZero() || p.Time.IsZero() || !b.Time.Before(p.Time) {
		return
	}
	advice := "unless the clock was turned back meanwhile, find out which of them does not belong here"
	b.add(ProblemContradiction, Doubt, advice, "its record has the date %s, which is before that of %s, on which it stands (%s)", stamp(b), p.ID, stamp(p))
	p.add(ProblemContradiction, Doubt, advice, "its record has the date %s, which is after that of %s, which stands on it (%s)", stamp(p), b.ID, stamp(b))
}

func stamp(b *Backup) string { return b.Time.UTC().Format("2006-01-02 15:04:05Z") }

// judgeRivals tells of backups that claim to be the same.
func (g *group) judgeRivals() {
	for _, all := range g.byPoint {
		for _, i := range all {
			for _, j := range all {
				if b, o := g.backups[i], g.backups[j]; b.rivals(o) {
					b.add(ProblemCandidates, Doubt, "name the file in place of the point, if you know which is right", "%s is another backup of the point %s", o.ID, b.Point)
				}
			}
		}
	}
}

// judgeSize tells of a disk that changed its size.
func (b *Backup) judgeSize() {
	switch before := b.Parent.Size; {
	case before == 0 || b.Size == 0: // one of them cannot be read, which is said
	case b.Size < before:
		b.add(ProblemResized, Note, "", "the disk shrank from %d to %d bytes", before, b.Size)
	case b.Size > before:
		b.add(ProblemResized, Note, "", "the disk grew from %d to %d bytes; if it was made smaller first and larger afterwards within this interval, no bitmap shows that", before, b.Size)
	}
}

// judgeSiblings tells of several increments that stand on one backup by nothing
// but the names in their headers: where a chain was rebased flatly onto the full
// backup, those in the middle are lost without a word.
func (g *group) judgeSiblings() {
	children := map[*Backup][]int{}
	for i, b := range g.backups {
		if b.Parent != nil && g.members[i].kind == Incremental && g.byBacking(i) {
			children[b.Parent] = append(children[b.Parent], i)
		}
	}
	for parent, all := range children {
		if len(all) < 2 {
			continue
		}
		for _, i := range all {
			b := g.backups[i]
			b.Edge.Grade = Assumed
			b.add(ProblemFlatRebase, Note, "", "%d increments name %s as their backing file", len(all), parent.ID)
			b.add(ProblemAssumed, Refuse, "if these are differential backups --assume restores them; otherwise name the links in their order: qbit restore FULL INCREMENT…",
				"%d increments name %s as their backing file: if they are increments of one chain it was rebased flatly, and what those in the middle hold is missed", len(all), parent.ID)
		}
	}
}

const (
	renamedText = "%s stands on itself by the names in the headers: files were renamed or swapped, and what lies under the name %s " +
		"may be another file than the one that this increment was made on"
	renamedAdvice = "find out which file had which name, or name the links in their order: qbit restore FULL INCREMENT…"
)

// judgeRenamed doubts what names of files alone tell of a disk, where one of its
// images names itself, or images name each other: files were renamed after they were
// made, and another one may lie under a name that a header holds.
func (g *group) judgeRenamed() {
	var renamed []string
	for i, b := range g.backups {
		if loops(b) && g.byBacking(i) || slices.ContainsFunc(g.members[i].claims, func(c claim) bool { return c.id == b.ID }) {
			renamed = append(renamed, b.ID)
		}
	}
	if len(renamed) == 0 {
		return
	}
	for i, b := range g.backups {
		if b.Parent == nil || !g.byBacking(i) {
			continue
		}
		b.Edge.Grade = Assumed
		b.add(ProblemContradiction, Doubt, renamedAdvice, renamedText, renamed[0], b.ParentID)
	}
}

// byBacking says that nothing but the name of a backing file holds the edge of a
// member.
func (g *group) byBacking(i int) bool {
	for _, c := range g.members[i].claims {
		if !c.backing {
			return false
		}
	}
	return true
}
