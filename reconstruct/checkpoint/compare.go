package checkpoint

import (
	"slices"

	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// A ProblemKind says what does not fit between documents and bitmaps. The rules that a
// RuleError can be about are kinds too.
type ProblemKind string

const (
	// ProblemTree: the documents do not fit each other; Err is a libvirt.Problem.
	ProblemTree ProblemKind = "tree"
	// ProblemMissing: no image of the disk has the bitmap.
	ProblemMissing ProblemKind = "missing"
	// ProblemLeftOver: a bitmap that no checkpoint has.
	ProblemLeftOver ProblemKind = "left-over"
	// ProblemNoDisk: the disk has a part in the checkpoint, and is not one of those that
	// were compared. libvirt bears with it, as a disk may have been detached.
	ProblemNoDisk ProblemKind = "no-disk"
	// ProblemName: the bitmap is not named like the checkpoint. libvirt makes no such
	// checkpoint, and looks for its name when it is to validate or measure it.
	ProblemName ProblemKind = "bitmap-name"
	// ProblemBroken: the bitmap cannot be read: its table does not fit the size of the
	// disk, for example.
	ProblemBroken = ProblemKind(RuleBroken)
)

// A Problem is something that does not fit between documents and bitmaps.
type Problem struct {
	Kind       ProblemKind
	Target     string // the disk; empty: it is not about one
	Checkpoint string // empty: the bitmap has none
	Bitmap     string
	Layer      int // of the image that it is about; 0 is the topmost
	Err        error
}

// Notice says that the problem keeps nothing from working.
func (p Problem) Notice() bool { return p.Kind == ProblemNoDisk || p.Kind == ProblemName }

// A Standing is what one checkpoint is on one disk.
type Standing struct {
	Checkpoint, Target string
	// Bitmap is empty where the disk has no part.
	Bitmap string
	// Err is why it cannot be told what changed since (a *RuleError); nil: it can. Where
	// there are Parts all the same, they are right and could not be read.
	Err error
	// Older says that it needs the bitmaps of later checkpoints.
	Older bool
	Parts []Part
	// Dirty is how many bytes changed since, by the bitmaps that are needed, as libvirt
	// counts them; -1 where that is not known, or was not asked for.
	Dirty int64
}

// StandingOf is what a checkpoint is on a disk. count asks for Dirty, and with it for
// the bits of the bitmaps to be read.
func StandingOf(d Disk, tree *libvirt.Tree, name string, count bool) Standing {
	s := Standing{Checkpoint: name, Target: d.Target, Bitmap: d.bitmapOf(tree, name), Dirty: -1}
	if s.Bitmap == "" {
		return s
	}
	w, err := d.Chain.walk(tree, d.Target, name)
	if err != nil {
		s.Err = err
		return s
	}
	s.Parts, s.Older = w.parts, w.older
	if !count {
		return s
	}
	bits, err := w.unite()
	if err != nil {
		s.Err = err
		return s
	}
	s.Dirty = bits.Count()
	return s
}

// Compare finds what does not fit between the documents of the checkpoints and the
// bitmaps that the images really have. problems are those of libvirt.NewTree. bits asks
// for all bitmaps that count to be read, to know that they can be. Left over bitmaps
// are found where there are any documents.
func Compare(disks []Disk, tree *libvirt.Tree, problems []libvirt.Problem, bits bool) []Problem {
	var all []Problem
	for _, p := range problems {
		all = append(all, Problem{Kind: ProblemTree, Checkpoint: p.Name, Err: p})
	}
	for _, name := range tree.Names() {
		all = append(all, documentProblems(disks, tree, name, bits)...)
	}
	if len(tree.Names()) == 0 {
		return all
	}
	for _, d := range disks {
		all = append(all, d.leftOver(tree)...)
	}
	return all
}

// documentProblems compares one document with the images.
func documentProblems(disks []Disk, tree *libvirt.Tree, name string, bits bool) (all []Problem) {
	cp := tree.Checkpoint(name)
	known := map[string]bool{}
	for _, d := range disks {
		s := StandingOf(d, tree, name, bits)
		if listed, ok := cp.Disk(d.Target); ok {
			known[listed.Name] = true
		}
		if s.Err != nil {
			all = append(all, s.Problem())
		}
		if s.Bitmap != "" && s.Bitmap != name {
			all = append(all, Problem{Kind: ProblemName, Target: d.Target, Checkpoint: name, Bitmap: s.Bitmap})
		}
	}
	for _, d := range cp.Disks {
		if !known[d.Name] && d.Checkpoint != "no" {
			all = append(all, Problem{Kind: ProblemNoDisk, Target: d.Name, Checkpoint: name, Bitmap: d.BitmapName(cp)})
		}
	}
	return all
}

// Problem is what Err says, as Compare finds it.
func (s Standing) Problem() Problem {
	p := Problem{Target: s.Target, Checkpoint: s.Checkpoint, Bitmap: s.Bitmap, Err: s.Err}
	if rule, ok := s.Err.(*RuleError); ok {
		p.Kind, p.Bitmap, p.Layer = ProblemKind(rule.Rule), rule.Bitmap, rule.Layer
		if rule.Rule == RuleTopmost && rule.Below < 0 {
			p.Kind = ProblemMissing
		}
	}
	return p
}

// leftOver are the bitmaps of a disk that no checkpoint has.
func (d Disk) leftOver(tree *libvirt.Tree) (all []Problem) {
	for _, name := range d.LeftOver(tree) {
		all = append(all, Problem{Kind: ProblemLeftOver, Target: d.Target, Bitmap: name, Layer: d.Chain.highest(name)})
	}
	return all
}

// LeftOver are the names of the disk's bitmaps that no checkpoint of the tree has.
func (d Disk) LeftOver(tree *libvirt.Tree) []string {
	claimed := map[string]bool{}
	for _, name := range tree.Names() {
		claimed[d.bitmapOf(tree, name)] = true
	}
	return slices.DeleteFunc(d.Chain.Names(), func(name string) bool { return claimed[name] })
}

// Names are the names of all bitmaps of the chain: those of the topmost image in the
// order of its directory, then of the others.
func (c *Chain) Names() []string {
	var names []string
	have := map[string]bool{}
	for _, l := range c.layers {
		for _, name := range l.names {
			if !have[name] {
				have[name] = true
				names = append(names, name)
			}
		}
	}
	return names
}
