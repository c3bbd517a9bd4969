package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A RouteError says why a disk cannot be brought back to a point.
type RouteError struct {
	Disk, Point string
	Backup      *Backup // at which the way ends; nil: there is no such point
	Problem     Problem
}

func (e *RouteError) Error() string {
	where := ""
	if e.Backup != nil {
		where = e.Backup.ID + ": "
	}
	return fmt.Sprintf("disk %s, point %s cannot be restored: %s%s", e.Disk, e.Point, where, e.Problem)
}

// Route returns what has to be read to bring the disk back to b: the links, the
// whole backup first. A gap or a contradiction on the way is a *RouteError; so is
// an edge that is only assumed, unless assume accepts it.
func (d *Disk) Route(b *Backup, assume bool) ([]*Backup, error) {
	var route []*Backup
	for at := b; ; at = at.Parent {
		if p, bad := at.refusal(assume); bad {
			return nil, &RouteError{Disk: d.Name, Point: b.Point, Backup: at, Problem: p}
		}
		route = append(route, at)
		if at.Kind.Whole() {
			break
		}
	}
	slices.Reverse(route)
	return route, nil
}

// refusal is the problem that forbids to use a backup.
func (b *Backup) refusal(assume bool) (Problem, bool) {
	for _, p := range b.Problems {
		if p.Severity == Refuse && !(assume && p.Kind == ProblemAssumed) {
			return p, true
		}
	}
	if !b.Kind.Whole() && b.Parent == nil {
		return Problem{Kind: ProblemGap, Severity: Refuse, Text: "what it stands on is not known"}, true
	}
	return Problem{}, false
}

// At finds the backups that bring the disk back to a point: by the name of the
// point, by the path of a file, or by a time, for which it is the newest point
// that is not later. The best comes first: one that can be restored, better
// proven, by fewer links.
func (d *Disk) At(point string) ([]*Backup, error) {
	var found []*Backup
	for _, b := range d.Backups {
		if b.Point == point || b.ID == point {
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		if t, ok := parseMoment(point); ok {
			found = d.before(t)
		}
	}
	if len(found) == 0 {
		return nil, &RouteError{Disk: d.Name, Point: point, Problem: Problem{Kind: ProblemNoBackup, Severity: Refuse,
			Text: "there is no such point", Advice: "the points are " + strings.Join(d.points(), ", ")}}
	}
	slices.SortStableFunc(found, d.compareRoutes)
	if rival := d.rival(found); rival != nil && point != found[0].ID {
		return nil, &RouteError{Disk: d.Name, Point: point, Backup: found[0], Problem: Problem{Kind: ProblemCandidates, Severity: Refuse,
			Text: "there is more than one backup of this point: " + rival.ID + " is another", Advice: "name the file in place of the point"}}
	}
	return found, nil
}

// rival is a backup that claims to be the same as the best of those found, of the
// same kind and on the same parent: nothing tells which of them is right.
func (d *Disk) rival(found []*Backup) *Backup {
	for _, b := range found[1:] {
		if b.rivals(found[0]) {
			return b
		}
	}
	return nil
}

func (b *Backup) rivals(o *Backup) bool {
	return b != o && b.Point == o.Point && b.Kind == o.Kind && b.Kind != Copy && b.Parent == o.Parent
}

// Newest is the newest point of a disk: the last that its times name, or else
// the last in its tree. Like At it returns the best backup of that point first.
func (d *Disk) Newest() ([]*Backup, error) {
	var last *Backup
	for _, b := range d.Backups {
		if last == nil || b.follows(last) {
			last = b
		}
	}
	if last == nil {
		return nil, &RouteError{Disk: d.Name, Point: "newest", Problem: Problem{Kind: ProblemNoBackup, Severity: Refuse, Text: "there is no backup"}}
	}
	return d.At(last.Point)
}

// follows says that a backup is newer than one that stands before it in the tree: by
// its time, or, where no record has that, because it was made on top of it.
func (b *Backup) follows(o *Backup) bool {
	if b.Time.IsZero() && b.Parent != nil {
		return b.Parent == o
	}
	return !b.Time.Before(o.Time)
}

// before are the backups of the newest point that is not later than t.
func (d *Disk) before(t time.Time) []*Backup {
	var last *Backup
	for _, b := range d.Backups {
		if !b.Time.IsZero() && !b.Time.After(t) && (last == nil || !b.Time.Before(last.Time)) {
			last = b
		}
	}
	if last == nil {
		return nil
	}
	var found []*Backup
	for _, b := range d.Backups {
		if b.Point == last.Point {
			found = append(found, b)
		}
	}
	return found
}

// points are the names of the points, each once.
func (d *Disk) points() []string {
	var names []string
	for _, b := range d.Backups {
		if !slices.Contains(names, b.Point) {
			names = append(names, b.Point)
		}
	}
	return names
}

// compareRoutes orders backups of one point by how good the way to them is.
func (d *Disk) compareRoutes(a, b *Backup) int {
	ra, rb := d.rate(a), d.rate(b)
	return slices.Compare(ra[:], rb[:])
}

// rate is how bad the way to a backup is: refused, doubtful, its grade, its length.
func (d *Disk) rate(b *Backup) [4]int {
	route, err := d.Route(b, true)
	if err != nil {
		return [4]int{1}
	}
	r := [4]int{3: len(route)}
	for _, l := range route {
		if l.worst() == Doubt {
			r[1] = 1
		}
		if l.Edge != nil {
			r[2] = max(r[2], int(Proven-l.Edge.Grade))
		}
	}
	return r
}

// A Verdict says whether a point can be brought back.
type Verdict string

// The verdicts.
const (
	Restorable Verdict = "restorable"
	Doubtful   Verdict = "restorable with doubt"
	Lost       Verdict = "not restorable"
)

// Judge says whether a backup can be restored, and why not or not surely: the
// problems of all links on the way that are worse than notes.
func (d *Disk) Judge(b *Backup) (Verdict, []Problem) {
	verdict, why := Restorable, []Problem(nil)
	for at, n := b, 0; at != nil && n <= len(d.Backups); at, n = at.Parent, n+1 {
		for _, p := range at.Problems {
			switch {
			case p.Severity == Refuse && p.Kind != ProblemAssumed:
				verdict = Lost
			case p.Severity == Note:
				continue
			case verdict == Restorable:
				verdict = Doubtful
			}
			if at != b {
				p.Text = at.ID + ": " + p.Text
			}
			why = append(why, p)
		}
		if at.Kind.Whole() {
			return verdict, why
		}
	}
	return Lost, why
}
