package reconstruct

import (
	"fmt"

	"github.com/qbitkit/qbit/qcow2"
)

// WarningKind is what a Warning is about.
type WarningKind uint8

const (
	// WarnLossy: the link cannot represent zeroes, and what changed is not known.
	WarnLossy WarningKind = iota
	// WarnSolid: a raw increment without a single hole hides all links below it.
	WarnSolid
	// WarnShrunk: the disk of the link is smaller than that before it.
	WarnShrunk
	// WarnGrown: the disk of the link is larger than any before it.
	WarnGrown
	// WarnRegrown: the disk of the link is larger again after it was smaller.
	WarnRegrown
)

var warningNames = [...]string{"lossy", "solid", "shrunk", "grown", "regrown"}

func (k WarningKind) String() string {
	if int(k) < len(warningNames) {
		return warningNames[k]
	}
	return fmt.Sprintf("WarningKind(%d)", uint8(k))
}

// Lossy reports that bytes may come back wrong, not just that something is
// worth knowing.
func (k WarningKind) Lossy() bool { return k == WarnLossy || k == WarnSolid }

// A Warning is something that a chain cannot say, and that its user has to know.
type Warning struct {
	Link  string
	Index int // 0 for the oldest
	Kind  WarningKind
	Msg   string // a sentence or two
}

// Warnings says what the links cannot represent and where sizes change. It may
// be asked for a chain that Point refuses.
func Warnings(links []Link) []Warning {
	var all []Warning
	low, high := int64(0), int64(0) // sizes of the disk so far
	for i, l := range links {
		if l.Disk == nil {
			continue
		}
		add := func(k WarningKind, format string, args ...any) {
			all = append(all, Warning{Link: l.Name, Index: i, Kind: k, Msg: fmt.Sprintf(format, args...)})
		}
		size := l.Disk.Size()
		if i > 0 {
			warnLossy(l, add)
			warnSize(low, high, size, add)
		}
		low, high = size, max(high, size)
	}
	return all
}

type addWarning func(k WarningKind, format string, args ...any)

// warnLossy warns about an increment that shows a zeroed range as unchanged.
func warnLossy(l Link, add addWarning) {
	if l.Changed != nil {
		return
	}
	why := l.Lossy
	if l.Raw && why == "" {
		why = "a raw file"
	}
	if l.Raw && solid(l) {
		add(WarnSolid, "This raw file has no holes, so it says that the whole disk changed and hides every link before it. "+
			"If it was copied without its holes, the disk comes back as zeros outside of what changed. "+
			"The bitmap of what changed in this interval mends it.")
		return
	}
	if why != "" {
		add(WarnLossy, "This increment cannot represent zeroes (%s): ranges that were zeroed or discarded in this interval "+
			"are recorded as unchanged, and come back with their old bytes. "+
			"The bitmap of what changed in this interval mends it.", why)
	}
}

// solid reports a disk that is one run of data.
func solid(l Link) bool {
	size := l.Disk.Size()
	for e, err := range l.Disk.Extents(0, size) {
		return err == nil && e.Kind == qcow2.Data && e.Len == size
	}
	return false
}

// warnSize warns about a disk that has size bytes now, had before, and at most high.
func warnSize(before, high, size int64, add addWarning) {
	switch {
	case size < before:
		add(WarnShrunk, "The disk shrank from %d to %d bytes. What lay beyond reads as zero in every later link that does not hold it.",
			before, size)
	case size > before && high > before:
		add(WarnRegrown, "The disk grew from %d to %d bytes after it had been larger (%d bytes). "+
			"What older links hold beyond %d bytes is gone: it reads as zero unless this link or a later one holds it.",
			before, size, high, before)
	case size > before:
		add(WarnGrown, "The disk grew from %d to %d bytes. What is new reads as zero unless this link or a later one holds it. "+
			"If the disk was made smaller first and larger afterwards within this interval, the increment does not show it.",
			before, size)
	}
}
