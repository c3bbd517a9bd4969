package reconstruct

import (
	"fmt"
	"slices"

	"github.com/qbitkit/qbit/qcow2"
)

// An Increment is increments that follow each other, seen as one: it holds as data
// or zero whatever one of them holds, by the newest of them, and is absent elsewhere.
//
// What lay beyond the end of a link and comes back in a larger one after it was gone
// in between: it is zero, unless a newer link holds it. So an increment on top of
// the same disk gives the same bytes as its links one after the other.
//
// Like a Chain it may be used from several goroutines.
type Increment struct{ *Chain }

// NewIncrement makes one increment of links, oldest first, none of which is a full
// backup. It reads nothing. Links that cannot be right are a *ChainError: no link, a
// link without a disk, one disk twice, a Changed bitmap of another size, one that was
// opened with its backing file.
func NewIncrement(links []Link) (*Increment, error) {
	if err := validateLinks(links); err != nil {
		return nil, err
	}
	c := &Chain{links: slices.Clone(links)}
	for i := len(links) - 1; i >= 0; i-- {
		if err := c.addLevel(i); err != nil {
			return nil, err
		}
	}
	var err error
	oldest := &c.levels[len(c.levels)-1]
	if oldest.extents, err = linkExtents(links[0]); err != nil {
		return nil, &ChainError{Link: links[0].Name, Msg: err.Error()}
	}
	c.walkers.New = func() any { return newWalker(c) }
	return &Increment{c}, nil
}

// validateLinks checks what can be known of increments without reading them.
func validateLinks(links []Link) error {
	if len(links) == 0 {
		return &ChainError{Index: -1, Msg: "there is no link", Missing: "an increment"}
	}
	for i := range links {
		if err := validateLink(links, i, true); err != nil {
			return err
		}
	}
	return nil
}

// ReadAt implements qcow2.Disk. Bytes that are absent are in backups before the
// increment: to read them is a *RangeError.
func (i *Increment) ReadAt(p []byte, off int64) (int, error) {
	return diskReadAt(p, off, i.Size(), func(p []byte, off int64) (int, error) {
		for e, err := range i.Extents(off, int64(len(p))) {
			if err == nil && e.Kind == qcow2.Absent {
				err = i.rangeError("read", e, fmt.Errorf("no link holds these bytes: they are in the backups before"))
			}
			if err != nil {
				return 0, err
			}
		}
		return i.fill(p, off)
	})
}

// checkAbsent is that of a chain, for which reading what is absent is an error.
func (i *Increment) checkAbsent(e qcow2.Extent) error {
	_, err := i.ReadAt(make([]byte, 1), e.Off)
	return err
}

// Warnings says what the links of an increment cannot represent, and where sizes
// change, as the function of that name does for a chain.
func (i *Increment) Warnings() []Warning {
	var all []Warning
	high := int64(0)
	for n, l := range i.links {
		add := func(k WarningKind, format string, args ...any) {
			all = append(all, Warning{Link: l.Name, Index: n, Kind: k, Msg: fmt.Sprintf(format, args...)})
		}
		size := l.Disk.Size()
		warnLossy(l, add)
		if n > 0 {
			warnSize(i.links[n-1].Disk.Size(), high, size, add)
		}
		high = max(high, size)
	}
	return all
}
