package qcow2_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// A trialBitmap is what a bitmap of an image has to be.
type trialBitmap struct {
	name        string
	granularity int64
	flags       uint32
	kind        uint8
	extra       string
	bits        *bitmap.Bitmap // never changed once it is here
	content     uint64         // of the table and data, while they must be kept as they are
}

// trialBitmaps are all bitmaps of an image. Methods that change it return a new one.
type trialBitmaps []trialBitmap

func builtBitmap(b *build.BitmapTruth, size int64) trialBitmap {
	m := trialBitmap{name: b.Name, granularity: b.Granularity, flags: b.Flags, kind: b.Type, extra: string(b.Extra)}
	if m.kind == 0 {
		m.kind = 1
	}
	m.bits = newBits(size, b.Granularity)
	for _, r := range b.Dirty {
		m.bits.Set(r.Off, r.Len)
	}
	return m
}

// newBits is a clean bitmap.
func newBits(size, granularity int64) *bitmap.Bitmap {
	b, err := bitmap.New(size, granularity)
	if err != nil {
		panic(err)
	}
	return b
}

// usable reports that the bits may be asked for.
func (b *trialBitmap) usable() bool {
	return b.kind == 1 && b.flags&qcow2.BitmapInUse == 0 && (b.extra == "" || b.flags&qcow2.BitmapExtraDataCompatible != 0)
}

func (m trialBitmaps) find(name string) int {
	return slices.IndexFunc(m, func(b trialBitmap) bool { return b.name == name })
}

// A change is one operation of a transaction.
type change struct {
	kind     changeKind
	name, to string
	bits     *bitmap.Bitmap
	auto     bool
}

type changeKind uint8

const (
	addBitmap changeKind = iota
	replaceBitmap
	removeBitmap
	renameBitmap
	setAuto
	dropAll
)

func (c change) String() string {
	names := [...]string{"add", "replace", "remove", "rename", "set auto of", "drop all"}
	s := fmt.Sprintf("%s %.20q", names[c.kind], c.name)
	if c.bits != nil {
		s += fmt.Sprintf(" (granularity %d, %d bytes dirty)", c.bits.Granularity(), c.bits.Count())
	}
	return s
}

// do asks tx for the change.
func (c change) do(tx *qcow2.Tx) error {
	switch c.kind {
	case addBitmap:
		return tx.AddBitmap(c.name, c.bits, c.auto)
	case replaceBitmap:
		return tx.ReplaceBitmap(c.name, c.bits)
	case removeBitmap:
		return tx.RemoveBitmap(c.name)
	case renameBitmap:
		return tx.RenameBitmap(c.name, c.to)
	case setAuto:
		return tx.SetBitmapAuto(c.name, c.auto)
	}
	return tx.DropBitmaps()
}

// after is the model after a change that is possible.
func (m trialBitmaps) after(c change) trialBitmaps {
	m = slices.Clone(m)
	i := m.find(c.name)
	switch c.kind {
	case addBitmap:
		return append(m, trialBitmap{name: c.name, granularity: c.bits.Granularity(), flags: autoFlag(c.auto), kind: 1, bits: c.bits})
	case replaceBitmap:
		m[i].bits, m[i].granularity, m[i].content = c.bits, c.bits.Granularity(), 0
	case removeBitmap:
		return slices.Delete(m, i, i+1)
	case renameBitmap:
		m[i].name = c.to
	case setAuto:
		m[i].flags = m[i].flags&^qcow2.BitmapAuto | autoFlag(c.auto)
	case dropAll:
		return nil
	}
	return m
}

func autoFlag(auto bool) uint32 {
	if auto {
		return qcow2.BitmapAuto
	}
	return 0
}

// doAll is an Update's function.
func doAll(changes []change) func(*qcow2.Tx) error {
	return func(tx *qcow2.Tx) error {
		for _, c := range changes {
			if err := c.do(tx); err != nil {
				return fmt.Errorf("%v: %w", c, err)
			}
		}
		return nil
	}
}

func (m trialBitmaps) afterAll(changes []change) trialBitmaps {
	for _, c := range changes {
		m = m.after(c)
	}
	return m
}

// expect checks that the image has these bitmaps and no other: as the reader
// gives them, and as the audit finds them.
func (m trialBitmaps) expect(img *qcow2.Image, a *build.Audit) error {
	list, err := img.Bitmaps()
	if err != nil {
		return err
	}
	if a.Stale || len(list) != len(m) || len(a.Bitmaps) != len(m) {
		return fmt.Errorf("%d bitmaps, the audit finds %d (stale %t), want %d", len(list), len(a.Bitmaps), a.Stale, len(m))
	}
	for i := range m {
		j := slices.IndexFunc(list, func(b qcow2.BitmapInfo) bool { return b.Name == m[i].name })
		if j < 0 {
			return fmt.Errorf("no bitmap %q", m[i].name)
		}
		if err := m[i].expect(img, &list[j], &a.Bitmaps[j]); err != nil {
			return fmt.Errorf("bitmap %.20q: %w", m[i].name, err)
		}
	}
	return nil
}

func (b *trialBitmap) expect(img *qcow2.Image, have *qcow2.BitmapInfo, audited *build.AuditBitmap) error {
	got := trialBitmap{have.Name, have.Granularity, have.Flags, have.Type, string(have.ExtraData), b.bits, b.content}
	if got != *b {
		return fmt.Errorf("have %+v, want %+v", got, *b)
	}
	if audited.Name != b.name || audited.Flags != b.flags || audited.Type != b.kind || audited.Extra != b.extra ||
		1<<audited.GranularityBits != b.granularity || b.content != 0 && b.content != audited.Content {
		return fmt.Errorf("the audit finds %+v, want %+v", *audited, *b)
	}
	bits, err := img.LoadBitmap(b.name)
	if inUse := b.flags&qcow2.BitmapInUse != 0; inUse && errors.Is(err, qcow2.ErrBitmapInUse) {
		bits, err = img.ReadBitmap(*have)
	} else if inUse {
		return fmt.Errorf("it is in use, loading it gives %v", err)
	}
	var unsupported *qcow2.UnsupportedError
	if !b.usable() && errors.As(err, &unsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	if !bits.Equal(b.bits) {
		return fmt.Errorf("%d bytes are dirty, want %d, or others", bits.Count(), b.bits.Count())
	}
	return nil
}

// byName orders what an audit finds, to compare two.
func byName(list []build.AuditBitmap) []build.AuditBitmap {
	return slices.SortedFunc(slices.Values(list), func(x, y build.AuditBitmap) int { return cmp.Compare(x.Name, y.Name) })
}
