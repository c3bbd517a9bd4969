package libvirt

import (
	"fmt"
	"io/fs"
	"strings"
)

// A FormatError says which part of a document breaks which rule.
type FormatError struct {
	Structure string // "checkpoint", "backup", "domain"
	Path      string // where: "domaincheckpoint/disks/disk[2]/@size", counted from 1
	Value     string // what was found; the document's text, so of any length and any character
	Msg       string // the rule that it breaks
}

// maxShown is how much of a value or a path a message shows.
const maxShown = 100

func (e *FormatError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("%s: %s: %s", e.Structure, ending(e.Path), e.Msg)
	}
	return fmt.Sprintf("%s: %s is %.*q: %s", e.Structure, ending(e.Path), maxShown, e.Value, e.Msg)
}

// ending is the last part of a path. It consists of names of XML elements, which
// hold no control characters.
func ending(path string) string {
	if len(path) <= 2*maxShown {
		return path
	}
	return "…" + strings.ToValidUTF8(path[len(path)-2*maxShown:], "")
}

// shortened is the beginning of a message that repeats what a document says.
func shortened(msg string) string {
	if len(msg) <= 2*maxShown {
		return msg
	}
	return strings.ToValidUTF8(msg[:2*maxShown], "") + "…"
}

// A NotFoundError reports a disk or a checkpoint that there is not. It wraps
// fs.ErrNotExist.
type NotFoundError struct {
	What string   // "disk", "checkpoint"
	Name string   // what was asked for
	Have []string // what there is
}

// maxNamesTold is how many names the message of a NotFoundError has at most.
const maxNamesTold = 20

func (e *NotFoundError) Error() string {
	if len(e.Have) == 0 {
		return fmt.Sprintf("no %s %.*q: there is none", e.What, maxShown, e.Name)
	}
	var told []string
	for i, h := range e.Have {
		if i == maxNamesTold {
			told = append(told, fmt.Sprintf("%d more", len(e.Have)-i))
			break
		}
		told = append(told, fmt.Sprintf("%.*q", maxShown, h))
	}
	return fmt.Sprintf("no %s %.*q: there are %s", e.What, maxShown, e.Name, strings.Join(told, ", "))
}

func (e *NotFoundError) Unwrap() error { return fs.ErrNotExist }
