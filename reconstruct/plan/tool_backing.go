package plan

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
)

// readBacking reads chains of qcow2 images that name each other as their backing
// files, without any other record: what they name is taken for their parent.
func (s *scan) readBacking() []*member {
	images := s.free(func(it *item) bool { return it.image != nil })
	var all []*member
	linked := map[*item]bool{}
	for _, it := range images {
		if below := s.below(it); below != nil && below.image != nil && !below.used {
			linked[it], linked[below] = true, true
		} else if s.namesSibling(it) {
			linked[it] = true
		}
	}
	for _, it := range images {
		if linked[it] {
			all = append(all, s.backingMember(it))
		}
	}
	s.nameChains(all)
	doubtRenamed(all)
	return all
}

// doubtRenamed doubts the names in the headers of a folder's images where one of
// them names itself: see judgeRenamed.
func doubtRenamed(all []*member) {
	renamed := map[string]string{} // by folder
	for _, m := range all {
		if slices.ContainsFunc(m.claims, func(c claim) bool { return c.id == m.ID() }) && renamed[m.dir] == "" {
			renamed[m.dir] = m.ID()
		}
	}
	for _, m := range all {
		if who := renamed[m.dir]; who != "" && who != m.ID() && len(m.claims) > 0 {
			m.claims[0].Grade = Assumed
			m.tell(ProblemContradiction, Doubt, fmt.Sprintf(renamedText, who, m.image.backing), renamedAdvice)
		}
	}
}

// below is the item that an image names as its backing file.
func (s *scan) below(it *item) *item {
	if it.image.backing == "" {
		return nil
	}
	return s.resolve(it.dir, backingPath(it.image.backing))
}

// namesSibling says that an image names a file that should lie below the folder,
// by a relative name or because others there moved along.
func (s *scan) namesSibling(it *item) bool {
	name := backingPath(it.image.backing)
	if name == "" || path.IsAbs(name) || strings.Contains(name, ":") {
		return s.isMoved(name)
	}
	return true
}

func (s *scan) isMoved(name string) bool {
	for old := range s.opts.Moved {
		if strings.HasPrefix(name, old) {
			return true
		}
	}
	return false
}

// backingPath is the path in the name of a backing file, where it is one in the
// form of JSON or with a scheme for files. It is only compared with what is known
// to lie there.
func backingPath(name string) string {
	rest, ok := strings.CutPrefix(name, "json:")
	if !ok {
		return strings.TrimPrefix(name, "file:")
	}
	type node struct {
		Filename string          `json:"filename"`
		Flat     string          `json:"file.filename"`
		File     json.RawMessage `json:"file"`
	}
	for range 4 {
		var n node
		if json.Unmarshal([]byte(rest), &n) != nil {
			return ""
		}
		switch {
		case n.Filename != "":
			return strings.TrimPrefix(n.Filename, "file:")
		case n.Flat != "":
			return n.Flat
		}
		rest = string(n.File)
	}
	return ""
}

func (s *scan) backingMember(it *item) *member {
	m := newMember(it, ToolBacking, "backing")
	m.point = stem(it.name)
	m.setKind(kindByBacking(it))
	if m.kind.Whole() {
		return m
	}
	grade := Implied
	below := s.below(it)
	e := Evidence{grade, it.ID(), "names the backing file " + it.image.backing}
	if below == nil {
		m.claim(claim{id: backingPath(it.image.backing), backing: true, Evidence: e})
		return m
	}
	if below.image != nil && below.image.records() {
		e.Grade = Assumed
		e.Says += fmt.Sprintf(", which the guest has used: its bitmaps record; if %s is a backup of it by libvirt, it does not belong on top", it.ID())
	}
	m.claim(claim{id: below.ID(), backing: true, Evidence: e})
	return m
}

// nameChains gives the members of each chain the name of its lowest image as that
// of their disk; where none is the lowest, for they stand on each other, that of
// the first.
func (s *scan) nameChains(all []*member) {
	byItem := map[*item]*member{}
	for _, m := range all {
		byItem[m.item] = m
	}
	chains := forest{}
	for _, m := range all {
		if below := byItem[s.below(m.item)]; below != nil {
			chains.join(m, below)
		}
	}
	lowest := map[*member]*member{}
	for _, m := range all {
		root := chains.root(m)
		if at := lowest[root]; at == nil || !at.kind.Whole() && (m.kind.Whole() || m.ID() < at.ID()) {
			lowest[root] = m
		}
	}
	for _, m := range all {
		at := lowest[chains.root(m)]
		m.disk, m.scope = at.point, "backing "+at.dir
	}
}

// A forest says which members hang together: each points to another of its tree,
// or is the root.
type forest map[*member]*member

func (f forest) root(m *member) *member {
	for f[m] != nil {
		if up := f[f[m]]; up != nil {
			f[m] = up
		}
		m = f[m]
	}
	return m
}

func (f forest) join(a, b *member) {
	if ra, rb := f.root(a), f.root(b); ra != rb {
		f[ra] = rb
	}
}
