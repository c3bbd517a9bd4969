package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/checkpoint"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// checkpointImages are the images of the disks of one run.
type checkpointImages struct {
	s     *checkpointSet
	c     *console
	o     *opener
	disks []checkpoint.Disk
	// layers are the images of each disk, the topmost first; a raw one at the end is
	// left out.
	layers  [][]*layer
	sources []string // what the domain calls the topmost image of each
	// locked are the files that are open for changing.
	locked map[checkpoint.Place]*imageFile
}

// openImages opens the images of those disks for reading. Close it.
func (s *checkpointSet) openImages(c *console, disks []libvirt.DomainDisk) (*checkpointImages, error) {
	if err := s.finishBackups(c, disks); err != nil {
		return nil, err
	}
	flags := sourceFlags{format: formatQcow2, share: s.k.share, policy: s.k.policy, limits: s.k.limits}
	im := &checkpointImages{s: s, c: c, o: &opener{sourceFlags: flags, c: c}, locked: map[checkpoint.Place]*imageFile{}}
	for _, d := range disks {
		top, err := s.openDisk(im.o, d)
		if err == nil {
			err = im.twice(d, top)
		}
		if err != nil {
			im.close()
			return nil, err
		}
		im.add(d, top)
	}
	return im, nil
}

// twice refuses an image that is that of another disk too.
func (im *checkpointImages) twice(d libvirt.DomainDisk, top *layer) error {
	for i, layers := range im.layers {
		if os.SameFile(layers[0].file.info, top.file.info) {
			return usagef("%s is the image of disk %s, and of %s too", escapeName(top.path), escapeName(im.disks[i].Target), escapeName(d.Target))
		}
	}
	return nil
}

// add takes in a disk.
func (im *checkpointImages) add(d libvirt.DomainDisk, top *layer) {
	var layers []*layer
	for _, l := range top.chain() {
		if l.image == nil {
			break
		}
		layers = append(layers, l)
	}
	im.layers, im.sources = append(im.layers, layers), append(im.sources, d.Source)
	im.disks = append(im.disks, checkpoint.Disk{Target: d.Target})
	im.refresh(len(im.disks) - 1)
}

// refresh reads the bitmap directories of a disk.
func (im *checkpointImages) refresh(disk int) {
	var images []*qcow2.Image
	for _, l := range im.layers[disk] {
		images = append(images, l.image)
	}
	im.disks[disk].Chain = checkpoint.NewChain(images).Named(im.names(disk))
}

func (im *checkpointImages) close() {
	for _, f := range im.locked {
		f.release()
	}
	im.o.close()
}

// layer is an image of one of the disks.
func (im *checkpointImages) layer(p checkpoint.Place) *layer { return im.layers[p.Disk][p.Layer] }

// lock opens images for changing that were open for reading. What they hold is read
// anew: in between others could change them.
func (im *checkpointImages) lock(places []checkpoint.Place) error {
	for _, p := range places {
		if im.locked[p] != nil {
			continue
		}
		l := im.layer(p)
		l.file.release()
		file, err := openLocked(im.c, l.path, qcow2.LockWrite, os.O_RDWR)
		if err != nil {
			return err
		}
		im.locked[p] = file
		if !os.SameFile(file.info, l.file.info) {
			return fmt.Errorf("%s: it was replaced by another file in this moment; try again", escapeName(l.path))
		}
		if err := im.reopen(l, file); err != nil {
			return err
		}
	}
	for i := range im.disks {
		im.refresh(i)
	}
	return nil
}

// names are those that libvirt has for the images of a disk.
func (im *checkpointImages) names(disk int) []string {
	var names []string
	name := im.sources[disk]
	for _, l := range im.layers[disk] {
		names = append(names, name)
		if ref := l.image.Backing(); ref != nil {
			name = fullRefName(name, ref.Name)
		}
	}
	return names
}

// reopen opens the image of a layer in another file.
func (im *checkpointImages) reopen(l *layer, file *imageFile) error {
	img, err := qcow2.Open(file, file.size, &qcow2.Options{
		Limits: im.o.limits.limits,
		OpenRef: func(ref qcow2.Ref) (qcow2.Disk, error) {
			if ref.Kind == qcow2.RefData || l.backing == nil {
				return nil, nil
			}
			return l.backing.disk, nil
		},
	})
	if err != nil {
		return fmt.Errorf("%s: %w", escapeName(l.path), err)
	}
	l.file, l.image = file, img
	return nil
}

// edit is a checkpoint.Images.
func (im *checkpointImages) edit(p checkpoint.Place) (*qcow2.Editor, error) {
	file := im.locked[p]
	if file == nil {
		return nil, errors.New("it changed in this moment; try again")
	}
	now, err := measure(file.File, file.path)
	if err != nil {
		return nil, err
	}
	editor, err := qcow2.Edit(file.File, now.size, &qcow2.Options{Limits: im.o.limits.limits})
	if err != nil {
		return nil, explainEdit(file.path, now, err)
	}
	return editor, nil
}

// change makes a plan, locks the images that it changes, makes it anew with what they
// hold then, and does it. plan is asked twice.
func (im *checkpointImages) change(plan func() (*checkpoint.Plan, error)) error {
	p, err := plan()
	if err != nil {
		return im.explain(err)
	}
	if err := im.lock(p.Places()); err != nil {
		return err
	}
	if p, err = plan(); err != nil {
		return im.explain(err)
	}
	return im.explain(p.Apply(im.disks, im.edit, im.s.docs))
}

// explain says which file an error is about, and what can be done.
func (im *checkpointImages) explain(err error) error {
	var place *checkpoint.PlaceError
	if errors.As(err, &place) {
		if l := im.find(place.Target, place.Layer); l != nil {
			if hint := checkpointHint(l, err); hint != "" {
				err = fmt.Errorf("%w; %s", err, hint)
			}
			err = fmt.Errorf("%s: %w", escapeName(l.path), err)
		}
	}
	if errors.As(err, new(*checkpoint.RuleError)) || errors.As(err, new(*checkpoint.DependError)) {
		return badData{err}
	}
	return err
}

// checkpointHint is the way out of an error about an image, "" where there is none.
func checkpointHint(l *layer, err error) string {
	if l.image.Header().Version < 3 {
		return lossOfImage(stateVersion2, l.path, nil).todo
	}
	return bitmapHint(l.path, err)
}

// find is an image of the disk with that target, nil if there is none.
func (im *checkpointImages) find(target string, layer int) *layer {
	for i, d := range im.disks {
		if d.Target == target && layer < len(im.layers[i]) {
			return im.layers[i][layer]
		}
	}
	return nil
}

// unopened warns of backing files that were not opened, and may hold bitmaps.
func (im *checkpointImages) unopened() {
	for i, layers := range im.layers {
		last := layers[len(layers)-1]
		if last.closed != nil {
			im.c.warn("disk %s: %v; bitmaps in it stay as they are", im.disks[i].Target, last.closed)
		}
	}
}
