package plan

import (
	"path"
	"regexp"
	"strings"
)

// The tools of this file count their backups by the times in names. A time tells
// the order, but not that a backup is missing: what rests on it alone is assumed.

var (
	qmpbackupName = regexp.MustCompile(`^(FULL|INC|COPY)-(\d{9,11})-(.+)$`)
	ovirtName     = regexp.MustCompile(`^(\d{8,14})\.([^.]+)\.(.+)\.(full|incremental)\.qcow2$`)
	cloudName     = regexp.MustCompile(`^(?:root|datadisk)\.(.+)\.qcow2$`)
	cloudFolder   = regexp.MustCompile(`^\d{4}(?:\.\d{2}){5}$`)
	kubevirtPoint = regexp.MustCompile(`^(.+)-(\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2})$`)
	monthFolder   = regexp.MustCompile(`^\d{4}-\d{2}$`)
)

const laterTime = "carries the next time after"

// readQmpbackup reads [YYYY-MM/][IMAGE/]FULL-EPOCH-IMAGE, INC-… and COPY-….
func (s *scan) readQmpbackup() []*member {
	var all []*member
	for _, it := range s.free(named(qmpbackupName)) {
		parts := qmpbackupName.FindStringSubmatch(it.name)
		it.raw = it.image == nil && it.broken == nil
		m := newMember(it, ToolQmpbackup, withoutMonth(it.dir))
		m.disk, m.point = parts[3], parts[2]
		m.time, _ = ParseTime(parts[2])
		m.setKind(map[string]Kind{"FULL": Full, "INC": Incremental, "COPY": Copy}[parts[1]])
		all = append(all, m)
	}
	s.useRecords(all, func(it *item) bool { return it.name == "uuid" || strings.HasSuffix(it.name, ".config") })
	for _, chain := range inFolders(all) {
		sortMembers(chain, func(m *member) string { return m.point })
		inSequence(chain, Assumed, laterTime)
	}
	return all
}

// withoutMonth is the folder that the folders of months lie in.
func withoutMonth(dir string) string {
	parts := strings.Split(dir, "/")
	kept := parts[:0]
	for _, p := range parts {
		if !monthFolder.MatchString(p) {
			kept = append(kept, p)
		}
	}
	if len(kept) == 0 {
		return "."
	}
	return strings.Join(kept, "/")
}

// inFolders collects the members of one disk in one folder.
func inFolders(members []*member) [][]*member {
	return collect(members, func(m *member) groupKey { return groupKey{m.dir, m.domain, m.disk} })
}

// readOvirt reads TIME.CHECKPOINT.DISK.full|incremental.qcow2, as oVirt's
// backup_vm.py leaves them. Increments name the file before them in their header.
func (s *scan) readOvirt() []*member {
	var all []*member
	for _, it := range s.free(named(ovirtName)) {
		parts := ovirtName.FindStringSubmatch(it.name)
		m := newMember(it, ToolOvirt, it.dir)
		m.point, m.disk = parts[2], parts[3]
		m.time, _ = ParseTime(parts[1])
		m.setKind(map[string]Kind{"full": Full, "incremental": Incremental}[parts[4]])
		all = append(all, m)
	}
	s.linkByBacking(all)
	return all
}

// readCloudStack reads TIME/root.VOLUME.qcow2 and TIME/datadisk.VOLUME.qcow2.
// Increments name the file before them in their header, with a path that leads to
// the folder beside.
func (s *scan) readCloudStack() []*member {
	var all []*member
	for _, it := range s.free(named(cloudName)) {
		folder := path.Base(it.dir)
		if !cloudFolder.MatchString(folder) {
			continue
		}
		m := newMember(it, ToolCloudStack, path.Dir(it.dir))
		m.point, m.disk = folder, cloudName.FindStringSubmatch(it.name)[1]
		m.time, _ = ParseTime(folder)
		m.setKind(kindByBacking(it))
		if x := s.sibling(it, "domain-config.xml"); x != nil && x.domain != nil {
			m.xml, m.domain = x.document(), x.domain.Name
		}
		all = append(all, m)
	}
	s.useRecords(all, func(it *item) bool { return strings.HasSuffix(it.name, ".xml") })
	s.linkByBacking(all)
	return all
}

// kindByBacking takes an image that names a backing file for an increment.
func kindByBacking(it *item) Kind {
	if it.image != nil && it.image.backing != "" {
		return Incremental
	}
	return Full
}

// linkByBacking claims what the headers of a tool say that writes the parent there.
// One that names nothing is left with the order of the times.
func (s *scan) linkByBacking(all []*member) {
	var silent []*member
	for _, m := range all {
		if m.kind == Incremental && !s.claimBacking(m, Implied, false) {
			silent = append(silent, m)
		}
	}
	if len(silent) == 0 {
		return
	}
	for _, disk := range collect(all, (*member).group) {
		sortMembers(disk, func(m *member) string { return m.time.UTC().Format("20060102150405") })
		inSequenceWhere(disk, Assumed, laterTime, func(m *member) bool { return len(m.claims) == 0 })
	}
}

// readKubevirt reads PVC/VMI/BACKUP-TIME/BACKUP-VOLUME.qcow2, which libvirt wrote:
// the headers name the disk of the guest.
func (s *scan) readKubevirt() []*member {
	var all []*member
	for _, it := range s.free((*item).holdsDisk) {
		parts := kubevirtPoint.FindStringSubmatch(path.Base(it.dir))
		if parts == nil {
			continue
		}
		volume, ok := strings.CutPrefix(strings.TrimSuffix(it.name, path.Ext(it.name)), parts[1]+"-")
		if !ok {
			continue
		}
		m := newMember(it, ToolKubevirt, path.Dir(it.dir))
		m.point, m.disk, m.domain = parts[0], volume, path.Base(path.Dir(it.dir))
		m.time, _ = ParseTime(parts[2])
		m.setKind(kindByBacking(it))
		all = append(all, m)
	}
	for _, disk := range collect(all, (*member).group) {
		sortMembers(disk, func(m *member) string { return m.time.UTC().Format("20060102150405") })
		inSequence(disk, Assumed, laterTime)
	}
	return all
}

// useRecords marks records that lie beside members as known.
func (s *scan) useRecords(members []*member, known func(*item) bool) {
	dirs := map[string]bool{}
	for _, m := range members {
		dirs[m.dir], dirs[path.Dir(m.dir)] = true, true
	}
	for _, it := range s.items {
		if dirs[it.dir] && !it.holdsDisk() && known(it) {
			it.used = true
		}
	}
}
