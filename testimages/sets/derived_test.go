package sets

import (
	"bytes"
	"fmt"
	"hash/adler32"
	"os"
	"testing"
)

func readStream(t *testing.T, s Set, dir, point string) (*stream, []byte) {
	t.Helper()
	b, err := os.ReadFile(s.path(dir, s.Point("vda", point)))
	if err != nil {
		t.Fatal(err)
	}
	st, err := parseStream(b)
	if err != nil {
		t.Fatal(err)
	}
	return st, b
}

// What the tool wrote is what our writer makes of it: so the derived sets differ
// from real ones in nothing but what they are derived for.
func TestStreamsComeBack(t *testing.T) {
	for _, name := range frozenNames {
		s := frozen(name)
		if s.Zip {
			continue
		}
		dir := s.Lay(t)
		for _, row := range s.Truth {
			b, err := os.ReadFile(s.path(dir, row))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(b, []byte("meta ")) {
				continue
			}
			st, err := parseStream(b)
			if err != nil {
				t.Fatal(err)
			}
			if name != "chunked" { // whose trailer has sizes within sizes
				st.trailer()
			}
			if !bytes.Equal(st.encode(), b) {
				t.Errorf("%s: %s is written differently", s.Name, row.Files[0])
			}
		}
	}
}

func TestDerivedSets(t *testing.T) {
	lost := Get("virtnbd-lost")
	st, _ := readStream(t, lost, lost.Lay(t), lostAt)
	zeroes := 0
	for _, f := range st.frames {
		if f.kind == "zero" {
			zeroes++
		}
	}
	if st.meta.Incremental || st.meta.ParentCheckpoint != "" || st.meta.CheckpointName != lostAt || zeroes == 0 {
		t.Errorf("virtnbd-lost: %+v with %d zero frames", st.meta, zeroes)
	}

	bare := Get("virtnbd-lz4-notrailer")
	if st, b := readStream(t, bare, bare.Lay(t), lostAt); len(st.tail) > 0 || bytes.Contains(b, []byte("comp ")) || !st.meta.isCompressed() {
		t.Errorf("virtnbd-lz4-notrailer: tail %q", st.tail)
	}

	v1 := Get("virtnbd-v1")
	if _, b := readStream(t, v1, v1.Lay(t), "virtnbdbackup.0"); !bytes.Contains(b, []byte("\"parentCheckpoint\": false,\n    \"incremental\": false,\n    \"stream-version\": 1\n}")) ||
		bytes.Contains(b[:500], []byte("compress")) {
		t.Errorf("virtnbd-v1: %q", b[:500])
	}

	sums := Get("virtnbd-chksum")
	dir := sums.Lay(t)
	_, b := readStream(t, sums, dir, lostAt)
	got, err := os.ReadFile(sums.path(dir, sums.Point("vda", lostAt)) + ".chksum")
	if want := fmt.Sprint(adler32.Checksum(b)); err != nil || string(got) != want {
		t.Errorf("virtnbd-chksum: %q, want %s (%v)", got, want, err)
	}
}

// An offline increment of the real tool names itself as its parent: it has replaced
// the increment that it is based on.
func TestOfflineNamesItself(t *testing.T) {
	s := Get("virtnbd-offline")
	st, _ := readStream(t, s, s.Lay(t), "virtnbdbackup.1")
	if st.meta.ParentCheckpoint != st.meta.CheckpointName || !st.meta.Incremental {
		t.Errorf("meta %+v", st.meta)
	}
}
