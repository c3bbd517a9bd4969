package qcow2

import "math/bits"

// maxWrongBits is how many bits of an entry may break a rule for its meaning to be
// guessed without them: bytes that are no entry at all break many.
const maxWrongBits = 2

// A reading is what an L2 entry is taken for.
type reading struct {
	mapping
	grade  Grade
	reason Reason
	subs   bool // the subcluster bitmap decides
	copied bool
}

func lostReading(r Reason) reading { return reading{grade: Lost, reason: r} }

// readStandard reads a standard cluster descriptor; off is where its cluster begins
// on the disk, table where its L2 table stands.
func (v *salvageView) readStandard(e l2Entry, off int64, table HostOffset) reading {
	g, outside := v.img.geometry, v.img.dataFile != nil
	r := reading{subs: g.ExtendedL2, copied: e.copied()}
	if checkStandard(e, g, outside) != "" {
		if e, r.reason = mendStandard(e, g); r.reason == "" {
			return lostReading(ReasonEntry)
		}
		r.grade = Doubtful
	}
	r.mapping = e.meaning(outside)
	switch {
	case !r.hasHost:
	case outside && r.host != HostOffset(off):
		return lostReading(ReasonDataFile)
	case !outside && (r.host == 0 || r.host == table):
		return lostReading(ReasonEntry)
	}
	return r
}

// mendStandard guesses what an entry was that breaks a rule, and says which; "" where
// it cannot be guessed.
func mendStandard(e l2Entry, g Geometry) (l2Entry, Reason) {
	reserved := e & l2Reserved
	loose := e & entryOffset & l2Entry(g.ClusterSize()-1)
	if bits.OnesCount64(uint64(reserved|loose)) > maxWrongBits {
		return 0, ""
	}
	reason := ReasonZeroFlag
	switch {
	case reserved != 0:
		reason = ReasonReserved
	case loose != 0:
		reason = ReasonUnaligned
	}
	e &^= reserved | loose
	if g.ExtendedL2 {
		e &^= entryZero
	}
	if e.offset() == 0 && !(e.zero() && reason == ReasonZeroFlag) {
		return 0, ""
	}
	if g.Version < 3 && e.offset() != 0 {
		e &^= entryZero
	}
	return e, reason
}

// mendL1 is the L2 table of an L1 entry, with the reason to doubt it, or with that
// for which it is lost.
func mendL1(e l1Entry, g Geometry, fileSize int64) (HostOffset, Grade, Reason) {
	if checkL1(e, g, fileSize) == "" && e.offset() != 0 {
		return e.offset(), Sound, ""
	}
	reserved := e & l1Reserved
	loose := e.offset() & HostOffset(g.ClusterSize()-1)
	host := e.offset() &^ loose
	switch {
	case e == entryCopied: // a reader takes it for none
		return 0, Lost, ReasonL1Wiped
	case host == 0, bits.OnesCount64(uint64(reserved)|uint64(loose)) > maxWrongBits:
		return 0, Lost, ReasonL1Entry
	case uint64(host) >= uint64(fileSize):
		return host, Lost, ReasonBeyondEnd
	case reserved != 0:
		return host, Doubtful, ReasonReserved
	case loose != 0:
		return host, Doubtful, ReasonUnaligned
	}
	return host, Sound, "" // what the file has of it is looked at sector by sector
}

// plausible reports an entry that breaks no rule and leads into the file: what a table
// that holds such entries is can be told from other bytes.
func (e l2Entry) plausible(g Geometry, fileSize int64) bool {
	if e.compressed() {
		host, _ := e.compressedRange(g)
		return !e.copied() && host != 0 && within(host, 1, fileSize)
	}
	if checkStandard(e, g, false) != "" {
		return false
	}
	return e.offset() == 0 || within(e.offset(), 1, fileSize)
}
