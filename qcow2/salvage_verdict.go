package qcow2

// A Grade says how far the bytes of a range can be trusted.
type Grade uint8

const (
	// Sound: every rule that concerns the range holds, and nothing else in the image
	// contradicts. What was overwritten in a cluster of plain data itself nobody can see.
	Sound Grade = iota
	// Doubtful: there are bytes, and a reason why they may not be those of the guest.
	Doubtful
	// Lost: the bytes cannot be had. They read as zeros.
	Lost
)

var gradeNames = [...]string{"sound", "doubtful", "lost"}

func (g Grade) String() string { return gradeNames[min(int(g), len(gradeNames)-1)] }

// A Reason is a stable word for why a range is not sound; "" where it is.
type Reason string

// The reasons. Those that Check has a kind of finding for have its word.
const (
	// Doubtful: the entry breaks a rule, and its meaning can be guessed.
	ReasonReserved     Reason = "reserved-bits"
	ReasonUnaligned    Reason = "unaligned"
	ReasonZeroFlag     Reason = "zero-flag"
	ReasonSubclusters  Reason = "subclusters"
	ReasonCopied       Reason = "copied"
	ReasonCopiedPacked Reason = "copied-compressed"
	// Doubtful: the rest of the image contradicts.
	ReasonShared   Reason = "shared"
	ReasonOverlap  Reason = "overlap"
	ReasonRefcount Reason = "refcount"
	ReasonSuspect  Reason = "broken-neighbours"
	ReasonWiped    Reason = "leaks"
	// ReasonWipedUnlikely is ReasonWiped where what is known to be lost explains the leaks,
	// and other entries of the same sector are there.
	ReasonWipedUnlikely Reason = "leaks-explained"
	ReasonTable         Reason = "table-shared"
	ReasonTableData     Reason = "table-overlap"
	ReasonStreamEnd     Reason = "stream-end"
	ReasonStreamCut     Reason = "stream-cut"
	ReasonCutStream     Reason = "stream-beyond-end"
	// Doubtful: the bytes come from a place that the disk does not name.
	ReasonSnapshot Reason = "snapshot"
	ReasonOlder    Reason = "older"
	ReasonAssigned Reason = "assigned"
	// Doubtful: the whole image.
	ReasonHeader    Reason = "header"
	ReasonAmbiguous Reason = "l1-ambiguous"
	ReasonL1Found   Reason = "l1-found"
	ReasonGeometry  Reason = "geometry"
	ReasonNoBacking Reason = "backing-unknown"
	ReasonEvidence  Reason = "evidence"
	// Lost.
	ReasonEntry       Reason = "entry"
	ReasonL1Entry     Reason = "l1-entry"
	ReasonL1End       Reason = "l1-beyond-end"
	ReasonL1Wiped     Reason = "l1-wiped"
	ReasonWipedEntry  Reason = "wiped"
	ReasonBeyondEnd   Reason = "beyond-end"
	ReasonStream      Reason = "stream"
	ReasonUnreadable  Reason = "unreadable"
	ReasonDataFile    Reason = "data-file"
	ReasonBackingFile Reason = "backing-file"
	ReasonLimit       Reason = "limit"
)

var reasonTexts = map[Reason]string{
	ReasonReserved:      "the entry has reserved bits set; they were ignored",
	ReasonUnaligned:     "the entry does not point at a cluster; it was rounded down to one",
	ReasonZeroFlag:      "the entry has a zero flag that it must not have; it was ignored",
	ReasonSubclusters:   "the subcluster bits contradict each other; what is allocated was taken",
	ReasonCopied:        "the copied bit of the entry contradicts the refcount: the entry may have been damaged",
	ReasonCopiedPacked:  "the copied bit must not be set for a compressed cluster: the entry may have been damaged",
	ReasonShared:        "another range of the disk leads to the same cluster of the file; one of the two entries is wrong",
	ReasonOverlap:       "the cluster also holds a table or the header: one of them was overwritten",
	ReasonRefcount:      "the cluster counts as free, or as used less often than it is: it may have been given away and overwritten, or the entry is wrong",
	ReasonSuspect:       "entries of the same sector of the table break the format, and nothing else confirms this one",
	ReasonWiped:         "nothing is stored here, but clusters of the file are in use and nothing leads to them: an entry may have been wiped",
	ReasonWipedUnlikely: "nothing is stored here; clusters of the file are in use and nothing leads to them, but tables that are lost explain it: most likely sound",
	ReasonTable:         "the L2 table is used for several ranges of the disk; one at the most is right",
	ReasonTableData:     "the cluster of the table is used for something else as well",
	ReasonStreamEnd:     "the compressed stream goes on where the cluster should end: it may have been damaged",
	ReasonStreamCut:     "the compressed stream breaks off later; what came before the break is given",
	ReasonCutStream:     "the file ends before the entry says that the compressed data does",
	ReasonSnapshot:      "the active tables are broken here; read as a snapshot has it, which is the same or an older state",
	ReasonOlder:         "the newer link holds this range and lost it; these are the bytes of an older link",
	ReasonAssigned:      "the L2 table was put here by hand",
	ReasonHeader:        "the header is damaged in a field that decides what all bytes mean",
	ReasonL1Found:       "the L1 table is not where the header says, and the refcounts do not prove that the one which was found is that of the disk: it may be an older one",
	ReasonAmbiguous:     "the header is lost, and more than one table could be the L1 table",
	ReasonGeometry:      "the tables contradict the header or each other as a whole: the cluster size or the kind of L2 entries may be wrong",
	ReasonNoBacking:     "nothing is stored here, and the header that would name a backing file is lost",
	ReasonEvidence:      "the image is too large, or too odd, for the memory and limits that were given: not all that could contradict was looked at",
	ReasonEntry:         "the entry breaks the format, and what it meant cannot be told",
	ReasonL1Entry:       "the entry of the L1 table breaks the format: the L2 table is not known",
	ReasonL1Wiped:       "the entry of the L1 table is empty, and something says that it was not: its copied bit, or the refcounts and a snapshot that has an L2 table there",
	ReasonWipedEntry:    "the entry is empty, and by its refcount a cluster that a snapshot has was used here too",
	ReasonL1End:         "the L1 table ends before this range, or the file ends inside of it",
	ReasonBeyondEnd:     "it lies beyond the end of the file",
	ReasonStream:        "the compressed stream cannot be decoded",
	ReasonUnreadable:    "the device or file system under the file gave an error",
	ReasonDataFile:      "it is in an external data file, which was not opened, or at another place of it",
	ReasonBackingFile:   "it is in the backing file, which was not opened",
	ReasonLimit:         "a limit on what is read of an image was met",
}

// Text says in a sentence what the reason is; "" for the reason of a sound range.
func (r Reason) Text() string { return reasonTexts[r] }

// A Verdict says how far the bytes of a range of the disk can be trusted.
type Verdict struct {
	Off, Len int64 // guest bytes
	Grade    Grade
	Reason   Reason
	// Kind is how the bytes are stored: Absent in a link that holds nothing here; Zero
	// where they are lost.
	Kind Kind
	// Host is where the bytes are in the file, or where they should be if they are
	// lost, where HasHost is set. It counts from the start of the range.
	Host    HostOffset
	HasHost bool
	// Entry is where the table entry stands that decides; 0 where it is not known.
	Entry HostOffset
	// Depth is the layer that decides: 0 the image itself, 1 the disk below it.
	Depth int
}

// End is the guest offset of the first byte behind the range.
func (v Verdict) End() int64 { return v.Off + v.Len }

// follows reports that one verdict can say what a and b say. The place of the first
// entry stands for all.
func (a Verdict) follows(b Verdict) bool {
	if a.Grade != b.Grade || a.Reason != b.Reason || a.Kind != b.Kind || a.Depth != b.Depth || a.HasHost != b.HasHost || a.End() != b.Off {
		return false
	}
	return !a.HasHost || a.Kind == Compressed || a.Host+HostOffset(a.Len) == b.Host
}

// A piece is a part of a disk that is stored in one way, with what is known of it.
type piece struct {
	Extent
	grade  Grade
	reason Reason
	entry  HostOffset // where the entry stands
	owner  *Salvaged  // whose file holds it; nil: a disk below that is no salvaged one
	packed l2Entry    // of a Compressed piece of an owner
}

// part is what of p lies in [off, end); it must not be empty.
func (p piece) part(off, end int64) piece {
	host := p.Host
	p.Extent = p.Slice(off, end)
	if p.Kind == Compressed {
		p.Host = host // of the stream
	}
	return p
}

// doubt makes a sound piece doubtful.
func (p *piece) doubt(r Reason) {
	if p.grade == Sound && r != "" {
		p.grade, p.reason = Doubtful, r
	}
}

// lose makes a piece read as zeros.
func (p *piece) lose(r Reason) {
	p.grade, p.reason, p.Kind, p.Storage = Lost, r, Zero, nil
}

func (p piece) verdict() Verdict {
	return Verdict{Off: p.Off, Len: p.Len, Grade: p.grade, Reason: p.reason, Kind: p.Kind,
		Host: p.Host, HasHost: p.HasHost, Entry: p.entry, Depth: p.Depth}
}

// extent is how the piece looks to who only wants bytes: a lost one is Zero, without
// a place.
func (p piece) extent() Extent {
	e := p.Extent
	if p.grade == Lost || e.Kind == Compressed {
		e.Host, e.HasHost, e.Storage = 0, false, nil
	}
	return e
}
