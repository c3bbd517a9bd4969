package checkpoint_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/checkpoint"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
	"github.com/qbitkit/qbit/testimages/build"
)

// A layerSpec is an image of a chain in a few words: bitmaps as
// NAME[FLAGS]:GRANULES, where FLAGS are + (records), ! (in use), and GRANULES digits
// for the granules of 4 KiB that are dirty.
type layerSpec struct {
	bitmaps string
	size    uint64 // in granules; 0: 8
	stale   bool
	coarse  string // the bitmap with that name has granules of 16 KiB
	raw     bool   // the backing file is raw
	broken  bool   // the directory
}

const granule = 4096

func (s layerSpec) open(t *testing.T, below bool) *qcow2.Image {
	t.Helper()
	spec := build.Spec{Size: 8 * granule, ClusterBits: 12, StaleBitmaps: s.stale}
	if s.size != 0 {
		spec.Size = s.size * granule
	}
	if below {
		spec.Backing, spec.BackingFormat = "below", "qcow2"
	}
	if s.raw {
		spec.Backing, spec.BackingFormat = "below", "raw"
	}
	for _, word := range strings.Fields(s.bitmaps) {
		name, dirty, _ := strings.Cut(word, ":")
		b := build.Bitmap{Name: strings.TrimRight(name, "+!"), GranularityBits: 12}
		if strings.Contains(name, "+") {
			b.Flags |= build.Auto
		}
		if strings.Contains(name, "!") {
			b.Flags |= build.InUse
		}
		if b.Name == s.coarse {
			b.GranularityBits = 14
		}
		for _, digit := range dirty {
			b.Dirty = append(b.Dirty, build.Range{Off: int64(digit-'0') * granule, Len: 1})
		}
		spec.Bitmaps = append(spec.Bitmaps, b)
	}
	made := build.Must(spec)
	file := made.Bytes
	if s.broken {
		file = made.Patch("bitmaps_extension.reserved", 1)
	}
	img, err := qcow2.Open(bytes.NewReader(file), int64(len(file)), nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func openLayers(t *testing.T, specs []layerSpec) []*qcow2.Image {
	t.Helper()
	var images []*qcow2.Image
	for i, s := range specs {
		images = append(images, s.open(t, i < len(specs)-1))
	}
	return images
}

// treeOf makes a tree of words CHILD<PARENT; a disk of vda=BITMAP behind the word, or
// vda=- for no part.
func treeOf(t *testing.T, words string) *libvirt.Tree {
	t.Helper()
	var cps []*libvirt.Checkpoint
	for _, word := range strings.Fields(words) {
		word, disk, _ := strings.Cut(word, ",")
		name, parent, _ := strings.Cut(word, "<")
		cp := &libvirt.Checkpoint{Name: name, Parent: parent, CreationTime: 1}
		if d, bitmap, ok := strings.Cut(disk, "="); ok {
			cd := libvirt.CheckpointDisk{Name: d, Bitmap: bitmap, Size: -1}
			if bitmap == "-" {
				cd.Bitmap, cd.Checkpoint = "", "no"
			}
			cp.Disks = append(cp.Disks, cd)
		}
		cps = append(cps, cp)
	}
	tree, problems := libvirt.NewTree(cps)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return tree
}

func dirtyGranules(b *bitmap.Bitmap) string {
	s := ""
	for i := range b.Size() / granule {
		if b.Test(i * granule) {
			s += fmt.Sprint(i)
		}
	}
	return s
}

func TestSince(t *testing.T) {
	for _, test := range []struct {
		what   string
		layers []layerSpec
		tree   string
		name   string
		want   string // dirty granules; or
		rule   checkpoint.Rule
		layer  int
	}{
		{what: "today's design", layers: []layerSpec{{bitmaps: "a+:123 b+:23"}}, tree: "a b<a", name: "a", want: "123"},
		{what: "today's design, the newest", layers: []layerSpec{{bitmaps: "a+:123 b+:23"}}, tree: "a b<a", name: "b", want: "23"},
		{what: "without a tree", layers: []layerSpec{{bitmaps: "a+:123 b+:4"}}, name: "a", want: "123"},
		{what: "not in the tree", layers: []layerSpec{{bitmaps: "a+:123 b+:4"}}, tree: "x", name: "a", want: "123"},
		{what: "a descendant that knows more", layers: []layerSpec{{bitmaps: "a+:1 b+:23"}}, tree: "a b<a", name: "a", want: "123"},
		{what: "a descendant that nobody needs is gone", layers: []layerSpec{{bitmaps: "a+:1"}}, tree: "a b<a", name: "a", want: "1"},
		{what: "a descendant that nobody needs is in use", layers: []layerSpec{{bitmaps: "a+:1 b+!:23"}}, tree: "a b<a", name: "a", want: "1"},
		{what: "an ancestor in use", layers: []layerSpec{{bitmaps: "a+!:1 b+:23"}}, tree: "a b<a", name: "b", want: "23"},
		{what: "in use", layers: []layerSpec{{bitmaps: "a+!:1"}}, tree: "a", name: "a", rule: checkpoint.RuleInUse},
		{what: "stale", layers: []layerSpec{{bitmaps: "a+:1", stale: true}}, name: "a", rule: checkpoint.RuleStale},
		{what: "another one is stale", layers: []layerSpec{{bitmaps: "b+:1", stale: true}}, name: "a", rule: checkpoint.RuleStale},
		{what: "none", layers: []layerSpec{{bitmaps: "b+:1"}}, name: "a", rule: checkpoint.RuleTopmost},
		{what: "no image", name: "a", rule: checkpoint.RuleTopmost},
		{what: "a broken directory", layers: []layerSpec{{bitmaps: "a+:1", broken: true}}, name: "a", rule: checkpoint.RuleBroken},
		{what: "not recording", layers: []layerSpec{{bitmaps: "a:1"}}, tree: "a", name: "a", rule: checkpoint.RuleRecording},
		{what: "not recording, without a tree", layers: []layerSpec{{bitmaps: "a:1 b+:2"}}, name: "a", rule: checkpoint.RuleRecording},
		{what: "switched off below one that records", layers: []layerSpec{{bitmaps: "a+:1 b:2 c+:3"}}, tree: "a b<a c<b", name: "b", rule: checkpoint.RuleRecording},
		{what: "and the one above it", layers: []layerSpec{{bitmaps: "a+:1 b:2 c+:3"}}, tree: "a b<a c<b", name: "a", want: "123"},

		{what: "the older design", layers: []layerSpec{{bitmaps: "a:1 b:2 c+:3"}}, tree: "a b<a c<b", name: "a", want: "123"},
		{what: "the older design, in the middle", layers: []layerSpec{{bitmaps: "a:1 b:2 c+:3"}}, tree: "a b<a c<b", name: "b", want: "23"},
		{what: "the older design, the newest", layers: []layerSpec{{bitmaps: "a:1 b:2 c+:3"}}, tree: "a b<a c<b", name: "c", want: "3"},
		{what: "a newer libvirt went on", layers: []layerSpec{{bitmaps: "a:1 b+:24 c+:4"}}, tree: "a b<a c<b", name: "a", want: "124"},
		{what: "a newer libvirt went on, and its bitmap is gone", layers: []layerSpec{{bitmaps: "a:1 b+:24"}}, tree: "a b<a c<b", name: "a", want: "124"},
		{what: "the older design with a hole", layers: []layerSpec{{bitmaps: "a:1 c+:3"}}, tree: "a b<a c<b", name: "a", rule: checkpoint.RuleSuccessor},
		{what: "the older design, one in use", layers: []layerSpec{{bitmaps: "a:1 b!:2 c+:3"}}, tree: "a b<a c<b", name: "a", rule: checkpoint.RuleInUse},
		{what: "the older design, the end is off", layers: []layerSpec{{bitmaps: "a:1 b:2"}}, tree: "a b<a", name: "a", rule: checkpoint.RuleRecording},
		{what: "the older design with branches", layers: []layerSpec{{bitmaps: "a:1 b+:2 c+:3"}}, tree: "a b<a c<a", name: "a", want: "123"},
		{what: "the older design, a branch is gone", layers: []layerSpec{{bitmaps: "a:1 c+:3"}}, tree: "a b<a c<a", name: "a", rule: checkpoint.RuleSuccessor},

		{what: "the older design, the other branch is gone", layers: []layerSpec{{bitmaps: "a:1 b+:3"}}, tree: "a b<a c<a", name: "a", rule: checkpoint.RuleSuccessor},
		{what: "two images", layers: []layerSpec{{bitmaps: "a+:1"}, {bitmaps: "a+:2"}}, name: "a", want: "12"},
		{what: "two images, raw below", layers: []layerSpec{{bitmaps: "a+:1"}, {bitmaps: "a+:2", raw: true}}, name: "a", want: "12"},
		{what: "made after the snapshot", layers: []layerSpec{{bitmaps: "a+:1 b+:1"}, {bitmaps: "a+:2"}}, tree: "a b<a", name: "b", want: "1"},
		{what: "the topmost has none", layers: []layerSpec{{}, {bitmaps: "a+:2"}}, name: "a", rule: checkpoint.RuleTopmost},
		{what: "a gap", layers: []layerSpec{{bitmaps: "a+:1"}, {}, {bitmaps: "a+:2"}}, name: "a", rule: checkpoint.RuleGap, layer: 1},
		{what: "in use below", layers: []layerSpec{{bitmaps: "a+:1"}, {bitmaps: "a+!:2"}}, name: "a", rule: checkpoint.RuleInUse, layer: 1},
		{what: "not recording below", layers: []layerSpec{{bitmaps: "a+:1"}, {bitmaps: "a:2"}}, name: "a", rule: checkpoint.RuleRecording, layer: 1},
		{what: "not recording above", layers: []layerSpec{{bitmaps: "a:1"}, {bitmaps: "a+:2"}}, name: "a", rule: checkpoint.RuleRecording},
		{what: "stale below", layers: []layerSpec{{bitmaps: "a+:1"}, {bitmaps: "a+:2", stale: true}}, name: "a", rule: checkpoint.RuleStale, layer: 1},
		{what: "stale in the middle, where it is missing", layers: []layerSpec{{bitmaps: "a+:1"}, {bitmaps: "b+:1", stale: true}, {bitmaps: "a+:2"}}, name: "a", rule: checkpoint.RuleStale, layer: 1},
		{what: "a broken directory below", layers: []layerSpec{{bitmaps: "a+:1"}, {bitmaps: "b+:1", broken: true}}, name: "a", rule: checkpoint.RuleBroken, layer: 1},

		{what: "the older design, then a snapshot", layers: []layerSpec{{bitmaps: "b+:3"}, {bitmaps: "a:1 b+:2"}}, tree: "a b<a", name: "a", want: "123"},
		{what: "a snapshot, then the older design", layers: []layerSpec{{bitmaps: "a:2 b+:3"}, {bitmaps: "a+:1"}}, tree: "a b<a", name: "a", want: "123"},
		{what: "a snapshot, and the older design did not take over", layers: []layerSpec{{bitmaps: "b+:3"}, {bitmaps: "a:1"}}, tree: "a b<a", name: "a", rule: checkpoint.RuleSuccessor, layer: 1},

		{what: "the coarser counts", layers: []layerSpec{{bitmaps: "a+:1"}, {bitmaps: "a+:5", coarse: "a"}}, name: "a", want: "01234567"},
		{what: "a finer one rounds out", layers: []layerSpec{{bitmaps: "a+:1", coarse: "a"}}, name: "a", want: "0123"},
		{what: "nobody needs the coarser", layers: []layerSpec{{bitmaps: "a+:15 b+:5", coarse: "b"}}, tree: "a b<a", name: "a", want: "14567"},
		{what: "the disk grew", layers: []layerSpec{{bitmaps: "a+:1"}, {bitmaps: "a+:2", size: 5}}, name: "a", want: "12567"},
		{what: "the disk shrank", layers: []layerSpec{{bitmaps: "a+:1", size: 4}, {bitmaps: "a+:26"}}, name: "a", want: "12"},
		{what: "it shrank, and grew again", layers: []layerSpec{{bitmaps: "a+:1"}, {bitmaps: "a+:2", size: 5}, {bitmaps: "a+:7"}}, name: "a", want: "12567"},
		{what: "a size before the checkpoint", layers: []layerSpec{{bitmaps: "a+:1"}, {size: 5}}, name: "a", want: "1"},
	} {
		t.Run(test.what, func(t *testing.T) {
			layers := openLayers(t, test.layers)
			var tree *libvirt.Tree
			if test.tree != "" {
				tree = treeOf(t, test.tree)
			}
			got, err := checkpoint.Since(layers, tree, test.name)
			expect(t, got, err, test.want, test.rule, test.layer)
		})
	}
}

func expect(t *testing.T, got *bitmap.Bitmap, err error, want string, rule checkpoint.Rule, layer int) {
	t.Helper()
	var broken *checkpoint.RuleError
	switch {
	case rule == "" && err != nil:
		t.Fatal(err)
	case rule == "":
		if d := dirtyGranules(got); d != want {
			t.Errorf("dirty granules %s, want %s", d, want)
		}
	case !errors.As(err, &broken):
		t.Fatalf("%v, want the rule %s broken", err, rule)
	case broken.Rule != rule || broken.Layer != layer:
		t.Errorf("rule %s in image %d broken, want %s in %d: %v", broken.Rule, broken.Layer, rule, layer, err)
	}
}

// TestSinceErrors looks at what the errors wrap, and what they say.
func TestSinceErrors(t *testing.T) {
	for _, test := range []struct {
		layers []layerSpec
		is     error
		says   string
	}{
		{[]layerSpec{{bitmaps: "a+!:1"}}, qcow2.ErrBitmapInUse, `in the topmost image bitmap "a" cannot be trusted`},
		{[]layerSpec{{bitmaps: "a+:1", stale: true}}, qcow2.ErrBitmapsStale, `no bitmaps has written`},
		{[]layerSpec{{bitmaps: "b+:1"}}, fs.ErrNotExist, `no image of the disk has a bitmap "a"`},
		{[]layerSpec{{}, {}, {bitmaps: "a+:1"}}, nil, `the topmost image has no bitmap "a", and the image 2 below the topmost has`},
		{[]layerSpec{{bitmaps: "a+:1"}, {}, {}, {bitmaps: "a+:1"}}, nil, `the image 2 below the topmost has no bitmap "a", but images above and below it have`},
	} {
		_, err := checkpoint.Since(openLayers(t, test.layers), nil, "a")
		if err == nil || test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%v; want %v, %s", err, test.is, test.says)
		}
		if test.is == nil && errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v is taken for a bitmap that there is not", err)
		}
	}
}

func TestSinceUnopened(t *testing.T) {
	layers := []*qcow2.Image{layerSpec{bitmaps: "a+:1"}.open(t, true)}
	got, err := checkpoint.Since(layers, nil, "a")
	expect(t, got, err, "", checkpoint.RuleWhole, 0)
}

// TestSinceDisk has bitmaps of other names, and disks without a part.
func TestSinceDisk(t *testing.T) {
	tree := treeOf(t, "a,vda=one b<a,vda=- c<b,vda=three")
	for _, test := range []struct {
		bitmaps, name, want string
		rule                checkpoint.Rule
	}{
		{"one+:1 three+:2", "a", "12", ""},
		{"one:1 three+:2", "a", "12", ""},
		{"one:1 b+:2", "a", "", checkpoint.RuleSuccessor},
		{"one+:1 b+:2", "b", "", checkpoint.RulePart},
		{"a+:1 c+:2", "c", "", checkpoint.RuleTopmost},
	} {
		images := openLayers(t, []layerSpec{{bitmaps: test.bitmaps}})
		changes, err := checkpoint.NewChain(images).Since(tree, "vda", test.name)
		var got *bitmap.Bitmap
		if err == nil {
			got = changes.Bitmap
		}
		expect(t, got, err, test.want, test.rule, 0)
	}
}

// TestSinceParts tells which bitmaps were used, and whether the older design was.
func TestSinceParts(t *testing.T) {
	tree := treeOf(t, "a b<a c<b")
	images := openLayers(t, []layerSpec{{bitmaps: "a:1 b+:2 c+:3"}})
	changes, err := checkpoint.NewChain(images).Since(tree, "", "a")
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, p := range changes.Parts {
		got += fmt.Sprintf("%s %d %v; ", p.Checkpoint, p.Layer, p.Needed)
	}
	if want := "a 0 true; b 0 true; c 0 false; "; got != want || !changes.Older {
		t.Errorf("%sgot, older %v; want %s", got, changes.Older, want)
	}
	parts, older, err := checkpoint.NewChain(images).Verify(tree, "", "b")
	if err != nil || older || len(parts) != 1 {
		t.Errorf("%v, older %v, %v", parts, older, err)
	}
}

// full asks for more of what is random.
func full() bool { return os.Getenv("QBIT_FULL") != "" }
