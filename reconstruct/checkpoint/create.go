package checkpoint

import (
	"fmt"
	"io/fs"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// An ExistsError reports the name of a checkpoint that is taken, by a document or by a
// bitmap. It wraps fs.ErrExist.
type ExistsError struct {
	Name string
	// Bitmap and Target are set where it is a bitmap that is in the way, in the image
	// Layer of the disk Target.
	Bitmap, Target string
	Layer          int
}

func (e *ExistsError) Unwrap() error { return fs.ErrExist }

func (e *ExistsError) Error() string {
	if e.Bitmap == "" {
		return fmt.Sprintf("there is a checkpoint %.100q already", e.Name)
	}
	return fmt.Sprintf("checkpoint %.100q cannot be made: %s of disk %.100q has a bitmap %.100q already", e.Name, layerName(e.Layer), e.Target, e.Bitmap)
}

// PlanCreate plans a new checkpoint: a bitmap that records in the topmost image of every
// disk that has a part in it, and its document, as it is (see Checkpoint.Align). disks
// are those that have a part; tree is that of the checkpoints that there are, or nil. A
// granularity of 0 is qcow2.DefaultGranularity.
//
// A bitmap of the same name further down would count for the new checkpoint too, so
// that it is an error as one in the topmost image is.
//
// Errors: *ExistsError, *PlaceError for an image that cannot be given a bitmap.
func PlanCreate(disks []Disk, tree *libvirt.Tree, cp *libvirt.Checkpoint, granularity int64) (*Plan, error) {
	name := cp.ResolvedName()
	if tree != nil && tree.Checkpoint(name) != nil {
		return nil, &ExistsError{Name: name}
	}
	only, _ := libvirt.NewTree([]*libvirt.Checkpoint{cp})
	var first steps
	for i, d := range disks {
		bitmap := d.bitmapOf(only, name)
		if bitmap == "" || len(d.Chain.layers) == 0 {
			return nil, &PlaceError{Target: d.Target, Err: fmt.Errorf("the disk has no part in checkpoint %.100q", name)}
		}
		if at := d.Chain.highest(bitmap); at >= 0 {
			return nil, &ExistsError{Name: name, Bitmap: bitmap, Target: d.Target, Layer: at}
		}
		if err := d.takesBitmaps(); err != nil {
			return nil, err
		}
		put := first.put(Place{Disk: i}, bitmap)
		put.New, put.Auto, put.Granularity = true, true, granularity
		if granularity == 0 {
			img := d.Chain.layers[0].img
			put.Granularity = qcow2.DefaultGranularity(img.Geometry().ClusterSize(), img.Size())
		}
	}
	return &Plan{First: first, Write: []*libvirt.Checkpoint{cp}, Undo: true}, nil
}

// takesBitmaps refuses a topmost image that can have no new bitmap.
func (d Disk) takesBitmaps() error {
	top := d.Chain.layers[0]
	err := top.err
	switch {
	case top.img.Header().Version < 3:
		err = &qcow2.UnsupportedError{Feature: "bitmaps in an image of version 2"}
	case top.img.BitmapsStale():
		err = qcow2.ErrBitmapsStale
	}
	if err != nil {
		return &PlaceError{Target: d.Target, Err: err}
	}
	return nil
}

// A PlaceError is an error about one image of a disk.
type PlaceError struct {
	Target string
	Layer  int // 0 is the topmost image
	Err    error
}

func (e *PlaceError) Unwrap() error { return e.Err }

func (e *PlaceError) Error() string {
	return fmt.Sprintf("disk %.100q: %s: %v", e.Target, layerName(e.Layer), e.Err)
}
