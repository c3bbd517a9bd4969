package sets

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// Every mutation must apply to something, change something, and leave what it says
// that it leaves: points that must come out right are the truth to a reader which
// trusts the order of the truth, those that are only Blind are not.
func TestMutations(t *testing.T) {
	done := map[string]int{}
	for _, m := range Mutations() {
		for _, s := range All() {
			if !m.Applies(s) {
				continue
			}
			done[m.Name]++
			t.Run(m.Name+"/"+s.Name, func(t *testing.T) {
				t.Parallel()
				checkMutation(t, m, s)
			})
		}
		if done[m.Name] == 0 {
			t.Errorf("%s applies to no set", m.Name)
		}
	}
}

func checkMutation(t *testing.T, m Mutation, s Set) {
	dir := s.Lay(t)
	before := state(t, dir)
	e, err := m.Apply(dir, s)
	if err != nil {
		t.Fatal(err)
	}
	if same := before == state(t, dir); same != (m.Name == "Touch" || m.Name == "Resized") {
		t.Errorf("files are the same: %v", same)
	}
	if s.Zip {
		dir = unzip(t, s.Path(dir))
	}
	for _, row := range s.Truth {
		if e.Of(row) == 0 {
			t.Errorf("nothing is expected of %s of %s", row.Point, row.Disk)
		}
		if readable(s, row) {
			checkPoint(t, dir, s, row, e.Of(row))
		}
	}
	if worst := e.Worst(s); len(worst) > 0 && len(e.Keywords) == 0 && s.Wants == Right && !s.Lossy && m.Name != "Touch" {
		t.Errorf("no keyword for %s", worst[0].Point)
	}
}

// state digests the names and contents of all files.
func state(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		fmt.Fprintln(h, path)
		_, err = io.Copy(h, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func checkPoint(t *testing.T, dir string, s Set, row Truth, v Verdict) {
	t.Helper()
	err := verify(dir, s.chainTo(row))
	switch {
	case v == Right && err != nil:
		t.Errorf("%s of %s must come out right: %v", row.Point, row.Disk, err)
	case v == Blind && err == nil:
		t.Errorf("%s of %s must not be the truth, and is", row.Point, row.Disk)
	}
}
