package main

import (
	"path/filepath"
	"testing"
)

// TestNastyNamesChanges runs the verbs that change images with the names of
// TestNastyNames.
func TestNastyNamesChanges(t *testing.T) {
	for name, spec := range nastyImages() {
		dir := t.TempDir()
		path := filepath.Join(dir, "image\x1b[31m\u202e")
		backing := filepath.Join(dir, nasty)
		for _, line := range [][]string{
			{"resize", path, "+1M"}, {"resize", path, "-1M"}, {"resize", "--trust", path, "-5"}, {"resize", path, nasty},
			{"commit", path}, {"commit", "--trust", path}, {"commit", "--trust", "-b", nasty, path}, {"commit", "--bitmaps", "--trust", path},
			{"rebase", "-b", nasty, path}, {"rebase", "--trust", "-b", "", path}, {"rebase", "-u", "-F", nasty, "-b", nasty, path},
			{"rebase", "-u", "--prove", "--at", nasty, "-b", backing, path}, {"rebase", "-u", "-b", backing, path},
		} {
			writeImage(t, path, spec)
			stdout, stderr, _ := qbit(line...)
			for _, text := range []string{stdout, stderr} {
				if bad, at := steersTerminal(text); bad {
					t.Errorf("%s: qbit %q: raw at %q", name, line, text[max(0, at-30):min(len(text), at+10)])
				}
			}
		}
	}
}
