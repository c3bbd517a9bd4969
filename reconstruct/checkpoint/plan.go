package checkpoint

import (
	"slices"

	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// A Disk is a disk whose checkpoints are compared or changed.
type Disk struct {
	// Target is its name in the documents (vda); see BitmapOf.
	Target string
	Chain  *Chain
}

// bitmapOf is the name of the disk's bitmap of a checkpoint; empty: it has no part.
func (d Disk) bitmapOf(tree *libvirt.Tree, name string) string { return BitmapOf(tree, d.Target, name) }

// A Place is one image of one of the disks of a plan.
type Place struct {
	Disk  int // index of the disk
	Layer int // 0 is the topmost image
}

// A Put is a bitmap that a plan makes, or adds to.
type Put struct {
	Bitmap string
	New    bool // it is made
	// From are the bitmaps of the same image whose bits are added.
	From []string
	// Auto makes it record; one that does keeps on.
	Auto bool
	// Granularity is that of a new one, in bytes.
	Granularity int64
}

// A Step is what a plan does to one image, in one transaction.
type Step struct {
	Place
	Put    []Put
	Remove []string
}

// A Plan is a change of checkpoints, in three parts: first what is added to images,
// then the documents, last what is removed from images. The documents decide: until
// they are changed the old checkpoints hold, and then the new ones, and no bitmap
// that either of them needs is missing at any moment. What a crash can leave is bitmaps
// too many, which Compare finds.
//
// A Plan is good for the images as they were when it was made. Nobody may change them
// before it was applied.
type Plan struct {
	First  []Step
	Write  []*libvirt.Checkpoint // whole documents
	Remove []string              // names of checkpoints whose documents go
	Last   []Step

	// Undo takes the first part back when something fails: so it is where checkpoints
	// are made. Otherwise what was done stays, and doing it again goes on.
	Undo bool
}

// Places are the images that the plan changes.
func (p *Plan) Places() []Place {
	var all []Place
	for _, s := range slices.Concat(p.First, p.Last) {
		if !slices.Contains(all, s.Place) {
			all = append(all, s.Place)
		}
	}
	return all
}

// steps gathers what is to be done, image by image.
type steps []Step

func (s *steps) at(p Place) *Step {
	for i := range *s {
		if (*s)[i].Place == p {
			return &(*s)[i]
		}
	}
	*s = append(*s, Step{Place: p})
	return &(*s)[len(*s)-1]
}

// put is the Put of that bitmap at a place; it is made where it is not there.
func (s *steps) put(p Place, bitmap string) *Put {
	step := s.at(p)
	for i := range step.Put {
		if step.Put[i].Bitmap == bitmap {
			return &step.Put[i]
		}
	}
	step.Put = append(step.Put, Put{Bitmap: bitmap})
	return &step.Put[len(step.Put)-1]
}

func (s *steps) remove(p Place, bitmap string) {
	step := s.at(p)
	if !slices.Contains(step.Remove, bitmap) {
		step.Remove = append(step.Remove, bitmap)
	}
}

// copyOf is a document of its own.
func copyOf(cp *libvirt.Checkpoint) (*libvirt.Checkpoint, error) {
	return libvirt.ParseCheckpoint(cp.Append())
}
