package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/checkpoint"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// loadTree reads the documents of the checkpoints that there are: those that the user
// names, or those beside the backup.
func (r *backupRun) loadTree() error {
	var all []*libvirt.Checkpoint
	for _, path := range r.b.checkpoints {
		found, err := readCheckpoints(path)
		if err != nil {
			return err
		}
		all = append(all, found...)
	}
	if len(all) == 0 && len(r.b.checkpoints) == 0 {
		all, _ = readCheckpoints(r.usualCheckpoints()) // what is not there says nothing
	}
	all = r.ofDomain(all)
	if len(all) == 0 {
		return nil
	}
	tree, problems := libvirt.NewTree(all)
	for _, p := range problems {
		r.c.warn("checkpoints: %v", p)
	}
	r.tree = tree
	return nil
}

// usualCheckpoints is where documents of checkpoints are looked for, unless the user says:
// in the folder that qbit checkpoint keeps, if it is there, or beside the backup.
func (r *backupRun) usualCheckpoints() string {
	if kept := r.keptCheckpoints(); kept != "" {
		return kept
	}
	return r.folder
}

// keptCheckpoints is the folder of the documents of all checkpoints; "": there is none.
func (r *backupRun) keptCheckpoints() string {
	for _, path := range r.b.checkpoints {
		if isFolder(path) {
			return path
		}
	}
	beside := r.disks[0].source.path
	if r.domain != nil {
		beside = strings.TrimSuffix(r.b.domain, ".xml")
	}
	if beside += ".checkpoints"; len(r.b.checkpoints) == 0 && isFolder(beside) {
		return beside
	}
	return ""
}

// ofDomain are the checkpoints of the domain of this run.
func (r *backupRun) ofDomain(all []*libvirt.Checkpoint) (mine []*libvirt.Checkpoint) {
	uuid := ""
	if r.domain != nil {
		uuid = r.domain.UUID
	}
	for _, cp := range all {
		if cp.DomainUUID() == uuid {
			mine = append(mine, cp)
		}
	}
	return mine
}

// readCheckpoints reads the document at path, or all that lie in a folder.
func readCheckpoints(path string) ([]*libvirt.Checkpoint, error) {
	if !isFolder(path) {
		cp, err := readLibvirtDocument(path, libvirt.ParseCheckpoint)
		if err != nil {
			return nil, err
		}
		return []*libvirt.Checkpoint{cp}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, plainError(path, err)
	}
	var all []*libvirt.Checkpoint
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		if !e.Type().IsRegular() || !strings.HasSuffix(e.Name(), ".xml") || sniffDocument(name) != libvirt.KindCheckpoint {
			continue
		}
		cp, err := readLibvirtDocument(name, libvirt.ParseCheckpoint)
		if err != nil {
			return nil, err
		}
		all = append(all, cp)
	}
	return all, nil
}

func sniffDocument(path string) libvirt.DocumentKind {
	f, err := os.Open(path)
	if err != nil {
		return libvirt.KindUnknown
	}
	defer f.Close()
	head, _ := io.ReadAll(io.LimitReader(f, libvirt.SniffLen))
	return libvirt.Sniff(head)
}

// chooseParent gives the new checkpoint its parent: the one that is current, which is the
// newest of which a bitmap is still there.
func (r *backupRun) chooseParent() error {
	cp := r.checkpoint
	if cp == nil {
		return nil
	}
	if r.tree == nil {
		for _, d := range r.disks { // it was there, whether or not its document is
			if d.base != "" {
				cp.Parent = d.base
			}
		}
		return nil
	}
	if r.tree.Checkpoint(cp.Name) != nil {
		return fmt.Errorf("checkpoint %s: there is a document of a checkpoint with that name; a checkpoint needs a name of its own", escapeName(cp.Name))
	}
	current, unique := r.tree.Current()
	if current == nil {
		return nil
	}
	cp.Parent = r.withBitmap(current.ResolvedName())
	if !unique && cp.Parent != "" {
		r.c.warn("checkpoints: which one is current is not sure, for several have no children; %s is taken for the parent of %s, as it is the newest",
			escapeName(cp.Parent), escapeName(cp.Name))
	}
	return nil
}

// withBitmap is a checkpoint, or the nearest one above it, of which an image has the
// bitmap: the others were deleted. It is empty where there is none.
func (r *backupRun) withBitmap(name string) string {
	for at, ok := name, true; ok; at, ok = r.tree.Parent(at) {
		for _, d := range r.disks {
			if d.hasBitmap(checkpoint.BitmapOf(r.tree, d.target, at)) {
				return at
			}
		}
	}
	return ""
}

func (d *backupDisk) hasBitmap(name string) bool {
	if d.layer.image == nil || name == "" {
		return false
	}
	list, err := d.layer.image.Bitmaps()
	return err == nil && slices.ContainsFunc(list, func(b qcow2.BitmapInfo) bool { return b.Name == name })
}
