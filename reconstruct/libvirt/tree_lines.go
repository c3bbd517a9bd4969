package libvirt

import (
	"io"
	"iter"
	"strings"
)

// Lines yields the tree as virsh checkpoint-list --tree shows it, without line
// ends. A line is four characters longer for every generation: who shows a tree
// of strangers should stop somewhere. Names of parsed checkpoints hold nothing
// that a terminal would act on.
func (t *Tree) Lines() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, root := range t.roots {
			if !t.subtree(root, "", "", "", true, yield) {
				return
			}
		}
	}
}

// subtree yields a checkpoint with all below it. mark stands before its name,
// indent before mark, and below before all that hangs on it.
func (t *Tree) subtree(name, indent, mark, below string, last bool, yield func(string) bool) bool {
	kids := t.kids[name]
	if !yield(indent+mark+name) || len(kids) > 0 && !yield(below+"  |") {
		return false
	}
	for i, kid := range kids {
		end := i == len(kids)-1
		hang := "| "
		if end {
			hang = "  "
		}
		if !t.subtree(kid, below+"  ", "+- ", below+"  "+hang, end, yield) {
			return false
		}
	}
	return len(kids) > 0 || !last || yield(below)
}

// Print writes the lines of the tree without the spaces that virsh leaves at
// their ends.
func (t *Tree) Print(w io.Writer) error {
	for line := range t.Lines() {
		if _, err := io.WriteString(w, strings.TrimRight(line, " ")+"\n"); err != nil {
			return err
		}
	}
	return nil
}
