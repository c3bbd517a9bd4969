package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages/build"
)

// Every image that shows what an advisory is about is refused by inspect --policy, and
// no verb gives away a file that it names, though that stands beside it.
func TestAdvisories(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range build.Recipes() {
		if r.CVE == "" && r.Files[build.SecretName] == nil {
			continue
		}
		for _, cve := range strings.Fields(r.CVE) {
			seen[cve] = true
		}
		dir := t.TempDir()
		path := filepath.Join(dir, build.SelfName)
		writeFile(t, path, r.Image)
		for name, b := range r.Files {
			writeFile(t, filepath.Join(dir, name), b)
		}
		if out, _, status := qbit("inspect", "--policy", path); status != exitBad && r.When != build.WhenRefcounts {
			t.Errorf("%s: inspect --policy ends with %d:\n%s", r.Name, status, out)
		}
		for _, args := range [][]string{{"restore", "--format=qcow2", "-o", "-"}, {"info"}, {"map"}, {"check"}} {
			if tells(append(args, path)...) {
				t.Errorf("%s: %v gives away a file of the host", r.Name, args)
			}
		}
		if r.Name == "header extension: data file of the host" && !tells("restore", "--allow-refs="+dir, "-o", "-", path) {
			t.Errorf("%s: the file is not read where that is allowed: nothing was shown here", r.Name)
		}
	}
	for _, cve := range []string{"CVE-2014-0142", "CVE-2014-0143", "CVE-2014-0144", "CVE-2014-0145", "CVE-2014-0146", "CVE-2014-0147",
		"CVE-2014-0222", "CVE-2014-0223", "CVE-2024-32498", "CVE-2024-4467", "CVE-2026-27211"} {
		if !seen[cve] {
			t.Errorf("no recipe shows %s", cve)
		}
	}
}

// tells reports that a command prints what is in the file of the host.
func tells(args ...string) bool {
	out, stderr, _ := qbit(args...)
	return bytes.Contains([]byte(out+stderr), build.Secret[:20])
}
