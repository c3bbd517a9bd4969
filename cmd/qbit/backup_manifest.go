package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/manifest"
	"github.com/qbitkit/qbit/reconstruct/plan"
)

// A backupParent is the backup on which an increment stands.
type backupParent struct {
	path   string // of its file
	format string
	view   *manifest.View // what it held; nil: it is not sealed
}

// findParents finds what the increments stand on, and names it as their backing file.
func (r *backupRun) findParents(ctx context.Context) error {
	sets := map[string]*set{} // by folder
	defer func() {
		for _, s := range sets {
			s.close()
		}
	}()
	for _, d := range r.disks {
		if d.out == "" || !d.incremental() {
			continue
		}
		if err := r.findParent(ctx, d, sets); err != nil {
			return err
		}
		if r.b.manifest && (d.parent == nil || d.parent.view == nil) {
			r.c.note("%s: the backup of checkpoint %s is not sealed in %s, so the whole disk is read to seal this one",
				escapeName(d.out), escapeName(d.base), escapeName(filepath.Join(filepath.Dir(d.out), manifest.FileName)))
		}
		if err := r.nameBacking(d); err != nil {
			return err
		}
	}
	return nil
}

// findParent looks for the backup of the base in the folder that the increment goes to.
func (r *backupRun) findParent(ctx context.Context, d *backupDisk, sets map[string]*set) error {
	dir := filepath.Dir(d.out)
	s := sets[dir]
	if s == nil {
		var err error
		if s, err = r.openFolder(ctx, d); err != nil && ctx.Err() == nil && r.b.parent == "" && !r.b.manifest {
			return nil // it need not be a folder of backups
		} else if err != nil {
			return err
		}
		sets[dir] = s
	}
	found, backup := r.parentIn(s, d)
	if backup == nil && r.b.parent == "" {
		return nil
	}
	if backup == nil {
		return r.namedParent(d)
	}
	d.parent = &backupParent{path: filepath.Join(s.path, filepath.FromSlash(backup.Source.Path)), format: string(backup.Source.Format)}
	return d.parent.load(s, found, backup)
}

func (r *backupRun) openFolder(ctx context.Context, d *backupDisk) (*set, error) {
	return new(setFlags).openSet(ctx, []string{filepath.Dir(d.out)}, r.b.limits.limits)
}

// namedParent is the file that the user names, of which the folder's records say nothing.
func (r *backupRun) namedParent(d *backupDisk) error {
	file, err := openFile(r.b.parent)
	if err != nil {
		return err
	}
	defer file.Close()
	ours, err := isQcow2(file)
	if err != nil {
		return plainError(r.b.parent, err)
	}
	d.parent = &backupParent{path: r.b.parent, format: formatRaw}
	if ours {
		d.parent.format = formatQcow2
	}
	return nil
}

// parentIn finds the backup of the base of a disk: by its checkpoint, or as the user says.
func (r *backupRun) parentIn(s *set, d *backupDisk) (*plan.Disk, *plan.Backup) {
	var disk *plan.Disk
	var found []*plan.Backup
	for _, in := range s.Disks {
		for _, b := range in.Backups {
			if r.isParent(s, d, in, b) {
				disk, found = in, append(found, b)
			}
		}
	}
	if len(found) != 1 {
		return nil, nil
	}
	return disk, found[0]
}

func (r *backupRun) isParent(s *set, d *backupDisk, in *plan.Disk, b *plan.Backup) bool {
	if b.Source.Member != "" || b.Source.Format == plan.FormatVirtnbd {
		return false
	}
	if r.b.parent != "" {
		rel, err := relativeTo(s.path, r.b.parent)
		return err == nil && rel == b.Source.Path
	}
	domain := ""
	if r.domain != nil {
		domain = r.domain.Name
	}
	return in.Name == d.target && in.Domain == domain && b.Point == d.base && b.Kind != plan.Differential && b.Kind != plan.Copy
}

// load finds what the manifest says of the parent.
func (p *backupParent) load(s *set, d *plan.Disk, b *plan.Backup) error {
	m, err := s.loadManifest("")
	if m == nil || err != nil {
		return err
	}
	sealed := sealedDisk(m, d)
	point := sealedPoint(sealed, d, b)
	if point == nil {
		return nil
	}
	if p.view, err = sealed.View(point.ID); err == nil {
		err = p.view.Check()
	}
	if err != nil {
		return badData{fmt.Errorf("%s: %w", escapeName(s.manifestPath()), err)}
	}
	return nil
}

// nameBacking decides what an increment names as its backing file.
func (r *backupRun) nameBacking(d *backupDisk) error {
	ref := &qcow2.Ref{Kind: qcow2.RefBacking}
	switch {
	case r.b.noBacking:
		return nil
	case r.b.backing != "":
		ref.Name, ref.Format = r.b.backing, r.b.backingFmt
	case d.parent != nil:
		rel, err := relativePath(filepath.Dir(d.out), d.parent.path)
		if err != nil {
			return err
		}
		ref.Name, ref.Format = rel, d.parent.format
	default:
		path, err := filepath.Abs(d.source.path)
		if err != nil {
			return err
		}
		ref.Name, ref.Format = path, formatQcow2
	}
	d.backing = ref
	return nil
}

// relativePath is the way from a folder to a file, as a header can name it: with a dot
// in front where it would look like a protocol.
func relativePath(dir, path string) (string, error) {
	from, err := realPath(dir)
	if err != nil {
		return "", err
	}
	to, err := realPath(path)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(from, to)
	if err != nil {
		return "", err
	}
	rel = filepath.ToSlash(rel)
	if strings.Contains(strings.SplitN(rel, "/", 2)[0], ":") {
		rel = "./" + rel
	}
	return rel, nil
}

// seal writes the checksums of the new backups into the manifests of their folders.
func (r *backupRun) seal(ctx context.Context) error {
	if !r.b.manifest {
		return nil
	}
	var done []string
	for _, d := range r.disks {
		dir := filepath.Dir(d.out)
		if d.out == "" || d.device || slices.ContainsFunc(done, func(before string) bool { return sameFolder(before, dir) }) {
			continue
		}
		done = append(done, dir)
		if err := r.sealFolder(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// sealFolder adds all backups of this run that went to the folder of one of them.
func (r *backupRun) sealFolder(ctx context.Context, first *backupDisk) error {
	s, err := r.openFolder(ctx, first)
	if err != nil {
		return err
	}
	defer s.close()
	m, err := s.loadManifest("")
	if err != nil {
		return err
	}
	there := m != nil
	if !there {
		m = &manifest.Manifest{}
	}
	for _, d := range r.disks {
		if d.out == "" || d.device || !sameFolder(filepath.Dir(d.out), filepath.Dir(first.out)) {
			continue
		}
		if err := r.sealPoint(ctx, s, m, d); err != nil {
			return err
		}
	}
	r.manifests = append(r.manifests, s.manifestPath())
	return writeManifest(s.manifestPath(), m, there)
}

func writeManifest(path string, m *manifest.Manifest, there bool) error {
	out, err := reconstruct.CreateOutput(path, &reconstruct.OutputOptions{Overwrite: there})
	if err != nil {
		return plainError(path, err)
	}
	defer out.Abort()
	if err := m.Encode(out.File()); err != nil {
		return fmt.Errorf("%s: %w", escapeName(path), err)
	}
	return out.Commit()
}

// sealPoint adds one backup to a manifest, under the names that plan finds for it.
func (r *backupRun) sealPoint(ctx context.Context, s *set, m *manifest.Manifest, d *backupDisk) error {
	id, err := relativeTo(s.path, d.out)
	if err != nil {
		return err
	}
	disk, backup := planned(s, id)
	if backup == nil {
		return fmt.Errorf("%s: qbit plan does not find it in %s", escapeName(d.out), escapeName(s.path))
	}
	file, err := r.hashOutput(ctx, d.out)
	if err != nil {
		return err
	}
	file.Path = id
	p := d.result.View.Point()
	p.ID, p.Name, p.Kind, p.Files = id, backup.Point, string(backup.Kind), []manifest.File{file}
	if route, err := disk.Route(backup, true); err == nil {
		p.Assumed = assumed(route)
	}
	sealed := sealedDisk(m, disk)
	if sealed == nil {
		sealed = m.AddDisk(disk.Domain, disk.Name)
	}
	if p.Parent != nil && sealed.Point(p.Parent.ID) == nil {
		return errors.New("the parent is no longer in the manifest")
	}
	sealed.Put(p)
	return nil
}

// planned finds a backup by its file.
func planned(s *set, id string) (*plan.Disk, *plan.Backup) {
	for _, d := range s.Disks {
		if i := slices.IndexFunc(d.Backups, func(b *plan.Backup) bool { return b.ID == id }); i >= 0 {
			return d, d.Backups[i]
		}
	}
	return nil, nil
}

func (r *backupRun) hashOutput(ctx context.Context, path string) (manifest.File, error) {
	file, err := openFile(path)
	if err != nil {
		return manifest.File{}, err
	}
	defer file.Close()
	return hashFile(ctx, file, &reconstruct.CopyOptions{Workers: r.b.workers, Memory: int64(r.b.memory), Digests: []string{reconstruct.Tree}})
}
