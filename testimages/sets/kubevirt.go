package sets

import (
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/qbitkit/qbit/testimages"
)

func kubevirtSets() []Set {
	return []Set{kubevirt(), oadp("oadp", false), oadp("oadp-names", true)}
}

// volumes are what KubeVirt calls the machine's disks.
var volumes = map[string]string{"vda": "rootdisk", "vdb": "datadisk"}

// launcherSource is the live image as KubeVirt's launcher sees it; libvirt writes
// it into every increment.
func launcherSource(t Truth) (name, format string) {
	if t.Parent == "" {
		return "", ""
	}
	return "/var/run/kubevirt-private/libvirt/qemu/cbt/" + volumes[t.Target] + ".qcow2", "qcow2"
}

// kubevirt is PVC/VMI/BACKUP-TIME/BACKUP-VOLUME.qcow2, one backup resource each.
func kubevirt() Set {
	s := Set{Name: "kubevirt", Tool: "kubevirt", Evidence: Implied, Backing: BackingSource}
	s.Truth = index("twodisks").truth(99, func(d testimages.ChainDisk, i int) Truth {
		backup := "backup" + string(rune('1'+i))
		point := backup + "-" + day(i).Format("2006-01-02_15-04-05")
		return Truth{Disk: volumes[d.Target], Point: point, At: day(i), Target: d.Target,
			Files: []string{path.Join("backup-output-pvc", "vm1", point, backup+"-"+volumes[d.Target]+".qcow2")}}
	})
	s.parts = func(s *Set, dir string) error { return s.spread("twodisks", dir, launcherSource) }
	return s
}

// An oadpIndex is index.json of one machine, oldest checkpoint first.
type oadpIndex struct {
	VMName      string           `json:"vmName"`
	Namespace   string           `json:"namespace"`
	Checkpoints []oadpCheckpoint `json:"checkpoints"`
	LastUpdated *time.Time       `json:"lastUpdated,omitempty"`
}

type oadpCheckpoint struct {
	ID           string    `json:"id"`
	Type         string    `json:"type"`
	Parent       string    `json:"parent,omitempty"`
	Timestamp    time.Time `json:"timestamp"`
	VMBackup     string    `json:"vmBackup"`
	Files        any       `json:"files"` // names, or oadpFile
	PVCs         []string  `json:"pvcs"`
	PVCSizes     []string  `json:"pvcSizes"`
	ReferencedBy []string  `json:"referencedBy"`
}

type oadpFile struct {
	Filename   string `json:"filename"`
	DiskName   string `json:"diskName,omitempty"`
	Size       int64  `json:"size"`
	ObjectPath string `json:"objectPath"`
}

const (
	oadpRoot = "velero-kubevirt-datamover"
	oadpVM   = oadpRoot + "/checkpoints/default/vm1"
)

// oadp is the object store of the KubeVirt data mover, copied to a folder. The
// design says that files are names; the program writes objects.
func oadp(name string, names bool) Set {
	s := Set{Name: name, Tool: "oadp", Evidence: Proven, Backing: BackingSource}
	s.Truth = index("twodisks").truth(99, func(d testimages.ChainDisk, i int) Truth {
		id := "cp-00" + string(rune('1'+i))
		file := "vmb-00" + string(rune('1'+i)) + "-" + volumes[d.Target] + ".qcow2"
		return Truth{Disk: volumes[d.Target], Point: id, At: day(i), Target: d.Target, Files: []string{path.Join(oadpVM, id, file)}}
	})
	s.parts = func(s *Set, dir string) error {
		if err := s.spread("twodisks", dir, launcherSource); err != nil {
			return err
		}
		return s.oadpManifests(dir, names)
	}
	return s
}

// oadpManifests writes the machine's index and what each Velero backup needs.
func (s *Set) oadpManifests(dir string, names bool) error {
	idx := oadpIndex{VMName: "vm1", Namespace: "default"}
	points := s.Points(s.Truth[0].Disk)
	for i, t := range points {
		cp, err := s.oadpCheckpoint(dir, t.Point, names)
		if err != nil {
			return err
		}
		for j := i; j < len(points); j++ {
			cp.ReferencedBy = append(cp.ReferencedBy, oadpBackup(j))
		}
		idx.Checkpoints = append(idx.Checkpoints, cp)
		if err := s.oadpBackupFiles(dir, i); err != nil {
			return err
		}
	}
	if !names {
		last := points[len(points)-1].At
		idx.LastUpdated = &last
	}
	return putJSON(dir, path.Join(oadpVM, "index.json"), idx)
}

func oadpBackup(i int) string { return "backup-" + day(i).Format("2006-01-02") }

func (s *Set) oadpCheckpoint(dir, id string, names bool) (oadpCheckpoint, error) {
	cp := oadpCheckpoint{ID: id, VMBackup: strings.Replace(id, "cp", "vmb", 1)}
	var plain []string
	var files []oadpFile
	for _, disk := range s.Disks() {
		t := s.Point(disk, id)
		st, err := os.Stat(filepath.Join(dir, filepath.FromSlash(t.Files[0])))
		if err != nil {
			return cp, err
		}
		file := path.Base(t.Files[0])
		plain = append(plain, file)
		files = append(files, oadpFile{file, disk, st.Size(), t.Files[0]})
		cp.Type, cp.Parent, cp.Timestamp = "incremental", t.Parent, t.At
		if t.Parent == "" {
			cp.Type = "full"
		}
		cp.PVCs = append(cp.PVCs, "vm1-"+disk)
		cp.PVCSizes = append(cp.PVCSizes, "8Mi")
	}
	cp.Files = any(files)
	if names {
		cp.Files = plain
	}
	return cp, nil
}

// oadpBackupFiles are the manifests of the i-th Velero backup.
func (s *Set) oadpBackupFiles(dir string, i int) error {
	var chain []string
	for _, t := range s.Points(s.Truth[0].Disk)[:i+1] {
		chain = append(chain, t.Point)
	}
	folder := path.Join(oadpRoot, "manifests", oadpBackup(i))
	err := putJSON(dir, path.Join(folder, "index.json"), map[string]any{"backupName": oadpBackup(i), "timestamp": day(i),
		"vms": []map[string]string{{"name": "vm1", "namespace": "default", "checkpointId": chain[i], "manifestPath": folder + "/default-vm1.json"}}})
	if err != nil {
		return err
	}
	return putJSON(dir, path.Join(folder, "default-vm1.json"), map[string]any{
		"namespace": "default", "name": "vm1", "checkpointChain": chain, "backupName": oadpBackup(i), "timestamp": day(i)})
}

func putJSON(dir, name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return put(dir, name, string(b)+"\n")
}
