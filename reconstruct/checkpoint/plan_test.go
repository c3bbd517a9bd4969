package checkpoint_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/checkpoint"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// inWords is a plan in few words.
func inWords(p *checkpoint.Plan) string {
	var words []string
	for _, s := range p.First {
		for _, put := range s.Put {
			sign := ""
			if put.New {
				sign = "new "
			}
			if put.Auto {
				sign += "+"
			}
			words = append(words, fmt.Sprintf("%d: %s%s|=%s", s.Layer, sign, put.Bitmap, strings.Join(put.From, "|")))
		}
	}
	for _, cp := range p.Write {
		words = append(words, fmt.Sprintf("write %s<%s", cp.Name, cp.Parent))
	}
	for _, name := range p.Remove {
		words = append(words, "forget "+name)
	}
	for _, s := range p.Last {
		for _, name := range s.Remove {
			words = append(words, fmt.Sprintf("%d: -%s", s.Layer, name))
		}
	}
	return strings.Join(words, "; ")
}

func diskOf(t *testing.T, layers ...layerSpec) []checkpoint.Disk {
	return []checkpoint.Disk{{Target: "vda", Chain: checkpoint.NewChain(openLayers(t, layers))}}
}

func TestPlanDelete(t *testing.T) {
	const three = "a b<a c<b"
	for _, test := range []struct {
		what    string
		layers  []layerSpec
		tree    string
		names   string
		design  checkpoint.Design
		want    string
		depends string // the name that needs it
	}{
		{"today", []layerSpec{{bitmaps: "a+: b+: c+:"}}, three, "b", "", "write c<a; forget b; 0: -b", ""},
		{"today, the first", []layerSpec{{bitmaps: "a+: b+: c+:"}}, three, "a", "", "write b<; forget a; 0: -a", ""},
		{"today, two", []layerSpec{{bitmaps: "a+: b+: c+:"}}, three, "a b", "", "write c<; forget b; forget a; 0: -a; 0: -b", ""},
		{"today, all", []layerSpec{{bitmaps: "a+: b+: c+:"}}, three, "a b c", "", "forget c; forget b; forget a; 0: -a; 0: -b; 0: -c", ""},
		{"a chain", []layerSpec{{bitmaps: "a+:"}, {bitmaps: "a+:"}}, "a", "a", "", "forget a; 0: -a; 1: -a", ""},
		{"already gone from the images", []layerSpec{{}}, "a", "a", "", "forget a", ""},
		{"in use", []layerSpec{{bitmaps: "a+: b+!:"}}, "a b<a", "b", "", "forget b; 0: -b", ""},
		{"without a document", []layerSpec{{bitmaps: "a+: x+:"}}, "a", "x", "", "0: -x", ""},
		{"older", []layerSpec{{bitmaps: "a: b: c+:"}}, three, "b", "", "0: a|=b; write c<a; forget b; 0: -b", ""},
		{"older, the newest", []layerSpec{{bitmaps: "a: b: c+:"}}, three, "c", "", "0: +b|=c; forget c; 0: -c", ""},
		{"older, the first", []layerSpec{{bitmaps: "a: b: c+:"}}, three, "a", "", "write b<; forget a; 0: -a", ""},
		{"older, two", []layerSpec{{bitmaps: "a: b: c+:"}}, three, "b c", "", "0: +a|=b|c; forget c; forget b; 0: -b; 0: -c", ""},
		{"older, treated as today's", []layerSpec{{bitmaps: "a: b: c+:"}}, three, "b", checkpoint.DesignToday, "", "a"},
		{"today's, treated as older", []layerSpec{{bitmaps: "a+: b+:"}}, "a b<a", "b", checkpoint.DesignOlder, "0: +a|=b; forget b; 0: -b", ""},
		{"older, over a snapshot", []layerSpec{{bitmaps: "b+:"}, {bitmaps: "a: b+:"}}, "a b<a", "b", "", "0: new +a|=b; 1: +a|=b; forget b; 0: -b; 1: -b", ""},
		{"older, one that is in use", []layerSpec{{bitmaps: "a: b!: c+:"}}, three, "b", "", "", "a"},
		{"older, one that is missing", []layerSpec{{bitmaps: "a: c+:"}}, three, "b", "", "", "a"},
		{"older, with the one that needs it", []layerSpec{{bitmaps: "a: b!: c+:"}}, three, "b a", "", "write c<; forget b; forget a; 0: -b; 0: -a", ""},
		{"older, behind one that is in use", []layerSpec{{bitmaps: "a: b!: c+:"}}, three, "c", "", "forget c; 0: -c", ""},
		{"the one that shows that another was switched off", []layerSpec{{bitmaps: "a+: b: c+:"}}, three, "a", "", "", "b"},
		{"shared with one that stays", []layerSpec{{bitmaps: "one+:"}}, "a,vda=one b<a,vda=one", "b", "", "forget b", ""},
		{"no part in between", []layerSpec{{bitmaps: "a: c+:"}}, "a b<a,vda=- c<b", "c", "", "0: +a|=c; forget c; 0: -c", ""},
	} {
		t.Run(test.what, func(t *testing.T) {
			if test.design == "" {
				test.design = checkpoint.DesignAuto
			}
			plan, err := checkpoint.PlanDelete(diskOf(t, test.layers...), treeOf(t, test.tree), strings.Fields(test.names), test.design)
			var depends *checkpoint.DependError
			switch {
			case test.depends != "":
				if !errors.As(err, &depends) || depends.Needs != test.depends {
					t.Fatalf("%v, want that %s needs it", err, test.depends)
				}
			case err != nil:
				t.Fatal(err)
			case inWords(plan) != test.want:
				t.Errorf("%s\nwant %s", inWords(plan), test.want)
			}
		})
	}
}

func TestPlanDeleteRefused(t *testing.T) {
	var place *checkpoint.PlaceError
	_, err := checkpoint.PlanDelete(diskOf(t, layerSpec{bitmaps: "a+:"}), treeOf(t, "a"), []string{"b"}, checkpoint.DesignAuto)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	_, err = checkpoint.PlanDelete(diskOf(t, layerSpec{bitmaps: "b+:"}, layerSpec{bitmaps: "a+:", stale: true}), treeOf(t, "a"), []string{"a"}, checkpoint.DesignAuto)
	if !errors.Is(err, qcow2.ErrBitmapsStale) || !errors.As(err, &place) || place.Layer != 1 {
		t.Error(err)
	}
	_, err = checkpoint.PlanDelete(diskOf(t, layerSpec{bitmaps: "a+:", broken: true}), treeOf(t, "a"), []string{"a"}, checkpoint.DesignAuto)
	if !errors.As(err, &place) || !errors.As(err, new(*qcow2.FormatError)) {
		t.Error(err)
	}
}

func TestPlanMerge(t *testing.T) {
	const four = "a b<a c<b d<c"
	for _, test := range []struct {
		what, bitmaps, tree, from, to, into string
		want                                string
		rule                                checkpoint.Rule
	}{
		{"today", "a+: b+: c+: d+:", four, "a", "c", "", "write d<a; forget c; forget b; 0: -b; 0: -c", ""},
		{"today, a new name", "a+: b+: c+: d+:", four, "a", "c", "x", "0: new +x|=a; write x<; write d<x; forget c; forget b; forget a; 0: -b; 0: -c; 0: -a", ""},
		{"today, the last one's name", "a+: b+: c+: d+:", four, "b", "d", "d", "0: +d|=b; write d<a; forget c; forget b; 0: -c; 0: -b", ""},
		{"only another name", "a+: b+:", "a b<a", "a", "a", "x", "0: new +x|=a; write x<; write b<x; forget a; 0: -a", ""},
		{"nothing", "a+:", "a", "a", "a", "", "", ""},
		{"older", "a: b: c: d+:", four, "a", "c", "", "0: a|=b|c; write d<a; forget c; forget b; 0: -b; 0: -c", ""},
		{"older, to the newest", "a: b: c: d+:", four, "b", "d", "", "0: +b|=c|d; forget d; forget c; 0: -c; 0: -d", ""},
		{"older, a new name", "a: b: c: d+:", four, "b", "d", "x", "0: new +x|=b|c|d; write x<a; forget d; forget c; forget b; 0: -c; 0: -d; 0: -b", ""},
		{"a branch moves along", "a+: b+: c+: d+:", "a b<a c<b d<b", "a", "c", "", "write d<a; forget c; forget b; 0: -b; 0: -c", ""},
		{"not known", "a+!: b+:", "a b<a", "a", "b", "", "", checkpoint.RuleInUse},
	} {
		t.Run(test.what, func(t *testing.T) {
			plan, err := checkpoint.PlanMerge(diskOf(t, layerSpec{bitmaps: test.bitmaps}), treeOf(t, test.tree), test.from, test.to, test.into)
			var rule *checkpoint.RuleError
			switch {
			case test.rule != "":
				if !errors.As(err, &rule) || rule.Rule != test.rule {
					t.Fatalf("%v, want the rule %s broken", err, test.rule)
				}
			case err != nil:
				t.Fatal(err)
			case inWords(plan) != test.want:
				t.Errorf("%s\nwant %s", inWords(plan), test.want)
			}
		})
	}
}

func TestPlanMergeRefused(t *testing.T) {
	disks, tree := diskOf(t, layerSpec{bitmaps: "a+: b+: c+: x+:"}), treeOf(t, "a b<a c<b")
	if _, err := checkpoint.PlanMerge(disks, tree, "b", "a", ""); !errors.As(err, new(*libvirt.PathError)) {
		t.Error(err)
	}
	if _, err := checkpoint.PlanMerge(disks, tree, "a", "b", "c"); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	var exists *checkpoint.ExistsError
	if _, err := checkpoint.PlanMerge(disks, tree, "a", "b", "x"); !errors.As(err, &exists) || exists.Bitmap != "x" {
		t.Error(err)
	}
}

func TestDependents(t *testing.T) {
	tree := treeOf(t, "a b<a c<b")
	if got := checkpoint.Dependents(diskOf(t, layerSpec{bitmaps: "a: b: c+:"}), tree, "c"); fmt.Sprint(got) != "[a b]" {
		t.Error(got)
	}
	if got := checkpoint.Dependents(diskOf(t, layerSpec{bitmaps: "a+: b+: c+:"}), tree, "c"); len(got) != 0 {
		t.Error(got)
	}
}

func TestCompare(t *testing.T) {
	for _, test := range []struct{ bitmaps, tree, want string }{
		{"a+: b+:", "a b<a", ""},
		{"a+:", "a b<a", "missing b"},
		{"a+: x+:", "a", "left-over x"},
		{"a+: x+:", "", ""},
		{"a+!: b+:", "a b<a", "in-use a"},
		{"a+: b:", "a b<a", "recording b"},
		{"a: c+:", "a b<a c<b", "successor b; missing b"},
		{"one+:", "a,vda=one", "bitmap-name one"},
		{"x+:", "a,vdb=", "no-disk a; left-over x"},
	} {
		var got []string
		for _, p := range checkpoint.Compare(diskOf(t, layerSpec{bitmaps: test.bitmaps}), treeOf(t, test.tree), nil, true) {
			got = append(got, fmt.Sprintf("%s %s", p.Kind, p.Bitmap))
			if p.Notice() != (p.Kind == checkpoint.ProblemName || p.Kind == checkpoint.ProblemNoDisk) {
				t.Errorf("%v: notice %v", p, p.Notice())
			}
		}
		if s := strings.Join(got, "; "); s != test.want {
			t.Errorf("%s, %s: %s, want %s", test.bitmaps, test.tree, s, test.want)
		}
	}
}

// TestOrigin has a document that says which image was active.
func TestOrigin(t *testing.T) {
	tree := func(source string) *libvirt.Tree {
		cp := &libvirt.Checkpoint{Name: "a", Disks: []libvirt.CheckpointDisk{{Name: "vda"}}}
		d, err := libvirt.ParseDomain([]byte("<domain><devices><disk><source file='" + source + "'/><target dev='vda'/></disk></devices></domain>"))
		if err != nil {
			t.Fatal(err)
		}
		cp.SetDomain(d)
		tree, _ := libvirt.NewTree([]*libvirt.Checkpoint{cp})
		return tree
	}
	layers := openLayers(t, []layerSpec{{bitmaps: "a+:1"}, {}})
	chain := checkpoint.NewChain(layers).Named([]string{"/top", "/base"})
	for source, rule := range map[string]checkpoint.Rule{"/top": "", "/elsewhere": "", "/base": checkpoint.RuleOrigin} {
		_, _, err := chain.Verify(tree(source), "vda", "a")
		var broken *checkpoint.RuleError
		switch {
		case rule == "" && err != nil:
			t.Error(source, err)
		case rule != "" && (!errors.As(err, &broken) || broken.Rule != rule || broken.Layer != 1):
			t.Errorf("%s: %v", source, err)
		}
	}
}

func TestRecover(t *testing.T) {
	now := time.Unix(1800000000, 0)
	disks := []checkpoint.Disk{
		{Target: "vda", Chain: checkpoint.NewChain(openLayers(t, []layerSpec{{bitmaps: "late+:1 1700000000+:12 early+:123 known+:1234 dead+!:1 off:1 b@d+:1"}}))},
		{Target: "vdb", Chain: checkpoint.NewChain(openLayers(t, []layerSpec{{bitmaps: "early+:1"}}))},
	}
	domain := []libvirt.DomainDisk{{Target: "vda", Source: "/a"}, {Target: "vdb", Source: "/b"}, {Target: "vdc", Source: "/c"}}
	made, passed := checkpoint.Recover(disks, treeOf(t, "known"), domain, now)
	got := ""
	for _, cp := range made {
		got += fmt.Sprintf("%s<%s at %d on", cp.Name, cp.Parent, cp.CreationTime)
		for _, d := range cp.Disks {
			got += " " + d.Name + "=" + d.BitmapName(cp)
		}
		got += "; "
		if err := cp.Validate(); err != nil {
			t.Error(err)
		}
	}
	want := "early<known at 1800000000 on vda=early vdb=early vdc=; " +
		"1700000000<early at 1700000000 on vda=1700000000 vdb= vdc=; " +
		"late<1700000000 at 1800000000 on vda=late vdb= vdc=; "
	if got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	var names []string
	for _, p := range passed {
		names = append(names, p.Bitmap)
	}
	if fmt.Sprint(names) != "[dead off b@d]" {
		t.Error(names)
	}
}
