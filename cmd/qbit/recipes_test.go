package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages/build"
)

// Every broken image ends in a status and one line a problem that names the file,
// or in a result.
func TestRecipes(t *testing.T) {
	for _, r := range build.Recipes() {
		dir := t.TempDir()
		path := filepath.Join(dir, "image.qcow2")
		writeFile(t, path, r.Image)
		if r.Data != nil {
			writeFile(t, filepath.Join(dir, "data.raw"), r.Data)
		}
		for _, args := range [][]string{{"info"}, {"info", "--output=json", "--backing-chain"}, {"map"}, {"map", "--output=json"}} {
			_, stderr, status := qbit(append(args, "--allow-refs="+dir, path)...)
			stderr = withoutNotes(stderr, path)
			if status > exitBad || (status == 0) != (stderr == "") {
				t.Errorf("%s: %v: status %d, stderr %q", r.Name, args, status, stderr)
			}
			for line := range strings.Lines(stderr) {
				if !strings.HasPrefix(line, "qbit: "+path) {
					t.Errorf("%s: %v: %q does not name the file", r.Name, args, line)
				}
			}
			if r.When == build.WhenOpen && status == 0 {
				t.Errorf("%s: %v: status 0", r.Name, args)
			}
		}
	}
}

// withoutNotes takes out what is said of an image beside a result or an error: that a
// file it names was not opened, how to salvage it.
func withoutNotes(stderr, path string) string {
	var rest strings.Builder
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, "qbit: note: ") || !strings.Contains(line, path) {
			rest.WriteString(line)
		}
	}
	return rest.String()
}
