package reconstruct

import (
	"context"
	"fmt"

	"github.com/qbitkit/qbit/qcow2"
)

// A DeviceTarget writes an image, such as qcow2, over a block device or a file that is
// there: what the image does not use reads as zero afterwards.
type DeviceTarget struct {
	Content
	onto *OntoTarget
}

// NewDeviceTarget zeroes a device and begins an image on it: begin makes what writes into
// the file that it gets, which reads as zero and cannot become larger than the device.
// onto, opened for a disk of 0 bytes, belongs to the target from then on, and is closed
// if there is an error.
func NewDeviceTarget(ctx context.Context, onto *OntoTarget, begin func(qcow2.File) (Content, error)) (*DeviceTarget, error) {
	err := onto.zeroContext(ctx, 0, onto.size)
	var content Content
	if err == nil {
		content, err = begin(deviceFile{onto})
	}
	if err != nil {
		onto.Abort()
		return nil, err
	}
	return &DeviceTarget{Content: content, onto: onto}, nil
}

// Traits are those of the content.
func (t *DeviceTarget) Traits() Traits { return traitsOf(t.Content) }

// Commit implements Target.
func (t *DeviceTarget) Commit() error {
	if err := t.Content.Close(); err != nil {
		t.onto.Abort()
		return err
	}
	return t.onto.Commit()
}

// Abort implements Target. What was written over is gone.
func (t *DeviceTarget) Abort() error { return t.onto.Abort() }

// A deviceFile is a device as a file for an image. Its size is that of the device.
type deviceFile struct{ onto *OntoTarget }

func (d deviceFile) ReadAt(p []byte, off int64) (int, error)  { return d.onto.f.ReadAt(p, off) }
func (d deviceFile) WriteAt(p []byte, off int64) (int, error) { return d.onto.f.WriteAt(p, off) }
func (d deviceFile) Sync() error                              { return d.onto.f.Sync() }

// Truncate leaves the device as it is, which is zero where nothing was written.
func (d deviceFile) Truncate(size int64) error {
	if size > d.onto.size {
		return fmt.Errorf("the image would have %d bytes, and the device has %d", size, d.onto.size)
	}
	return nil
}
