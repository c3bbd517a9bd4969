package manifest

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// sound is a document with two points; tests break one thing in it.
const sound = `{"qbit-manifest": 1, "chunk-size": 4194304, "disks": [{"domain": "vm", "name": "vda", "points": [
{"id": "full.qcow2", "name": "cp0", "kind": "full", "size": 12582912, "root": "00000000000000aa", "files": [
 {"path": "d/full.qcow2", "size": 10, "xxh64-4m": "0000000000000001"}], "chunks": [{"first": 1, "sums": "0000000000000007"}]},
{"id": "inc.qcow2", "name": "cp1", "kind": "incremental", "size": 12582913, "parent": {"id": "full.qcow2", "root": "00000000000000aa"},
 "assumed": true, "root": "00000000000000bb", "files": [], "chunks": [{"first": 0, "zeros": 1}, {"first": 3, "zeros": 1}]}]}]}`

func TestSound(t *testing.T) {
	m, err := Decode(iotest.OneByteReader(strings.NewReader(sound)), nil)
	if err != nil {
		t.Fatal(err)
	}
	p := m.Disk("vm", "vda").Point("inc.qcow2")
	if !p.Assumed || p.Root != 0xbb || p.Runs.count() != 2 || p.Parent.Root != 0xaa {
		t.Errorf("%+v", p)
	}
}

// TestBroken replaces one thing in the sound document; the error says the rule.
func TestBroken(t *testing.T) {
	tests := []struct{ old, new, want string }{
		{`"qbit-manifest": 1`, `"qbit-manifest": 2`, "it is of version 2"},
		{`"qbit-manifest": 1, `, ``, "the first key"},
		{`4194304`, `4096`, "chunk-size is 4096"},
		{`"chunk-size": 4194304, `, ``, "chunk-size is missing"},
		{`"domain"`, `"doman"`, `the key "doman" is not one`},
		{`"domain": "vm"`, `"name": "vm"`, "stands there twice"},
		{`"name": "vda"`, `"name": ""`, "the name of a disk"},
		{`"name": "vda"`, `"name": 7`, "a string is due"},
		{`"size": 10,`, `"size": -10,`, "a whole number from 0 up"},
		{`"size": 10,`, `"size": 1e1,`, "a whole number from 0 up"},
		{`"size": 12582912`, `"size": 99999999999999999999`, "a whole number from 0 up"},
		{`"size": 12582912`, `"size": 9223372036854775807`, "the size of the disk is out of range"},
		{`"size": 12582912`, `"size": 4194304`, "ends beyond the end of the disk"},
		{`"d/full.qcow2"`, `"../full.qcow2"`, "leads out of the folder"},
		{`"d/full.qcow2"`, `"/full.qcow2"`, "leads out of the folder"},
		{`"d/full.qcow2"`, `"d//full.qcow2"`, "leads out of the folder"},
		{`"d/full.qcow2"`, `"."`, "leads out of the folder"},
		{`"d/full.qcow2"`, `"a", "member": "../b"`, "leads out of the folder"},
		{`"xxh64-4m": "0000000000000001"`, `"xxh64-4m": "1"`, "16 hex digits are due"},
		{`"xxh64-4m": "0000000000000001"`, `"sha256": "00"`, "no checksum xxh64-4m"},
		{`"xxh64-4m": "0000000000000001"`, `"xxh64-4m": "0000000000000001", "sha256": "00"`, "sha256 of a file"},
		{`"root": "00000000000000bb"`, `"sha256": "x"`, "the point has no root"},
		{`"root": "00000000000000bb"`, `"root": "00000000000000bb", "sha256": "x"`, "sha256 is not"},
		{`"inc.qcow2"`, `"full.qcow2"`, "the point stands in it twice"},
		{`"parent": {"id": "full.qcow2"`, `"parent": {"id": "gone"`, `its parent "gone" is not`},
		{`"parent": {"id": "full.qcow2", "root": "00000000000000aa"`, `"parent": {"id": "full.qcow2", "root": "00000000000000ac"`, "has the root"},
		{`"parent": {"id": "full.qcow2", "root": "00000000000000aa"`, `"parent": {"id": "inc.qcow2", "root": "00000000000000bb"`, "stands on itself"},
		{`"sums": "0000000000000007"`, `"sums": "000000000000007"`, "16 hex digits for each"},
		{`"sums": "0000000000000007"`, `"sums": ""`, "16 hex digits for each"},
		{`"sums": "0000000000000007"`, `"zeros": 0`, "a run of 0 chunks"},
		{`"sums": "0000000000000007"`, `"zeros": 9223372036854775807`, "a run of 9223372036854775807 chunks"},
		{`"sums": "0000000000000007"`, `"sums": "0000000000000007", "zeros": 1`, "either sums or zeros"},
		{`"first": 1, `, ``, "a run of chunks has first"},
		{`{"first": 0, "zeros": 1}, {"first": 3, "zeros": 1}`, `{"first": 3, "zeros": 1}, {"first": 0, "zeros": 1}`, "not ascending, or overlap"},
		{`{"first": 0, "zeros": 1}, {"first": 3, "zeros": 1}`, `{"first": 0, "zeros": 2}, {"first": 1, "zeros": 3}`, "not ascending, or overlap"},
		{`, {"first": 3, "zeros": 1}`, ``, "chunk 3 is not recorded"},
		{`"size": 12582912`, `"size": 12582911`, "chunk 2 is not recorded"},
		{`1}]}]}]}`, `1}]}]}]`, "the document is cut off"},
		{`1}]}]}]}`, `1}]}]}]} x`, "more behind the end"},
		{`true`, `1`, "true or false is due"},
		{`[{"domain"`, `{"domain"`, `"[" is due`},
		{`"vm"`, "\"v\x01m\"", "invalid character"},
	}
	for _, tt := range tests {
		doc := strings.Replace(sound, tt.old, tt.new, 1)
		if doc == sound {
			t.Fatalf("%q is not in the document", tt.old)
		}
		_, err := Decode(strings.NewReader(doc), nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.As(err, new(*Error)) {
			t.Errorf("%s: %v, want %q", tt.new, err, tt.want)
		}
	}
}

func TestDiskTwice(t *testing.T) {
	m := &Manifest{Disks: []*Disk{{Name: "a"}, {Name: "a", Domain: "x"}, {Name: "a"}}}
	if err := m.Encode(io.Discard); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Error(err)
	}
}

// TestLimits: each limit refuses, and not before.
func TestLimits(t *testing.T) {
	exact := Limits{Bytes: int64(len(sound)) + 1, Points: 3, Files: 1, Size: 12582913, Chunks: 7}
	if _, err := Decode(strings.NewReader(sound), &exact); err != nil {
		t.Fatal(err)
	}
	twoFiles := strings.Replace(sound, `"files": [],`, `"files": [{"path": "x", "size": 0, "xxh64-4m": "0000000000000001"}],`, 1)
	for want, tt := range map[string]struct {
		doc    string
		change func(*Limits)
	}{
		"longer than":             {sound, func(l *Limits) { l.Bytes = int64(len(sound)) - 1 }},
		"disks and points than":   {sound, func(l *Limits) { l.Points = 2 }},
		"more files than":         {twoFiles, func(l *Limits) { l.Bytes *= 2 }},
		"the size of the disk is": {sound, func(l *Limits) { l.Size-- }},
		"more chunks than":        {sound, func(l *Limits) { l.Chunks-- }},
	} {
		l := exact
		tt.change(&l)
		if _, err := Decode(strings.NewReader(tt.doc), &l); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestReadError: an error of the storage is not taken for a fault of the document.
func TestReadError(t *testing.T) {
	broken := errors.New("broken")
	_, err := Decode(io.MultiReader(strings.NewReader(sound[:50]), iotest.ErrReader(broken)), nil)
	if !errors.Is(err, broken) {
		t.Error(err)
	}
}
