package plan

import (
	"path"
	"regexp"
)

var nebulaName = regexp.MustCompile(`^disk\.(\d+)\.(\d+)$`)

// readOpenNebula reads INCREMENT/disk.ID.N: the folders have names without an
// order, N counts the increments from 0. A number that is not there is a gap.
func (s *scan) readOpenNebula() []*member {
	var all []*member
	for _, it := range s.free(named(nebulaName)) {
		parts := nebulaName.FindStringSubmatch(it.name)
		it.raw = it.image == nil && it.broken == nil
		m := newMember(it, ToolOpenNebula, path.Dir(it.dir))
		m.disk, m.point = parts[1], parts[2]
		m.setKind(Incremental)
		if before := predecessor(parts[2]); before == "" {
			// Its backing file is the export from which all of it was copied.
			m.setKind(Full)
			m.alone = true
		} else {
			m.claim(claim{point: before, Evidence: Evidence{Implied, m.ID(), "is numbered as the one after increment " + before}})
			m.doubtWhole("OpenNebula", "its number")
		}
		all = append(all, m)
	}
	s.useRecords(all, func(it *item) bool { return it.name == "vm.xml" })
	return all
}
