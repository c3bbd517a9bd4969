package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/qbitkit/qbit/reconstruct/checkpoint"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// maxCheckpointDocs is how many files of a folder are read.
const maxCheckpointDocs = 10_000

// checkpointDocs are the documents in a folder.
type checkpointDocs struct {
	folder   string
	exists   bool
	all      []*libvirt.Checkpoint
	paths    map[string][]string // by the name of the checkpoint
	tree     *libvirt.Tree
	problems []libvirt.Problem
	broken   []error // files that look like documents and cannot be read
}

var _ checkpoint.Documents = (*checkpointDocs)(nil)

// readDocs reads the documents of a folder; mayMiss says that it need not be there.
func readDocs(folder string, mayMiss bool) (*checkpointDocs, error) {
	d := &checkpointDocs{folder: folder, exists: true, paths: map[string][]string{}}
	entries, err := os.ReadDir(folder)
	switch {
	case errors.Is(err, fs.ErrNotExist) && mayMiss:
		d.exists = false
	case err != nil:
		return nil, plainError(folder, err)
	case len(entries) > maxCheckpointDocs:
		return nil, fmt.Errorf("%s: it holds %d files; more than %d are not read", escapeName(folder), len(entries), maxCheckpointDocs)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".xml") {
			d.read(filepath.Join(folder, e.Name()))
		}
	}
	d.tree, d.problems = libvirt.NewTree(d.all)
	return d, nil
}

// read reads one file. What is XML of another kind has nothing to do with us.
func (d *checkpointDocs) read(path string) {
	b, err := readDocFile(path)
	if err != nil {
		d.broken = append(d.broken, err)
		return
	}
	if libvirt.Sniff(b) != libvirt.KindCheckpoint && libvirt.Sniff(b) != libvirt.KindUnknown {
		return
	}
	cp, err := libvirt.ParseCheckpoint(b)
	if err != nil {
		d.broken = append(d.broken, badData{fmt.Errorf("%s: %w", escapeName(path), err)})
		return
	}
	d.all = append(d.all, cp)
	d.paths[cp.ResolvedName()] = append(d.paths[cp.ResolvedName()], path)
}

// readDocFile reads a document out of a folder, where anything may lie.
func readDocFile(path string) ([]byte, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.size > libvirt.MaxDocument {
		return nil, badData{fmt.Errorf("%s: the document has %d bytes; more than %d are not read", escapeName(path), f.size, libvirt.MaxDocument)}
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, f.size))
	if err != nil {
		return nil, plainError(path, err)
	}
	return b, nil
}

// whole refuses to change what is not all known.
func (d *checkpointDocs) whole() error {
	if len(d.broken) > 0 {
		return fmt.Errorf("%w; without it the tree of checkpoints is not known: mend it, or move it away", d.broken[0])
	}
	for _, p := range d.problems {
		if p.Kind != libvirt.ProblemNoParent {
			return badData{fmt.Errorf("%s: %w; qbit checkpoint list says what can be done", escapeName(d.folder), p)}
		}
	}
	return nil
}

// maxTreeDepth is how many generations of a tree are shown: its lines grow with each.
const maxTreeDepth = 1000

// shallow refuses to show a tree that has too many generations.
func (d *checkpointDocs) shallow() error {
	for branch := range d.tree.Branches() {
		if len(branch) > maxTreeDepth {
			return fmt.Errorf("%s: the tree has %d generations, and more than %d are not shown; list --parent shows the same", escapeName(d.folder), len(branch), maxTreeDepth)
		}
	}
	return nil
}

// path is the file of a checkpoint, or the one that it would get.
func (d *checkpointDocs) path(name string) string {
	if paths := d.paths[name]; len(paths) > 0 {
		return paths[0]
	}
	return filepath.Join(d.folder, name+".xml")
}

// Put implements checkpoint.Documents.
func (d *checkpointDocs) Put(cp *libvirt.Checkpoint) error {
	if err := os.MkdirAll(d.folder, 0o777); err != nil {
		return plainError(d.folder, err)
	}
	name := cp.ResolvedName()
	if err := writeNew(d.path(name), cp.Append(), d.tree.Checkpoint(name) != nil); err != nil {
		return err
	}
	d.exists = true
	return nil
}

// Remove implements checkpoint.Documents.
func (d *checkpointDocs) Remove(name string) error {
	path := d.path(name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return plainError(path, err)
	}
	return syncDir(d.folder)
}

// syncDir has a folder's entries on the disk.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	dir, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return plainError(path, err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EINVAL) {
		return plainError(path, err)
	}
	return nil
}
