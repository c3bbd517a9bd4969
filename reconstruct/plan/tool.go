package plan

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// readers turn the items that they know into members; what one has taken the
// next do not see. Those that go by records come before those that go by names.
var readers = []func(*scan) []*member{
	(*scan).readVirtnbd,
	(*scan).readOADP,
	(*scan).readQmpbackup,
	(*scan).readLibvirt,
	(*scan).readOvirt,
	(*scan).readOpenNebula,
	(*scan).readCloudStack,
	(*scan).readKubevirt,
	(*scan).readBacking,
	(*scan).readNames,
}

// free are the items that no reader has taken and that fit.
func (s *scan) free(fits func(*item) bool) []*item {
	var all []*item
	for _, it := range s.items {
		if !it.used && fits(it) {
			all = append(all, it)
		}
	}
	return all
}

// inSequence claims for each increment that it stands on the member before it,
// since their names say so. They are in order. A whole backup begins a sequence
// anew; copies are no part of it.
func inSequence(members []*member, grade Grade, says string) {
	inSequenceWhere(members, grade, says, func(*member) bool { return true })
}

// inSequenceWhere claims it only for those increments that want fits.
func inSequenceWhere(members []*member, grade Grade, says string, wants func(*member) bool) {
	var before *member
	for _, m := range members {
		if m.kind == Copy {
			continue
		}
		if m.kind != Full && before != nil && wants(m) {
			m.claim(claim{id: before.ID(), Evidence: Evidence{grade, m.ID(), says + " " + before.ID()}})
		}
		if m.kind != Differential {
			before = m
		}
	}
}

// sortMembers sorts by what key says, as people count.
func sortMembers(members []*member, key func(*member) string) {
	slices.SortStableFunc(members, func(a, b *member) int { return compareNatural(key(a), key(b)) })
}

// collect puts members with the same key together, in the order in which they
// come.
func collect(members []*member, key func(*member) groupKey) [][]*member {
	index := map[groupKey]int{}
	var all [][]*member
	for _, m := range members {
		i, ok := index[key(m)]
		if !ok {
			i = len(all)
			index[key(m)] = i
			all = append(all, nil)
		}
		all[i] = append(all[i], m)
	}
	return all
}

// named fits items that may hold a disk and whose name matches a pattern.
func named(pattern *regexp.Regexp) func(*item) bool {
	return func(it *item) bool { return it.stream == nil && pattern.MatchString(it.name) }
}

// predecessor is the number before n in decimal; empty where n is 0 or no number.
func predecessor(n string) string {
	v, err := strconv.ParseUint(n, 10, 32)
	if err != nil || v == 0 {
		return ""
	}
	return strconv.FormatUint(v-1, 10)
}

// claimBacking claims that a member stands on the file that its header names, if
// that is one of the folder's.
func (s *scan) claimBacking(m *member, grade Grade, hint bool) bool {
	if m.image == nil || m.image.backing == "" {
		return false
	}
	e := Evidence{grade, m.ID(), "names the backing file " + m.image.backing}
	below := s.resolve(m.dir, m.image.backing)
	switch {
	case below != nil && below != m.item:
		m.claim(claim{id: below.ID(), hint: hint, backing: true, Evidence: e})
	case below == m.item:
		m.claim(claim{id: m.ID(), hint: hint, backing: true, Evidence: e})
	case !hint:
		m.claim(claim{id: m.image.backing, backing: true, Evidence: e})
	}
	return true
}

// resolve finds the item that a path in a header or a record means: moved as the
// user says, relative to dir, or below the folder.
func (s *scan) resolve(dir, name string) *item {
	for old, now := range s.opts.Moved {
		if rest, ok := strings.CutPrefix(name, old); ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(old, "/")) {
			return s.at(path.Join(now, rest))
		}
	}
	name = strings.TrimPrefix(name, "file:")
	if !path.IsAbs(name) {
		return s.at(path.Join(dir, name))
	}
	if s.opts.Absolute == "" {
		return nil
	}
	if rest, ok := strings.CutPrefix(path.Clean(name), strings.TrimSuffix(s.opts.Absolute, "/")+"/"); ok {
		return s.at(rest)
	}
	return nil
}
