package main

import (
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/spf13/pflag"
)

const overview = `qbit restores disks from qcow2 backups, and reads, checks and edits qcow2 images and
their dirty bitmaps, without QEMU.

Usage: qbit VERB [OPTIONS] ARGUMENTS

`

const overviewEnd = `
  help         print the help of a verb: qbit help VERB
  completion   print a completion script: qbit completion bash|zsh|fish

qbit VERB --help says what a verb takes, and its exit statuses.
qbit --version prints the version.
`

// diskHelp says what can stand where a verb takes a disk.
const diskHelp = `A DISK is one of
  PATH             a qcow2 image
  PATH@SNAPSHOT    an internal snapshot of it, by ID or name
  raw:PATH         a raw disk; only your word makes a file raw, never its content
  FULL+INC1+INC2   a full backup and its increments, oldest first
A file that has the whole name wins over any other reading of it.`

// refHelp says which of the files that an image names are opened.
const refHelp = `Files that an image names (a backing file, an external data file) are opened
only if you allow it with --allow-refs, --ref or --trust. Names with a protocol
(nbd:, json:, https:, …) are never opened; --ref can stand in for them. In a
chain of links, the backing names of all links but the first are never used.`

// printOverview prints the table of verbs.
func printOverview(w io.Writer) {
	io.WriteString(w, overview)
	for _, v := range verbs() {
		fmt.Fprintf(w, "  %-12s %s\n", v.name, v.short)
	}
	io.WriteString(w, overviewEnd)
}

// printVerb prints the help of one verb.
func printVerb(w io.Writer, v verb) {
	fmt.Fprintf(w, "Usage: qbit %s [OPTIONS] %s\n\n%s\n\n", v.name, v.args, strings.TrimSpace(v.long))
	io.WriteString(w, "Options:\n")
	for _, f := range flagsOf(v) {
		printFlag(w, f)
	}
	exits := v.exits
	if exits == "" {
		exits = usualExits
	}
	fmt.Fprintf(w, "\nExit status:\n  %s\n", strings.ReplaceAll(strings.TrimSpace(exits), "\n", "\n  "))
}

// flagColumn is where the text of a flag begins.
const flagColumn = 28

// printFlag prints a flag and, to its right, what it does.
func printFlag(w io.Writer, f *pflag.Flag) {
	left := "      --" + f.Name
	if f.Shorthand != "" {
		left = "  -" + f.Shorthand + ", --" + f.Name
	}
	kind, usage := pflag.UnquoteUsage(f)
	if takesValue(f) {
		left += " " + kind
		if words := wordsOf(f); words != nil && f.DefValue != "" {
			usage += " (default " + f.DefValue + ")"
		}
	}
	if len(left) > flagColumn-2 {
		fmt.Fprintln(w, left)
		left = ""
	}
	for _, line := range wrap(usage, 80-flagColumn) {
		fmt.Fprintf(w, "%-*s%s\n", flagColumn, left, line)
		left = ""
	}
}

// wrap breaks a text into lines of at most width letters.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}

// runHelp is `qbit help [VERB]`.
func runHelp(c *console, args []string) int {
	if len(args) == 0 {
		printOverview(c.out)
		return exitDone
	}
	v, err := findVerb(args[0])
	if err != nil {
		return c.fail(err, statusOf)
	}
	printVerb(c.out, v)
	return exitDone
}

// version is what the build recorded: a tag, or the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	commit, modified := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "+changes"
		}
	}
	return strings.TrimSpace("(devel) " + commit + modified)
}
