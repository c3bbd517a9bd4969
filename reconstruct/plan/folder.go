package plan

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// errTooLarge: a record is larger than records are.
var errTooLarge = errors.New("it is larger than a record may be")

// An entry is a regular file below the folder, or a member of an archive there.
type entry struct {
	path    string // of the file, below the folder
	member  string // of the archive, if it is one of its members
	dir     string // of the member or file; two entries of one backup set share it
	name    string // the last part
	size    int64
	content func() (readAtCloser, error)
}

type readAtCloser interface {
	io.ReaderAt
	io.Closer
}

// ID is how the entry is called in messages.
func (e *entry) ID() string { return Source{Path: e.path, Member: e.member}.String() }

func (e *entry) document() *Document { return &Document{Path: e.path, Member: e.member} }

// A folder lists entries, within limits.
type folder struct {
	root     fs.FS
	opts     Options
	entries  []*entry
	problems []Problem
}

func (f *folder) problem(kind ProblemKind, severity Severity, format string, args ...any) {
	f.problems = append(f.problems, Problem{Kind: kind, Severity: severity, Text: fmt.Sprintf(format, args...)})
}

// walk lists the regular files. What is no regular file (a link that leads out, a
// FIFO, a device) is left alone.
func (f *folder) walk(ctx context.Context) error {
	if f.opts.Files != nil {
		return f.listed()
	}
	return fs.WalkDir(f.root, ".", func(name string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch {
		case err != nil && name == ".":
			return err
		case err != nil:
			f.problem(ProblemUnreadable, Doubt, "%s: %v", name, plain(err))
			return nil
		case d.IsDir() && strings.Count(name, "/") >= f.opts.MaxDepth:
			f.problem(ProblemLimit, Doubt, "%s: folders that are more than %d deep are not looked into", name, f.opts.MaxDepth)
			return fs.SkipDir
		case d.IsDir():
			return nil
		case len(f.entries) >= f.opts.MaxFiles:
			f.problem(ProblemLimit, Doubt, "only the first %d files were looked at", f.opts.MaxFiles)
			return fs.SkipAll
		}
		f.add(name)
		return nil
	})
}

func (f *folder) listed() error {
	for _, name := range f.opts.Files {
		before := len(f.entries)
		if f.add(name); len(f.entries) == before {
			return fmt.Errorf("%s: it is no regular file that can be read", name)
		}
	}
	return nil
}

// add adds a file, with symbolic links followed as far as the root allows.
func (f *folder) add(name string) {
	info, err := fs.Stat(f.root, name)
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	e := &entry{path: name, dir: path.Dir(name), name: path.Base(name), size: info.Size()}
	e.content = func() (readAtCloser, error) { return f.open(name) }
	f.entries = append(f.entries, e)
}

// open opens a file for reading at offsets.
func (f *folder) open(name string) (readAtCloser, error) {
	file, err := f.root.Open(name)
	if err != nil {
		return nil, plain(err)
	}
	r, ok := file.(readAtCloser)
	if !ok {
		file.Close()
		return nil, fmt.Errorf("%s: it cannot be read at an offset", name)
	}
	return r, nil
}

// members adds the members of an archive. What is compressed in it cannot be read
// at an offset, and is broken for us.
func (f *folder) members(archive *entry) error {
	r, err := archive.content()
	if err != nil {
		return err
	}
	defer r.Close()
	z, err := zip.NewReader(r, archive.size)
	if err != nil {
		return err
	}
	for i, m := range z.File {
		if len(f.entries) >= f.opts.MaxFiles {
			f.problem(ProblemLimit, Doubt, "%s: only the first %d members were looked at", archive.path, i)
			return nil
		}
		if m.FileInfo().IsDir() {
			continue
		}
		if !fs.ValidPath(m.Name) {
			f.problem(ProblemRecord, Doubt, "%s: the member %q is passed over: its name leads out of the archive", archive.path, m.Name)
			continue
		}
		f.addMember(archive, m)
	}
	return nil
}

func (f *folder) addMember(archive *entry, m *zip.File) {
	e := &entry{path: archive.path, member: m.Name, dir: archive.path + "!" + path.Dir(m.Name), name: path.Base(m.Name), size: int64(min(m.UncompressedSize64, 1<<62))}
	e.content = func() (readAtCloser, error) {
		r, err := archive.content()
		if err != nil {
			return nil, err
		}
		section, err := OpenMember(r, archive.size, m.Name)
		if err != nil {
			r.Close()
			return nil, err
		}
		return memberReader{section, r}, nil
	}
	f.entries = append(f.entries, e)
}

type memberReader struct {
	*io.SectionReader
	io.Closer
}

// OpenMember is the member of a zip archive with that name, which has to be
// stored without compression: only then can it be read at offsets. Of several
// members of one name it is an error.
func OpenMember(archive io.ReaderAt, size int64, name string) (*io.SectionReader, error) {
	z, err := zip.NewReader(archive, size)
	if err != nil {
		return nil, err
	}
	named := slices.DeleteFunc(z.File, func(m *zip.File) bool { return m.Name != name })
	switch {
	case len(named) == 0:
		return nil, fmt.Errorf("member %q: %w", name, fs.ErrNotExist)
	case len(named) > 1:
		return nil, fmt.Errorf("the archive has %d members called %q", len(named), name)
	case named[0].Method != zip.Store:
		return nil, fmt.Errorf("member %q is compressed in the archive and cannot be read at an offset: unpack the archive first", name)
	}
	at, err := named[0].DataOffset()
	if err != nil {
		return nil, err
	}
	if n := named[0].UncompressedSize64; n > uint64(size) || at > size-int64(n) {
		return nil, fmt.Errorf("member %q ends beyond the end of the archive", name)
	}
	return io.NewSectionReader(archive, at, int64(named[0].UncompressedSize64)), nil
}

// record reads a small file whole.
func (f *folder) record(e *entry) ([]byte, error) {
	if e.size > f.opts.MaxRecord {
		return nil, errTooLarge
	}
	r, err := e.content()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.NewSectionReader(r, 0, e.size))
}

// plain is the error of a system call without its path, which messages have.
func plain(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
