package qcow2

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// atomicUnit is what a disk writes whole or not at all: docs/crash-safety.md.
const atomicUnit = 512

// A headerPlan is how the first cluster of an image comes to name another bitmap
// directory, or none: writes with a sync behind each, such that the cluster is
// sound after every one of them.
type headerPlan struct {
	now   []byte // the first cluster, as it stands after the steps so far
	steps []headerStep
}

// A headerStep is one write. Those that begin at 0 are one sector.
type headerStep struct {
	off  int
	data []byte
}

// write adds a step.
func (p *headerPlan) write(off int, data []byte) {
	copy(p.now[off:], data)
	p.steps = append(p.steps, headerStep{off, bytes.Clone(data)})
}

// writeSector adds a step that writes the first sector, as edit leaves it.
func (p *headerPlan) writeSector(edit func(sector []byte)) {
	sector := bytes.Clone(p.now[:atomicUnit])
	edit(sector)
	p.write(0, sector)
}

// setRefTable makes all steps keep a refcount table that has moved before them.
func (p *headerPlan) setRefTable(host HostOffset, clusters uint32) {
	p.editSectors(func(sector []byte) { putRefTable(sector, host, clusters) })
}

// editSectors makes all steps that write the first sector change it further.
func (p *headerPlan) editSectors(edit func(sector []byte)) {
	for _, s := range p.steps {
		if s.off == 0 {
			edit(s.data)
		}
	}
}

func putRefTable(sector []byte, host HostOffset, clusters uint32) {
	binary.BigEndian.PutUint64(sector[48:], uint64(host))
	binary.BigEndian.PutUint32(sector[56:], clusters)
}

// putAutoclear sets the bitmaps bit and clears the bits that this package does not
// know, as whoever writes to an image must.
func putAutoclear(sector []byte, bitmaps bool) {
	bits := binary.BigEndian.Uint64(sector[88:]) & AutoclearRawData
	if bitmaps {
		bits |= AutoclearBitmaps
	}
	binary.BigEndian.PutUint64(sector[88:], bits)
}

// overwriteSector writes the first sector. Where that fails, a part of it may have
// been written: it is put back as it was, as far as the file allows.
func overwriteSector(f File, sector, before []byte) error {
	err := writeFull(f, sector, 0)
	if err != nil {
		_ = writeFull(f, before, 0) // the first error is the one to tell
	}
	return err
}

// apply does the steps; sector is the first one as it stands.
func (p *headerPlan) apply(f File, sector []byte) error {
	for _, s := range p.steps {
		if s.off != 0 {
			if err := writeFull(f, s.data, HostOffset(s.off)); err != nil {
				return err
			}
		} else if err := overwriteSector(f, s.data, sector); err != nil {
			return err
		} else {
			sector = s.data
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// A headerArea is the part of the first cluster behind the header structure.
type headerArea struct {
	start  int // the header's length
	end    int // behind the last extension
	others []byte
	names  []byte // the feature name table; it serves messages alone
	host   int    // of the bitmaps extension; 0: there is none
	odd    bool   // it has the wrong length, or there are two
	last   bool   // no extension follows it
	name   []byte // of the backing file
	nameAt int
}

// surveyHeader says what the first cluster holds.
func surveyHeader(img *Image) *headerArea {
	h := &img.header
	a := &headerArea{start: int(h.HeaderLength), end: int(h.HeaderLength), nameAt: int(h.BackingFileOffset)}
	for _, e := range img.extensions {
		a.end = int(e.Host) + 8 + alignUp(len(e.Data), 8)
		switch e.Type {
		case ExtBitmaps:
			a.odd = a.odd || a.host != 0 || len(e.Data) != bitmapExtLength
			a.host, a.last = int(e.Host), true
			continue
		case ExtFeatureNames:
			a.names = appendExtension(nil, e.Type, e.Data)
		default:
			a.others = appendExtension(a.others, e.Type, e.Data)
		}
		a.last = false
	}
	if img.backingRef != nil {
		a.name = []byte(img.backingRef.Name)
	}
	return a
}

// planHeader plans the change of the first cluster, which is now as given, to the
// bitmaps extension with that data; nil: none.
func planHeader(img *Image, first, data []byte) (*headerPlan, error) {
	p := &headerPlan{now: bytes.Clone(first)}
	a := surveyHeader(img)
	var ext []byte
	if data != nil {
		ext = appendExtension(nil, ExtBitmaps, data)
	}
	if a.start+len(ext)+len(a.others)+8 <= atomicUnit {
		return p, p.planFirstSector(a, ext)
	}
	return p, p.planInPlace(a, ext)
}

// planFirstSector puts the bitmaps extension first and all others behind it, the
// feature name table last. All but that one fit into the first sector, so one
// write of it is the link. Where more sectors change, the feature names are left
// out by that write, which needs nothing beyond it, and come back afterwards.
func (p *headerPlan) planFirstSector(a *headerArea, ext []byte) error {
	area := bytes.Join([][]byte{ext, a.others, a.names}, nil)
	nameAt, err := a.placeName(a.start+len(area)+8, len(p.now))
	if err != nil { // without the feature names there is more room
		area = bytes.Join([][]byte{ext, a.others}, nil)
		if nameAt, err = a.placeName(a.start+len(area)+8, len(p.now)); err != nil {
			return err
		}
	}
	want := p.compose(a, area, nameAt, ext != nil)
	if bytes.Equal(want[atomicUnit:], p.now[atomicUnit:]) {
		p.write(0, want[:atomicUnit])
		return nil
	}
	p.moveName(a, nameAt)
	p.write(0, p.compose(a, bytes.Join([][]byte{ext, a.others}, nil), nameAt, ext != nil)[:atomicUnit])
	p.writeRest(want)
	if !bytes.Equal(p.now[:atomicUnit], want[:atomicUnit]) {
		p.write(0, want[:atomicUnit])
	}
	return nil
}

// placeName is where the name of the backing file goes when the extension area
// ends at end. Where it cannot stay it goes behind its old place, so that both
// are there until the header names the new one; a cluster of one sector needs no
// such care.
func (a *headerArea) placeName(end, cluster int) (int, error) {
	at := a.nameAt
	switch {
	case len(a.name) == 0:
		at = 0
	case cluster == atomicUnit:
		at = end
	case at < end:
		at = max(end, a.nameAt+len(a.name))
	}
	if end > cluster || at+len(a.name) > cluster {
		return 0, &UnsupportedError{Feature: fmt.Sprintf(
			"a header of %d bytes with a backing file name of %d bytes: there is no room for the bitmaps extension in a cluster of %d bytes",
			a.start, len(a.name), cluster)}
	}
	return at, nil
}

// compose is a first cluster with that extension area.
func (p *headerPlan) compose(a *headerArea, area []byte, nameAt int, bitmaps bool) []byte {
	b := make([]byte, len(p.now))
	copy(b, p.now[:a.start])
	copy(b[a.start:], area)
	copy(b[nameAt:], a.name)
	binary.BigEndian.PutUint64(b[8:], uint64(nameAt))
	putAutoclear(b, bitmaps)
	return b
}

// moveName writes the part of the backing file name that is not in the first
// sector to a place that nothing uses yet.
func (p *headerPlan) moveName(a *headerArea, nameAt int) {
	from := max(nameAt, atomicUnit)
	if end := nameAt + len(a.name); nameAt != a.nameAt && from < end {
		p.write(from, a.name[from-nameAt:])
	}
}

// writeRest writes what differs behind the first sector.
func (p *headerPlan) writeRest(want []byte) {
	from, to := atomicUnit, len(want)
	for from < to && want[from] == p.now[from] {
		from++
	}
	for to > from && want[to-1] == p.now[to-1] {
		to--
	}
	if from < to {
		p.write(from, want[from:to])
	}
}

// planInPlace is for images whose other extensions fill the first sector. They stay
// where they are. While the bitmaps extension changes, the autoclear bit is clear:
// a crash leaves bitmaps that are marked inconsistent, never wrong ones.
func (p *headerPlan) planInPlace(a *headerArea, ext []byte) error {
	switch {
	case ext != nil && a.odd:
		return &UnsupportedError{Feature: "a broken bitmaps extension among others that fill the header's first sector"}
	case ext != nil && a.host == 0:
		return p.planAppend(a, ext)
	case ext != nil && a.host+len(ext) <= atomicUnit:
		p.writeSector(func(s []byte) {
			copy(s[a.host:], ext)
			putAutoclear(s, true)
		})
		return nil
	}
	p.writeSector(func(s []byte) { putAutoclear(s, false) })
	switch {
	case a.host == 0:
	case ext != nil:
		p.write(a.host+8, ext[8:])
		p.writeSector(func(s []byte) { putAutoclear(s, true) })
	case a.last && !a.odd:
		p.write(a.host, make([]byte, 8)) // the end of the extensions
	}
	return nil
}

// planAppend adds the extension behind the others: its data first, where nothing
// is read yet, then its type and length, then the bit that makes it count.
func (p *headerPlan) planAppend(a *headerArea, ext []byte) error {
	end := a.end + len(ext) + 8
	nameAt, err := a.placeName(end, len(p.now))
	if err != nil {
		return err
	}
	if nameAt != a.nameAt {
		p.moveName(a, nameAt)
		p.writeSector(func(s []byte) { binary.BigEndian.PutUint64(s[8:], uint64(nameAt)) })
	}
	p.write(a.end+8, append(bytes.Clone(ext[8:]), make([]byte, 8)...))
	p.write(a.end, ext[:8])
	p.writeSector(func(s []byte) { putAutoclear(s, true) })
	return nil
}
