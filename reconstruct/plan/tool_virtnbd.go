package plan

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
)

// readVirtnbd reads folders and archives of virtnbdbackup. Each stream begins with
// a record of its own, which names its checkpoint and that of its parent; file
// names count less, since a whole backup may hide under an increment's.
func (s *scan) readVirtnbd() []*member {
	var all []*member
	for _, it := range s.free(func(it *item) bool { return it.stream != nil || isVirtnbdName(it) }) {
		switch {
		case it.stream == nil && s.isRawCopy(it):
			all = append(all, s.rawCopy(it))
			continue
		case it.stream == nil:
			all = append(all, s.brokenStream(it))
			continue
		}
		all = append(all, s.virtnbdMember(it))
	}
	for _, m := range all {
		s.claimCheckpointList(m)
	}
	s.judgeLogs(all)
	return all
}

// isVirtnbdName says that a file is named like a stream. One whose first bytes are
// broken is a missing link, not a stranger.
func isVirtnbdName(it *item) bool {
	name := strings.TrimSuffix(it.name, ".partial")
	stem, ok := strings.CutSuffix(name, ".data")
	return ok && it.image == nil && it.size > 0 && (strings.HasSuffix(stem, ".full") || strings.HasSuffix(stem, ".copy") ||
		strings.Contains(stem, ".inc.") || strings.Contains(stem, ".diff."))
}

// isRawCopy says that a file is the copy of a raw disk, which the tool writes as it
// is, under the name of a stream: whole sectors, and nothing like a frame in front.
func (s *scan) isRawCopy(it *item) bool {
	if it.broken != nil || !strings.HasSuffix(it.name, ".copy.data") || it.size%512 != 0 {
		return false
	}
	r, err := it.content()
	if err != nil {
		return false
	}
	defer r.Close()
	var head [40]byte
	_, err = r.ReadAt(head[:], 0)
	return err == nil && !(head[4] == ' ' && head[21] == ' ' || string(head[38:]) == "\r\n")
}

func (s *scan) rawCopy(it *item) *member {
	it.raw = true
	m := newMember(it, ToolVirtnbd, it.dir)
	m.disk, m.point, m.kind, m.domain = strings.TrimSuffix(it.name, ".copy.data"), "copy", Copy, s.virtnbdDomain(it.dir)
	return m
}

func (s *scan) brokenStream(it *item) *member {
	disk, rest, _ := strings.Cut(it.name, ".")
	m := newMember(it, ToolVirtnbd, it.dir)
	m.domain = s.virtnbdDomain(it.dir)
	m.disk, m.point, m.kind = disk, strings.TrimSuffix(strings.TrimPrefix(rest, "inc."), ".data"), Incremental
	if it.broken == nil {
		m.tell(ProblemUnreadable, Refuse, "it is named like a stream of virtnbdbackup and does not begin like one", "")
	}
	return m
}

func (s *scan) virtnbdMember(it *item) *member {
	meta := it.stream
	m := newMember(it, ToolVirtnbd, it.dir)
	m.disk, m.point, m.kind = meta.DiskName, meta.CheckpointName, s.virtnbdKind(it)
	m.time, _ = meta.Time()
	m.domain = s.virtnbdDomain(it.dir)
	if sum := s.sibling(it, it.name+".chksum"); sum != nil {
		m.sum = sum.path
		if sum.member != "" {
			m.sum = sum.member
		}
		sum.used = true
	}
	if strings.HasSuffix(it.name, ".partial") {
		m.tell(ProblemPartial, Refuse, "the backup was interrupted: only a part of it was written", "")
	}
	if x := s.sibling(it, "vmconfig."+m.point+".xml"); x != nil && x.domain != nil {
		m.xml, x.used = x.document(), true
	}
	for _, x := range s.inDir(it.dir) {
		if strings.HasSuffix(x.name, ".qcow.json") || strings.HasPrefix(x.name, "vmconfig.") {
			x.used = true
		}
	}
	if m.kind == Differential || m.kind == Copy {
		m.point = virtnbdOwnPoint(it.name, m.point)
	}
	s.virtnbdParent(m)
	m.judgeStreamName()
	return m
}

// judgeStreamName compares the name of a file with what its stream says. A stream
// of another disk is no link of this one, whatever the name.
func (m *member) judgeStreamName() {
	disk, rest, _ := strings.Cut(m.name, ".")
	if disk != m.disk && (strings.HasPrefix(rest, "inc.") || strings.HasPrefix(rest, "full.") || strings.HasPrefix(rest, "diff.") || strings.HasPrefix(rest, "copy.")) {
		m.tell(ProblemForeign, Refuse, fmt.Sprintf("it is named as a backup of %s, and its stream says that it is one of %s: it belongs to another disk", disk, m.disk), "find the right file")
		m.disk = disk
	}
	named, ok := strings.CutPrefix(strings.TrimSuffix(m.name, ".data"), disk+".inc.")
	if ok && m.kind == Incremental && named != m.point {
		m.tell(ProblemContradiction, Note, fmt.Sprintf("it is named after checkpoint %s, and its stream says %s: the stream counts", named, m.point), "")
	}
}

// virtnbdKind is what a stream holds: its record says so, and the file name tells
// apart what the record does not.
func (s *scan) virtnbdKind(it *item) Kind {
	switch {
	case !it.stream.Incremental && strings.Contains(it.name, ".copy."):
		return Copy
	case !it.stream.Incremental:
		return Full
	case strings.Contains(it.name, ".diff."):
		return Differential
	}
	return Incremental
}

// virtnbdOwnPoint names a backup that has no checkpoint of its own: by the time in
// its name, or as the copy that it is.
func virtnbdOwnPoint(name, checkpoint string) string {
	parts := strings.Split(strings.TrimSuffix(name, ".data"), ".")
	if i := slices.Index(parts, "diff"); i >= 0 && i+1 < len(parts) {
		return "diff." + parts[i+1]
	}
	if checkpoint == "" {
		return "copy"
	}
	return checkpoint
}

func (s *scan) virtnbdParent(m *member) {
	meta := m.stream
	if m.kind.Whole() {
		if strings.Contains(m.name, ".inc.") {
			m.tell(ProblemFullAsInc, Note, "it is named like an increment, and its record says that it is a full backup: the tool had lost track of the changes; the chain begins anew here", "")
		}
		return
	}
	if meta.ParentCheckpoint != "" {
		m.claim(claim{point: meta.ParentCheckpoint, Evidence: Evidence{Proven, m.ID(), "says in its stream that its parent is " + meta.ParentCheckpoint}})
	}
}

// claimCheckpointList adds what the list of checkpoints (VM.cpt) and libvirt's
// records of them say of a member's parent.
func (s *scan) claimCheckpointList(m *member) {
	if m.kind != Incremental {
		return
	}
	for _, it := range s.inDir(m.dir) {
		if !strings.HasSuffix(it.name, ".cpt") || it.json == nil {
			continue
		}
		it.used = true
		var list []string
		if json.Unmarshal(it.json, &list) != nil {
			continue
		}
		if i := slices.Index(list, m.point); i > 0 {
			m.claim(claim{point: list[i-1], hint: len(m.claims) > 0, Evidence: Evidence{Implied, it.ID(), "lists " + list[i-1] + " before " + m.point}})
		}
	}
	for _, it := range s.inDir(path.Join(m.dir, "checkpoints")) {
		if c := it.checkpoint; c != nil {
			it.used = true
			if c.Name == m.point && c.Parent != "" {
				m.claim(claim{point: c.Parent, hint: true, Evidence: Evidence{Implied, it.ID(), "says that " + c.Parent + " was the checkpoint before " + m.point}})
			}
		}
	}
}

// virtnbdDomain is the domain whose description lies beside the streams.
func (s *scan) virtnbdDomain(dir string) string {
	for _, it := range s.inDir(dir) {
		if it.domain != nil && strings.HasPrefix(it.name, "vmconfig.") {
			return it.domain.Name
		}
	}
	return ""
}

// sibling is the item with a name in the folder or archive of another.
func (s *scan) sibling(it *item, name string) *item {
	for _, other := range s.inDir(it.dir) {
		if other.name == name {
			return other
		}
	}
	return nil
}

// virtnbdLossy is what every chain of virtnbdbackup has to be told.
var virtnbdLossy = Problem{Kind: ProblemLossy, Severity: Note,
	Text:   "if virtnbdbackup 2.21 or later made the increments that have no log here, ranges that were zeroed may come back with their old bytes: such a version leaves them out, and only its log tells",
	Advice: "look for \"sparse blocks\" in its logs"}
