package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/qbitkit/qbit/reconstruct/checkpoint"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// A checkpointProblem is something that does not fit, and what can be done.
type checkpointProblem struct {
	Kind       string   `json:"kind"`
	Checkpoint string   `json:"checkpoint,omitempty"`
	Disk       string   `json:"disk,omitempty"`
	Bitmap     string   `json:"bitmap,omitempty"`
	Filename   string   `json:"filename,omitempty"`
	Why        string   `json:"why"`
	Todo       []string `json:"what-to-do"`
}

// addProblems adds what the comparison found.
func (l *checkpointList) addProblems(s *checkpointSet, im *checkpointImages, problems []checkpoint.Problem) {
	for _, err := range s.docs.broken {
		l.Problems = append(l.Problems, checkpointProblem{Kind: "document", Why: escapeText(err.Error()),
			Todo: []string{"mend the file, or move it out of the folder"}})
	}
	for _, p := range problems {
		told := im.tell(p)
		if p.Notice() {
			l.Notices = append(l.Notices, told)
		} else {
			l.Problems = append(l.Problems, told)
		}
	}
}

// tell says what a problem is, and what can be done about it.
func (im *checkpointImages) tell(p checkpoint.Problem) checkpointProblem {
	told := checkpointProblem{Kind: string(p.Kind), Checkpoint: p.Checkpoint, Disk: p.Target, Bitmap: escapeName(p.Bitmap)}
	if l := im.find(p.Target, p.Layer); l != nil {
		told.Filename = l.path
	}
	switch p.Kind {
	case checkpoint.ProblemTree:
		told.Why = escapeText(p.Err.Error())
		told.Todo = im.s.todoTree(p)
	case checkpoint.ProblemLeftOver:
		told.Why = fmt.Sprintf("disk %s: no checkpoint has the bitmap %s of %s", escapeName(p.Target), quote(told.Bitmap), escapeName(told.Filename))
		told.Todo = []string{
			im.s.command("redefine", "--from-images") + " makes a document of it",
			im.s.command("delete", shellWord(p.Bitmap)) + " removes it",
		}
	case checkpoint.ProblemNoDisk:
		told.Why = fmt.Sprintf("checkpoint %s has a part for disk %s, which is not one of those looked at", p.Checkpoint, escapeName(p.Target))
		told.Todo = []string{"nothing, if the disk was detached since"}
	case checkpoint.ProblemName:
		told.Why = fmt.Sprintf("disk %s: the bitmap of checkpoint %s is called %s, and libvirt looks for one with the checkpoint's name", escapeName(p.Target), p.Checkpoint, quote(told.Bitmap))
		told.Todo = []string{fmt.Sprintf("qbit bitmap --rename %s %s %s, and the same in the document", p.Checkpoint, shellWord(told.Filename), shellWord(p.Bitmap))}
	default:
		told.Why = fmt.Sprintf("disk %s: %s", escapeName(p.Target), escapeText(p.Err.Error()))
		told.Todo = im.todoRule(p, told.Filename)
	}
	return told
}

// command is a command line of this verb for the same disks.
func (s *checkpointSet) command(operation string, args ...string) string {
	line := []string{"qbit checkpoint", operation}
	if s.k.domainFile != "" {
		line = append(line, "--domain", shellWord(s.k.domainFile))
	}
	for _, d := range s.k.disks {
		line = append(line, "--disk", shellWord(d))
	}
	if s.k.folder != "" {
		line = append(line, "--checkpoints", shellWord(s.k.folder))
	}
	for _, dir := range s.k.policy.allow {
		line = append(line, "--allow-refs", shellWord(dir))
	}
	for _, ref := range s.k.policy.refs {
		line = append(line, "--ref", shellWord(ref))
	}
	if s.k.policy.trust {
		line = append(line, "--trust")
	}
	return strings.Join(append(line, args...), " ")
}

// virsh is a command line of virsh for the domain.
func (s *checkpointSet) virsh(verb, rest string) string {
	name := "DOMAIN"
	if s.domain != nil && s.domain.Name != "" {
		name = shellWord(s.domain.Name)
	}
	return strings.TrimSpace("virsh " + verb + " " + name + " " + rest)
}

// todoRule is what to do about a checkpoint that says nothing on a disk any more.
func (im *checkpointImages) todoRule(p checkpoint.Problem, path string) []string {
	if p.Kind == checkpoint.ProblemKind(checkpoint.RuleWhole) {
		return []string{"allow the backing file with --allow-refs, --ref or --trust"}
	}
	todo := []string{"it cannot be mended: " + newFull}
	switch p.Kind {
	case checkpoint.ProblemKind(checkpoint.RuleInUse):
		if im.s.k.share {
			todo = append([]string{"nothing, if a process has the image open for writing just now: all its bitmaps are marked so"}, todo...)
		}
	case checkpoint.ProblemKind(checkpoint.RuleStale):
		todo = append(todo, fmt.Sprintf("qbit bitmap --drop-all %s removes the stale bitmaps; then", shellWord(path)))
	case checkpoint.ProblemKind(checkpoint.RuleBroken):
		if hint := bitmapHint(path, p.Err); hint != "" {
			todo = append(todo, hint+"; then")
		}
	}
	name := p.Checkpoint
	return append(todo,
		im.s.command("delete", name)+" removes the checkpoint from images and documents",
		im.s.virsh("checkpoint-delete", name+" --metadata")+" has libvirt forget it")
}

// todoTree is what to do about documents that do not fit each other.
func (s *checkpointSet) todoTree(p checkpoint.Problem) []string {
	var problem libvirt.Problem
	if !errors.As(p.Err, &problem) {
		return nil
	}
	switch problem.Kind {
	case libvirt.ProblemNoParent:
		return []string{
			s.command("redefine", escapeName(problem.Parent)+".xml") + " puts the document of the parent back",
			fmt.Sprintf("or take <parent> out of %s", escapeName(s.docs.path(problem.Name))),
		}
	case libvirt.ProblemDuplicate:
		return []string{fmt.Sprintf("move all but one of these files out of the folder: %s", quoteAll(s.docs.paths[problem.Name]))}
	case libvirt.ProblemOtherDomain:
		return []string{fmt.Sprintf("move %s out of the folder: each domain has its own", escapeName(s.docs.path(problem.Name)))}
	case libvirt.ProblemCycle:
		return []string{"take <parent> out of the document of the one that was made first"}
	}
	return []string{"give it a <name>"}
}

// maxProblemsTold is how many problems a list tells; --output json has all.
const maxProblemsTold = 20

// printProblems prints what does not fit, and what to do.
func (l *checkpointList) printProblems(w io.Writer) {
	all := append(append([]checkpointProblem{}, l.Problems...), l.Notices...)
	for i, p := range all {
		if i == maxProblemsTold {
			fmt.Fprintf(w, "\n%d more; --output json has them all.\n", len(all)-i)
			return
		}
		fmt.Fprintln(w)
		for _, line := range wrap(p.Why, 80) {
			fmt.Fprintln(w, line)
		}
		for _, todo := range p.Todo {
			fmt.Fprintf(w, "  - %s\n", todo)
		}
	}
}
