package main

import (
	"errors"
	"fmt"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// A commitMark is a bitmap of the images above the base: the union of those of its
// name.
type commitMark struct {
	name string
	bits *bitmap.Bitmap // of the size that the base has in the end
	auto bool           // the topmost one records
	err  error          // why one of them cannot be trusted
	in   string         // the image that has it
	base string         // what becomes of it: "merged", "copied", or ""
}

// commitMarks are the bitmaps of the images above the base.
type commitMarks struct {
	k    *committing
	list []*commitMark
}

// collectBitmaps loads the bitmaps of IMAGE and of those between it and the base.
func (k *committing) collectBitmaps() (*commitMarks, error) {
	marks := &commitMarks{k: k}
	size := max(k.ch.disk.Size(), k.ch.target.Size())
	for _, l := range append([]*layer{k.ch.layer}, k.ch.between...) {
		list, err := l.image.Bitmaps()
		if err != nil {
			k.c.warn("%v", explainBitmap(l.path, err))
			continue
		}
		for _, info := range list {
			if err := marks.add(l, info, size); err != nil {
				return nil, err
			}
		}
	}
	return marks, nil
}

func (s *commitMarks) find(name string) *commitMark {
	for _, m := range s.list {
		if m.name == name {
			return m
		}
	}
	return nil
}

func (s *commitMarks) add(l *layer, info qcow2.BitmapInfo, size int64) error {
	m := s.find(info.Name)
	if m == nil {
		m = &commitMark{name: info.Name, auto: info.Auto, in: l.path}
		s.list = append(s.list, m)
	}
	bits, err := l.image.LoadBitmap(info.Name)
	switch {
	case err != nil:
		m.err = fmt.Errorf("%s: bitmap %s: %w", escapeName(l.path), quote(escapeName(info.Name)), err)
		return nil
	case m.bits == nil:
		m.bits = bits
		return bits.Resize(size, false)
	}
	if err := bits.Resize(size, false); err != nil {
		return err
	}
	return m.bits.Union(bits)
}

// merge puts the bitmaps into those of the same name in the base. What cannot be
// trusted, there or here, is told and left.
func (s *commitMarks) merge(base commitTarget) error {
	e := base.edit()
	if e == nil || len(s.list) == 0 {
		return nil
	}
	err := e.editor.Update(func(tx *qcow2.Tx) error {
		for _, m := range s.list {
			if err := s.mergeOne(tx, m, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return explainChange(e.path, err)
	}
	return nil
}

func (s *commitMarks) mergeOne(tx *qcow2.Tx, m *commitMark, e *editable) error {
	bits, err := tx.LoadBitmap(m.name)
	var missing *qcow2.NotFoundError
	switch {
	case errors.As(err, &missing):
		return nil
	case err != nil:
		s.k.c.warn("%v", explainBitmap(e.path, fmt.Errorf("bitmap %s was not merged: %w", quote(escapeName(m.name)), err)))
		m.base = "unusable"
		return nil
	case m.err != nil:
		s.k.c.warn("%v; it was not merged: the one in %s has what was committed, if it was recording", m.err, escapeName(e.path))
		m.base = "unusable"
		return nil
	}
	m.base = "merged"
	before := bits.Count()
	if err := bits.Union(m.bits); err != nil {
		return err
	}
	if bits.Count() == before {
		return nil
	}
	return tx.ReplaceBitmap(m.name, bits)
}

// copy puts bitmaps that the base does not have into it.
func (s *commitMarks) copy(base commitTarget) error {
	e := base.edit()
	if e == nil {
		return nil
	}
	err := e.editor.Update(func(tx *qcow2.Tx) error {
		for _, m := range s.list {
			switch {
			case m.base != "":
			case m.err != nil:
				s.k.c.warn("%v; it was not copied", m.err)
			default:
				if err := tx.AddBitmap(m.name, m.bits, m.auto); err != nil {
					return err
				}
				m.base = "copied"
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: the data is committed, but copying the bitmaps failed: %w", escapeName(e.path), err)
	}
	return nil
}

// A committedBitmap says what became of a bitmap.
type committedBitmap struct {
	Name    string `json:"name"`
	NameHex string `json:"name-hex,omitempty"`
	Base    string `json:"base"` // "merged", "copied", "unusable", "missing"
}

// report says what became of the bitmaps, and notes those that the base does not have.
func (s *commitMarks) report(wanted bool) []committedBitmap {
	list := []committedBitmap{}
	for _, m := range s.list {
		b := committedBitmap{m.name, hexOf(m.name), m.base}
		if m.base == "" {
			b.Base = "missing"
			s.noteMissing(m, wanted)
		}
		list = append(list, b)
	}
	return list
}

func (s *commitMarks) noteMissing(m *commitMark, wanted bool) {
	base := s.k.ch.base
	why := "--bitmaps copies it"
	switch {
	case base.format == formatRaw:
		why = "a raw file has no bitmaps"
	case s.k.ch.target.edit() == nil:
		why = "an image of version 2 has no bitmaps"
	case wanted:
		why = "it cannot be trusted"
	}
	s.k.c.note("%s: its bitmap %s is not in %s: %s", escapeName(m.in), quote(escapeName(m.name)), escapeName(base.path), why)
}
