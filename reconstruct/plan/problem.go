package plan

import "fmt"

// Severity is what a problem means for a restore.
type Severity uint8

// The severities.
const (
	// Note: worth knowing; what is restored is right all the same.
	Note Severity = iota
	// Doubt: what is restored may be wrong, and nothing can tell.
	Doubt
	// Refuse: nothing that needs this backup is restored.
	Refuse
)

var severityNames = [...]string{"note", "doubt", "refuse"}

func (s Severity) String() string {
	if int(s) < len(severityNames) {
		return severityNames[s]
	}
	return fmt.Sprintf("Severity(%d)", uint8(s))
}

// MarshalText implements encoding.TextMarshaler.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Severity) UnmarshalText(b []byte) error {
	for i, name := range severityNames {
		if name == string(b) {
			*s = Severity(i)
			return nil
		}
	}
	return fmt.Errorf("there is no severity %q", b)
}

// ProblemKind is what a problem is about.
type ProblemKind string

// The kinds of problems.
const (
	ProblemGap           ProblemKind = "gap"            // the parent is not there
	ProblemContradiction ProblemKind = "contradiction"  // records disagree
	ProblemCandidates    ProblemKind = "candidates"     // two backups for one place
	ProblemForeign       ProblemKind = "foreign"        // of another disk or domain
	ProblemFullAsInc     ProblemKind = "full-as-inc"    // a full backup under an increment's name
	ProblemFlatRebase    ProblemKind = "flat-rebase"    // headers name the full, records another parent
	ProblemLossy         ProblemKind = "lossy"          // zeroes cannot be told from unchanged ranges
	ProblemResized       ProblemKind = "resized"        // the size changes
	ProblemLoop          ProblemKind = "loop"           // a backup that stands on itself
	ProblemPartial       ProblemKind = "partial"        // the backup was interrupted
	ProblemUnreadable    ProblemKind = "unreadable"     // the file cannot be read as what it should be
	ProblemAssumed       ProblemKind = "assumed"        // nothing but an assumption holds the edge
	ProblemMissingFile   ProblemKind = "missing-file"   // a record names a file that is not there
	ProblemRecord        ProblemKind = "record"         // a record that cannot be read
	ProblemNoBackup      ProblemKind = "no-backup"      // there is nothing to restore from
	ProblemLimit         ProblemKind = "limit"          // not everything was looked at
	ProblemCorrupt       ProblemKind = "marked-corrupt" // the image says of itself that it is broken
)

// A Problem is something that a user has to know, in a sentence, with what to do.
type Problem struct {
	Kind     ProblemKind `json:"kind"`
	Severity Severity    `json:"severity"`
	Text     string      `json:"text"`
	Advice   string      `json:"advice,omitempty"`
}

func (p Problem) String() string {
	if p.Advice == "" {
		return p.Text
	}
	return p.Text + "; " + p.Advice
}

// add notes a problem once.
func (b *Backup) add(kind ProblemKind, severity Severity, advice, format string, args ...any) {
	p := Problem{Kind: kind, Severity: severity, Text: fmt.Sprintf(format, args...), Advice: advice}
	for _, q := range b.Problems {
		if q == p {
			return
		}
	}
	b.Problems = append(b.Problems, p)
}

// worst is the worst severity of the backup's own problems.
func (b *Backup) worst() Severity {
	worst := Note
	for _, p := range b.Problems {
		worst = max(worst, p.Severity)
	}
	return worst
}
