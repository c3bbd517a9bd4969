package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// testConsole is a console whose error output can be read.
func testConsole() (*console, *bytes.Buffer) {
	var out bytes.Buffer
	return &console{out: &out, err: &out, errWidth: func() int { return 0 }, now: time.Now}, &out
}

// writeImage writes a small image; its content is made up from its name.
func writeImage(t *testing.T, path string, spec build.Spec) {
	t.Helper()
	if spec.Size == 0 {
		spec.Size = 8 * 512
	}
	if spec.Clusters == nil {
		spec.Clusters = map[uint64]build.Cluster{1: {Form: build.Normal}}
	}
	writeFile(t, path, build.Must(spec).Bytes)
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o666); err != nil {
		t.Fatal(err)
	}
}

// openOverlay opens top with a policy and returns how it went.
func openOverlay(t *testing.T, policy refPolicy, top string) (*layer, error) {
	t.Helper()
	c, _ := testConsole()
	o, err := (&sourceFlags{policy: policy}).newOpener(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.close)
	return o.open(linkArg{name: top, path: top}, refsNeeded)
}

// policyTree is a folder in which images name files in many ways.
func policyTree(t *testing.T) string {
	dir := t.TempDir()
	writeImage(t, dir+"/in/base.qcow2", build.Spec{})
	writeImage(t, dir+"/out/base.qcow2", build.Spec{})
	writeImage(t, dir+"/out/deep/base.qcow2", build.Spec{})
	writeFile(t, dir+"/in/base.raw", make([]byte, 4096))
	for link, target := range map[string]string{
		"in/inside":  "base.qcow2",
		"in/escape":  "../out/base.qcow2",
		"in/abs":     dir + "/out/base.qcow2",
		"in/folder":  "../out/deep",
		"also":       "in",
		"in/passwd":  "/etc/passwd",
		"in/absgood": dir + "/in/base.qcow2",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestPolicyAllowRefs(t *testing.T) {
	dir := policyTree(t)
	for _, test := range []struct {
		name    string
		allowed bool
	}{
		{"base.qcow2", true},
		{"./base.qcow2", true},
		{"../in/base.qcow2", true},
		{dir + "/in/base.qcow2", true},
		{dir + "/also/base.qcow2", true},
		{dir + "/out/../in/base.qcow2", true},
		{"file:" + dir + "/in/base.qcow2", true},
		{"inside", true},
		{"absgood", true},
		{"../out/base.qcow2", false},
		{"../out/../out/base.qcow2", false},
		{dir + "/out/base.qcow2", false},
		{"escape", false},
		{"abs", false},
		{"folder/base.qcow2", false},
		// Cleaning the path first would make this in/base.qcow2; it is out/base.qcow2.
		{"folder/../base.qcow2", false},
		{"passwd", false},
		{"/etc/passwd", false},
		{"file:/etc/passwd", false},
	} {
		top := dir + "/in/top.qcow2"
		writeImage(t, top, build.Spec{Backing: test.name, BackingFormat: "qcow2"})
		l, err := openOverlay(t, refPolicy{allow: []string{dir + "/in"}}, top)
		var refused *refusedError
		switch {
		case test.allowed && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.allowed && l.backing == nil:
			t.Errorf("%s was not opened", test.name)
		case !test.allowed && !errors.As(err, &refused):
			t.Errorf("%s: error is %v, want a refusal", test.name, err)
		}
	}
}

func TestPolicyLinkedFolder(t *testing.T) {
	dir := policyTree(t)
	writeImage(t, dir+"/in/top.qcow2", build.Spec{Backing: "base.qcow2", BackingFormat: "qcow2"})
	for _, allow := range []string{dir + "/also", dir + "/in/", dir, "/"} {
		for _, top := range []string{dir + "/in/top.qcow2", dir + "/also/top.qcow2"} {
			if _, err := openOverlay(t, refPolicy{allow: []string{dir + "/out", allow}}, top); err != nil {
				t.Errorf("--allow-refs=%s %s: %v", allow, top, err)
			}
		}
	}
}

// A folder may be replaced by a link after the path was found good; opening
// goes through the allowed folder and does not follow it.
func TestOpenBelowDoesNotEscape(t *testing.T) {
	dir := policyTree(t)
	root := dir + "/in"
	file, err := openBelow(refTarget{path: "x", root: root, real: root + "/base.qcow2"})
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	for _, real := range []string{root + "/escape", root + "/abs", root + "/folder/base.qcow2", dir + "/out/base.qcow2"} {
		if file, err := openBelow(refTarget{path: "x", root: root, real: real}); err == nil {
			file.Close()
			t.Errorf("%s was opened", real)
		}
	}
}

func TestPolicyRefusesByDefault(t *testing.T) {
	dir := policyTree(t)
	top := dir + "/in/top.qcow2"
	writeImage(t, top, build.Spec{Backing: "base.qcow2", BackingFormat: "qcow2"})
	_, err := openOverlay(t, refPolicy{}, top)
	if err == nil {
		t.Fatal("the backing file was opened")
	}
	for _, want := range []string{top, `backing file "base.qcow2"`, "--allow-refs=DIR", "--ref 'base.qcow2=PATH'", "--trust", dir + "/in/base.qcow2"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: does not say %s", err, want)
		}
	}
}

func TestPolicyProtocols(t *testing.T) {
	dir := policyTree(t)
	top := dir + "/in/top.qcow2"
	for _, name := range []string{
		`json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}`, "nbd://host/x",
		"nbd+unix:///x?socket=/run/sock", "https://host/x", "host_device:/dev/sda", "fat:/etc", "a:b.qcow2", "file:", "nbd:", ":x",
	} {
		writeImage(t, top, build.Spec{ClusterBits: 12, Backing: name, BackingFormat: "qcow2"})
		var refused *refusedError
		for _, policy := range []refPolicy{{trust: true}, {allow: []string{"/"}}, {}} {
			if _, err := openOverlay(t, policy, top); !errors.As(err, &refused) {
				t.Errorf("%s with %+v: error is %v, want a refusal", name, policy, err)
			}
		}
		l, err := openOverlay(t, refPolicy{refs: []string{"other=/gone", name + "=" + dir + "/out/base.qcow2"}}, top)
		if err != nil || l.backing.path != dir+"/out/base.qcow2" {
			t.Errorf("%s with --ref: %v", name, err)
		}
	}
}

// A colon after a slash is part of a file name.
func TestPolicyColonInName(t *testing.T) {
	dir := t.TempDir()
	writeImage(t, dir+"/a:b.qcow2", build.Spec{})
	writeImage(t, dir+"/top.qcow2", build.Spec{Backing: "./a:b.qcow2", BackingFormat: "qcow2"})
	if _, err := openOverlay(t, refPolicy{trust: true}, dir+"/top.qcow2"); err != nil {
		t.Error(err)
	}
}

func TestBackingFormats(t *testing.T) {
	dir := policyTree(t)
	top := dir + "/in/top.qcow2"
	for _, test := range []struct {
		name, format, ref string
		want              string // the format it is opened in, or part of the error
		status            int
	}{
		{"base.qcow2", "qcow2", "", formatQcow2, 0},
		{"base.qcow2", "", "", formatQcow2, 0},
		{"base.qcow2", "raw", "", formatRaw, 0},
		{"base.raw", "raw", "", formatRaw, 0},
		{"base.raw", "", "", "--ref 'base.raw=raw:" + dir + "/in/base.raw'", 1},
		{"base.raw", "", "base.raw=raw:" + dir + "/in/base.raw", formatRaw, 0},
		{"base.raw", "qcow2", "", "not a qcow2 image", 2},
		{"base.raw", "vmdk", "", "said to be vmdk", 1},
		{"gone", "qcow2", "", "no such file", 1},
		{"inside", "qcow2", "inside=/gone", "/gone: no such file", 1},
	} {
		writeImage(t, top, build.Spec{ClusterBits: 10, Backing: test.name, BackingFormat: test.format})
		policy := refPolicy{trust: true}
		if test.ref != "" {
			policy.refs = []string{test.ref}
		}
		l, err := openOverlay(t, policy, top)
		switch {
		case test.status == 0 && err != nil:
			t.Errorf("%+v: %v", test, err)
		case test.status == 0 && l.backing.format != test.want:
			t.Errorf("%+v: opened as %s", test, l.backing.format)
		case test.status != 0 && (err == nil || !strings.Contains(err.Error(), test.want) || statusOf(err) != test.status):
			t.Errorf("%+v: error is %v (status %d)", test, err, statusOf(err))
		}
	}
}

func TestLoops(t *testing.T) {
	dir := t.TempDir()
	for name, backing := range map[string]string{"self": "self", "a": "b", "b": "./c", "c": dir + "/a", "first": "link"} {
		writeImage(t, dir+"/"+name, build.Spec{ClusterBits: 10, Backing: backing, BackingFormat: "qcow2"})
	}
	if err := os.Link(dir+"/first", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"self", "a", "first"} {
		_, err := openOverlay(t, refPolicy{trust: true}, dir+"/"+name)
		if err == nil || !strings.Contains(err.Error(), "never ends") || statusOf(err) != exitBad {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestDepth(t *testing.T) {
	dir := t.TempDir()
	writeImage(t, dir+"/0", build.Spec{})
	for i := range maxDepth {
		writeImage(t, fmt.Sprintf("%s/%d", dir, i+1), build.Spec{ClusterBits: 10, Backing: fmt.Sprint(i), BackingFormat: "qcow2"})
	}
	if l, err := openOverlay(t, refPolicy{trust: true}, fmt.Sprintf("%s/%d", dir, maxDepth-1)); err != nil || len(l.chain()) != maxDepth {
		t.Errorf("a chain of %d: %v", maxDepth, err)
	}
	_, err := openOverlay(t, refPolicy{trust: true}, fmt.Sprintf("%s/%d", dir, maxDepth))
	if err == nil || !strings.Contains(err.Error(), "more than 256") {
		t.Errorf("a longer chain: error is %v", err)
	}
}

func TestRefFlag(t *testing.T) {
	c, _ := testConsole()
	for _, ref := range []string{"", "=", "a", "a=", "=b"} {
		if _, err := (&sourceFlags{policy: refPolicy{refs: []string{ref}}}).newOpener(c); statusOf(err) != exitUsage {
			t.Errorf("--ref %q: error is %v", ref, err)
		}
	}
	p := refPolicy{refs: []string{"a=b=c", "x=raw:y=z"}}
	for name, want := range map[string]refTarget{"a": {path: "b=c"}, "a=b": {path: "c"}, "x": {path: "y=z", raw: true}} {
		if got, ok := p.mapped(name); !ok || got != want {
			t.Errorf("mapped(%q) = %+v, %t", name, got, ok)
		}
	}
	if _, ok := p.mapped("A"); ok {
		t.Error("names are compared without regard to case")
	}
}

func TestFullRefName(t *testing.T) {
	for _, test := range [][3]string{
		{"top", "base", "base"}, {"./top", "base", "./base"}, {"a/top", "../base", "a/../base"},
		{"a/top", "/base", "/base"}, {"/a/top", "base", "/a/base"}, {"a/top", "nbd:x", "nbd:x"}, {"a/top", "./x:y", "a/./x:y"},
	} {
		if got := fullRefName(test[0], test[1]); got != test[2] {
			t.Errorf("fullRefName(%q, %q) = %q, want %q", test[0], test[1], got, test[2])
		}
	}
}

// What an image names is never printed as it is.
func TestRefusalIsEscaped(t *testing.T) {
	err := &refusedError{qcow2.Ref{Name: "evil\x1b[2J\u202e", Format: "f\n"}, "top", "why"}
	if got := err.Error(); strings.ContainsAny(got, "\x1b\n\u202e") {
		t.Errorf("the message is %q", got)
	}
}
