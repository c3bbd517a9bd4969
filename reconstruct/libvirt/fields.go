package libvirt

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// fields reads values out of a tree and remembers the first rule that was broken.
type fields struct {
	structure string
	err       error
}

func (f *fields) fail(path, value, msg string) {
	if f.err == nil {
		f.err = &FormatError{f.structure, path, value, msg}
	}
}

// one is the element called name of n; two of them are an error.
func (f *fields) one(n *node, path, name string) *node {
	all := n.children(name)
	if len(all) > 1 {
		f.fail(path+"/"+name, fmt.Sprint(len(all), " elements"), "at most one is allowed")
	}
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

// text is the text of the element called name of n, which holds nothing else.
func (f *fields) text(n *node, path, name string) string {
	k := f.one(n, path, name)
	if k != nil && k.hasElements() {
		f.fail(path+"/"+name, "", "text is wanted here, not elements")
	}
	return k.content()
}

// checkpointName is the pattern of the schema: what it allows is a file's name,
// never a path.
var checkpointName = regexp.MustCompile(`^[a-zA-Z0-9_-][a-zA-Z0-9_.-]*$`)

const nameRule = "a checkpoint's name consists of letters, digits, _, - and ., and has no . in front"

// name is the text of an element that names a checkpoint; empty where it is left
// out or empty, which libvirt takes as the same.
func (f *fields) name(n *node, path, name string) string {
	s := f.text(n, path, name)
	f.checkName(path+"/"+name, s)
	return s
}

func (f *fields) checkName(path, s string) {
	if s != "" && !checkpointName.MatchString(s) {
		f.fail(path, s, nameRule)
	}
}

// nameAttr is an attribute that names a checkpoint; "" where there is none.
func (f *fields) nameAttr(n *node, path, name string) string {
	s, has := n.lookup(name)
	if has && s == "" {
		f.fail(path+"/@"+name, "", "this must name a checkpoint")
	}
	f.checkName(path+"/@"+name, s)
	return s
}

// choice is an attribute that must be one of some words; "" where there is none.
func (f *fields) choice(n *node, path, name string, words ...string) string {
	s, has := n.lookup(name)
	if has && !slices.Contains(words, s) {
		f.fail(path+"/@"+name, s, "must be "+strings.Join(words, " or "))
	}
	return s
}

// required is an attribute that must be there and not be empty.
func (f *fields) required(n *node, path, name string) string {
	s := n.attr(name)
	if s == "" {
		f.fail(path+"/@"+name, "", "this attribute must be there")
	}
	return s
}

// number is a whole number from 0 to most.
func (f *fields) number(path, s string, most int64) int64 {
	s = strings.Trim(s, whiteSpace)
	v, err := strconv.ParseUint(s, 10, 63)
	if err != nil || v > uint64(most) {
		f.fail(path, s, fmt.Sprintf("must be a whole number from 0 to %d", most))
		return 0
	}
	return int64(v)
}

// absolute says whether a path is one that libvirt's schema takes (absFilePath).
func absolute(path string) bool {
	if len(path) > 3 && path[1] == ':' && path[2] == '\\' {
		c := path[0] | 0x20
		return c >= 'a' && c <= 'z'
	}
	return len(path) > 1 && path[0] == '/'
}

func (f *fields) absolute(path, value string) {
	if value != "" && !absolute(value) {
		f.fail(path, value, "must be an absolute path")
	}
}
