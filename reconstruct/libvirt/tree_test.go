package libvirt

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// points makes checkpoints out of "name<parent@time".
func points(specs ...string) []*Checkpoint {
	var cps []*Checkpoint
	for _, s := range specs {
		s, at, _ := strings.Cut(s, "@")
		name, parent, _ := strings.Cut(s, "<")
		c := &Checkpoint{Name: name, Parent: parent}
		_, _ = fmt.Sscan(at, &c.CreationTime)
		cps = append(cps, c)
	}
	return cps
}

func mustTree(t *testing.T, specs ...string) *Tree {
	t.Helper()
	tree, problems := NewTree(points(specs...))
	if len(problems) > 0 {
		t.Fatalf("problems: %v", problems)
	}
	return tree
}

// family is the tree that virsh shows as in familyLines.
var family = []string{"root@5", "B<root@6", "a<root@7", "a1<a@8", "a2<a@9", "r2@3", "cp10<a1@1", "cp2<a1@2"}

const familyLines = `r2

root
  |
  +- a
  |   |
  |   +- a1
  |   |   |
  |   |   +- cp10
  |   |   +- cp2
  |   |     
  |   +- a2
  |     
  +- B
    
`

func lines(t *Tree) string {
	var all strings.Builder
	for line := range t.Lines() {
		all.WriteString(line + "\n")
	}
	return all.String()
}

func TestTree(t *testing.T) {
	tree := mustTree(t, family...)
	check := func(what string, got, want any) {
		t.Helper()
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
	check("lines", lines(tree), familyLines)
	check("roots", tree.Roots(), []string{"r2", "root"})
	check("children", tree.Children("root"), []string{"a", "B"})
	check("leaves", tree.Leaves(), []string{"a2", "B", "cp10", "cp2", "r2"})
	check("since a", tree.ChangedSince("a"), []string{"a", "a1", "cp10", "cp2", "a2"})
	check("since a2", tree.ChangedSince("a2"), []string{"a2"})
	check("since nothing", tree.ChangedSince("x"), []string(nil))
	check("branches", slices.Collect(tree.Branches()), [][]string{
		{"root", "a", "a2"}, {"root", "B"}, {"root", "a", "a1", "cp10"}, {"root", "a", "a1", "cp2"}, {"r2"}})
	if p, ok := tree.Parent("a1"); p != "a" || !ok {
		t.Errorf("parent %q %v", p, ok)
	}
	if p, ok := tree.Parent("root"); p != "" || ok {
		t.Errorf("parent of a root %q %v", p, ok)
	}
	c, unique := tree.Current()
	if c.Name != "a2" || unique {
		t.Errorf("current %s %v", c.Name, unique)
	}
	if got := tree.Checkpoint("B"); got == nil || got.CreationTime != 6 || tree.Checkpoint("b") != nil {
		t.Errorf("checkpoint %+v", got)
	}
}

func TestPath(t *testing.T) {
	tree := mustTree(t, family...)
	for _, c := range []struct{ from, to, want string }{
		{"root", "cp2", "root a a1 cp2"}, {"", "a", "root a"}, {"a", "a", "a"}, {"a1", "cp10", "a1 cp10"},
	} {
		got, err := tree.Path(c.from, c.to)
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("from %q to %q: %v %v", c.from, c.to, got, err)
		}
	}
	var apart *PathError
	for _, c := range [][2]string{{"a", "root"}, {"a", "B"}, {"r2", "root"}} {
		if got, err := tree.Path(c[0], c[1]); !errors.As(err, &apart) || apart.From != c[0] {
			t.Errorf("%v: %v %v", c, got, err)
		}
	}
	for _, c := range [][2]string{{"x", "a"}, {"a", "x"}, {"", ""}, {"a", ""}, {"", "x"}} {
		if got, err := tree.Path(c[0], c[1]); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: %v %v", c, got, err)
		}
	}
}

func TestCurrent(t *testing.T) {
	for _, c := range []struct {
		specs  []string
		want   string
		unique bool
	}{
		{nil, "", false},
		{[]string{"a@9"}, "a", true},
		{[]string{"a@9", "b<a@1"}, "b", true},
		{[]string{"a@1", "b<a@2", "c<a@3"}, "c", false},
		{[]string{"a@1", "b@2"}, "b", false},
		{[]string{"b@1", "a@1"}, "a", false},
	} {
		got, unique := mustTree(t, c.specs...).Current()
		name := ""
		if got != nil {
			name = got.Name
		}
		if name != c.want || unique != c.unique {
			t.Errorf("%v: %q %v", c.specs, name, unique)
		}
	}
}

func TestProblems(t *testing.T) {
	domain := func(c *Checkpoint, uuid string) *Checkpoint {
		d := &Domain{UUID: uuid, doc: newDocument("domain")}
		c.SetDomain(d)
		return c
	}
	cps := points("a@1", "b<gone", "x<z", "y<x", "z<y", "tail<y", "a@1", "a@2", "", "self<self", "@7")
	cps[0] = domain(cps[0], "u1")
	cps[6] = domain(cps[6], "U1")
	cps[1] = domain(cps[1], "u2")
	tree, problems := NewTree(cps)
	want := []Problem{
		{Kind: ProblemOtherDomain, Name: "b", Domain: "u2"},
		{Kind: ProblemDuplicate, Name: "a"},
		{Kind: ProblemUnnamed},
		{Kind: ProblemNoParent, Name: "b", Parent: "gone"},
		{Kind: ProblemCycle, Name: "self", Cycle: []string{"self"}},
		{Kind: ProblemCycle, Name: "x", Cycle: []string{"x", "y", "z"}},
	}
	if d := cmp.Diff(want, problems); d != "" {
		t.Error(d)
	}
	if got := strings.Join(tree.Roots(), " "); got != "7 a b self x y z" {
		t.Errorf("roots %s", got)
	}
	if p, _ := tree.Parent("tail"); p != "y" {
		t.Errorf("what hangs on a cycle has the parent %q", p)
	}
	for _, p := range problems {
		if p.Error() == "" || strings.Contains(p.Error(), "unknown") {
			t.Errorf("%+v: %v", p, p)
		}
	}
	// The same again, in the text of another host, is no problem.
	if _, problems := NewTree([]*Checkpoint{mustCheckpoint(t, sample), mustCheckpoint(t, strings.ReplaceAll(sample, " size='1048576'", ""))}); len(problems) != 1 {
		t.Errorf("problems %v", problems)
	}
}

// A long chain neither overflows a stack nor takes quadratic time.
func TestLongChain(t *testing.T) {
	const n = 100_000
	cps := make([]*Checkpoint, n)
	for i := range cps {
		cps[i] = &Checkpoint{Name: fmt.Sprintf("c%06d", i), CreationTime: int64(i)}
		if i > 0 {
			cps[i].Parent = cps[i-1].Name
		}
	}
	tree, problems := NewTree(cps)
	c, unique := tree.Current()
	if len(problems) > 0 || c.Name != "c099999" || !unique || len(tree.ChangedSince("c000000")) != n {
		t.Errorf("%d problems, current %s", len(problems), c.Name)
	}
	cps[0].Parent = c.Name
	if _, problems := NewTree(cps); len(problems) != 1 || len(problems[0].Cycle) != n {
		t.Errorf("problems %d", len(problems))
	}
	count := 0
	for range tree.Lines() {
		if count++; count == 100 {
			break
		}
	}
}

func TestPrint(t *testing.T) {
	var b bytes.Buffer
	if err := mustTree(t, "a", "b<a").Print(&b); err != nil || b.String() != "a\n  |\n  +- b\n\n" {
		t.Errorf("%q %v", b.String(), err)
	}
	if err := mustTree(t, "a").Print(failing{}); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("have %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, fs.ErrClosed }

// model answers what a Tree does by looking through a table.
type model map[string]string // name to parent

func (m model) ancestors(name string) []string { // itself first
	all := []string{name}
	for at := m[name]; ; at = m[at] {
		if _, ok := m[at]; !ok || slices.Contains(all, at) {
			return all
		}
		all = append(all, at)
	}
}

// loops says whether a checkpoint is its own ancestor.
func (m model) loops(name string) bool {
	for at, n := m[name], 0; n <= len(m); at, n = m[at], n+1 {
		if at == name {
			return true
		}
	}
	return false
}

// cut is the model without its cycles and without parents that there are not.
func (m model) cut() model {
	c := model{}
	for name, parent := range m {
		if _, ok := m[parent]; !ok || m.loops(name) {
			parent = ""
		}
		c[name] = parent
	}
	return c
}

func TestTreeAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-cA-C]{1,2}`), 0, 10, rapid.ID[string]).Draw(t, "names")
		m := model{}
		var cps []*Checkpoint
		for i, name := range names {
			parents := append([]string{"", "", "gone"}, names[:i]...)
			if rapid.IntRange(0, 3).Draw(t, "any") == 0 {
				parents = names
			}
			m[name] = rapid.SampledFrom(parents).Draw(t, "parent")
			cps = append(cps, &Checkpoint{Name: name, Parent: m[name], CreationTime: int64(i)})
		}
		tree, problems := NewTree(rapid.Permutation(cps).Draw(t, "order"))
		checkProblems(t, m, problems)
		for name := range m {
			checkPoint(t, m.cut(), tree, name)
		}
		if all := slices.Collect(tree.Branches()); len(all) != len(tree.Leaves()) {
			t.Fatalf("%d branches", len(all))
		}
	})
}

func checkProblems(t *rapid.T, m model, problems []Problem) {
	var missing, looped int
	for _, p := range problems {
		switch p.Kind {
		case ProblemNoParent:
			missing++
			if _, there := m[m[p.Name]]; there || m[p.Name] == "" {
				t.Fatalf("%v", p)
			}
		case ProblemCycle:
			looped += len(p.Cycle)
			for i, name := range p.Cycle {
				if next := p.Cycle[(i+1)%len(p.Cycle)]; m[next] != name {
					t.Fatalf("%v: %s is not the parent of %s", p, name, next)
				}
			}
		default:
			t.Fatalf("%v", p)
		}
	}
	for name, parent := range m {
		if _, there := m[parent]; !there && parent != "" {
			missing--
		}
		if m.loops(name) {
			looped--
		}
	}
	if missing != 0 || looped != 0 {
		t.Fatalf("%v: %d missing parents and %d in cycles too many", problems, missing, looped)
	}
}

func checkPoint(t *rapid.T, m model, tree *Tree, name string) {
	var since, kids []string
	for other, parent := range m {
		if slices.Contains(m.ancestors(other), name) {
			since = append(since, other)
		}
		if parent == name {
			kids = append(kids, other)
		}
	}
	got := tree.ChangedSince(name)
	if got[0] != name || !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(since))) {
		t.Fatalf("since %s: %v, want %v", name, got, since)
	}
	slices.SortFunc(kids, byName)
	if !slices.Equal(tree.Children(name), kids) {
		t.Fatalf("children of %s: %v, want %v", name, tree.Children(name), kids)
	}
	if parent, ok := tree.Parent(name); parent != m[name] || ok != (parent != "") || ok == slices.Contains(tree.Roots(), name) {
		t.Fatalf("parent of %s: %s", name, parent)
	}
	line := m.ancestors(name)
	slices.Reverse(line)
	for i, from := range line {
		if path, err := tree.Path(from, name); err != nil || !slices.Equal(path, line[i:]) {
			t.Fatalf("from %s to %s: %v %v, want %v", from, name, path, err, line[i:])
		}
	}
}
