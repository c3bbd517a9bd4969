package plan

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"time"
)

// An oadpIndex is the index.json of one machine, in which OADP's data mover
// records its checkpoints and what each stands on.
type oadpIndex struct {
	VMName      string           `json:"vmName"`
	Namespace   string           `json:"namespace"`
	Checkpoints []oadpCheckpoint `json:"checkpoints"`
}

type oadpCheckpoint struct {
	ID        string    `json:"id"`
	Type      string    `json:"type"`
	Parent    string    `json:"parent"`
	Timestamp time.Time `json:"timestamp"`
	Files     []oadpFile
}

// An oadpFile is a file name, or an object with more.
type oadpFile struct {
	Filename   string `json:"filename"`
	DiskName   string `json:"diskName"`
	Size       int64  `json:"size"`
	ObjectPath string `json:"objectPath"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (f *oadpFile) UnmarshalJSON(b []byte) error {
	if json.Unmarshal(b, &f.Filename) == nil {
		return nil
	}
	type plain oadpFile
	return json.Unmarshal(b, (*plain)(f))
}

// readOADP reads an index with explicit parents, and the files that it names.
func (s *scan) readOADP() []*member {
	var all []*member
	for _, it := range s.items {
		if it.json == nil || it.name != "index.json" {
			continue
		}
		var index oadpIndex
		if err := json.Unmarshal(it.json, &index); err != nil || len(index.Checkpoints) == 0 {
			continue
		}
		it.used = true
		for _, c := range index.Checkpoints {
			all = append(all, s.oadpMembers(it, index, c)...)
		}
	}
	if len(all) > 0 {
		for _, it := range s.free(func(it *item) bool { return it.json != nil }) {
			it.used = true
		}
	}
	return all
}

func (s *scan) oadpMembers(index *item, vm oadpIndex, c oadpCheckpoint) []*member {
	var all []*member
	for _, f := range c.Files {
		it := s.oadpFile(index.dir, c.ID, f)
		if it == nil {
			s.problem(ProblemMissingFile, Doubt, "%s: it says that %s holds checkpoint %s, and that is not here", index.ID(), f.Filename, c.ID)
			continue
		}
		m := newMember(it, ToolOADP, index.dir)
		m.domain, m.disk, m.point, m.time = vm.VMName, f.DiskName, c.ID, c.Timestamp
		if m.disk == "" {
			m.disk = volumeOf(f.Filename)
		}
		if f.Size > 0 && f.Size != it.size {
			m.tell(ProblemContradiction, Refuse, fmt.Sprintf("%s says that the file has %d bytes, and it has %d", index.ID(), f.Size, it.size), "fetch the file again")
		}
		m.oadpParent(index, c)
		all = append(all, m)
	}
	return all
}

func (m *member) oadpParent(index *item, c oadpCheckpoint) {
	if c.Parent == "" {
		m.setKind(Full)
		if m.image != nil && m.image.backing != "" {
			m.tell(ProblemContradiction, Refuse, fmt.Sprintf("%s calls it full, and its header names a backing file: it holds only what changed", index.ID()), "")
		}
		return
	}
	m.setKind(Incremental)
	m.claim(claim{point: c.Parent, Evidence: Evidence{Proven, index.ID(), "says that the parent of " + c.ID + " is " + c.Parent}})
	m.doubtWhole("libvirt", index.ID())
}

// oadpFile finds a file of a checkpoint: the name alone, in the folder of the
// checkpoint or beside the index. Other parts of the object's path are not used.
func (s *scan) oadpFile(dir, id string, f oadpFile) *item {
	name := path.Base(f.Filename)
	for _, d := range []string{path.Join(dir, id), dir} {
		if i := slices.IndexFunc(s.inDir(d), func(it *item) bool { return it.name == name && !it.used }); i >= 0 {
			return s.inDir(d)[i]
		}
	}
	return nil
}

// volumeOf is the volume in BACKUP-VOLUME.qcow2: what follows the last "-" that
// comes after a digit, or after the first "-".
func volumeOf(name string) string {
	stem := name[:len(name)-len(path.Ext(name))]
	at := -1
	for i := 1; i < len(stem); i++ {
		if stem[i] == '-' && (at < 0 || isDigit(stem[i-1])) {
			at = i
		}
	}
	return stem[at+1:]
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
