package sets

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

const uuid = `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`

// layouts are the names that each tool gives its files; every file of a set has one
// of them, and every one is used.
var layouts = map[string][]string{
	"qmpbackup":         {`uuid`, `vm1-vd[ab]\.qcow2\.config`, `node-vda/FULL-\d{10}-vm1-vda\.qcow2`, `node-vd[ab]/INC-\d{10}-vm1-vd[ab]\.qcow2`, `node-vdb/FULL-\d{10}-vm1-vdb\.qcow2`},
	"qmpbackup-flat":    {`uuid`, `vm1-vda\.qcow2\.config`, `FULL-\d{10}-vm1-vda\.qcow2`, `INC-\d{10}-vm1-vda\.qcow2`},
	"qmpbackup-image":   {`uuid`, `vm1-vd[ab]\.qcow2\.config`, `vm1-vd[ab]\.qcow2/(FULL|INC)-\d{10}-vm1-vd[ab]\.qcow2`},
	"qmpbackup-monthly": {`2026-0[34]/uuid`, `2026-0[34]/vm1-vda\.qcow2\.config`, `2026-03/node-vda/(FULL|INC)-\d{10}-vm1-vda\.qcow2`, `2026-04/node-vda/(FULL|INC)-\d{10}-vm1-vda\.qcow2`},
	"qmpbackup-copy":    {`uuid`, `vm1-vda\.qcow2\.config`, `node-vda/(FULL|INC)-\d{10}-vm1-vda\.qcow2`, `node-vda/COPY-\d{10}-vm1-vda\.qcow2`},
	"qmpbackup-raw":     {`uuid`, `vm1-vda\.raw\.config`, `node-vda/(FULL|INC)-\d{10}-vm1-vda\.raw`},
	"ovirt":             {`\d{14}\.` + uuid + `\.` + uuid + `\.full\.qcow2`, `\d{14}\.` + uuid + `\.` + uuid + `\.incremental\.qcow2`},
	"opennebula":        {`[0-9a-f]{6}/disk\.[01]\.[0-3]`, `[0-9a-f]{6}/vm\.xml`},
	"cloudstack": {`2026\.03\.0\d\.10\.00\.00/root\.` + uuid + `\.qcow2`, `2026\.03\.0\d\.10\.00\.00/datadisk\.` + uuid + `\.qcow2`,
		`2026\.03\.0\d\.10\.00\.00/(domain-config|dominfo|domiflist|domblklist)\.xml`},
	"kubevirt": {`backup-output-pvc/vm1/backup[1-4]-2026-03-0\d_10-00-00/backup[1-4]-(root|data)disk\.qcow2`},
	"oadp": {oadpRoot + `/checkpoints/default/vm1/index\.json`, oadpRoot + `/checkpoints/default/vm1/cp-00\d/vmb-00\d-(root|data)disk\.qcow2`,
		oadpRoot + `/manifests/backup-2026-03-0\d/(index|default-vm1)\.json`},
	"virtnbd-plain": {`vd[ab]\.full\.data`, `vd[ab]\.inc\.virtnbdbackup\.\d\.data`, `vd[ab]\.virtnbdbackup\.\d\.qcow\.json`,
		`vmconfig\.virtnbdbackup\.\d\.xml`, `web\.cpt`, `checkpoints/virtnbdbackup\.\d\.xml`, `backup\.(full|inc)\.\d{14}\.log`},
	"virtnbd-diff": {`vd[ab]\.full\.data`, `vd[ab]\.inc\.virtnbdbackup\.\d\.data`, `vd[ab]\.diff\.\d{10}\.data`, `vd[ab]\.(virtnbdbackup\.\d|\d{10})\.qcow\.json`,
		`vmconfig\.(virtnbdbackup\.\d|\d{10})\.xml`, `web\.cpt`, `checkpoints/virtnbdbackup\.\d\.xml`, `backup\.(full|inc|diff)\.\d{14}\.log`},
	"virtnbd-copy": {`vd[ab]\.copy\.data`, `vd[ab]\.copy\.qcow\.json`, `vmconfig\.copy\.xml`, `backup\.copy\.\d{14}\.log`},
}

func TestLayouts(t *testing.T) {
	for name, patterns := range layouts {
		dir := Get(name).Lay(t)
		used := map[string]bool{}
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel(dir, path)
			if p := match(patterns, filepath.ToSlash(rel)); p != "" {
				used[p] = true
			} else {
				t.Errorf("%s: no tool would write %s", name, rel)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		for _, p := range patterns {
			if !used[p] {
				t.Errorf("%s: nothing is named %s", name, p)
			}
		}
	}
}

func match(patterns []string, name string) string {
	for _, p := range patterns {
		if regexp.MustCompile(`^` + p + `$`).MatchString(name) {
			return p
		}
	}
	return ""
}

// The number in the names of OpenNebula's increments is the point; each folder
// holds one increment of every disk.
func TestOpenNebulaNames(t *testing.T) {
	for _, row := range Get("opennebula").Truth {
		i := row.Point[0] - '0'
		if want := incrementIDs[i] + "/disk." + row.Disk + "." + row.Point; row.Files[0] != want {
			t.Errorf("increment %s of disk %s is %s, want %s", row.Point, row.Disk, row.Files[0], want)
		}
	}
}
