package main

import (
	"context"
	"fmt"
	"path"
	"path/filepath"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/manifest"
)

// byManifest compares with what was sealed. p is what is known without it.
func (j *rebasing) byManifest(ctx context.Context, p proof) (proof, error) {
	m, from, err := j.loadManifest()
	if err != nil {
		return proof{}, err
	}
	if m == nil {
		p.why += ", and there is no " + manifest.FileName + " beside the new backing file or the image"
		return p, nil
	}
	s := sealedStates{j: j, m: m, from: from}
	if j.r.point == "" {
		if own, err := s.bySelf(ctx); err != nil || own.content == contentSame {
			return own, err
		}
	}
	return s.byParent(ctx, p)
}

// loadManifest is the manifest that the user names, or the one that lies beside the new
// backing file or the image; nil: there is none.
func (j *rebasing) loadManifest() (*manifest.Manifest, string, error) {
	paths := []string{j.r.manifest}
	if j.r.manifest == "" {
		paths = nil
		if j.newPath != "" {
			paths = append(paths, filepath.Join(filepath.Dir(j.newPath), manifest.FileName))
		}
		paths = append(paths, filepath.Join(filepath.Dir(j.image.path), manifest.FileName))
	}
	for _, name := range paths {
		file, err := openFile(name)
		if err != nil && j.r.manifest == "" && isMissing(err) {
			continue
		}
		if err != nil {
			return nil, name, err
		}
		defer file.Close()
		m, err := manifest.Decode(file, nil)
		if err != nil {
			return nil, name, badData{fmt.Errorf("%s: %w", escapeName(name), err)}
		}
		return m, name, nil
	}
	return nil, "", nil
}

// sealedStates are what a manifest knows.
type sealedStates struct {
	j    *rebasing
	m    *manifest.Manifest
	from string // its path
}

// find is the one point that is accepted, with its disk; nil: there is none, or several.
func (s *sealedStates) find(accept func(p *manifest.Point) bool) (*manifest.Disk, *manifest.Point) {
	var disk *manifest.Disk
	var found *manifest.Point
	for _, d := range s.m.Disks {
		for _, p := range d.Points {
			if !accept(p) {
				continue
			}
			if found != nil {
				return nil, nil
			}
			disk, found = d, p
		}
	}
	return disk, found
}

// ofFile accepts a point one of whose files has that name, in whatever folder.
func ofFile(name string) func(p *manifest.Point) bool {
	return func(p *manifest.Point) bool {
		for _, f := range p.Files {
			if f.Member == "" && path.Base(f.Path) == filepath.Base(name) {
				return true
			}
		}
		return false
	}
}

// bySelf looks whether IMAGE on the new backing file reads as it did when it was sealed.
func (s *sealedStates) bySelf(ctx context.Context) (proof, error) {
	d, p := s.find(ofFile(s.j.image.path))
	if p == nil || p.Size != s.j.image.image.Size() {
		return proof{content: contentUnknown}, nil
	}
	img, err := qcow2.Open(s.j.image.file, s.j.image.file.size, &qcow2.Options{
		Limits: s.j.r.limits.limits,
		OpenRef: func(ref qcow2.Ref) (qcow2.Disk, error) {
			if ref.Kind == qcow2.RefData {
				return s.j.image.refs[ref], nil
			}
			return s.j.newDisk, nil
		},
	})
	if err != nil {
		return proof{}, err
	}
	bad, err := s.differing(ctx, d, p, img)
	if err != nil || len(bad) > 0 {
		return proof{content: contentUnknown}, err
	}
	return proof{contentSame, fmt.Sprintf("on the new backing file it reads as the point %s that was sealed in %s",
		quote(escapeName(p.ID)), escapeName(s.from))}, nil
}

// byParent looks whether the new backing file holds the point that IMAGE was made on.
func (s *sealedStates) byParent(ctx context.Context, unknown proof) (proof, error) {
	d, p, by := s.parent()
	switch {
	case p == nil && s.j.r.point != "":
		return proof{}, fmt.Errorf("%s: there is no point %s, or there are several", escapeName(s.from), quote(escapeName(s.j.r.point)))
	case p == nil:
		unknown.why += fmt.Sprintf(", and %s does not say on which point the image was made; --at POINT does", escapeName(s.from))
		return unknown, nil
	case p.Size != s.j.newDisk.Size():
		return proof{contentDiffers, fmt.Sprintf("the image was made on the point %s (%s), a disk of %d bytes; the new backing file has %d",
			quote(escapeName(p.ID)), by, p.Size, s.j.newDisk.Size())}, nil
	}
	bad, err := s.differing(ctx, d, p, s.j.newDisk)
	if err != nil {
		return proof{}, err
	}
	n, err := s.shown(ctx, bad)
	switch {
	case err != nil:
		return proof{}, err
	case n > 0:
		return proof{contentDiffers, fmt.Sprintf("the new backing file is not the point %s (%s) as it was sealed in %s: %d chunks of 4 MiB differ that the image does not hold whole",
			quote(escapeName(p.ID)), by, escapeName(s.from), n)}, nil
	}
	return proof{contentSame, fmt.Sprintf("the new backing file holds the point %s (%s) as it was sealed in %s",
		quote(escapeName(p.ID)), by, escapeName(s.from))}, nil
}

// parent is the point that IMAGE was made on, and who says so.
func (s *sealedStates) parent() (*manifest.Disk, *manifest.Point, string) {
	if at := s.j.r.point; at != "" {
		d, p := s.find(func(p *manifest.Point) bool { return p.ID == at })
		if p == nil {
			d, p = s.find(func(p *manifest.Point) bool { return p.Name == at })
		}
		return d, p, "by --at"
	}
	if d, own := s.find(ofFile(s.j.image.path)); own != nil && own.Parent != nil {
		return d, d.Point(own.Parent.ID), "by the seal of the image"
	}
	if s.j.old == nil {
		return nil, nil, ""
	}
	d, p := s.find(ofFile(s.j.old.Name))
	return d, p, "by the old name"
}

// differing are the chunks of a disk that are not as they were sealed.
func (s *sealedStates) differing(ctx context.Context, d *manifest.Disk, p *manifest.Point, disk qcow2.Disk) ([]reconstruct.ChunkRange, error) {
	view, err := d.View(p.ID)
	if err == nil {
		err = view.Check()
	}
	if err != nil {
		return nil, badData{fmt.Errorf("%s: %w", escapeName(s.from), err)}
	}
	m := newMeter(s.j.c, &s.j.r.progressFlags, "compare", p.Size)
	defer m.clearLine()
	opts := &reconstruct.VerifyOptions{Progress: func(p reconstruct.Progress) { m.Set(p.Done) }}
	bad, err := reconstruct.VerifyPoint(ctx, []reconstruct.Link{{Name: s.j.newPath, Disk: disk}}, view, opts)
	if err == nil {
		m.Finish()
	}
	return bad, err
}

// shown counts the chunks, of those that differ, in which IMAGE or a snapshot of it
// leaves anything to the new backing file.
func (s *sealedStates) shown(ctx context.Context, bad []reconstruct.ChunkRange) (int64, error) {
	views, _, err := s.j.views()
	if err != nil {
		return 0, err
	}
	n := int64(0)
	for _, r := range bad {
		for chunk := r.First; chunk < r.End(); chunk++ {
			seen, err := anyAbsent(ctx, views, chunk*reconstruct.ChunkSize)
			if err != nil {
				return 0, err
			}
			if seen {
				n++
			}
		}
	}
	return n, nil
}

// anyAbsent says whether one of the disks does not hold all of the chunk at off.
func anyAbsent(ctx context.Context, disks []qcow2.Disk, off int64) (bool, error) {
	for _, d := range disks {
		end := min(off+reconstruct.ChunkSize, d.Size())
		if off >= end {
			continue
		}
		for e, err := range d.Extents(off, end-off) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return false, err
			}
			if e.Kind == qcow2.Absent {
				return true, nil
			}
		}
	}
	return false, nil
}
