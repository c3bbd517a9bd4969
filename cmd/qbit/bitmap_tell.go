package main

import (
	"fmt"

	"github.com/qbitkit/qbit/qcow2"
)

// A bitmapState is a bitmap before or after an operation.
type bitmapState struct {
	Name        string `json:"name"`
	NameHex     string `json:"name-hex,omitempty"`
	Granularity int64  `json:"granularity"`
	Recording   bool   `json:"recording"`
	Consistent  bool   `json:"consistent"`
	DirtyBytes  *int64 `json:"dirty-bytes,omitempty"`
}

// A bitmapStep is what an operation did; Before or After is nil where there was no
// such bitmap, or is none any more.
type bitmapStep struct {
	Operation string       `json:"operation"`
	Argument  string       `json:"argument,omitempty"`
	Before    *bitmapState `json:"before"`
	After     *bitmapState `json:"after"`
}

// bitmapChanges is what is told with --output=json.
type bitmapChanges struct {
	Filename string       `json:"filename"`
	DryRun   bool         `json:"dry-run"`
	Steps    []bitmapStep `json:"steps"`
}

// state is the bitmap of that name as it would be now; nil: there is none, or nobody
// wants to know.
func (e *bitmapEditor) state(name string) (*bitmapState, error) {
	if !e.report {
		return nil, nil
	}
	info, err := e.info(name)
	if err != nil {
		return nil, nil // the operation itself says what is wrong
	}
	return e.stateOf(info), nil
}

func (e *bitmapEditor) stateOf(info qcow2.BitmapInfo) *bitmapState {
	s := &bitmapState{Name: info.Name, NameHex: hexOf(info.Name), Granularity: info.Granularity, Recording: info.Auto, Consistent: !info.InUse}
	bits := e.bits
	if bits == nil || info.Name != e.name {
		var err error
		if bits, err = e.tx.LoadBitmap(info.Name); err != nil {
			return s
		}
	}
	n := bits.Count()
	s.DirtyBytes = &n
	return s
}

func (e *bitmapEditor) note(operation, argument string, before, after *bitmapState) {
	if e.report {
		e.steps = append(e.steps, bitmapStep{operation, argument, before, after})
	}
}

// dropAll is --drop-all.
func (e *bitmapEditor) dropAll() error {
	list, broken := e.img.Bitmaps()
	if len(list) == 0 && broken == nil && !e.img.BitmapsStale() {
		return errNothing
	}
	for _, info := range list {
		s := &bitmapState{Name: info.Name, NameHex: hexOf(info.Name), Granularity: info.Granularity, Recording: info.Auto,
			Consistent: stateOf(e.img, info) == stateConsistent}
		e.note("drop", "", s, nil)
	}
	if broken != nil {
		e.dropsBroken = true
		e.note("drop", "the broken bitmap directory", nil, nil)
	}
	if err := e.tx.DropBitmaps(); err != nil {
		return explainBitmap(e.path, err)
	}
	return nil
}

// tell prints what changed, or would change, if that was asked for.
func (e *bitmapEditor) tell() error {
	switch {
	case e.b.json():
		if e.steps == nil {
			e.steps = []bitmapStep{}
		}
		return writeJSON(e.c.out, bitmapChanges{e.path, e.b.dry, e.steps})
	case !e.b.dry:
		return nil
	}
	w := newLineWriter(e.c.out)
	for _, s := range e.steps {
		fmt.Fprintf(w, "%s: %s -> %s\n", s, s.Before, s.After)
	}
	fmt.Fprintf(w, "%s: %d changes; nothing was written\n", escapeName(e.path), len(e.steps))
	return w.Flush()
}

func (s bitmapStep) String() string {
	if s.Argument == "" {
		return s.Operation
	}
	return s.Operation + " " + escapeName(s.Argument)
}

func (s *bitmapState) String() string {
	if s == nil {
		return "none"
	}
	text := fmt.Sprintf("%s (granularity %d", quote(escapeName(s.Name)), s.Granularity)
	if s.Recording {
		text += ", recording"
	} else {
		text += ", not recording"
	}
	if !s.Consistent {
		text += ", inconsistent"
	}
	if s.DirtyBytes != nil {
		text += fmt.Sprintf(", %d bytes dirty", *s.DirtyBytes)
	}
	return text + ")"
}
