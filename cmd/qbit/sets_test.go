package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/reconstruct/plan"
	"github.com/qbitkit/qbit/testimages/sets"
)

// A laidSet is a set of backups in a folder, and what qbit says of it.
type laidSet struct {
	sets.Set
	path string
	flag []string // how to look at it
	plan planJSON
}

func laySet(t *testing.T, s sets.Set) *laidSet {
	t.Helper()
	l := &laidSet{Set: s}
	dir := s.Lay(t)
	l.path = s.Path(dir)
	if s.Map != "" {
		l.flag = []string{"--map", s.Map + "=" + dir}
	}
	return l
}

// look plans the set.
func (l *laidSet) look(t *testing.T) {
	t.Helper()
	stdout, stderr, status := qbit(append([]string{"plan", "--output=json", l.path}, l.flag...)...)
	if status != exitDone && status != exitBad {
		t.Fatalf("plan: status %d: %s", status, stderr)
	}
	l.plan = planJSON{}
	if err := json.Unmarshal([]byte(stdout), &l.plan); err != nil {
		t.Fatal(err)
	}
}

// row is what the plan says of a row of the truth: by the file that holds it, for
// names of disks and points may differ.
func (l *laidSet) row(truth sets.Truth) *pointJSON {
	for i, p := range l.plan.Points {
		if p.ID == truth.Files[0] || strings.HasSuffix(p.ID, "!"+truth.Files[0]) {
			return &l.plan.Points[i]
		}
	}
	return nil
}

// restore restores a row of the truth; the bytes are right or not.
func (l *laidSet) restore(t *testing.T, truth sets.Truth, id, disk string, flags ...string) (right bool, stderr string, status int) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "disk.raw")
	args := append([]string{"restore", l.path, "-o", out, "--disk", disk, "--at", id}, l.flag...)
	_, stderr, status = qbit(append(args, flags...)...)
	if _, err := os.Stat(out); status != exitDone {
		if err == nil {
			t.Errorf("%s: status %d, and there is a result", id, status)
		}
		return false, stderr, status
	}
	return fileSHA256(t, out) == truth.SHA256, stderr, status
}

// title names the disk of a point.
func title(p *pointJSON) string {
	return diskTitle(&plan.Disk{Domain: p.Domain, Name: p.Disk})
}

// TestSets restores every point of every disk of every set, as each tool leaves
// them: to the truth, or with the doubt that its records leave.
func TestSets(t *testing.T) {
	for _, s := range sets.All() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			l := laySet(t, s)
			l.look(t)
			for _, truth := range s.Truth {
				l.wantRow(t, truth)
			}
		})
	}
}

func (l *laidSet) wantRow(t *testing.T, truth sets.Truth) {
	t.Helper()
	name := fmt.Sprintf("%s at %s (%s)", truth.Disk, truth.Point, truth.Files[0])
	p := l.row(truth)
	if p == nil {
		t.Errorf("%s: the plan does not know it", name)
		return
	}
	if truth.Wants == sets.Right && p.Verdict == plan.Lost {
		t.Errorf("%s: the plan refuses it: %v", name, p.Why)
		return
	}
	assumed := isAssumed(p)
	if assumed && truth.Wants == sets.Right && !countsByTimes(l.Tool) {
		t.Errorf("%s: the plan only assumes it: %v", name, p.Why)
	}
	l.wantRestored(t, truth, p, assumed && p.Verdict != plan.Lost)
}

func isAssumed(p *pointJSON) bool {
	return slices.ContainsFunc(p.Why, func(q plan.Problem) bool { return q.Kind == plan.ProblemAssumed })
}

// pointOf is what the plan says of a point of the truth, by its name; where the
// plan has other names, by the file that held it.
func (l *laidSet) pointOf(truth sets.Truth) *pointJSON {
	for i, p := range l.plan.Points {
		if p.Point == truth.Point && (p.Disk == truth.Disk || p.Disk == truth.Target) {
			return &l.plan.Points[i]
		}
	}
	return l.row(truth)
}

// countsByTimes says that nothing but times in names tells the order of a tool's
// backups, so that a missing one would not be seen.
func countsByTimes(tool string) bool { return tool == "qmpbackup" || tool == "kubevirt" }

// wantRestored restores a row: what the plan calls restorable is the truth, what
// it assumes wants to be told so, what it calls lost leaves nothing behind.
func (l *laidSet) wantRestored(t *testing.T, truth sets.Truth, p *pointJSON, assumed bool) {
	t.Helper()
	right, stderr, status := l.restore(t, truth, p.ID, title(p))
	if assumed {
		if status != exitBad {
			t.Errorf("%s: it is assumed, and restored without --assume: status %d\n%s", p.ID, status, stderr)
		}
		right, stderr, status = l.restore(t, truth, p.ID, title(p), "--assume")
	}
	switch {
	case p.Verdict == plan.Lost:
		if status != exitBad {
			t.Errorf("%s: it is lost, and status is %d\n%s", p.ID, status, stderr)
		}
	case status != exitDone:
		t.Errorf("%s: status %d\n%s", p.ID, status, stderr)
	case !right && !(truth.Lossy && p.Verdict == plan.Doubtful && strings.Contains(stderr, "warning")):
		t.Errorf("%s: other bytes than the truth; the plan says %s\n%s", p.ID, p.Verdict, stderr)
	}
}

// TestMutatedSets does to sets what happens to backups: every point is restored to
// the truth, or refused with a reason, or only restored with doubt. Other bytes
// than the truth come back only where nothing in the files can tell.
func TestMutatedSets(t *testing.T) {
	for _, m := range sets.Mutations() {
		for _, s := range mutatedSets(m) {
			t.Run(m.Name+"/"+s.Name, func(t *testing.T) {
				t.Parallel()
				l := laySet(t, s)
				dir := l.path
				if s.Zip {
					dir = filepath.Dir(l.path)
				}
				expect, err := m.Apply(dir, s)
				if err != nil {
					t.Fatal(err)
				}
				l.look(t)
				for _, truth := range s.Truth {
					l.wantMutated(t, truth, expect)
				}
			})
		}
	}
}

// mutatedSets are the sets that a mutation is done to: all with QBIT_FULL=1,
// otherwise one of each kind, whose place among its likes is drawn by the mutation's
// name.
func mutatedSets(m sets.Mutation) []sets.Set {
	type kind struct {
		tool    string
		backing sets.Backing
	}
	byKind := map[kind][]sets.Set{}
	var kinds []kind
	var all []sets.Set
	for _, s := range sets.All() {
		if !m.Applies(s) {
			continue
		}
		all = append(all, s)
		k := kind{s.Tool, s.Backing}
		if byKind[k] == nil {
			kinds = append(kinds, k)
		}
		byKind[k] = append(byKind[k], s)
	}
	if os.Getenv("QBIT_FULL") == "1" {
		return all
	}
	var some []sets.Set
	for i, k := range kinds {
		some = append(some, byKind[k][(len(m.Name)+i)%len(byKind[k])])
	}
	return some
}

// wantMutated restores a row of a set that something has happened to.
func (l *laidSet) wantMutated(t *testing.T, truth sets.Truth, expect sets.Expect) {
	t.Helper()
	may := expect.Of(truth)
	p := l.pointOf(truth)
	if p == nil {
		if !may.Has(sets.Refuse) {
			t.Errorf("%s at %s: the plan does not know it", truth.Disk, truth.Point)
		}
		return
	}
	for _, flags := range [][]string{nil, {"--assume"}} {
		right, stderr, status := l.restore(t, truth, p.ID, title(p), flags...)
		warned := strings.Contains(stderr, "warning")
		said := stderr + fmt.Sprint(p.Why, l.plan.Problems)
		switch {
		case right:
		case status == exitDone && may.Has(sets.Blind):
		case status == exitDone && warned && (truth.Lossy || may.Has(sets.Doubt)):
		case status == exitDone:
			t.Errorf("%s %q: other bytes than the truth, and not a word (may: %s)\n%s", p.ID, flags, may, stderr)
		case status == exitBad && !may.Has(sets.Refuse) && !may.Has(sets.Doubt) && !may.Has(sets.Blind):
			if len(flags) > 0 && p.Verdict != plan.Lost || !countsByTimes(l.Tool) && truth.Wants == sets.Right {
				t.Errorf("%s %q: refused (may: %s)\n%s", p.ID, flags, may, said)
			}
		case status != exitBad:
			t.Errorf("%s %q: status %d\n%s", p.ID, flags, status, stderr)
		case len(flags) == 0 && isAssumed(p): // that is the first reason, mutated or not
		case !may.Has(sets.Blind) && !expect.Mentions(said):
			t.Errorf("%s %q: the reason is not named (%q)\n%s", p.ID, flags, expect.Keywords, said)
		}
	}
}
