package plan

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// linkName splits the stem of a name like vda-inc3 into what it is of, what it is,
// and its number.
var linkName = regexp.MustCompile(`(?i)^(.*?)[-_. ]*(full|base|increment(?:al)?|incr?|diff(?:erential)?|delta)?[-_. ]*(\d*)$`)

// splitName is what an image is of, by its name, and what it is.
func splitName(name string) (prefix, word string) {
	parts := linkName.FindStringSubmatch(stem(name))
	if parts == nil {
		return stem(name), ""
	}
	return parts[1], strings.ToLower(parts[2])
}

// compareLinks orders images by their names: full backups first, then as people count.
func compareLinks(a, b *item) int {
	wholeA, wholeB := !isLinkName(a), !isLinkName(b)
	if wholeA != wholeB {
		if wholeA {
			return -1
		}
		return 1
	}
	return compareNatural(a.path+"!"+a.member, b.path+"!"+b.member)
}

// isLinkName says that an image is an increment, by its header or its name.
func isLinkName(it *item) bool {
	_, word := splitName(it.name)
	return it.image != nil && it.image.backing != "" || word != "" && word != "full" && word != "base"
}

// readNames reads the images that nothing else says anything of. Those in one
// folder whose names begin alike are assumed to be a chain, in the order of their
// names; an image that the guest used (it records bitmaps) is none of them.
func (s *scan) readNames() []*member {
	var all []*member
	named := s.namedAsBacking()
	for _, it := range s.free((*item).holdsDisk) {
		if it.image != nil && (it.image.records() || len(it.image.bitmaps) > 0 && named[it.name]) {
			continue
		}
		prefix, _ := splitName(it.name)
		m := newMember(it, ToolUnknown, it.dir)
		m.disk, m.point = prefix, stem(it.name)
		m.setKind(Full)
		if isLinkName(it) {
			m.setKind(Incremental)
		}
		s.claimMoved(m)
		all = append(all, m)
	}
	for _, chain := range collect(all, (*member).group) {
		nameLoose(chain)
	}
	return all
}

// namedAsBacking are the names of files that images name as their backing file by a
// path from elsewhere, as increments of libvirt name the disk of the guest.
func (s *scan) namedAsBacking() map[string]bool {
	named := map[string]bool{}
	for _, it := range s.items {
		if it.image != nil && path.IsAbs(it.image.backing) {
			named[path.Base(it.image.backing)] = true
		}
	}
	return named
}

// nameLoose makes a chain of members, or, where none of them is an increment,
// disks of their own.
func nameLoose(chain []*member) {
	if !slices.ContainsFunc(chain, func(m *member) bool { return m.kind == Incremental }) {
		for _, m := range chain {
			m.disk = m.point
		}
		return
	}
	for _, m := range chain {
		if m.disk == "" {
			m.disk = path.Base(m.dir)
		}
		if m.disk == "." {
			m.disk = "disk"
		}
	}
	slices.SortStableFunc(chain, func(a, b *member) int { return compareLinks(a.item, b.item) })
	inSequenceWhere(chain, Assumed, "comes next in the order of names after", func(m *member) bool { return len(m.claims) == 0 })
	for _, m := range chain {
		if m.kind == Incremental {
			m.doubtWhole("libvirt", "its name")
		}
	}
}

// claimMoved claims a backing file that is named by a path from elsewhere, where a
// file of that name lies beside: the folder may have moved.
func (s *scan) claimMoved(m *member) {
	if m.image == nil {
		return
	}
	name := backingPath(m.image.backing)
	beside := s.sibling(m.item, path.Base(name))
	if !path.IsAbs(name) || beside == nil || beside.image == nil || len(beside.image.bitmaps) > 0 {
		return
	}
	m.claim(claim{id: name, backing: true, Evidence: Evidence{Implied, m.ID(), "names the backing file " + name},
		advice: fmt.Sprintf("there is a %s here: if its folder was moved, say so with --map %s=FOLDER", path.Base(name), path.Dir(name))})
}
