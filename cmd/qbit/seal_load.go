package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/manifest"
	"github.com/qbitkit/qbit/reconstruct/plan"
)

// manifestPath is where the manifest of a set lies, unless the user says.
func (s *set) manifestPath() string { return filepath.Join(s.path, manifest.FileName) }

// loadManifest reads the manifest at path; "" is the one of the set, and nil
// without an error if there is none. Its roots are not checked yet.
func (s *set) loadManifest(path string) (*manifest.Manifest, error) {
	file, err := s.openManifest(path)
	if err != nil {
		if path == "" && errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	defer file.Close()
	m, err := manifest.Decode(file, nil)
	if err != nil {
		return nil, badData{fmt.Errorf("%s: %w", escapeName(file.path), err)}
	}
	return m, nil
}

// openManifest opens what the user names, or the manifest of the set, which is not
// followed out of it.
func (s *set) openManifest(path string) (*imageFile, error) {
	if path != "" {
		return openFile(path)
	}
	if info, err := s.root.Stat(manifest.FileName); err == nil && !info.Mode().IsRegular() {
		return nil, refuseKind(s.manifestPath(), info.Mode())
	}
	return openWith(s.manifestPath(), func(flags int) (*os.File, error) { return s.root.OpenFile(manifest.FileName, flags, 0) })
}

// sealedDisk is what a manifest says of a disk; nil: nothing. A disk whose domain is
// not known is found by its name, if only one has it.
func sealedDisk(m *manifest.Manifest, d *plan.Disk) *manifest.Disk {
	if m == nil {
		return nil
	}
	if exact := m.Disk(d.Domain, d.Name); exact != nil {
		return exact
	}
	var found *manifest.Disk
	for _, sealed := range m.Disks {
		if sealed.Name == d.Name && (sealed.Domain == "" || d.Domain == "") {
			if found != nil {
				return nil
			}
			found = sealed
		}
	}
	return found
}

// sealedPoint is what a manifest says of a backup; nil: nothing. It is found by its
// file, or, where that was renamed, by the name of the point.
func sealedPoint(sealed *manifest.Disk, d *plan.Disk, b *plan.Backup) *manifest.Point {
	if sealed == nil {
		return nil
	}
	if p := sealed.Point(b.ID); p != nil {
		return p
	}
	var found *manifest.Point
	for _, p := range sealed.Points {
		if p.Name != b.Point {
			continue
		}
		if found != nil {
			return nil
		}
		found = p
	}
	if found == nil {
		return nil
	}
	for _, other := range d.Backups {
		if other != b && (other.ID == found.ID || other.Point == b.Point) {
			return nil
		}
	}
	return found
}

// An expectation is what a manifest says of the content of a disk as of each link
// of a way. nil expects nothing.
type expectation struct {
	views []*manifest.View // beside the links; nil where it says nothing
	// moved says which link stood on another one when it was sealed; "": none. That
	// is no fault as long as the content is what it was.
	moved string
}

// expect looks up the links of a way in the manifest of a set, which may be nil. A
// manifest that contradicts itself is an error. The expectation is nil where the
// point is not sealed; errSealedSize is a disk of another size than the sealed one.
func expect(m *manifest.Manifest, d *plan.Disk, route []*plan.Backup) (*expectation, error) {
	sealed := sealedDisk(m, d)
	e := &expectation{views: make([]*manifest.View, len(route))}
	var below *manifest.Point
	for i, b := range route {
		p := sealedPoint(sealed, d, b)
		if p != nil {
			v, err := sealed.View(p.ID)
			if err != nil {
				return nil, badData{err}
			}
			e.views[i] = v
			if msg := movedFrom(b, p, below, i == 0); msg != "" {
				e.moved = msg
			}
		}
		below = p
	}
	last := e.views[len(route)-1]
	if last == nil {
		return nil, nil
	}
	if err := last.Check(); err != nil {
		return nil, badData{err}
	}
	if b := route[len(route)-1]; b.Size != last.Size() {
		return nil, badData{fmt.Errorf("%s: %w: it has %d bytes, and had %d", escapeName(b.ID), errSealedSize, b.Size, last.Size())}
	}
	return e, nil
}

// errSealedSize: what lies beyond the end of a disk that became smaller would not
// be missed chunk by chunk.
var errSealedSize = errors.New("the disk has not the size that it was sealed with")

// movedFrom says that a link stood on another one when it was sealed.
func movedFrom(b *plan.Backup, p, below *manifest.Point, first bool) string {
	switch {
	case p.Parent == nil || below != nil && p.Parent.ID == below.ID || below == nil && !first:
		return ""
	case first:
		return fmt.Sprintf("%s is taken for a whole backup; when it was sealed it stood on %s", b.ID, p.Parent.ID)
	}
	return fmt.Sprintf("%s is taken to stand on %s; when it was sealed it stood on %s", b.ID, below.ID, p.Parent.ID)
}

// chunk is CopyOptions.Expect.
func (e *expectation) chunk() func(int64) (uint64, bool) {
	if e == nil {
		return nil
	}
	return e.views[len(e.views)-1].Chunk
}

// explain says of an error of Copy at which link the content stopped being what was
// sealed.
func (e *expectation) explain(ctx context.Context, ch *chain, err error) error {
	var differs *reconstruct.ChunkError
	if e == nil || !errors.As(err, &differs) {
		return err
	}
	if slices.ContainsFunc(ch.links, func(l reconstruct.Link) bool { return l.Changed != nil }) {
		return badData{fmt.Errorf("%w; it was sealed without what --changed knows", err)}
	}
	i, blameErr := reconstruct.Blame(ctx, ch.links, e.views, differs.Chunk)
	if blameErr != nil || i < 0 {
		return badData{err}
	}
	return badData{fmt.Errorf("%w; %s", err, blamed(ch.links[i].Name, i))}
}

func blamed(link string, i int) string {
	if i == 0 {
		return fmt.Sprintf("it differs from the first link on, %s", escapeName(link))
	}
	return fmt.Sprintf("below it is as it was sealed, and differs from link %d on, %s", i+1, escapeName(link))
}
