package sets

import (
	"os"
	"path"
	"path/filepath"

	"github.com/qbitkit/qbit/testimages"
)

// libvirtSets are folders of libvirt's push mode. What lies beside the images
// differs: libvirt itself leaves nothing.
func libvirtSets() []Set {
	var sets []Set
	for _, name := range testimages.Chains() {
		c := index(name)
		sets = append(sets,
			pushFolder(name, "", c, Proven, keepXML("*.xml")),
			pushFolder(name, "-checkpoints", c, Assumed, keepXML("cp?.xml")))
		if name == "raw" || name == "v2" || name == "twodisks" {
			s := pushFolder(name, "-source", c, Proven, keepXML("*.xml"), keepSource)
			s.HasBitmaps = true
			sets = append(sets, s)
		}
		if name == "demo" || name == "twodisks" {
			backups := pushFolder(name, "-backups", c, Proven, keepXML("*.backup.xml"))
			backups.Evidence, backups.Wants = Implied, Right|Doubt // it names the parent, and not itself
			sets = append(sets, pushFolder(name, "-bare", c, Assumed), namedFolder(name, c), backups)
		}
	}
	return sets
}

// pushFolder is the chain as it was frozen: full.qcow2, inc1.qcow2, …, further
// disks with a prefix.
func pushFolder(name, suffix string, c *chain, e Evidence, keep ...keeper) Set {
	s := Set{Name: "libvirt-" + name + suffix, Tool: "libvirt", Evidence: e, Backing: BackingSource}
	s.Truth = c.truth(99, func(d testimages.ChainDisk, i int) Truth {
		p := d.Points[i]
		return Truth{Disk: d.Target, Point: p.Checkpoint, At: c.at[p.Checkpoint], Files: []string{p.File}}
	})
	if e == Proven && c.withoutBackupXML() {
		s.Evidence = Assumed
	}
	s.parts = func(s *Set, dir string) error { return s.spread(name, dir, nil, keep...) }
	return s
}

// withoutBackupXML: some increments were made by QEMU alone.
func (c *chain) withoutBackupXML() bool {
	for _, d := range c.Disks {
		for _, p := range d.Points {
			if p.BackupXML == "" {
				return true
			}
		}
	}
	return false
}

// namedFolder has the checkpoint in each name, as many scripts do, and the
// checkpoints' XML.
func namedFolder(name string, c *chain) Set {
	s := Set{Name: "libvirt-" + name + "-named", Tool: "libvirt", Evidence: Implied, Backing: BackingSource, Wants: Right | Doubt}
	s.Truth = c.truth(99, func(d testimages.ChainDisk, i int) Truth {
		p := d.Points[i]
		return Truth{Disk: d.Target, Point: p.Checkpoint, At: c.at[p.Checkpoint], Files: []string{d.Target + "." + p.Checkpoint + ".qcow2"}}
	})
	s.parts = func(s *Set, dir string) error { return s.spread(name, dir, nil, keepXML("cp?.xml")) }
	return s
}

// keepXML writes the XML files of such names.
func keepXML(pattern string) keeper {
	return func(c *chain, dir string) error {
		for name, b := range c.files {
			if ok, err := path.Match(pattern, name); err != nil || !ok {
				if err != nil {
					return err
				}
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				return err
			}
		}
		return nil
	}
}

// keepSource leaves the live images, with all their bitmaps, in a folder of their own.
func keepSource(c *chain, dir string) error {
	for _, d := range c.Disks {
		if err := c.write(d.Source, filepath.Join(dir, "live", d.Source)); err != nil {
			return err
		}
	}
	return nil
}
