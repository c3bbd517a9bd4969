package chainmaker

import "path/filepath"

// A Chain is the backups of one domain's disks. Paths are absolute.
type Chain struct {
	Domain string            `json:"domain"`
	Seed   uint64            `json:"seed"`
	Tools  map[string]string `json:"tools"` // versions
	Disks  []Disk            `json:"disks"`
}

// A Disk is a live image and its backups, oldest first; the first is full.
type Disk struct {
	Target string  `json:"target"` // vda, vdb, …
	Source string  `json:"source"` // the live image as it was left, with its bitmaps
	Points []Point `json:"points"`
}

// A Point is one backup, and the truth about the disk at that moment.
type Point struct {
	Checkpoint    string `json:"checkpoint"`
	Parent        string `json:"parent,omitempty"` // the checkpoint that it is incremental to
	File          string `json:"file"`
	Format        string `json:"format"`            // qcow2 or raw
	Size          int64  `json:"size"`              // of the virtual disk, in bytes
	SHA256        string `json:"sha256"`            // of the whole disk's true bytes, in hex
	Backing       string `json:"backing,omitempty"` // the name in the file's header, as written there
	Bitmap        string `json:"bitmap,omitempty"`  // in Source: exactly what changed since Parent; disabled
	Lossy         bool   `json:"lossy,omitempty"`   // cannot be restored without Bitmap
	Method        string `json:"method"`            // push, push --reuse-external, blockdev-backup
	CheckpointXML string `json:"checkpoint_xml"`    // as virsh checkpoint-dumpxml prints it
	BackupXML     string `json:"backup_xml,omitempty"`
	Truth         string `json:"-"` // the true bytes as a raw file, with KeepTruth
}

// Files are the backups' paths, oldest first.
func (d *Disk) Files() []string {
	files := make([]string, len(d.Points))
	for i, p := range d.Points {
		files[i] = p.File
	}
	return files
}

// Relative is a copy in which every path is a name in the chain's folder.
func (c *Chain) Relative() *Chain {
	out := *c
	out.Disks = nil
	for _, d := range c.Disks {
		out.Disks = append(out.Disks, d.relative())
	}
	return &out
}

func (d Disk) relative() Disk {
	points := d.Points
	d.Source, d.Points = base(d.Source), nil
	for _, p := range points {
		p.File, p.CheckpointXML, p.BackupXML = base(p.File), base(p.CheckpointXML), base(p.BackupXML)
		d.Points = append(d.Points, p)
	}
	return d
}

func base(path string) string {
	if path == "" {
		return ""
	}
	return filepath.Base(path)
}
