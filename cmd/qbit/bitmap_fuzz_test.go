package main

import (
	"bytes"
	"context"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

const fuzzedSize = 1<<20 + 512

// readInto reads a file of ranges as --import does for a new bitmap.
func readInto(text []byte, size int64) (b *bitmap.Bitmap, head rangesHead, err error) {
	err = readRanges(bytes.NewReader(text), size, func(h rangesHead) (*bitmap.Bitmap, error) {
		head = h
		if h.nbdinfo {
			h.granularity = 4096
		}
		b, err = bitmap.New(size, h.granularity)
		return b, err
	})
	return b, head, err
}

// FuzzImport: whatever the bytes are, reading them ends in a bitmap or in an error
// that is about the file. What was read and is exported again reads the same, in
// both forms.
func FuzzImport(f *testing.F) {
	f.Add([]byte(`{"format": "qbit-bitmap", "version": 1, "virtual-size": 1049088, "granularity": 4096, "recording": true,
		"complete": true, "dirty-bytes": 513, "extra": [1, {}], "ranges": [{"offset": 0, "length": 1}, {"offset": 1048576, "length": 512}]}`))
	f.Add([]byte(`[{ "offset": 0, "length": 65536, "type": 1, "description": "dirty"},
		{ "offset": 65536, "length": 983552, "type": 0, "description": "clean"}]`))
	f.Add([]byte(`{"format": "qbit-bitmap", "ranges": []}`))
	f.Add([]byte(`[{"offset": 0, "length": 9223372036854775807, "type": 1}]`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, head, err := readInto(text, fuzzedSize)
		if err != nil {
			if statusOf(err) != exitBad {
				t.Fatalf("status %d: %v", statusOf(err), err)
			}
			return
		}
		var ours, theirs bytes.Buffer
		x := exportedBitmap{info: qcow2.BitmapInfo{Name: "b", Auto: head.recording}, bits: b, state: stateConsistent}
		if err := x.write(context.Background(), newLineWriter(&ours)); err != nil {
			t.Fatal(err)
		}
		again, head2, err := readInto(ours.Bytes(), fuzzedSize)
		if err != nil || !again.Equal(b) || head2.recording != head.recording {
			t.Fatalf("%v: what was exported reads otherwise:\n%s", err, ours.Bytes())
		}
		if err := writeRuns(context.Background(), newLineWriter(&theirs), b, true); err != nil {
			t.Fatal(err)
		}
		again, _, err = readInto(theirs.Bytes(), fuzzedSize)
		if err != nil || differs(again, b) {
			t.Fatalf("%v: the map reads otherwise:\n%s", err, theirs.Bytes())
		}
	})
}

// differs tells whether b lacks a byte of what is dirty in want. A map has no
// granularity, so b may be rounded outwards.
func differs(b, want *bitmap.Bitmap) bool {
	for _, side := range differingRuns(b, want) {
		if side == 1 {
			return true
		}
	}
	return false
}
