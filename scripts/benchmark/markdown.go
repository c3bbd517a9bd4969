package main

import (
	"fmt"
	"os"
	"strings"
)

// partMachine and partWanted are the sections that belong to no part.
const (
	partMachine = "machine"
	partWanted  = "wanted"
)

// begins and ends are the lines between which a file has a section.
func begins(section string) string { return "<!-- bench: " + section + " -->\n" }
func ends(section string) string   { return "<!-- end: " + section + " -->\n" }

// write puts what was measured into a Markdown file: each section between the lines
// that mark it, or at the end where there are none. What else the file has stays, so
// that a part can be measured anew. The summary is that of whole runs only.
func (p *report) write(path string, whole bool) error {
	old, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	text := string(old)
	put := func(section, body string) {
		text = replaceSection(text, section, strings.TrimSpace(body)+"\n")
	}
	put(partMachine, machine())
	if whole {
		put(partWanted, p.wanted())
	}
	for _, part := range p.order {
		put(part, p.sections[part].String())
	}
	return os.WriteFile(path, []byte(text), 0o666)
}

// replaceSection has a text with a new body in a section.
func replaceSection(text, section, body string) string {
	whole := begins(section) + body + ends(section)
	start := strings.Index(text, begins(section))
	if start < 0 {
		return fmt.Sprintf("%s\n%s", text, whole)
	}
	stop := strings.Index(text[start:], ends(section))
	if stop < 0 {
		return text[:start] + whole + text[start+len(begins(section)):]
	}
	return text[:start] + whole + text[start+stop+len(ends(section)):]
}
