package sets

import (
	"archive/zip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Every set must build, hold the files that its truth names and no half-made
// thing, all of one time.
func TestSetsBuild(t *testing.T) {
	var names []string
	for _, s := range All() {
		if slices.Contains(names, s.Name) {
			t.Errorf("two sets are named %s", s.Name)
		}
		names = append(names, s.Name)
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			dir := s.Lay(t)
			checkFiles(t, s, dir)
			checkTimes(t, dir)
		})
	}
}

func checkFiles(t *testing.T, s Set, dir string) {
	t.Helper()
	if _, err := os.Stat(s.Path(dir)); err != nil {
		t.Error(err)
	}
	seen := map[string]bool{}
	for _, row := range s.Truth {
		if row.SHA256 == "" || row.Size == 0 || row.Kind == "" || len(row.Files) == 0 {
			t.Errorf("row is not whole: %+v", row)
		}
		for _, f := range row.Files {
			if seen[f] {
				t.Errorf("two rows name %s", f)
			}
			seen[f] = true
			if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(f))); err != nil && !s.Zip {
				t.Error(err)
			}
		}
		s.chainTo(row) // panics where a parent is missing
	}
}

func checkTimes(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		st, err := d.Info()
		if err == nil && !st.ModTime().Equal(stamp) {
			t.Errorf("%s is of %s", path, st.ModTime())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// The links of each set, applied in the order of its truth by this package's own
// decoders, are the truth, except where the set says that they are not.
func TestSetsHoldTheTruth(t *testing.T) {
	for _, s := range All() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			dir := s.Lay(t)
			if s.Zip {
				dir = unzip(t, s.Path(dir))
			}
			for _, row := range s.Truth {
				if !readable(s, row) {
					continue
				}
				err := verify(dir, s.chainTo(row))
				if wrong := row.Lossy || row.Wants == Refuse|Doubt && s.Evidence == Proven; wrong != (err != nil) {
					t.Errorf("%s of %s: lossy %v: %v", row.Point, row.Disk, row.Lossy, err)
				}
			}
		})
	}
}

// readable leaves the rest to QEMU: compressed clusters, subclusters and holes.
func readable(s Set, row Truth) bool {
	return !strings.HasPrefix(s.Name, "libvirt-mixed") && !strings.HasPrefix(s.Name, "libvirt-v2") &&
		!slices.ContainsFunc(s.chainTo(row), func(t Truth) bool {
			return filepath.Ext(t.Files[0]) == ".raw" || s.Name == "virtnbd-rawdisk" && t.Kind == "copy"
		})
}

func unzip(t *testing.T, path string) string {
	t.Helper()
	dir := t.TempDir()
	z, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if err := os.CopyFS(dir, z); err != nil {
		t.Fatal(err)
	}
	return dir
}
