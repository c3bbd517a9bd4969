package qcow2

import (
	"fmt"
	"io"
	"slices"
)

// A Change is a run of bytes of the image file that a repair changes.
type Change struct {
	Offset int64
	Old    []byte // shorter than New where the file ended
	New    []byte
}

// A Phase is changes that may reach the disk in any order; a sync ends it.
type Phase struct {
	SizeBefore, SizeAfter int64 // of the file
	Changes               []Change
}

// An overlay is a File that keeps what is written to it in memory, and remembers it
// in phases. A repair is first made on one, looked at, and only then written.
type overlay struct {
	base    io.ReaderAt
	size    int64
	max     int64 // bytes that may be kept
	sectors map[int64]*[atomicUnit]byte

	begun  int64                       // the size when the phase began
	old    map[int64]*[atomicUnit]byte // sectors of this phase as they were before it
	phases []Phase
}

func newOverlay(base io.ReaderAt, size, limit int64) *overlay {
	return &overlay{base: base, size: size, max: limit, begun: size,
		sectors: map[int64]*[atomicUnit]byte{}, old: map[int64]*[atomicUnit]byte{}}
}

// ReadAt implements File. Of a range without changes it is one read.
func (o *overlay) ReadAt(p []byte, off int64) (int, error) {
	if off >= o.size {
		return 0, io.EOF
	}
	want := int(min(int64(len(p)), o.size-off))
	if err := o.readBase(p[:want], off); err != nil {
		return 0, err
	}
	if len(o.sectors) > 0 {
		for s := off / atomicUnit; s*atomicUnit < off+int64(want); s++ {
			if b := o.sectors[s]; b != nil {
				from := max(off, s*atomicUnit)
				copy(p[from-off:want], b[from-s*atomicUnit:])
			}
		}
	}
	if want < len(p) {
		return want, io.EOF
	}
	return want, nil
}

// readBase reads what the file holds; behind its end are zeros.
func (o *overlay) readBase(p []byte, off int64) error {
	n, err := o.base.ReadAt(p, off)
	if n < len(p) && err != nil && err != io.EOF {
		return err
	}
	clear(p[n:])
	return nil
}

// WriteAt implements File.
func (o *overlay) WriteAt(p []byte, off int64) (int, error) {
	end := off + int64(len(p))
	for s := off / atomicUnit; s*atomicUnit < end; s++ {
		b, err := o.sector(s)
		if err != nil {
			return 0, err
		}
		from := max(off, s*atomicUnit)
		copy(b[from-s*atomicUnit:], p[from-off:])
	}
	o.size = max(o.size, end)
	return len(p), nil
}

// sector is a sector that is about to be written.
func (o *overlay) sector(s int64) (*[atomicUnit]byte, error) {
	b := o.sectors[s]
	if o.old[s] != nil {
		return b, nil
	}
	before := new([atomicUnit]byte)
	if b != nil {
		*before = *b
	} else if s*atomicUnit < o.size {
		if err := o.readBase(before[:], s*atomicUnit); err != nil {
			return nil, err
		}
	}
	if int64(len(o.sectors)+1)*atomicUnit > o.max {
		return nil, fmt.Errorf("the repair would change more than %d bytes; it may with more memory", o.max)
	}
	o.old[s] = before
	if b == nil {
		b = new([atomicUnit]byte)
		*b = *before
		o.sectors[s] = b
	}
	return b, nil
}

// Truncate implements File. Nothing here makes a file shorter than it was.
func (o *overlay) Truncate(size int64) error {
	if size < o.begun {
		return fmt.Errorf("refusing to cut the image to %d bytes: this is a bug", size)
	}
	o.size = size
	return nil
}

// Sync implements File: it ends a phase.
func (o *overlay) Sync() error {
	p := Phase{SizeBefore: o.begun, SizeAfter: o.size}
	changed := make([]int64, 0, len(o.old))
	for s, before := range o.old {
		if *before != *o.sectors[s] || s*atomicUnit >= o.begun {
			changed = append(changed, s)
		}
	}
	slices.Sort(changed)
	for _, s := range changed {
		p.add(s, o.old[s], o.sectors[s])
	}
	clear(o.old)
	o.begun = o.size
	if len(p.Changes) > 0 || p.SizeBefore != p.SizeAfter {
		o.phases = append(o.phases, p)
	}
	return nil
}

// add adds a sector, to the change before where it follows that.
func (p *Phase) add(sector int64, before, now *[atomicUnit]byte) {
	off := sector * atomicUnit
	old := before[:clampLen(p.SizeBefore-off)]
	fresh := now[:clampLen(p.SizeAfter-off)]
	if n := len(p.Changes); n > 0 {
		if last := &p.Changes[n-1]; last.Offset+int64(len(last.New)) == off && len(last.New)%atomicUnit == 0 {
			last.Old, last.New = append(last.Old, old...), append(last.New, fresh...)
			return
		}
	}
	p.Changes = append(p.Changes, Change{off, slices.Clone(old), slices.Clone(fresh)})
}

func clampLen(n int64) int64 { return max(0, min(n, atomicUnit)) }
