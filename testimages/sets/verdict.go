package sets

import (
	"maps"
	"slices"
	"strings"
)

// A Verdict is one or several of the outcomes that are right for a point.
type Verdict uint8

const (
	// Right: the point is restored to its truth, with no question asked. A note
	// may be made.
	Right Verdict = 1 << iota
	// Doubt: it is restored only where the user accepts what is assumed, or with
	// a warning that names the reason; the bytes may be the truth or not.
	Doubt
	// Refuse: it is not restored, whatever the user accepts, and nothing is left
	// that looks like a restored disk.
	Refuse
	// Blind: nothing in the files tells, and the bytes are not the truth; only a
	// manifest that was written before can show it.
	Blind
)

// Has reports whether any outcome of o is among those of v.
func (v Verdict) Has(o Verdict) bool { return v&o != 0 }

func (v Verdict) String() string {
	var names []string
	for i, name := range []string{"right", "doubt", "refuse", "blind"} {
		if v.Has(1 << i) {
			names = append(names, name)
		}
	}
	return strings.Join(names, " or ")
}

// An Expect is what must follow from a mutation.
type Expect struct {
	// Keywords: what is said of a point that is not simply restored holds one of
	// them, in any case. Empty where nothing need be said.
	Keywords []string
	// Files are those that were touched, as slash paths in the set's folder.
	Files []string

	of map[key]Verdict
}

type key struct{ disk, point string }

// expect begins with what may be said of the untouched set.
func (s *Set) expect(keywords ...string) Expect {
	e := Expect{Keywords: keywords, of: map[key]Verdict{}}
	for _, t := range s.Truth {
		e.of[key{t.Disk, t.Point}] = t.Wants
	}
	return e
}

// Of is what may happen to a point.
func (e Expect) Of(t Truth) Verdict { return e.of[key{t.Disk, t.Point}] }

// Sealed is what may happen to a point where a manifest of the untouched set lies
// beside it: what was Blind is Refuse, as is what differs from the manifest.
func (e Expect) Sealed(t Truth) Verdict {
	v := e.Of(t)
	if v.Has(Blind) {
		return Refuse
	}
	return v
}

// Mentions reports whether a text holds one of the keywords.
func (e Expect) Mentions(text string) bool {
	text = strings.ToLower(text)
	for _, k := range e.Keywords {
		if strings.Contains(text, strings.ToLower(k)) {
			return true
		}
	}
	return len(e.Keywords) == 0
}

// from marks a point and all that are built on it.
func (e *Expect) from(s Set, t Truth, v Verdict) {
	for _, other := range s.Points(t.Disk) {
		for _, link := range s.chainTo(other) {
			if link.Point == t.Point {
				e.of[key{other.Disk, other.Point}] = v
			}
		}
	}
}

// blind looks at what a reader that notices nothing would get of each point that
// is marked Blind: where it is the truth all the same, because what was damaged is
// written anew later, the point may be Right.
func (e *Expect) blind(dir string, s Set) {
	for k := range maps.Clone(e.of) {
		t := s.Point(k.disk, k.point)
		if !e.of[k].Has(Blind) {
			continue
		}
		if err := verify(dir, s.chainTo(t)); err == nil {
			e.of[k] = e.of[k]&^Blind | Right
		}
	}
}

// Worst are the points that must not simply be restored, in the order of the truth.
func (e Expect) Worst(s Set) []Truth {
	return slices.DeleteFunc(slices.Clone(s.Truth), func(t Truth) bool { return e.Of(t).Has(Right) })
}
