package checkpoint

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// nameRule is the schema's pattern of the name of a checkpoint.
var nameRule = regexp.MustCompile(`^[a-zA-Z0-9_-][a-zA-Z0-9_.-]*$`)

// recoveredNote stands in the description of what Recover makes.
const recoveredNote = "Made from the bitmaps in the images: place in the tree and time are guesses."

// Recover makes checkpoints of left over bitmaps: one for every name, of all disks that
// have it, recording and sound. domain are the disks that the documents list (see
// Checkpoint.Align).
//
// Nothing in an image says when a bitmap was made. Of those that record, who says more
// began earlier, so that they are put in that order below the current checkpoint; the
// time is that of the name, where it is one that libvirt chose, and else now, which
// the description says. passed are the left over bitmaps of which no checkpoint can be
// made, with the reason in Err.
func Recover(disks []Disk, tree *libvirt.Tree, domain []libvirt.DomainDisk, now time.Time) (made []*libvirt.Checkpoint, passed []Problem) {
	found := map[string]*recovered{}
	for _, d := range disks {
		for _, p := range d.leftOver(tree) {
			s := StandingOf(d, nil, p.Bitmap, true)
			if p.Err = recoverable(tree, s); p.Err != nil {
				passed = append(passed, p)
				continue
			}
			if found[p.Bitmap] == nil {
				found[p.Bitmap] = &recovered{name: p.Bitmap}
			}
			r := found[p.Bitmap]
			r.dirty, r.targets = r.dirty+s.Dirty, append(r.targets, d.Target)
		}
	}
	var all []*recovered
	for _, r := range found {
		all = append(all, r)
	}
	slices.SortFunc(all, (*recovered).compare)
	parent := ""
	if current, _ := tree.Current(); current != nil {
		parent = current.ResolvedName()
	}
	for _, r := range all {
		cp := r.document(parent, now)
		if err := cp.Align(domain); err != nil {
			passed = append(passed, Problem{Kind: ProblemLeftOver, Bitmap: r.name, Err: err})
			continue
		}
		made, parent = append(made, cp), r.name
	}
	return made, passed
}

// recoverable is why no checkpoint can be made of a left over bitmap.
func recoverable(tree *libvirt.Tree, s Standing) error {
	switch {
	case s.Err != nil:
		return s.Err
	case !nameRule.MatchString(s.Bitmap):
		return fmt.Errorf("no checkpoint can be called %.100q", s.Bitmap)
	case tree.Checkpoint(s.Bitmap) != nil:
		return fmt.Errorf("there is a checkpoint %.100q, in which the disk has no part", s.Bitmap)
	}
	return nil
}

// A recovered is a checkpoint that is made of bitmaps.
type recovered struct {
	name    string
	targets []string
	dirty   int64
}

// compare puts what is older first, as far as it can be known.
func (r *recovered) compare(o *recovered) int {
	a, _ := r.time()
	b, _ := o.time()
	return cmp.Or(cmp.Compare(o.dirty, r.dirty), cmp.Compare(a, b), cmp.Compare(len(r.name), len(o.name)), cmp.Compare(r.name, o.name))
}

// time is what a name that libvirt chose says: seconds since 1970.
func (r *recovered) time() (int64, bool) {
	const year2001 = 1e9
	seconds, err := strconv.ParseInt(r.name, 10, 64)
	return seconds, err == nil && seconds > year2001 && strconv.FormatInt(seconds, 10) == r.name
}

func (r *recovered) document(parent string, now time.Time) *libvirt.Checkpoint {
	cp := &libvirt.Checkpoint{Name: r.name, Parent: parent, Description: recoveredNote, CreationTime: now.Unix()}
	if seconds, ok := r.time(); ok {
		cp.CreationTime = seconds
	}
	for _, target := range r.targets {
		cp.Disks = append(cp.Disks, libvirt.CheckpointDisk{Name: target, Size: -1})
	}
	return cp
}
