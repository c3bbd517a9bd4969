package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/plan"
)

const setHelp = `FOLDER is a folder of backups, or the zip archive of virtnbdbackup. All below it
is looked at, read-only; links that lead out of it are not followed. FILE… names
the files to look at instead. Names in records (paths in XML, members of archives)
are only compared with what lies there, and never opened.`

// A set is backups in a folder, and what belongs together in it.
type set struct {
	*plan.Plan
	root *os.Root
	path string // of the root, as the user wrote it
}

// setFlags are the flags of the verbs that look at folders of backups.
type setFlags struct {
	moved []string
}

func (s *setFlags) register(fs *pflag.FlagSet) {
	fs.StringArrayVar(&s.moved, "map", nil, "files that records or headers name below OLD lie below NEW\nnow, as `OLD=NEW`; NEW is a folder of the set; may be repeated")
}

// movedPaths are the pairs of --map, with the new ones relative to the root.
func (s *setFlags) movedPaths(root string) (map[string]string, error) {
	moved := map[string]string{}
	for _, arg := range s.moved {
		before, now, ok := strings.Cut(arg, "=")
		if !ok || before == "" || now == "" {
			return nil, usagef("--map %q: it is OLD=NEW", arg)
		}
		rel, err := relativeTo(root, now)
		if err != nil {
			return nil, usagef("--map %q: %w", arg, err)
		}
		moved[before] = rel
	}
	return moved, nil
}

// relativeTo is a path below a folder as package plan wants it. A path that is not
// there as the user wrote it is taken as relative to the folder.
func relativeTo(root, path string) (string, error) {
	if _, err := os.Stat(path); err != nil && !filepath.IsAbs(path) {
		path = filepath.Join(root, path)
	}
	from, err := realPath(root)
	if err != nil {
		return "", err
	}
	to, err := realPath(path)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(from, to)
	if err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%s does not lie below %s", escapeName(path), escapeName(root))
	}
	return filepath.ToSlash(rel), nil
}

// isSet says that an argument is a folder, or an archive of backups: what restore
// plans, where it takes any other file for a link.
func isSet(arg string) bool {
	info, err := os.Stat(arg)
	if err != nil {
		return false
	}
	return info.IsDir() || info.Mode().IsRegular() && isZip(arg)
}

func isZip(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 4)
	_, err = f.ReadAt(head, 0)
	return err == nil && string(head) == "PK\x03\x04"
}

// openSet finds out what the arguments hold: one folder, or files.
func (s *setFlags) openSet(ctx context.Context, args []string, limits qcow2.Limits) (*set, error) {
	root, files, err := setRoot(args)
	if err != nil {
		return nil, err
	}
	moved, err := s.movedPaths(root)
	if err != nil {
		return nil, err
	}
	absolute, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	dir, err := os.OpenRoot(root)
	if err != nil {
		return nil, plainError(root, err)
	}
	found := &set{root: dir, path: root}
	found.Plan, err = plan.Discover(ctx, quietFS{dir}, &plan.Options{Files: files, Moved: moved, Absolute: filepath.ToSlash(absolute), Qcow2: limits})
	if err != nil {
		dir.Close()
		return nil, plainError(root, err)
	}
	return found, nil
}

func (s *set) close() { s.root.Close() }

// setRoot is the folder of the arguments, and the files to look at in it; nil:
// all.
func setRoot(args []string) (root string, files []string, err error) {
	if len(args) == 0 {
		return "", nil, usagef("name a folder of backups, or files")
	}
	if len(args) == 1 {
		info, err := os.Stat(args[0])
		if err != nil {
			return "", nil, plainError(args[0], err)
		}
		if info.IsDir() {
			return args[0], nil, nil
		}
	}
	root = filepath.Dir(args[0])
	for slices.ContainsFunc(args, func(a string) bool { return !isBelow(root, a) }) && filepath.Dir(root) != root {
		root = filepath.Dir(root)
	}
	for _, arg := range args {
		rel, err := filepath.Rel(root, arg)
		if err != nil {
			return "", nil, usagef("%s: the files of a set lie below one folder: %w", escapeName(arg), err)
		}
		files = append(files, filepath.ToSlash(rel))
	}
	return root, files, nil
}

// isBelow says that a path is below a folder, by their names alone.
func isBelow(root, path string) bool {
	rel, err := filepath.Rel(root, path)
	return err == nil && filepath.IsLocal(rel)
}

// quietFS opens files of a root as evidence is opened: without a wait for the
// other end of a FIFO, and without a trace in the access time.
type quietFS struct {
	root *os.Root
}

func (q quietFS) Open(name string) (fs.File, error) {
	if info, err := q.root.Stat(name); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("it is no regular file")}
	}
	f, err := q.root.OpenFile(filepath.FromSlash(name), openFlags, 0)
	if errors.Is(err, fs.ErrPermission) {
		f, err = q.root.OpenFile(filepath.FromSlash(name), openFlags&^noAccessTime, 0)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (q quietFS) Stat(name string) (fs.FileInfo, error) { return q.root.Stat(name) }

func (q quietFS) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(q.root.FS(), name) }

// disk finds one disk: by its name, or by DOMAIN/NAME.
func (s *set) disk(name string) (*plan.Disk, error) {
	var found []*plan.Disk
	var names []string
	for _, d := range s.Disks {
		if d.Name == name || diskTitle(d) == name {
			found = append(found, d)
		}
		names = append(names, diskTitle(d))
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, fmt.Errorf("%s: there is no disk %q here; there are %s", escapeName(s.path), name, strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("%s: several disks are called %q; name one of %s", escapeName(s.path), name, strings.Join(names, ", "))
}

// diskTitle names a disk among those of several domains.
func diskTitle(d *plan.Disk) string {
	if d.Domain == "" {
		return d.Name
	}
	return d.Domain + "/" + d.Name
}
