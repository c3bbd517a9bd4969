// Package scripts holds the commands of the repository and the tests of its
// shape.
package scripts

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/qbitkit/qbit"

// mayImport says which packages of ours each package may import. A name that
// ends in /... stands for that package and all below it; of two rows that match
// the longer one holds. A new edge is a change of the design: it is made here
// first, and on purpose.
var mayImport = map[string][]string{
	"bitmap":                 {},
	"qcow2":                  {"bitmap", "qcow2/inflate", "qcow2/luks"},
	"qcow2/inflate":          {},
	"qcow2/luks":             {},
	"reconstruct":            {"bitmap", "qcow2", "reconstruct/libvirt", "reconstruct/manifest", "reconstruct/virtnbd"},
	"reconstruct/checkpoint": {"bitmap", "qcow2", "reconstruct/libvirt"},
	"reconstruct/libvirt":    {},
	"reconstruct/manifest":   {},
	"reconstruct/nbd":        {},
	"reconstruct/plan":       {"qcow2", "reconstruct/libvirt", "reconstruct/manifest", "reconstruct/virtnbd"},
	"reconstruct/virtnbd":    {"bitmap", "qcow2"},
	"cmd/qbit":               {"bitmap", "qcow2/...", "reconstruct/..."},
	"testimages/...":         {"testimages/..."},
	"fuzz":                   {"..."},
	"scripts/...":            {},
}

// testsMayImport is what test files may import beyond their package's row.
const testsMayImport = "testimages/..."

// listed is what we read of one package in the output of go list -json.
type listed struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func TestImports(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows"} {
		t.Run(goos, func(t *testing.T) {
			packages := list(t, goos)
			if len(packages) == 0 {
				t.Fatal("go list found no package")
			}
			for _, p := range packages {
				for _, edge := range forbidden(p) {
					t.Error(edge)
				}
			}
		})
	}
}

// TestImportsTable proves that the check can fail, one row a rule.
func TestImportsTable(t *testing.T) {
	tests := []struct {
		name string
		in   listed
		want []string
	}{
		{"foreign", listed{ImportPath: "bitmap", Imports: []string{"iter", "github.com/spf13/pflag"}}, nil},
		{"named", listed{ImportPath: "qcow2", Imports: ours("bitmap", "qcow2/luks")}, nil},
		{"new edge", listed{ImportPath: "bitmap", Imports: ours("qcow2")},
			[]string{"bitmap imports qcow2"}},
		{"subpackage is not its parent", listed{ImportPath: "reconstruct", Imports: ours("reconstruct/nbd")},
			[]string{"reconstruct imports reconstruct/nbd"}},
		{"below", listed{ImportPath: "cmd/qbit", Imports: ours("reconstruct/nbd", "qcow2/luks", "qcow2")}, nil},
		{"not by prefix of a name", listed{ImportPath: "cmd/qbit", Imports: ours("qcow2x")},
			[]string{"cmd/qbit imports qcow2x"}},
		{"images in tests", listed{ImportPath: "bitmap", TestImports: ours("testimages/interop"),
			XTestImports: ours("testimages", "bitmap")}, nil},
		{"images outside tests", listed{ImportPath: "cmd/qbit", Imports: ours("testimages")},
			[]string{"cmd/qbit imports testimages"}},
		{"edges of tests", listed{ImportPath: "qcow2", TestImports: ours("fuzz"), XTestImports: ours("reconstruct")},
			[]string{"a test of qcow2 imports fuzz", "a test of qcow2 imports reconstruct"}},
		{"images know no format of ours", listed{ImportPath: "testimages/crash", Imports: ours("qcow2", "testimages")},
			[]string{"testimages/crash imports qcow2"}},
		{"fuzz", listed{ImportPath: "fuzz", TestImports: ours("qcow2", "testimages", "reconstruct/nbd")}, nil},
		{"not in the table", listed{ImportPath: "internal/util"},
			[]string{"internal/util has no row in the table"}},
		{"row of a parent is not its children's", listed{ImportPath: "bitmap/wire"},
			[]string{"bitmap/wire has no row in the table"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.in.ImportPath = module + "/" + tt.in.ImportPath
			if got := forbidden(tt.in); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// forbidden describes what p imports against the table.
func forbidden(p listed) []string {
	name := short(p.ImportPath)
	allowed, ok := rowOf(name)
	if !ok {
		return []string{name + " has no row in the table"}
	}
	edges := outside(p.Imports, allowed, name+" imports ")
	allowed = append(slices.Clone(allowed), testsMayImport, name)
	edges = append(edges, outside(p.TestImports, allowed, "a test of "+name+" imports ")...)
	return append(edges, outside(p.XTestImports, allowed, "a test of "+name+" imports ")...)
}

// rowOf returns what the most exact row of the table allows name.
func rowOf(name string) (allowed []string, ok bool) {
	longest := ""
	for pattern := range mayImport {
		if matches(pattern, name) && len(pattern) > len(longest) {
			longest = pattern
		}
	}
	return mayImport[longest], longest != ""
}

// outside returns those of our packages among imports that no pattern allows,
// each with the prefix before it.
func outside(imports, allowed []string, prefix string) []string {
	var edges []string
	for _, path := range imports {
		name := short(path)
		isAllowed := func(pattern string) bool { return matches(pattern, name) }
		if name != path && !slices.ContainsFunc(allowed, isAllowed) {
			edges = append(edges, prefix+name)
		}
	}
	return edges
}

// matches tells whether a pattern of the table stands for the package name.
func matches(pattern, name string) bool {
	above, below := strings.CutSuffix(pattern, "...")
	if !below {
		return pattern == name
	}
	return strings.HasPrefix(name+"/", above)
}

// short names a package of ours by its folder, and leaves others as they are.
func short(path string) string {
	return strings.TrimPrefix(path, module+"/")
}

// ours is the inverse of short.
func ours(names ...string) []string {
	paths := make([]string, len(names))
	for i, name := range names {
		paths[i] = module + "/" + name
	}
	return paths
}

// list returns all packages of the module as they are on one system.
func list(t *testing.T, goos string) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-mod=readonly", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH=amd64", "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	packages, err := decode(strings.NewReader(string(out)))
	if err != nil {
		t.Fatalf("reading what go list printed: %v", err)
	}
	return packages
}

// decode reads the JSON objects that go list prints one after the other.
func decode(r io.Reader) ([]listed, error) {
	var packages []listed
	for d := json.NewDecoder(r); ; {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages, nil
		}
		if err != nil {
			return nil, err
		}
		packages = append(packages, p)
	}
}
