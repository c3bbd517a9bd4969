package plan

import (
	"fmt"
	"time"
)

// A member is a backup as the tool that left it describes it, before it is known
// what stands on what.
type member struct {
	*item
	tool   Tool
	scope  string // members of two scopes never belong together: a folder, an archive, a job
	domain string
	disk   string
	point  string
	kind   Kind
	time   time.Time
	lossy  string
	// lossless says that a log shows that nothing was left out.
	lossless bool
	alone    bool   // see Source.Alone
	sum      string // the file with the adler32
	xml      *Document
	claims   []claim
	said     []Problem
}

// A claim is what one record says of a member's parent.
type claim struct {
	point string // the parent is the backup of this point,
	id    string // or it is this file; both empty: there is no parent
	// hint marks a claim that does not count beside any other, since it may well
	// mean something else: a backing file's name, the current checkpoint.
	hint    bool
	backing bool   // the name of a backing file says so
	advice  string // what to do if it is missing; empty: find it
	Evidence
}

func (m *member) claim(c claim) { m.claims = append(m.claims, c) }

// tell adds a problem that the tool's reader found.
func (m *member) tell(kind ProblemKind, severity Severity, text, advice string) {
	m.said = append(m.said, Problem{Kind: kind, Severity: severity, Text: text, Advice: advice})
}

// newMember marks an item as used.
func newMember(it *item, tool Tool, scope string) *member {
	it.used = true
	m := &member{item: it, tool: tool, scope: scope}
	if it.broken != nil {
		m.tell(ProblemUnreadable, Refuse, it.broken.Error(), "")
	}
	if it.image != nil && it.image.corrupt {
		m.tell(ProblemCorrupt, Doubt, "the image is marked corrupt: a program found it broken, and any part of it may be wrong", "look at it with qbit check")
	}
	return m
}

// group is what members of one disk have in common.
func (m *member) group() groupKey { return groupKey{m.scope, m.domain, m.disk} }

// setKind sets what a member holds, and what its format cannot say.
func (m *member) setKind(kind Kind) {
	m.kind, m.lossy = kind, ""
	switch {
	case kind.Whole():
	case m.raw:
		m.lossy = "a raw file"
	case m.image != nil && m.image.version == 2 && m.image.backing == "":
		m.lossy = "qcow2 version 2 without a backing file"
	}
}

// doubtWhole doubts an increment whose header names no backing file, where the
// writer of it, libvirt or another tool, has one there: it may be a full backup
// under the name of an increment, and on its parent old bytes would shine through
// its holes.
func (m *member) doubtWhole(writer, record string) {
	if m.image == nil || m.image.backing != "" {
		return
	}
	m.tell(ProblemFullAsInc, Doubt,
		fmt.Sprintf("%s calls it an increment, and its header names no backing file, as that of an increment by %s does: it may be a full backup under an increment's name, or its file was made beforehand", record, writer),
		"--assume restores it as an increment")
	for i := range m.claims {
		m.claims[i].Grade = Assumed
	}
}

// planned is the member as a part of the plan.
func (m *member) planned() *Backup {
	b := &Backup{ID: m.ID(), Point: m.point, Kind: m.kind, Time: m.time, Size: m.diskSize(), Stored: m.size,
		Source: Source{Path: m.path, Member: m.member, Format: m.format(), Alone: m.alone, Checksum: m.sum}, Lossy: m.lossy, DomainXML: m.xml, Problems: m.said}
	if m.lossy != "" {
		b.add(ProblemLossy, Doubt, "give the bitmap of that interval with --changed",
			"this increment does not hold all zeroes (%s): ranges that were zeroed or discarded come back with their old bytes", m.lossy)
	}
	return b
}
