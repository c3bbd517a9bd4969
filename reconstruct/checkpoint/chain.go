package checkpoint

import (
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// A Chain is the images that one disk consists of, with their bitmaps. It does not
// change, and may be used from many goroutines; the images must not change either.
type Chain struct {
	layers []layer
	names  []string // see Named
}

// A layer is one image of a chain.
type layer struct {
	img     *qcow2.Image
	bitmaps map[string]qcow2.BitmapInfo
	names   []string // of the bitmaps, in the order of the directory
	err     error    // of the bitmap directory
}

// NewChain reads the bitmap directories of the images of a disk, the topmost first.
// Each is the backing file of the one before it. Images that cannot have bitmaps, as a
// raw file at the end, are left out. What is wrong in a directory is told by those
// who need it.
func NewChain(images []*qcow2.Image) *Chain {
	c := &Chain{layers: make([]layer, len(images))}
	for i, img := range images {
		l := layer{img: img, bitmaps: map[string]qcow2.BitmapInfo{}}
		for info, err := range img.EachBitmap() {
			if err != nil {
				l.err = err
				break
			}
			if _, twice := l.bitmaps[info.Name]; !twice {
				l.bitmaps[info.Name] = info
				l.names = append(l.names, info.Name)
			}
		}
		c.layers[i] = l
	}
	return c
}

// Named is the chain with the names of its images as libvirt knows them: of the topmost
// the source in the domain, of each other what the image above it has as the name of
// its backing file, made absolute. With them, a checkpoint whose domain says which
// image was active when it was made is held to that (RuleOrigin).
func (c *Chain) Named(names []string) *Chain {
	return &Chain{layers: c.layers, names: names}
}

// Images are the images of the chain, the topmost first.
func (c *Chain) Images() []*qcow2.Image {
	images := make([]*qcow2.Image, len(c.layers))
	for i, l := range c.layers {
		images[i] = l.img
	}
	return images
}

// lowest is the lowest image that has a bitmap of the name; -1: none has.
func (c *Chain) lowest(name string) int {
	for i := len(c.layers) - 1; i >= 0; i-- {
		if _, ok := c.layers[i].bitmaps[name]; ok {
			return i
		}
	}
	return -1
}

// highest is the topmost image that has a bitmap of the name; -1: none has.
func (c *Chain) highest(name string) int {
	for i, l := range c.layers {
		if _, ok := l.bitmaps[name]; ok {
			return i
		}
	}
	return -1
}

// unopened is the lowest image if it has a backing file that may hold bitmaps and is
// not part of the chain; -1: there is none.
func (c *Chain) unopened() int {
	last := len(c.layers) - 1
	if last < 0 {
		return -1
	}
	img := c.layers[last].img
	if ref := img.Backing(); ref == nil || ref.Format == "raw" || img.BackingDisk() != nil {
		return -1
	}
	return last
}

// BitmapOf is the name of the bitmap of a checkpoint on the disk with that target. An
// empty disk, and a tree (which may be nil) that has no document of the checkpoint,
// mean that bitmaps are named like their checkpoints. It is empty where the disk has
// no part in the checkpoint.
func BitmapOf(tree *libvirt.Tree, disk, name string) string {
	var cp *libvirt.Checkpoint
	if tree != nil {
		cp = tree.Checkpoint(name)
	}
	if disk == "" || cp == nil || len(cp.Disks) == 0 {
		return name
	}
	d, ok := cp.Disk(disk)
	if !ok {
		return ""
	}
	return d.BitmapName(cp)
}
