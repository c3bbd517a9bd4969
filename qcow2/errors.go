package qcow2

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// ErrNotQcow2 reports bytes that do not begin with the qcow2 magic.
var ErrNotQcow2 = errors.New("not a qcow2 image")

// ErrLocked reports an image that another process holds in a way that forbids
// what was asked (see Lock).
var ErrLocked = errors.New("image is in use by another process")

// A FormatError says which bytes of an image break which rule of the format.
type FormatError struct {
	Structure string     // the specification's name: "header", "L2 table", …
	Field     string     // the field or entry of it: "cluster_bits", "entry 12"
	Host      HostOffset // where it stands in the file
	Value     uint64     // what was found
	Msg       string     // the rule that it breaks
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("%s: %s is %#x at host offset %s: %s",
		e.Structure, e.Field, e.Value, e.Host, e.Msg)
}

// An UnsupportedError names a feature of a sound image that this package does
// not read. Feature comes from the image's own feature name table where it has
// the name; such names are the image's bytes and may hold any character.
type UnsupportedError struct {
	Feature string
}

func (e *UnsupportedError) Error() string { return "unsupported feature: " + e.Feature }

// RefKind says what an image refers to.
type RefKind uint8

const (
	// RefBacking is the backing file: the bytes of all unallocated clusters.
	RefBacking RefKind = iota
	// RefData is the external data file: the bytes of all data clusters.
	RefData
)

func (k RefKind) String() string {
	if k == RefData {
		return "data file"
	}
	return "backing file"
}

// A Ref is a file that an image names. Name and Format are the image's bytes:
// they may be relative, hostile, or long gone.
type Ref struct {
	Kind   RefKind
	Name   string
	Format string // "qcow2", "raw", …; empty where the image does not say
	Raw    bool   // a data file that is also a valid raw disk (data_file_raw)
}

// A RefError reports bytes that live in a reference that was not opened.
type RefError struct {
	Ref Ref
}

func (e *RefError) Error() string {
	return fmt.Sprintf("%s %.1023q is needed and was not opened", e.Ref.Kind, e.Ref.Name)
}

// maxNamesTold is how many names the message of a NotFoundError has at most: an
// image can hold many long ones.
const maxNamesTold = 20

// A NotFoundError reports a bitmap or snapshot that an image does not have. It
// wraps fs.ErrNotExist.
type NotFoundError struct {
	What string   // "bitmap", "snapshot"
	Name string   // what was asked for
	Have []string // what there is
}

func (e *NotFoundError) Error() string {
	if len(e.Have) == 0 {
		return fmt.Sprintf("no %s %q: the image has none", e.What, e.Name)
	}
	quoted := make([]string, 0, maxNamesTold+1)
	for i, h := range e.Have {
		if i == maxNamesTold {
			quoted = append(quoted, fmt.Sprintf("%d more", len(e.Have)-i))
			break
		}
		quoted = append(quoted, fmt.Sprintf("%.100q", h))
	}
	return fmt.Sprintf("no %s %q: there are %s", e.What, e.Name, strings.Join(quoted, ", "))
}

func (e *NotFoundError) Unwrap() error { return fs.ErrNotExist }
