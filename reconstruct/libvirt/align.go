package libvirt

import (
	"fmt"
	"slices"
)

// Align makes the disks of a checkpoint that is to be made those of the domain, in
// their order and by their targets, as libvirt does: all that can be written to where
// the checkpoint lists none; those that it lists, and no part for all others. A disk
// that takes part gets the name of its bitmap, so the checkpoint must have its name
// before. Source, or the medium, of a drive that is empty cannot be written to.
//
// Errors are FormatErrors and NotFoundErrors: a domain without disks, a disk that is
// not there, one that is listed twice, and one that is empty or read-only and listed
// all the same. The checkpoint has not changed then.
func (c *Checkpoint) Align(disks []DomainDisk) error {
	if len(disks) == 0 {
		return &FormatError{Structure: "domain", Path: "domain/devices", Msg: "a checkpoint needs a disk, and there is none"}
	}
	listed := make(map[string]CheckpointDisk, len(c.Disks))
	for i, d := range c.Disks {
		target, err := listedDisk(disks, d, diskPath(checkpointTop, i))
		if err != nil {
			return err
		}
		if _, twice := listed[target]; twice {
			return &FormatError{Structure: "checkpoint", Path: diskPath(checkpointTop, i) + "/@name", Value: d.Name, Msg: "the disk is listed twice"}
		}
		d.Name = target
		listed[target] = d
	}
	aligned := make([]CheckpointDisk, len(disks))
	for i, dom := range disks {
		d, ok := listed[dom.Target]
		if !ok {
			d = CheckpointDisk{Name: dom.Target, Checkpoint: "no", Size: -1}
			if len(c.Disks) == 0 && dom.writable() {
				d.Checkpoint = "bitmap"
			}
		}
		d.Bitmap = d.BitmapName(c)
		aligned[i] = d
	}
	c.Disks = aligned
	return nil
}

// listedDisk is the target of the disk that a checkpoint lists by its target or by
// the path of its source.
func listedDisk(disks []DomainDisk, d CheckpointDisk, path string) (string, error) {
	i := slices.IndexFunc(disks, func(dom DomainDisk) bool { return dom.Target == d.Name || dom.Source != "" && dom.Source == d.Name })
	if i < 0 {
		missing := &NotFoundError{What: "disk", Name: d.Name}
		for _, dom := range disks {
			missing.Have = append(missing.Have, dom.Target)
		}
		return "", missing
	}
	if d.Checkpoint != "no" && !disks[i].writable() {
		return "", &FormatError{Structure: "checkpoint", Path: path + "/@name", Value: d.Name,
			Msg: fmt.Sprintf("the disk is %s, so it has no part in a checkpoint: say checkpoint='no', or leave it out", disks[i].whyNot())}
	}
	return disks[i].Target, nil
}

// writable says whether a guest can write to the disk. To a cdrom it never can, whatever
// the document says.
func (d DomainDisk) writable() bool { return d.Source != "" && !d.ReadOnly && d.Device != "cdrom" }

func (d DomainDisk) whyNot() string {
	if d.Source == "" {
		return "empty"
	}
	return "read-only"
}
