package sets

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/qbitkit/qbit/testimages"
)

// imagesetSets are the layouts of oVirt, OpenNebula and CloudStack, all of the
// same machine with two disks.
func imagesetSets() []Set {
	return []Set{ovirt(), openNebula(), cloudStack()}
}

// Identities as these systems give them to the machine's disks and checkpoints.
var (
	diskUUIDs = map[string]string{
		"vda": "126eecaf-0f2b-4b8b-8c5c-4b6a2a7f1e01",
		"vdb": "7d4c2f3e-5f0c-4e53-9f0d-9b1d3f6a7c02",
	}
	pointUUIDs = []string{
		"6ba3f1c8-55a0-4f2b-9a2e-d1a4f3a90c10", "0f96cf02-8dc8-4d0f-8cb4-5a7e4f2be3b1",
		"c8a8f1d7-1b2e-4d8e-b0f5-2f2d8f9c7a22", "2b1d3cf0-6c3f-4dfb-8f3e-3a0de1f5b733",
	}
)

// below names the parent's file relative to the row's own.
func (s *Set) below(t Truth) (name, format string) {
	if t.Parent == "" {
		return "", ""
	}
	parent, own := s.Point(t.Disk, t.Parent).Files[0], path.Dir(t.Files[0])
	if path.Dir(parent) == own {
		return path.Base(parent), "qcow2"
	}
	return strings.Repeat("../", strings.Count(own, "/")+1) + parent, "qcow2"
}

// ovirt is what backup_vm.py downloads: TIME.CHECKPOINT.DISK.MODE.qcow2.
func ovirt() Set {
	s := Set{Name: "ovirt", Tool: "ovirt", Evidence: Implied, Backing: BackingRelative}
	s.Truth = index("twodisks").truth(99, func(d testimages.ChainDisk, i int) Truth {
		mode := "incremental"
		if i == 0 {
			mode = "full"
		}
		disk := diskUUIDs[d.Target]
		name := strings.Join([]string{day(i).Format("20060102150405"), pointUUIDs[i], disk, mode, "qcow2"}, ".")
		return Truth{Disk: disk, Point: pointUUIDs[i], At: day(i), Files: []string{name}}
	})
	s.parts = func(s *Set, dir string) error { return s.spread("twodisks", dir, s.below) }
	return s
}

// incrementIDs are the folders that OpenNebula's rsync datastore makes up; they
// tell no order.
var incrementIDs = []string{"c04b1f", "1e7a90", "f3d256", "8ab0c4"}

// nbdExport is what the backing name of every increment says, the full's too.
func nbdExport(t Truth) (name, format string) {
	return "nbd+unix:///" + t.Target + "?socket=/var/lib/one/datastores/0/42/backup.socket", "raw"
}

// openNebula is INCREMENT/disk.ID.N, with the machine's template beside.
func openNebula() Set {
	s := Set{Name: "opennebula", Tool: "opennebula", Evidence: Implied, Backing: BackingDead}
	s.Truth = index("twodisks").truth(99, func(d testimages.ChainDisk, i int) Truth {
		id := strconv.Itoa(int(d.Target[2] - 'a'))
		return Truth{Disk: id, Point: strconv.Itoa(i), Target: d.Target,
			Files: []string{path.Join(incrementIDs[i], "disk."+id+"."+strconv.Itoa(i))}}
	})
	s.parts = func(s *Set, dir string) error {
		if err := s.spread("twodisks", dir, nbdExport); err != nil {
			return err
		}
		for i, id := range incrementIDs {
			if err := put(dir, path.Join(id, "vm.xml"), nebulaVM(i)); err != nil {
				return err
			}
		}
		return nil
	}
	return s
}

// nebulaVM is the machine as OpenNebula described it when it took increment i.
func nebulaVM(i int) string {
	return fmt.Sprintf(`<VM><ID>42</ID><NAME>web</NAME><DEPLOY_ID>one-42</DEPLOY_ID><TEMPLATE>
<DISK><DISK_ID>0</DISK_ID><FORMAT>qcow2</FORMAT><TARGET>vda</TARGET></DISK>
<DISK><DISK_ID>1</DISK_ID><FORMAT>qcow2</FORMAT><TARGET>vdb</TARGET></DISK>
</TEMPLATE><BACKUPS><BACKUP_CONFIG><LAST_INCREMENT_ID>%d</LAST_INCREMENT_ID><MODE>INCREMENT</MODE></BACKUP_CONFIG></BACKUPS></VM>
`, i-1)
}

// cloudStack is TIME/root.VOLUME.qcow2 and TIME/datadisk.VOLUME.qcow2, linked by
// relative backing names, with what virsh said of the machine.
func cloudStack() Set {
	s := Set{Name: "cloudstack", Tool: "cloudstack", Evidence: Implied, Backing: BackingRelative}
	folder := func(i int) string { return day(i).Format("2006.01.02.15.04.05") }
	s.Truth = index("twodisks").truth(99, func(d testimages.ChainDisk, i int) Truth {
		role := "root"
		if d.Target != "vda" {
			role = "datadisk"
		}
		volume := diskUUIDs[d.Target]
		return Truth{Disk: volume, Point: folder(i), At: day(i), Target: d.Target,
			Files: []string{path.Join(folder(i), role+"."+volume+".qcow2")}}
	})
	s.parts = func(s *Set, dir string) error {
		if err := s.spread("twodisks", dir, s.below); err != nil {
			return err
		}
		for i := range s.Points(s.Truth[0].Disk) {
			if err := virshFiles(dir, folder(i)); err != nil {
				return err
			}
		}
		return nil
	}
	return s
}

// virshFiles are what the script saves of the machine; the names end in .xml
// whatever is in them.
func virshFiles(dir, folder string) error {
	var disks, list strings.Builder
	for _, target := range []string{"vda", "vdb"} {
		file := "/mnt/4f0d2f6c/" + diskUUIDs[target]
		fmt.Fprintf(&disks, "    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='%s'/><target dev='%s' bus='virtio'/></disk>\n", file, target)
		fmt.Fprintf(&list, " %s      %s\n", target, file)
	}
	files := map[string]string{
		"domain-config.xml": "<domain type='kvm' id='3'>\n  <name>i-2-15-VM</name>\n  <memory unit='KiB'>524288</memory>\n  <os><type arch='x86_64'>hvm</type></os>\n  <devices>\n" + disks.String() + "  </devices>\n</domain>\n",
		"dominfo.xml":       "Id:             3\nName:           i-2-15-VM\nState:          running\n",
		"domiflist.xml":     " Interface   Type     Source     Model    MAC\n-----\n",
		"domblklist.xml":    " Target   Source\n---------\n" + list.String(),
	}
	for name, text := range files {
		if err := put(dir, path.Join(folder, name), text); err != nil {
			return err
		}
	}
	return nil
}
