package main

import (
	"os"
	"strings"
)

// A linkArg is one link of a chain, or a single disk, as the command line names it.
type linkArg struct {
	name     string // as it was written
	path     string
	snapshot string // "": the disk itself
	raw      bool
}

// parseDisks reads the arguments of a verb that takes a chain: each is a link, or
// several joined by '+', oldest first.
func parseDisks(args []string) []linkArg {
	var links []linkArg
	for _, arg := range args {
		links = append(links, parseDisk(arg, pathExists)...)
	}
	return links
}

// parseDisk reads one DISK. A file that has the whole name wins over a split at
// '+' or '@'; of several ways to split, the one whose first file has the longest
// name, so that both signs may stand in file names.
func parseDisk(arg string, exists func(string) bool) []linkArg {
	parts := strings.Split(arg, "+")
	if links := splitChain(parts, exists, make(map[int]bool)); links != nil {
		return links
	}
	if len(parts) == 1 {
		return []linkArg{parseLink(arg, exists)}
	}
	// Something is missing: the plain reading gives the clearest message.
	var links []linkArg
	for _, part := range parts {
		links = append(links, parseLink(part, exists))
	}
	return links
}

// splitChain joins parts to links that all exist, or gives nil. dead remembers
// how many parts were left where that was tried in vain.
func splitChain(parts []string, exists func(string) bool, dead map[int]bool) []linkArg {
	if dead[len(parts)] {
		return nil
	}
	for n := len(parts); n > 0; n-- {
		link := parseLink(strings.Join(parts[:n], "+"), exists)
		if !exists(link.path) {
			continue
		}
		if n == len(parts) {
			return []linkArg{link}
		}
		if rest := splitChain(parts[n:], exists, dead); rest != nil {
			return append([]linkArg{link}, rest...)
		}
	}
	dead[len(parts)] = true
	return nil
}

// parseLink reads PATH, PATH@SNAPSHOT or raw:PATH.
func parseLink(arg string, exists func(string) bool) linkArg {
	link := linkArg{name: arg}
	link.path, link.raw = strings.CutPrefix(arg, "raw:")
	if link.raw || exists(link.path) {
		return link
	}
	for i := len(arg) - 1; i > 0; i-- {
		if arg[i] == '@' && exists(arg[:i]) {
			link.path, link.snapshot = arg[:i], arg[i+1:]
			return link
		}
	}
	return link
}

func pathExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
