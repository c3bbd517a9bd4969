package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// SetBacking names another backing file in the header, or none where ref is nil, and
// touches nothing else: what the guest reads is the caller's business. The format of
// the backing file is always written. Bitmaps stay as they are.
//
// A crash leaves the old name and format, or the new ones. Errors: a name that is not
// of 1 to 1023 bytes, no format, *UnsupportedError for an image with a raw data file,
// which has none, and for a first cluster that has no room for the names.
func (e *Editor) SetBacking(ref *Ref) error {
	if err := e.ready(); err != nil {
		return err
	}
	if err := e.img.checkBacking(ref); err != nil {
		return err
	}
	first, err := e.img.firstCluster()
	if err != nil {
		return err
	}
	p, err := planBacking(e.img, first, ref)
	if err != nil {
		return err
	}
	if e.failed = p.apply(e.f, first[:atomicUnit]); e.failed != nil {
		return fmt.Errorf("writing the name of the backing file: %w", e.failed)
	}
	return e.changed(max(e.img.size, p.reaches()))
}

func (img *Image) checkBacking(ref *Ref) error {
	switch {
	case ref == nil:
		return nil
	case img.dataFile != nil && img.dataFile.Raw:
		return &UnsupportedError{Feature: "a backing file of an image with a raw external data file"}
	case ref.Name == "" || len(ref.Name) > maxBackingFileName:
		return fmt.Errorf("the name of a backing file must have 1 to %d bytes, %.40q has %d", maxBackingFileName, ref.Name, len(ref.Name))
	case ref.Format == "":
		return errors.New("the format of the backing file must be given: guessing it is not safe")
	}
	return nil
}

// firstCluster is the first cluster; what a short file lacks of it is zero.
func (img *Image) firstCluster() ([]byte, error) {
	first := make([]byte, img.geometry.ClusterSize())
	if err := readFull(img.r, first[:min(int64(len(first)), img.size)], 0); err != nil {
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	return first, nil
}

// reaches is the end of what the steps write.
func (p *headerPlan) reaches() int64 {
	end := 0
	for _, s := range p.steps {
		end = max(end, s.off+len(s.data))
	}
	return int64(end)
}

// A backingPlan plans another name of the backing file. The link is the first sector:
// it holds all extensions but the feature names, and the place of the name, which was
// written before to where the old one is not.
type backingPlan struct {
	headerPlan
	a        *headerArea
	old, new []byte // extensions that stand in the first sector: all but the feature names
	name     []byte // the new one; nil: none
}

// planBacking plans it on the first cluster, as it stands.
func planBacking(img *Image, first []byte, ref *Ref) (*headerPlan, error) {
	p := &backingPlan{headerPlan: headerPlan{now: bytes.Clone(first)}, a: surveyHeader(img)}
	for _, e := range img.extensions {
		switch e.Type {
		case ExtFeatureNames:
			continue
		case ExtBackingFormat:
		default:
			p.new = appendExtension(p.new, e.Type, e.Data)
		}
		p.old = appendExtension(p.old, e.Type, e.Data)
	}
	if ref != nil {
		p.name, p.new = []byte(ref.Name), appendExtension(p.new, ExtBackingFormat, []byte(ref.Format))
	}
	if p.a.start+max(len(p.old), len(p.new))+8 > atomicUnit {
		return &p.headerPlan, p.planSlot(img, ref)
	}
	return &p.headerPlan, p.planWhole()
}

// planWhole lays the extensions out anew.
func (p *backingPlan) planWhole() error {
	area := bytes.Join([][]byte{p.new, p.a.names}, nil)
	nameAt, ok := p.place(p.a.start + len(area) + 8)
	if !ok { // without the feature names there is more room
		area = p.new
		if nameAt, ok = p.place(p.a.start + len(area) + 8); !ok {
			return p.noRoom()
		}
	}
	want := p.compose(area, nameAt)
	if !bytes.Equal(want[atomicUnit:], p.now[atomicUnit:]) {
		p.compact()
		p.writeName(nameAt)
		p.write(0, p.compose(p.new, nameAt)[:atomicUnit])
		p.writeRest(want)
	}
	if !bytes.Equal(p.now[:atomicUnit], want[:atomicUnit]) {
		p.write(0, want[:atomicUnit])
	}
	return nil
}

func (p *backingPlan) noRoom() error {
	return &UnsupportedError{Feature: fmt.Sprintf("a backing file name of %d bytes: there is no room for it beside the old one (%d bytes) in a first cluster of %d bytes",
		len(p.name), len(p.a.name), len(p.now))}
}

// place is where the new name goes when the extensions end at end: not over the old
// one, but for the part in the first sector, which changes as a whole.
func (p *backingPlan) place(end int) (int, bool) {
	if len(p.name) == 0 {
		return 0, end <= len(p.now)
	}
	oldFrom, oldTo := max(p.a.nameAt, atomicUnit), p.a.nameAt+len(p.a.name)
	at := end
	stays := at == p.a.nameAt && bytes.Equal(p.name, p.a.name)
	if from, to := max(at, atomicUnit), at+len(p.name); !stays && from < to && from < oldTo && oldFrom < to {
		at = max(end, oldTo)
	}
	return at, at+len(p.name) <= len(p.now)
}

// compose is a first cluster with those extensions and the new name.
func (p *backingPlan) compose(area []byte, nameAt int) []byte {
	b := make([]byte, len(p.now))
	copy(b, p.now[:p.a.start])
	copy(b[p.a.start:], area)
	copy(b[nameAt:], p.name)
	p.putName(b, nameAt)
	return b
}

// putName writes the place of the new name.
func (p *backingPlan) putName(sector []byte, nameAt int) {
	if len(p.name) == 0 {
		nameAt = 0
	}
	binary.BigEndian.PutUint64(sector[8:], uint64(nameAt))
	binary.BigEndian.PutUint32(sector[16:], uint32(len(p.name)))
	clearUnknownAutoclear(sector)
}

// clearUnknownAutoclear clears the autoclear bits that this package does not know, as
// whoever writes to an image must. Version 2 has none.
func clearUnknownAutoclear(sector []byte) {
	if binary.BigEndian.Uint32(sector[4:]) >= 3 {
		bits := binary.BigEndian.Uint64(sector[88:])
		binary.BigEndian.PutUint64(sector[88:], bits&(AutoclearBitmaps|AutoclearRawData))
	}
}

// compact takes the feature names out, so that no extension reaches beyond the first
// sector; the backing file stays the old one.
func (p *backingPlan) compact() {
	if p.a.end+8 <= atomicUnit || p.a.end <= atomicUnit && p.a.end == p.a.nameAt {
		return
	}
	p.writeSector(func(s []byte) {
		end := p.a.start + copy(s[p.a.start:], p.old)
		limit := atomicUnit
		if len(p.a.name) > 0 {
			limit = min(limit, p.a.nameAt)
		}
		if end < limit {
			clear(s[end:limit])
		}
	})
}

// writeName writes the part of the new name that is not in the first sector.
func (p *backingPlan) writeName(nameAt int) {
	from := max(nameAt, atomicUnit)
	if end := nameAt + len(p.name); from < end {
		p.write(from, p.name[from-nameAt:])
	}
}

// planSlot is for images whose extensions do not fit into the first sector. They stay
// where they are; only a format that has the length of the old one, to eight bytes,
// and stands in the first sector can be exchanged.
func (p *backingPlan) planSlot(img *Image, ref *Ref) error {
	nameAt, ok := p.place(p.a.end + 8)
	if !ok {
		return p.noRoom()
	}
	format := findExtension(img.extensions, ExtBackingFormat)
	same := ref == nil || format != nil && string(format.Data) == ref.Format
	if !same && (format == nil || int(format.Host)+8+len(ref.Format) > atomicUnit || alignUp(len(format.Data), 8) != alignUp(len(ref.Format), 8)) {
		return &UnsupportedError{Feature: fmt.Sprintf("the format of the backing file cannot become %.40q: other extensions fill the header's first sector", ref.Format)}
	}
	limit := len(p.now)
	if len(p.a.name) > 0 {
		limit = p.a.nameAt
	}
	if p.a.end+8 > limit { // no end marker: the old name, or the cluster's end, is the end
		return p.noRoom()
	}
	p.writeName(nameAt)
	p.writeSector(func(s []byte) {
		if !same {
			ext := appendExtension(nil, ExtBackingFormat, []byte(ref.Format))
			copy(s[format.Host:], ext)
		}
		if len(p.name) > 0 && nameAt < atomicUnit {
			copy(s[nameAt:], p.name)
		}
		p.putName(s, nameAt)
	})
	return nil
}
