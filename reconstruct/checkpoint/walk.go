package checkpoint

import (
	"slices"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// A walker finds the bitmaps that count for what changed since a checkpoint.
type walker struct {
	c    *Chain
	tree *libvirt.Tree
	disk string
	name string // of the checkpoint that was asked for

	lowest int // the image that was the topmost when the checkpoint was made
	parts  []Part
	older  bool
}

func (w *walker) fail(rule Rule, bitmap string, layer int, err error) *RuleError {
	return &RuleError{Rule: rule, Checkpoint: w.name, Bitmap: bitmap, Layer: layer, Below: -1, Err: err}
}

// walk finds the bitmaps that are needed.
func (c *Chain) walk(tree *libvirt.Tree, disk, name string) (*walker, error) {
	w := &walker{c: c, tree: tree, disk: disk, name: name}
	bitmap := BitmapOf(tree, disk, name)
	if bitmap == "" {
		return nil, w.fail(RulePart, "", 0, nil)
	}
	w.lowest = c.lowest(bitmap)
	if err := w.readable(bitmap); err != nil {
		return nil, err
	}
	if w.lowest < 0 {
		return nil, w.fail(RuleTopmost, bitmap, 0, nil)
	}
	if origin := w.origin(); origin > w.lowest {
		return nil, w.fail(RuleOrigin, bitmap, origin, nil)
	}
	return w, w.follow(name, bitmap, w.lowest)
}

// origin is the image that was active when the checkpoint was made; -1 where nothing
// tells, as where it was committed into another since.
func (w *walker) origin() int {
	if w.tree == nil || w.tree.Checkpoint(w.name) == nil {
		return -1
	}
	for _, d := range w.tree.Checkpoint(w.name).DomainDisks() {
		if d.Target == w.disk && d.Source != "" {
			return slices.Index(w.c.names, d.Source)
		}
	}
	return -1
}

// readable refuses a chain of which not all is known: images without a readable
// directory, and an end that is missing. Whether any image has the bitmap is not
// known then.
func (w *walker) readable(bitmap string) error {
	for i, l := range w.c.layers {
		switch {
		case l.err != nil:
			return w.fail(RuleBroken, bitmap, i, l.err)
		case w.lowest < 0 && l.img.BitmapsStale():
			return w.fail(RuleStale, bitmap, i, qcow2.ErrBitmapsStale)
		}
	}
	if i := w.c.unopened(); i >= 0 {
		return w.fail(RuleWhole, bitmap, i, nil)
	}
	return nil
}

// follow takes the bitmap of a checkpoint from an image on upwards, and where it ends
// those that follow it.
func (w *walker) follow(checkpoint, bitmap string, from int) error {
	for i := from; i >= 0; i-- {
		l := w.c.layers[i]
		info, ok := l.bitmaps[bitmap]
		if !ok {
			return w.absent(bitmap, i, from)
		}
		if rule, err := trustRule(l.img, info); rule != "" {
			return w.fail(rule, bitmap, i, err)
		}
		w.parts = append(w.parts, Part{Checkpoint: checkpoint, Layer: i, Info: info, Needed: true})
		if !info.Auto {
			return w.handOver(checkpoint, bitmap, i)
		}
	}
	return nil
}

// absent is the error of an image that lacks a bitmap which the one below it has.
func (w *walker) absent(bitmap string, at, from int) error {
	l := w.c.layers[at]
	if l.img.BitmapsStale() {
		return w.fail(RuleStale, bitmap, at, qcow2.ErrBitmapsStale)
	}
	if at == from {
		return w.fail(RuleSuccessor, bitmap, at, nil)
	}
	err := w.fail(RuleGap, bitmap, at, nil)
	if w.c.highest(bitmap) > at {
		err.Rule, err.Layer = RuleTopmost, 0
	}
	err.Below = at + 1
	return err
}

// handOver goes on with the checkpoints that were made when a bitmap ended, in the
// image that was the topmost then.
func (w *walker) handOver(checkpoint, bitmap string, at int) error {
	next := w.successors(checkpoint)
	if len(next) == 0 || w.recordsAbove(checkpoint, at) {
		return w.fail(RuleRecording, bitmap, at, nil)
	}
	w.older = true
	for _, name := range next {
		if err := w.follow(name, BitmapOf(w.tree, w.disk, name), at); err != nil {
			return err
		}
	}
	return nil
}

// successors are the next checkpoints below one in which the disk has a part.
func (w *walker) successors(checkpoint string) []string {
	if w.tree == nil {
		return nil
	}
	var next []string
	for todo := w.tree.Children(checkpoint); len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		if BitmapOf(w.tree, w.disk, name) == "" {
			todo = append(todo, w.tree.Children(name)...)
			continue
		}
		next = append(next, name)
	}
	return next
}

// recordsAbove says whether an ancestor of a checkpoint still records in an image. In
// the older design none does.
func (w *walker) recordsAbove(checkpoint string, at int) bool {
	for name, ok := w.tree.Parent(checkpoint); ok; name, ok = w.tree.Parent(name) {
		if w.c.layers[at].bitmaps[BitmapOf(w.tree, w.disk, name)].Auto {
			return true
		}
	}
	return false
}

// extras adds the sound bitmaps of all other descendants.
func (w *walker) extras() {
	if w.tree == nil {
		return
	}
	have := map[string]bool{}
	for _, p := range w.parts {
		have[p.Info.Name] = true
	}
	for _, name := range w.tree.ChangedSince(w.name) {
		bitmap := BitmapOf(w.tree, w.disk, name)
		if have[bitmap] {
			continue
		}
		for i, l := range w.c.layers[:w.lowest+1] {
			if info, ok := l.trusted(bitmap); ok {
				w.parts = append(w.parts, Part{Checkpoint: name, Layer: i, Info: info})
			}
		}
	}
}
