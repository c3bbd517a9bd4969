package plan

import (
	"context"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Discover looks at the files below root and builds the history of each disk
// whose backups lie there. It opens files for reading only, reads headers and
// small records, and nothing that these name. A backup that is broken, missing or
// contradicted is a Problem of the plan; an error is that the folder cannot be
// read, or that ctx ended. opts may be nil.
//
// Files of root must implement io.ReaderAt, as those of os.Root and os.DirFS do.
func Discover(ctx context.Context, root fs.FS, opts *Options) (*Plan, error) {
	f := &folder{root: root, opts: opts.withDefaults()}
	if err := f.walk(ctx); err != nil {
		return nil, err
	}
	s, err := newScan(ctx, f)
	if err != nil {
		return nil, err
	}
	p := &Plan{Manifests: s.manifests()}
	var members []*member
	for _, read := range readers {
		members = append(members, read(s)...)
	}
	p.Disks = join(members)
	s.findLive(p.Disks, members)
	sortDisks(p.Disks)
	p.Problems, p.Others = f.problems, s.others()
	if len(p.Disks) == 0 {
		p.Problems = append(p.Problems, Problem{Kind: ProblemNoBackup, Severity: Refuse, Text: "no backup was found"})
	}
	return p, nil
}

// ManifestName is the name of the manifest that qbit leaves with backups.
const ManifestName = "qbit-manifest.json"

func (s *scan) manifests() []string {
	var names []string
	for _, it := range s.items {
		if it.name == ManifestName && it.member == "" {
			it.used = true
			names = append(names, it.path)
		}
	}
	return names
}

// findLive notes the images that the guests used: increments of libvirt name them
// as their backing file, and bitmaps are called like the checkpoints.
func (s *scan) findLive(disks []*Disk, members []*member) {
	bySource := map[string]groupKey{}
	for _, m := range members {
		if m.image != nil && m.image.backing != "" && path.IsAbs(m.image.backing) {
			bySource[path.Base(m.image.backing)] = m.group()
		}
	}
	for _, it := range s.free(func(it *item) bool { return it.image != nil && len(it.image.bitmaps) > 0 }) {
		k, ok := bySource[it.name]
		if !ok {
			continue
		}
		i := slices.IndexFunc(disks, func(d *Disk) bool { return d.Domain == k.domain && d.Name == k.disk && d.Live == "" })
		if i >= 0 {
			disks[i].Live, it.used = it.ID(), true
		}
	}
}

// others are the files that are no part of a backup.
func (s *scan) others() []string {
	var names []string
	for _, it := range s.items {
		if !it.used {
			names = append(names, it.ID())
		}
	}
	return names
}

func sortDisks(disks []*Disk) {
	slices.SortStableFunc(disks, func(a, b *Disk) int {
		if c := strings.Compare(a.Domain, b.Domain); c != 0 {
			return c
		}
		return compareNatural(a.Name, b.Name)
	})
}
