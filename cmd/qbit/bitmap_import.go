package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/qbitkit/qbit/bitmap"
)

// A rangesHead is what a file of ranges says before its ranges.
type rangesHead struct {
	nbdinfo     bool // it is a map of nbdinfo, which says nothing before
	granularity int64
	recording   bool
	complete    bool
	dirty       *int64 // bytes in all ranges, where the file says it
}

// readRanges reads the ranges of a file, ours or nbdinfo's, of a disk of size
// bytes. When the head is read it calls begin for the bitmap to mark them dirty
// in. It holds one range at a time, so a file can be of any length. Its errors
// say what is wrong with the file, and are bad data; what begin returns is passed
// on.
func readRanges(r io.Reader, size int64, begin func(rangesHead) (*bitmap.Bitmap, error)) error {
	p := &rangesParser{dec: json.NewDecoder(r), size: size, begin: begin}
	p.dec.DisallowUnknownFields()
	var callers passedOn
	switch err := p.file(); {
	case err == nil:
		return nil
	case errors.As(err, &callers):
		return callers.error
	case errors.As(err, new(*fs.PathError)): // of the read, not of what was read
		return err
	default:
		return badData{fmt.Errorf("at byte %d: %w", p.dec.InputOffset(), err)}
	}
}

// passedOn is an error that is not about the file.
type passedOn struct {
	error
}

func (e passedOn) Unwrap() error { return e.error }

// A rangesParser reads one file of ranges.
type rangesParser struct {
	dec   *json.Decoder
	size  int64 // of the disk
	begin func(rangesHead) (*bitmap.Bitmap, error)

	head rangesHead
	bits *bitmap.Bitmap
	end  int64 // of the last range
	sum  int64 // bytes of all ranges
}

func (p *rangesParser) file() error {
	first, err := p.dec.Token()
	switch {
	case err != nil:
		return noJSON(err)
	case first == json.Delim('['):
		err = p.nbdinfo()
	case first == json.Delim('{'):
		err = p.ours()
	default:
		return errors.New("it is neither an object, as --export writes it, nor a list, as nbdinfo --map --json prints it")
	}
	if err != nil {
		return err
	}
	if _, err := p.dec.Token(); err != io.EOF {
		return errors.New("something follows the end")
	}
	return nil
}

// noJSON says that an end came too early.
func noJSON(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the file ends before its JSON does")
	}
	return err
}

func (p *rangesParser) start() error {
	bits, err := p.begin(p.head)
	if err != nil {
		return passedOn{err}
	}
	p.bits = bits
	return nil
}

// list reads the entries of a list whose bracket was read.
func (p *rangesParser) list(entry func() error) error {
	for p.dec.More() {
		if err := entry(); err != nil {
			return err
		}
	}
	_, err := p.dec.Token()
	return noJSON(err)
}

// place checks a range and that it follows the one before.
func (p *rangesParser) place(off, n *int64) error {
	switch {
	case off == nil || n == nil:
		return errors.New("a range needs an offset and a length")
	case *off < p.end:
		return fmt.Errorf("offset %d: ranges must ascend, and the one before ends at %d", *off, p.end)
	case *n <= 0:
		return fmt.Errorf("length %d: it must be above 0", *n)
	case *off > p.size || *n > p.size-*off:
		return fmt.Errorf("offset %d, length %d: the range ends behind the end of the disk, which has %d bytes", *off, *n, p.size)
	}
	p.end = *off + *n
	return nil
}

// nbdinfo reads the list that nbdinfo --map --json prints. It has no gaps.
func (p *rangesParser) nbdinfo() error {
	p.head = rangesHead{nbdinfo: true, recording: true, complete: true}
	if err := p.start(); err != nil {
		return err
	}
	if err := p.list(p.nbdinfoEntry); err != nil {
		return err
	}
	// QEMU serves whole sectors, and passes over what is behind the last.
	if p.end < p.size&^511 {
		return fmt.Errorf("the map is of %d bytes and the disk has %d: it is not the map of this disk, or not all of it", p.end, p.size)
	}
	p.bits.Set(p.end, p.size-p.end)
	return nil
}

func (p *rangesParser) nbdinfoEntry() error {
	var e struct {
		Offset      *int64  `json:"offset"`
		Length      *int64  `json:"length"`
		Type        *int64  `json:"type"`
		Description *string `json:"description"`
	}
	before := p.end
	if err := p.dec.Decode(&e); err != nil {
		return noJSON(err)
	}
	if err := p.place(e.Offset, e.Length); err != nil {
		return err
	}
	switch {
	case *e.Offset != before:
		return fmt.Errorf("offset %d: a map has no gaps, and the entry before ends at %d", *e.Offset, before)
	case e.Type == nil || *e.Type != 0 && *e.Type != 1,
		e.Description != nil && *e.Description != [2]string{"clean", "dirty"}[*e.Type]:
		return errors.New(`the entry is not clean (type 0) and not dirty (type 1): it must be a map of the context "qemu:dirty-bitmap:NAME"`)
	case *e.Type == 1:
		p.bits.Set(*e.Offset, *e.Length)
	}
	return nil
}

// ours reads the object that --export writes. The keys before the ranges may stand
// in any order, those that are unknown are passed over.
func (p *rangesParser) ours() error {
	seen := make(map[string]bool)
	for p.dec.More() {
		key, err := p.dec.Token()
		if err != nil {
			return noJSON(err)
		}
		name, _ := key.(string)
		if seen[name] {
			return fmt.Errorf("the key %q stands there twice", name)
		}
		seen[name] = true
		if name == "ranges" {
			err = p.ourRanges(seen)
		} else {
			err = p.ourKey(name)
		}
		if err != nil {
			return err
		}
	}
	if _, err := p.dec.Token(); err != nil {
		return noJSON(err)
	}
	if !seen["ranges"] {
		return errors.New(`the key "ranges" is missing`)
	}
	return nil
}

// ourKey reads one key of the head.
func (p *rangesParser) ourKey(name string) error {
	var (
		format        string
		version, size int64
		ignored       json.RawMessage
	)
	targets := map[string]any{"format": &format, "version": &version, "virtual-size": &size,
		"granularity": &p.head.granularity, "recording": &p.head.recording, "complete": &p.head.complete, "dirty-bytes": &p.head.dirty}
	target, ok := targets[name]
	if !ok {
		target = &ignored
	}
	if err := p.dec.Decode(target); err != nil {
		return fmt.Errorf("the key %q: %w", name, noJSON(err))
	}
	switch {
	case name == "format" && format != exportFormat:
		return fmt.Errorf("the format is %q, not %q", format, exportFormat)
	case name == "version" && version != exportVersion:
		return fmt.Errorf("the version is %d, and only %d is known", version, exportVersion)
	case name == "virtual-size" && size != p.size:
		return fmt.Errorf("the ranges are those of a disk of %d bytes, and this one has %d", size, p.size)
	case name == "granularity":
		_, err := bitmap.New(0, p.head.granularity)
		return err
	}
	return nil
}

// ourRanges reads the ranges, before which all must have been said that they need.
func (p *rangesParser) ourRanges(seen map[string]bool) error {
	var missing []string
	for _, key := range []string{"format", "version", "virtual-size", "granularity", "recording", "complete"} {
		if !seen[key] {
			missing = append(missing, key)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("before the ranges must stand: %s", strings.Join(missing, ", "))
	}
	if t, err := p.dec.Token(); err != nil || t != json.Delim('[') {
		return errors.New(`the key "ranges": it must be a list`)
	}
	if err := p.start(); err != nil {
		return err
	}
	if err := p.list(p.ourRange); err != nil {
		return err
	}
	if p.head.dirty != nil && *p.head.dirty != p.sum {
		return fmt.Errorf("the ranges have %d bytes together, and dirty-bytes says %d: some are missing or were changed", p.sum, *p.head.dirty)
	}
	return nil
}

func (p *rangesParser) ourRange() error {
	var r struct {
		Offset *int64 `json:"offset"`
		Length *int64 `json:"length"`
	}
	if err := p.dec.Decode(&r); err != nil {
		return noJSON(err)
	}
	if err := p.place(r.Offset, r.Length); err != nil {
		return err
	}
	p.sum += *r.Length
	p.bits.Set(*r.Offset, *r.Length)
	return nil
}
