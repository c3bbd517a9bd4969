package main

import (
	"context"
	"errors"
	"slices"

	"github.com/qbitkit/qbit/reconstruct/checkpoint"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// A checkpointList is what list and tree print.
type checkpointList struct {
	Domain      string              `json:"domain,omitempty"`
	Folder      string              `json:"folder"`
	Documents   int                 `json:"documents"`
	Checkpoints []listedCheckpoint  `json:"checkpoints"`
	Problems    []checkpointProblem `json:"problems"`
	Notices     []checkpointProblem `json:"notices"`
}

// A listedCheckpoint is a checkpoint, or a bitmap without one.
type listedCheckpoint struct {
	Name        string             `json:"name"`
	NameHex     string             `json:"name-hex,omitempty"`
	Document    bool               `json:"document"`
	Created     int64              `json:"creation-time,omitempty"`
	Parent      string             `json:"parent,omitempty"`
	Description string             `json:"description,omitempty"`
	Current     bool               `json:"current"`
	Disks       []checkpointOnDisk `json:"disks"`
}

// A checkpointOnDisk is what a checkpoint is on one disk.
type checkpointOnDisk struct {
	Disk   string `json:"disk"`
	Bitmap string `json:"bitmap"`
	// State is "recording", "recording-later" (the older design), or the rule that does
	// not hold.
	State      string       `json:"state"`
	Why        string       `json:"why,omitempty"`
	DirtyBytes *int64       `json:"dirty-bytes,omitempty"`
	Bitmaps    []listedPart `json:"bitmaps,omitempty"`
}

// A listedPart is a bitmap that counts.
type listedPart struct {
	Filename    string `json:"filename"`
	Name        string `json:"name"`
	Granularity int64  `json:"granularity"`
	Recording   bool   `json:"recording"`
}

const (
	stateRecording      = "recording"
	stateRecordingLater = "recording-later"
)

// errUnfit is the status of a comparison in which something does not fit.
var errUnfit = silent{badData{errors.New("checkpoints and bitmaps do not fit")}}

// list is `qbit checkpoint list`.
func (k *checkpointCommand) list(ctx context.Context, c *console, args []string) error {
	s, im, err := k.openAll(c)
	if err != nil {
		return err
	}
	defer im.close()
	if k.tree {
		if err := s.docs.shallow(); err != nil {
			return err
		}
		return s.docs.tree.Print(c.out)
	}
	list, err := k.survey(ctx, s, im, k.size || k.check)
	if err != nil {
		return err
	}
	list.Checkpoints = slices.DeleteFunc(list.Checkpoints, func(cp listedCheckpoint) bool { return !k.listed(s.docs.tree, cp) })
	if k.json() {
		err = writeJSON(c.out, list)
	} else {
		err = list.print(c.out, k)
	}
	return k.verdict(list, err)
}

// verdict is the status of --check.
func (k *checkpointCommand) verdict(list *checkpointList, err error) error {
	if err == nil && k.check && len(list.Problems) > 0 {
		return errUnfit
	}
	return err
}

// listed says whether --roots and --leaves let a checkpoint through.
func (k *checkpointCommand) listed(tree *libvirt.Tree, cp listedCheckpoint) bool {
	switch {
	case !cp.Document:
		return !k.roots && !k.leaves
	case k.roots && !slices.Contains(tree.Roots(), cp.Name), k.leaves && !slices.Contains(tree.Leaves(), cp.Name):
		return false
	}
	return true
}

// survey looks at all checkpoints, and what does not fit. count reads the bits too.
func (k *checkpointCommand) survey(ctx context.Context, s *checkpointSet, im *checkpointImages, count bool) (*checkpointList, error) {
	list := &checkpointList{Folder: s.folder, Documents: len(s.docs.tree.Names()), Checkpoints: []listedCheckpoint{},
		Problems: []checkpointProblem{}, Notices: []checkpointProblem{}}
	if s.domain != nil {
		list.Domain = s.domain.Name
	}
	current, unique := s.docs.tree.Current()
	var unread []checkpoint.Problem
	for _, name := range s.docs.tree.Names() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		cp := s.docs.tree.Checkpoint(name)
		row := listedCheckpoint{Name: name, Document: true, Created: cp.CreationTime, Parent: cp.Parent,
			Description: escapeText(cp.Description), Current: unique && cp == current}
		for _, d := range im.disks {
			st := checkpoint.StandingOf(d, s.docs.tree, name, count)
			if st.Bitmap != "" {
				row.Disks = append(row.Disks, im.describe(st))
			}
			if st.Err != nil && len(st.Parts) > 0 {
				unread = append(unread, st.Problem())
			}
		}
		list.Checkpoints = append(list.Checkpoints, row)
	}
	list.addBitmaps(s, im, count)
	list.addProblems(s, im, append(checkpoint.Compare(im.disks, s.docs.tree, s.docs.problems, false), unread...))
	return list, nil
}

// addBitmaps lists the bitmaps that have no document.
func (l *checkpointList) addBitmaps(s *checkpointSet, im *checkpointImages, count bool) {
	rows := map[string]int{}
	for _, d := range im.disks {
		for _, name := range d.LeftOver(s.docs.tree) {
			i, ok := rows[name]
			if !ok {
				i = len(l.Checkpoints)
				rows[name] = i
				l.Checkpoints = append(l.Checkpoints, listedCheckpoint{Name: name, NameHex: hexOf(name)})
			}
			l.Checkpoints[i].Disks = append(l.Checkpoints[i].Disks, im.describe(checkpoint.StandingOf(d, nil, name, count)))
		}
	}
}

// describe is what a checkpoint is on a disk, in words.
func (im *checkpointImages) describe(st checkpoint.Standing) checkpointOnDisk {
	d := checkpointOnDisk{Disk: st.Target, Bitmap: st.Bitmap, State: stateRecording}
	var rule *checkpoint.RuleError
	switch {
	case errors.As(st.Err, &rule):
		d.State = string(rule.Rule)
		if rule.Rule == checkpoint.RuleTopmost && rule.Below < 0 {
			d.State = string(checkpoint.ProblemMissing)
		}
		d.Why = escapeText(st.Err.Error())
	case st.Err != nil:
		d.State, d.Why = stateUnread, escapeText(st.Err.Error())
	case st.Older:
		d.State = stateRecordingLater
	}
	if st.Dirty >= 0 {
		d.DirtyBytes = &st.Dirty
	}
	for _, p := range st.Parts {
		d.Bitmaps = append(d.Bitmaps, listedPart{im.find(st.Target, p.Layer).path, p.Info.Name, p.Info.Granularity, p.Info.Auto})
	}
	return d
}
