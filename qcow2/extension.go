package qcow2

import (
	"bytes"
	"fmt"
)

// Header extension types: section "Header extensions".
const (
	ExtBackingFormat  = 0xe2792aca
	ExtFeatureNames   = 0x6803f857
	ExtBitmaps        = 0x23852875
	ExtEncryption     = 0x0537be77
	ExtDataFile       = 0x44415441
	extEnd            = 0
	featureNameLength = 48
)

// An Extension is one header extension, byte for byte.
type Extension struct {
	Type uint32
	Host HostOffset // of its type field
	Data []byte     // without padding
}

// Name is the specification's name for the type, or "unknown".
func (e Extension) Name() string {
	switch e.Type {
	case ExtBackingFormat:
		return "backing file format"
	case ExtFeatureNames:
		return "feature name table"
	case ExtBitmaps:
		return "bitmaps"
	case ExtEncryption:
		return "full disk encryption header pointer"
	case ExtDataFile:
		return "external data file name"
	}
	return "unknown"
}

// decodeExtensions decodes the header extension area. first is the first
// cluster of the file (or what there is of it), and the area is
// [start, end) of it. It ends early at an end marker.
// A bitmaps extension that is too long is cut: see validateExtensions.
func decodeExtensions(first []byte, start, end int, limits *Limits) ([]Extension, error) {
	var exts []Extension
	end = min(end, len(first))
	for off := start; off+8 <= end; {
		c := cursor{b: first, off: off}
		typ, length := c.u32(), c.u32()
		if typ == extEnd {
			return exts, nil
		}
		if int64(len(exts)) >= limits.Extensions {
			return exts, limitError("extensions", limits.Extensions, &FormatError{Structure: "header extension", Field: "type",
				Host: HostOffset(off), Value: uint64(typ), Msg: fmt.Sprintf("there are more than %d header extensions", len(exts))})
		}
		if uint64(length) > uint64(end-c.off) {
			if typ == ExtBitmaps { // loading the bitmaps fails, reading the guest does not
				return append(exts, Extension{Type: typ, Host: HostOffset(off), Data: first[c.off:end:end]}), nil
			}
			return exts, &FormatError{Structure: "header extension", Field: "length", Host: HostOffset(off + 4),
				Value: uint64(length),
				Msg:   fmt.Sprintf("extension %#x must end before offset %#x, the end of the extension area", typ, end)}
		}
		data := append([]byte(nil), first[c.off:c.off+int(length)]...)
		exts = append(exts, Extension{Type: typ, Host: HostOffset(off), Data: data})
		off = c.off + alignUp(int(length), 8)
	}
	return exts, nil
}

// validateExtensions checks that a known type appears at most once. Bitmaps
// are left out: what is wrong with them must not keep guest data from being
// read, so it is found when they are loaded.
func validateExtensions(exts []Extension) error {
	seen := map[uint32]bool{}
	for _, e := range exts {
		if e.Name() == "unknown" || e.Type == ExtBitmaps {
			continue
		}
		if seen[e.Type] {
			return &FormatError{Structure: "header extension", Field: "type", Host: e.Host, Value: uint64(e.Type),
				Msg: e.Name() + " appears more than once"}
		}
		seen[e.Type] = true
	}
	return nil
}

// validateEncryption checks the section "Full disk encryption header pointer".
func (h *Header) validateEncryption(exts []Extension) error {
	e := findExtension(exts, ExtEncryption)
	fail := func(field string, at int, value uint64, msg string) error {
		return &FormatError{Structure: "header extension", Field: field, Host: e.Host + HostOffset(at), Value: value,
			Msg: "full disk encryption header pointer: " + msg}
	}
	switch {
	case e == nil && h.CryptMethod == CryptLUKS:
		return headerError("crypt_method", 32, uint64(h.CryptMethod), "LUKS needs a full disk encryption header pointer")
	case e == nil:
		return nil
	case h.CryptMethod != CryptLUKS:
		return fail("type", 0, uint64(e.Type), "must be absent without LUKS")
	case len(e.Data) != 16:
		return fail("length", 4, uint64(len(e.Data)), "must be 16")
	}
	c := cursor{b: e.Data}
	if off := HostOffset(c.u64()); !h.Geometry().aligned(off) {
		return fail("offset", 8, uint64(off), "must be aligned to a cluster")
	}
	return nil
}

func findExtension(exts []Extension, typ uint32) *Extension {
	for i := range exts {
		if exts[i].Type == typ {
			return &exts[i]
		}
	}
	return nil
}

// Feature bitmaps that a FeatureName can select.
const (
	FeatureIncompatible = 0
	FeatureCompatible   = 1
	FeatureAutoclear    = 2
)

// A FeatureName is an entry of the section "Feature name table". Name is the
// image's bytes.
type FeatureName struct {
	Kind uint8 // FeatureIncompatible, FeatureCompatible, FeatureAutoclear
	Bit  uint8 // 0 to 63
	Name string
}

// decodeFeatureNames decodes the whole entries of a feature name table. The
// table only serves messages, so a cut last entry is passed over.
func decodeFeatureNames(b []byte, limits *Limits) []FeatureName {
	var names []FeatureName
	for ; len(b) >= featureNameLength && int64(len(names)) < limits.FeatureNames; b = b[featureNameLength:] {
		name, _, _ := bytes.Cut(b[2:featureNameLength], []byte{0})
		names = append(names, FeatureName{Kind: b[0], Bit: b[1], Name: string(name)})
	}
	return names
}

// featureName is the image's own name for a feature bit, or a plain one.
func featureName(names []FeatureName, kind uint8, bit int) string {
	for _, n := range names {
		if n.Kind == kind && int(n.Bit) == bit && n.Name != "" {
			return n.Name
		}
	}
	kinds := [...]string{"incompatible", "compatible", "autoclear"}
	return fmt.Sprintf("unknown %s feature bit %d", kinds[kind], bit)
}
