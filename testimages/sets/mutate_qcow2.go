package sets

import (
	"bytes"
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// qcow2Mutations are those of sets of qcow2 files.
var qcow2Mutations = []Mutation{
	{"CorruptCluster", "a byte of a data cluster is flipped", isQcow2Chain, corruptCluster},
	{"CorruptTable", "an L2 entry points beyond the file", isQcow2Chain, corruptTable},
	{"CutImage", "an image file is cut in half", isQcow2Chain, cutImage},
	{"FullImageUnderIncName", "a full image lies under an increment's name", isQcow2Chain, fullImageUnderIncName},
	{"WrongImageBase", "the full is one of another disk with the same names", isQcow2Chain, wrongImageBase},
	{"FlatRebase", "every increment names the full as its backing file", isQcow2Chain, flatRebase},
}

// isQcow2Chain: a chain of images that this package can read.
func isQcow2Chain(s Set) bool {
	if s.Tool == "virtnbdbackup" || !hasMiddle(s) {
		return false
	}
	for _, name := range []string{"mixed", "v2", "raw"} {
		if strings.Contains(s.Name, name) {
			return false
		}
	}
	return true
}

// dataAt finds the first cluster of an image that holds more than zeroes: its entry
// and its place.
func dataAt(file []byte) (entry, host int, err error) {
	size, bits := int(be.Uint64(file[24:])), be.Uint32(file[20:])
	for at := 0; at < size; at += 1 << bits {
		e, err := l2Entry(file, at>>bits, bits)
		if err != nil {
			return 0, 0, err
		}
		host := int(e & offsetMask)
		if host != 0 && e&zeroFlag == 0 && len(bytes.Trim(file[host:host+1<<bits], "\x00")) > 0 {
			return entryAt(file, at>>bits, bits), host, nil
		}
	}
	return 0, 0, errors.New("image has no data")
}

// entryAt is where an entry stands that [l2Entry] found.
func entryAt(file []byte, index int, bits uint32) int {
	perTable := 1 << (bits - 3)
	l1 := int(be.Uint64(file[40:])) + index/perTable*8
	return int(be.Uint64(file[l1:])&offsetMask) + index%perTable*8
}

// damageImage changes the middle image of the chain.
func damageImage(dir string, s Set, e *Expect, how func(b []byte, entry, host int) []byte) error {
	t := s.middle()
	e.Files = t.Files
	b, err := os.ReadFile(s.path(dir, t))
	if err != nil {
		return err
	}
	entry, host, err := dataAt(b)
	if err != nil {
		return err
	}
	return os.WriteFile(s.path(dir, t), how(b, entry, host), 0o644)
}

// corruptCluster: qcow2 has no checksum of its data.
func corruptCluster(dir string, s Set) (Expect, error) {
	e := s.expect("manifest", "chunk", "differ", "checksum")
	e.from(s, s.middle(), s.middle().Wants&^Right|Blind)
	err := damageImage(dir, s, &e, func(b []byte, _, host int) []byte {
		b[host+100] ^= 0x40
		return b
	})
	if err == nil {
		e.blind(dir, s)
	}
	return e, err
}

// corruptTable: QEMU reads zeroes there, with status 0.
func corruptTable(dir string, s Set) (Expect, error) {
	e := s.expect("beyond", "end of", "ends", "l2", "outside", "past")
	e.from(s, s.middle(), Refuse)
	return e, damageImage(dir, s, &e, func(b []byte, entry, _ int) []byte {
		const beyond = 1 << 40
		be.PutUint64(b[entry:], 1<<63|beyond)
		return b
	})
}

func cutImage(dir string, s Set) (Expect, error) {
	e := s.expect("beyond", "end of", "ends", "cut", "truncat", "outside", "past", "size", "bytes, and it has")
	e.from(s, s.middle(), Refuse)
	return e, damageImage(dir, s, &e, func(b []byte, _, _ int) []byte { return b[:len(b)/2/512*512] })
}

// fullImageUnderIncName: where the other increments name a backing file, this one
// stands out; where none does, nothing tells.
func fullImageUnderIncName(dir string, s Set) (Expect, error) {
	t := s.middle()
	e := s.expect("full", "backing", "no increment", "contradict", "size")
	e.Files = t.Files
	disk, err := content(dir, s.chainTo(t))
	if err != nil {
		return e, err
	}
	b, err := fullQcow2(disk)
	if err != nil {
		return e, err
	}
	v := Right | Doubt | Refuse
	if s.Evidence == Assumed {
		v = Doubt | Refuse
	}
	if s.Backing == BackingNone {
		v |= Blind
	}
	e.from(s, t, v)
	if err := s.replace(dir, t, b); err != nil {
		return e, err
	}
	e.blind(dir, s)
	return e, nil
}

// wrongImageBase: the full is sound, and holds other bytes.
func wrongImageBase(dir string, s Set) (Expect, error) {
	full := s.chainTo(s.newest())[0]
	e := s.expect("manifest", "base", "chunk", "differ", "size")
	e.Files = full.Files
	disk, err := s.otherBase(dir)
	if err != nil {
		return e, err
	}
	b, err := fullQcow2(disk)
	if err != nil {
		return e, err
	}
	e.from(s, full, Doubt|Refuse|Blind)
	if err := s.replace(dir, full, b); err != nil {
		return e, err
	}
	e.blind(dir, s)
	return e, nil
}

// flatRebase does to each increment what "rebase -u" to the full does.
func flatRebase(dir string, s Set) (Expect, error) {
	e := s.expect("flat", "same", "backing", "order", "parent", "siblings")
	v := Doubt | Refuse
	if s.Evidence > Assumed && s.Backing < BackingRelative {
		v |= Right // something else tells the order
	}
	for _, t := range s.Truth {
		if t.Parent == "" {
			continue
		}
		full := s.chainTo(t)[0]
		name := flatName(dir, s, t, full)
		if err := rename(s.path(dir, t), name, "qcow2"); err != nil {
			return e, err
		}
		e.Files = append(e.Files, t.Files[0])
		e.of[key{t.Disk, t.Point}] = v
		if t.Parent == full.Point { // right all the same, but who can tell it from its siblings
			e.of[key{t.Disk, t.Point}] |= Right
		}
	}
	return e, nil
}

// flatName writes the full's name in the way of the set.
func flatName(dir string, s Set, t, full Truth) string {
	switch s.Backing {
	case BackingAbsolute:
		return s.path(dir, full)
	case BackingJSON:
		return jsonName(s.path(dir, full))
	case BackingMoved:
		return path.Join(s.Map, full.Files[0])
	}
	t.Parent = full.Point
	name, _ := s.below(t)
	return filepath.ToSlash(name)
}
