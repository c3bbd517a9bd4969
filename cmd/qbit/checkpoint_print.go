package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// stateWords are the states that a table shows.
var stateWords = map[string]string{
	stateRecordingLater: "recording (older design)",
	"recording":         "recording",
	"topmost":           "not in the topmost image",
	"gap":               "gap in the chain",
	"in-use":            "in use",
	"whole-chain":       "unknown: chain not opened",
	"successor":         "its successor is missing",
	"origin":            "not where it was made",
	"missing":           "missing",
}

func (d checkpointOnDisk) stateWord() string {
	if word, ok := stateWords[d.State]; ok && (d.Why == "" || d.State != stateRecording) {
		return word
	}
	if d.State == stateRecording { // the rule
		return "not recording"
	}
	return d.State
}

// print prints the table of list.
func (l *checkpointList) print(out io.Writer, k *checkpointCommand) error {
	w := newLineWriter(out)
	if l.Documents == 0 {
		fmt.Fprintf(w, "There are no documents in %s; these are the bitmaps.\n\n", escapeName(l.Folder))
	}
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	head := "NAME\tCREATED"
	if k.parent {
		head += "\tPARENT"
	}
	head += "\tDISK\tSTATE"
	if k.size || k.check {
		head += "\tCHANGED SINCE"
	}
	fmt.Fprintln(t, head)
	for _, cp := range l.Checkpoints {
		cp.print(t, k)
	}
	t.Flush()
	l.printProblems(w)
	return w.Flush()
}

// print prints the rows of a checkpoint, one a disk.
func (cp listedCheckpoint) print(w io.Writer, k *checkpointCommand) {
	lead := escapeName(cp.Name) + "\t" + cp.createdWord()
	if k.parent {
		lead += "\t" + dash(cp.Parent)
	}
	if len(cp.Disks) == 0 {
		fmt.Fprintln(w, lead+"\t-\tno disk takes part")
	}
	for _, d := range cp.Disks {
		line := lead + "\t" + escapeName(d.Disk) + "\t" + d.stateWord()
		if k.size || k.check {
			line += "\t" + d.sizeWord()
		}
		fmt.Fprintln(w, line)
		lead = strings.Repeat("\t", strings.Count(lead, "\t"))
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (cp listedCheckpoint) createdWord() string {
	switch {
	case !cp.Document:
		return "(bitmap alone)"
	case cp.Created == 0:
		return "-"
	}
	return time.Unix(cp.Created, 0).Format("2006-01-02 15:04:05 -0700")
}

func (d checkpointOnDisk) sizeWord() string {
	if d.DirtyBytes == nil {
		return "-"
	}
	return fmt.Sprintf("%s (%d bytes)", formatSize(*d.DirtyBytes), *d.DirtyBytes)
}

// printTree is `qbit checkpoint tree`.
func (k *checkpointCommand) printTree(ctx context.Context, c *console, args []string) error {
	s, im, err := k.openAll(c)
	if err != nil {
		return err
	}
	defer im.close()
	if err := s.docs.shallow(); err != nil {
		return err
	}
	list, err := k.survey(ctx, s, im, true)
	if err != nil {
		return err
	}
	if k.json() {
		err = writeJSON(c.out, list)
	} else {
		err = list.printTree(c.out, s)
	}
	return k.verdict(list, err)
}

// printTree prints libvirt's tree, and beside each name what it is on each disk.
func (l *checkpointList) printTree(out io.Writer, s *checkpointSet) error {
	w := newLineWriter(out)
	beside := map[string]string{}
	for _, cp := range l.Checkpoints {
		beside[cp.Name] = cp.onDisks()
	}
	for line := range s.docs.tree.Lines() {
		line = strings.TrimRight(line, " ")
		name := line[strings.LastIndexByte(line, ' ')+1:]
		if about, ok := beside[name]; ok {
			line += about
		}
		fmt.Fprintln(w, line)
	}
	for _, cp := range l.Checkpoints {
		if !cp.Document {
			fmt.Fprintf(w, "(bitmap alone) %s%s\n", escapeName(cp.Name), cp.onDisks())
		}
	}
	l.printProblems(w)
	return w.Flush()
}

// onDisks is what stands beside the name of a checkpoint.
func (cp listedCheckpoint) onDisks() string {
	var all []string
	for _, d := range cp.Disks {
		about := escapeName(d.Disk) + ": "
		switch {
		case d.DirtyBytes != nil && d.State == stateRecording:
			about += formatSize(*d.DirtyBytes)
		case d.DirtyBytes != nil:
			about += formatSize(*d.DirtyBytes) + ", " + d.stateWord()
		default:
			about += d.stateWord()
		}
		all = append(all, about)
	}
	if len(all) == 0 {
		return ""
	}
	return "  [" + strings.Join(all, "; ") + "]"
}
