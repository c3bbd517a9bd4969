package main

import (
	"strings"

	"github.com/qbitkit/qbit/qcow2"
)

// judgeNames judges the files that the image names. None is opened or looked for.
func (in *inspection) judgeNames(img *qcow2.Image) {
	if ref := img.DataFile(); ref != nil {
		in.addName(ref)
		in.report.add(ruleDataFile, "the guest's data is in another file, which the image names: whoever opens the image reads and writes that file")
		if ref.Name == "" {
			in.report.add(ruleNoName, "the image does not name its data file; whoever opens it must guess")
		}
		in.judgeName(ref)
	}
	ref := img.Backing()
	if ref == nil {
		return
	}
	in.addName(ref)
	rule := ruleBacking
	if in.policy.backing {
		rule = rule.note()
	}
	in.report.add(rule, "whoever opens the image reads the file that it names, and gives its content to the guest")
	switch ref.Format {
	case formatRaw, formatQcow2:
	case "":
		in.report.add(ruleNoFormat, "the backing file's own content decides how it is read, and what it names in turn")
	default:
		in.report.add(ruleFormat, "the backing file is said to be %s, of which the image could make anything be read", quote(escapeName(ref.Format)))
	}
	in.judgeName(ref)
}

func (in *inspection) addName(ref *qcow2.Ref) {
	in.report.Names = append(in.report.Names, inspectName{Kind: ref.Kind.String(), Name: ref.Name, NameHex: hexOf(ref.Name), Format: ref.Format})
}

// devicePaths are folders that hold no files that could be meant.
var devicePaths = []string{"/dev", "/proc", "/sys", "/run"}

// judgeName judges how a name is made.
func (in *inspection) judgeName(ref *qcow2.Ref) {
	name := ref.Name
	found := func(rule inspectRule, what string) {
		in.report.add(rule, "the name of the %s, %s, %s", ref.Kind, quote(escapeName(name)), what)
	}
	protocol, isProtocol := protocolOf(name)
	switch {
	case strings.HasPrefix(name, "json:"):
		found(ruleJSONName, "is a description in JSON of any files and servers with any driver")
	case isProtocol:
		found(ruleProtocol, "makes the host talk the protocol "+escapeName(protocol))
	}
	path := strings.TrimPrefix(name, "file:")
	if strings.HasPrefix(path, "/") {
		found(ruleAbsolute, "is an absolute path: it can be any file of the host")
	}
	for _, dir := range devicePaths {
		if clean := cleanPath(path); clean == dir || strings.HasPrefix(clean, dir+"/") {
			found(ruleDevice, "is below "+dir)
		}
	}
	if hasParent(path) {
		found(ruleParent, "leads out of the image's folder")
	}
	if !isPlainText(name) {
		found(ruleControl, "has control characters, NUL, invisible characters or bytes that are no UTF-8")
	}
}

// hasParent reports a component "..".
func hasParent(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

// cleanPath drops empty components and ".", so that //dev/./x is seen.
func cleanPath(path string) string {
	var parts []string
	for part := range strings.SplitSeq(path, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	clean := strings.Join(parts, "/")
	if strings.HasPrefix(path, "/") {
		return "/" + clean
	}
	return clean
}
