package sets

import (
	"fmt"
	"path"
	"path/filepath"

	"github.com/qbitkit/qbit/testimages"
)

// oldHome is where the files of a moved set lay when they were linked.
const oldHome = "/srv/backup/2026-03/web"

// qcow2Sets are plain chains that only backing names hold together. The names of
// the files are no help.
func qcow2Sets() []Set {
	return []Set{
		linked("qcow2-relative", BackingRelative, func(s *Set, dir string, t Truth) string {
			name, _ := s.below(t)
			return name
		}),
		linked("qcow2-absolute", BackingAbsolute, func(s *Set, dir string, t Truth) string {
			return filepath.Join(dir, s.Point(t.Disk, t.Parent).Files[0])
		}),
		linked("qcow2-moved", BackingMoved, func(s *Set, dir string, t Truth) string {
			return path.Join(oldHome, s.Point(t.Disk, t.Parent).Files[0])
		}),
		linked("qcow2-json", BackingJSON, func(s *Set, dir string, t Truth) string {
			return jsonName(filepath.Join(dir, s.Point(t.Disk, t.Parent).Files[0]))
		}),
	}
}

// jsonName is a backing name as QEMU writes it for a file that was opened by options.
func jsonName(path string) string {
	return fmt.Sprintf(`json:{"driver":"qcow2","file":{"driver":"file","filename":%q}}`, filepath.ToSlash(path))
}

// plainNames are in no order that a sort would find.
var plainNames = []string{"monday", "base", "web-new", "aa", "snap9", "snap10"}

func linked(name string, b Backing, link func(s *Set, dir string, t Truth) string) Set {
	s := Set{Name: name, Tool: "qcow2", Evidence: Implied, Backing: b}
	if b == BackingMoved {
		s.Map = oldHome
	}
	s.Truth = index("demo").truth(99, func(d testimages.ChainDisk, i int) Truth {
		return Truth{Disk: "web", Point: plainNames[i], Files: []string{plainNames[i] + ".qcow2"}}
	})
	s.parts = func(s *Set, dir string) error {
		return s.spread("demo", dir, func(t Truth) (string, string) {
			if t.Parent == "" {
				return "", ""
			}
			return link(s, dir, t), "qcow2"
		})
	}
	return s
}
