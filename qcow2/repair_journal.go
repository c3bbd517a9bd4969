package qcow2

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// journalFormat names the form of a Journal.
const journalFormat = "qbit repair journal 1"

// ErrChanged reports an image that is not the one, or not in the state, that a plan or
// a journal is about.
var ErrChanged = errors.New("the image is not as the journal says: something else wrote to it since, or it is another image")

// A Journal is what a repair changes: old and new bytes. With it the repair can be
// undone, also one that was interrupted.
type Journal struct {
	Format string      `json:"format"`
	Image  string      `json:"image"` // its name, for people
	Mode   RepairMode  `json:"repair"`
	Phases []jsonPhase `json:"phases"`
}

type jsonPhase struct {
	SizeBefore int64        `json:"size-before"`
	SizeAfter  int64        `json:"size-after"`
	Changes    []jsonChange `json:"changes"`
}

// A jsonChange has bytes in base64.
type jsonChange struct {
	Offset int64  `json:"offset"`
	Old    []byte `json:"old"`
	New    []byte `json:"new"`
}

// maxJournalFile bounds the phases of a journal that is read: no file is larger.
const maxJournalFile = int64(1) << 62

// WriteJournal writes the journal of a repair of the image that is called name. It has
// to be safe on its disk before Apply.
func (p *Repair) WriteJournal(w io.Writer, name string) error {
	j := Journal{Format: journalFormat, Image: name, Mode: p.Mode}
	for _, ph := range p.Phases {
		x := jsonPhase{ph.SizeBefore, ph.SizeAfter, []jsonChange{}}
		for _, c := range ph.Changes {
			x.Changes = append(x.Changes, jsonChange(c))
		}
		j.Phases = append(j.Phases, x)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	return enc.Encode(j)
}

// ReadJournal reads what WriteJournal wrote.
func ReadJournal(r io.Reader) (*Journal, error) {
	var j Journal
	if err := json.NewDecoder(r).Decode(&j); err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	if j.Format != journalFormat {
		return nil, fmt.Errorf("reading the journal: its format is %q, not %q", j.Format, journalFormat)
	}
	for _, p := range j.Phases {
		if err := p.validate(); err != nil {
			return nil, fmt.Errorf("reading the journal: %w", err)
		}
	}
	return &j, nil
}

func (p *jsonPhase) validate() error {
	if p.SizeBefore < 0 || p.SizeAfter < p.SizeBefore || p.SizeAfter > maxJournalFile {
		return fmt.Errorf("the file goes from %d to %d bytes", p.SizeBefore, p.SizeAfter)
	}
	for _, c := range p.Changes {
		if c.Offset < 0 || c.Offset > p.SizeAfter || int64(len(c.New)) > p.SizeAfter-c.Offset || len(c.Old) > len(c.New) {
			return fmt.Errorf("a change of %d bytes to %d at %d in a file of %d", len(c.Old), len(c.New), c.Offset, p.SizeAfter)
		}
	}
	return nil
}

// Apply writes the repair to the file that was planned on, phase by phase with a sync
// behind each. Error: ErrChanged, before anything is written, where the file changed
// since. After any other error the image is as docs/crash-safety.md says, and the
// journal undoes it.
func (p *Repair) Apply(f File) error {
	if err := p.unchanged(f); err != nil {
		return err
	}
	for _, ph := range p.Phases {
		if err := ph.apply(f); err != nil {
			return fmt.Errorf("writing the repair: %w", err)
		}
	}
	return nil
}

// unchanged reports that the bytes that will be changed are what they were.
func (p *Repair) unchanged(f File) error {
	seen := map[int64]bool{}
	for _, ph := range p.Phases {
		for _, c := range ph.Changes {
			for at := 0; at < len(c.New); at += atomicUnit {
				off := c.Offset + int64(at)
				if seen[off] {
					continue
				}
				seen[off] = true
				got, err := readSector(f, off)
				if err != nil {
					return err
				}
				if !bytes.Equal(got, padSector(c.Old, at)) {
					return ErrChanged
				}
			}
		}
	}
	return nil
}

// readSector reads a sector; behind the end of the file are zeros.
func readSector(f File, off int64) ([]byte, error) {
	b := make([]byte, atomicUnit)
	if n, err := f.ReadAt(b, off); n < len(b) && err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}

// padSector is the sector at that place of b, with zeros behind its end.
func padSector(b []byte, at int) []byte {
	s := make([]byte, atomicUnit)
	copy(s, b[min(at, len(b)):])
	return s
}

func (ph *Phase) apply(f File) error {
	if ph.SizeAfter != ph.SizeBefore {
		if err := f.Truncate(ph.SizeAfter); err != nil {
			return err
		}
	}
	for _, c := range ph.Changes {
		if err := writeFull(f, c.New, HostOffset(c.Offset)); err != nil {
			return err
		}
	}
	return f.Sync()
}

// Undo takes a repair back, the last phase first, with a sync behind each. f is a file
// of size bytes. Every sector must be as one of the phases left it, so that an
// interrupted repair, or an interrupted Undo, can be taken back too. Error: ErrChanged,
// before anything is written.
func (j *Journal) Undo(f File, size int64) error {
	if err := j.known(f, size); err != nil {
		return err
	}
	for i := len(j.Phases) - 1; i >= 0; i-- {
		if err := j.Phases[i].undo(f); err != nil {
			return fmt.Errorf("undoing the repair: %w", err)
		}
	}
	return nil
}

// known reports that all that the journal speaks of is as it says, before or after.
func (j *Journal) known(f File, size int64) error {
	ok := len(j.Phases) == 0
	states := map[int64][][]byte{}
	for _, p := range j.Phases {
		ok = ok || size == p.SizeBefore || size == p.SizeAfter
		for _, c := range p.Changes {
			for at := 0; at < len(c.New); at += atomicUnit {
				off := c.Offset + int64(at)
				states[off] = append(states[off], padSector(c.Old, at), padSector(c.New, at))
			}
		}
	}
	if !ok {
		return ErrChanged
	}
	for off, known := range states {
		got, err := readSector(f, off)
		if err != nil {
			return err
		}
		if !containsBytes(known, got) {
			return ErrChanged
		}
	}
	return nil
}

func containsBytes(list [][]byte, b []byte) bool {
	for _, x := range list {
		if bytes.Equal(x, b) {
			return true
		}
	}
	return false
}

func (p *jsonPhase) undo(f File) error {
	for _, c := range p.Changes {
		if len(c.Old) == 0 {
			continue
		}
		if err := writeFull(f, c.Old, HostOffset(c.Offset)); err != nil {
			return err
		}
	}
	if p.SizeAfter != p.SizeBefore {
		if err := f.Truncate(p.SizeBefore); err != nil {
			return err
		}
	}
	return f.Sync()
}
