package checkpoint

import (
	"errors"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// Since is what changed on a disk since a checkpoint, where bitmaps are named like
// their checkpoints. layers are the images of the disk, the topmost first, each the
// backing file of the one before it; a raw file at the end is left out. tree may be
// nil, or not have the checkpoint: then name is a bitmap's name alone, and the older
// design is not understood. See Chain.Since, which also knows of disks whose bitmaps
// have other names.
//
// The bitmap has the size of the topmost image, and belongs to the caller. Errors:
// *RuleError.
func Since(layers []*qcow2.Image, tree *libvirt.Tree, name string) (*bitmap.Bitmap, error) {
	changes, err := NewChain(layers).Since(tree, "", name)
	if err != nil {
		return nil, err
	}
	return changes.Bitmap, nil
}

// Changes is what changed on a disk since a checkpoint.
type Changes struct {
	Bitmap *bitmap.Bitmap // of the size of the topmost image
	// Parts are the bitmaps that were united.
	Parts []Part
	// Older says that the older design was relied on: a bitmap that does not record
	// was continued by those of later checkpoints. A bitmap that somebody switched
	// off by hand looks the same.
	Older bool
}

// A Part is one bitmap of one image.
type Part struct {
	Checkpoint string
	Layer      int // 0 is the topmost
	Info       qcow2.BitmapInfo
	// Needed is false for the bitmap of a descendant whose ancestor records
	// everything itself.
	Needed bool
}

// Since is what changed on the disk with that target (see BitmapOf) since a
// checkpoint.
//
// Which bitmaps count: from the lowest image that has the checkpoint's bitmap up to
// the topmost, every image must have it, recording and sound. Where it does not
// record, it ended when the next checkpoint was made (the older design): that one's
// bitmap must be in the same image, and go on from there under the same rule; and so
// must those of all its siblings, since nothing says on which branch the disk went on.
// A disk that had no part in the next checkpoint went on with those after it. Where an
// ancestor still records, the design was not the older one: somebody switched the
// bitmap off, and what came afterwards is lost.
//
// The bitmaps of other descendants are united with these where they are sound: they
// can add nothing that is missing, but are proof against a bitmap that was made
// anew under an old name. Where they are missing, or cannot be trusted, it does not
// matter.
//
// Granularity: the coarsest of those that count, as libvirt has it; finer ones are
// rounded outwards. Size: where an image of the chain, down to the lowest that counts,
// is smaller than the topmost one, all beyond its end counts as changed, since a
// disk that shrank and grew again reads as zeros there, which no bitmap says. Bits
// beyond the end of the topmost image are left out.
//
// Errors: *RuleError.
func (c *Chain) Since(tree *libvirt.Tree, disk, name string) (*Changes, error) {
	w, err := c.walk(tree, disk, name)
	if err != nil {
		return nil, err
	}
	w.extras()
	changes := &Changes{Parts: w.parts, Older: w.older}
	changes.Bitmap, err = w.unite()
	return changes, err
}

// Verify says whether the bitmaps tell what changed since a checkpoint, as Since has
// it, and which they are; it reads no bits. Errors: *RuleError.
func (c *Chain) Verify(tree *libvirt.Tree, disk, name string) (parts []Part, older bool, err error) {
	w, err := c.walk(tree, disk, name)
	if err != nil {
		return nil, false, err
	}
	return w.parts, w.older, nil
}

// unite makes one bitmap of the parts.
func (w *walker) unite() (*bitmap.Bitmap, error) {
	granularity, size := int64(0), w.c.layers[0].img.Size()
	for _, p := range w.parts {
		if p.Needed {
			granularity = max(granularity, p.Info.Granularity)
		}
	}
	all, err := bitmap.New(size, granularity)
	if err != nil {
		return nil, w.fail(RuleBroken, w.parts[0].Info.Name, w.parts[0].Layer, err)
	}
	for _, p := range w.parts {
		bits, err := w.c.layers[p.Layer].img.LoadBitmap(p.Info.Name)
		switch {
		case err == nil:
			err = errors.Join(bits.Resize(size, false), all.Union(bits))
		case !p.Needed:
			continue
		}
		if err != nil {
			return nil, w.fail(RuleBroken, p.Info.Name, p.Layer, err)
		}
	}
	for _, l := range w.c.layers[:w.lowest+1] {
		all.Set(l.img.Size(), size-l.img.Size())
	}
	return all, nil
}
