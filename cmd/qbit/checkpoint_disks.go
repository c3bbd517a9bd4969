package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// A checkpointSet is what one run works on: the disks, and the documents.
type checkpointSet struct {
	k      *checkpointCommand
	domain *libvirt.Domain // nil: images were named
	// disks are all of the domain, or those that were named.
	disks  []libvirt.DomainDisk
	paths  map[string]string // of --disk NAME=PATH
	chosen []string          // of --disk NAME; nil: all
	folder string
	docs   *checkpointDocs
}

// openSet reads the domain, and the documents.
func (k *checkpointCommand) openSet(c *console) (*checkpointSet, error) {
	s := &checkpointSet{k: k, paths: map[string]string{}}
	err := s.readDisks(c)
	if err != nil {
		return nil, err
	}
	if s.folder = k.folder; s.folder == "" {
		if s.folder, err = s.defaultFolder(); err != nil {
			return nil, err
		}
	}
	s.docs, err = readDocs(s.folder, k.folder == "" || k.flags.Arg(0) == "create" || k.flags.Arg(0) == "redefine")
	return s, err
}

// defaultFolder is beside the domain's file, or the first image that was named.
func (s *checkpointSet) defaultFolder() (string, error) {
	if s.domain == nil {
		return s.paths[s.disks[0].Target] + ".checkpoints", nil
	}
	if info, err := os.Stat(s.k.domainFile); err != nil || !info.Mode().IsRegular() {
		return "", usagef("the domain's XML comes out of a pipe: say with --checkpoints DIR where the documents are")
	}
	return strings.TrimSuffix(s.k.domainFile, ".xml") + ".checkpoints", nil
}

func (s *checkpointSet) readDisks(c *console) error {
	for _, arg := range s.k.disks {
		if err := s.readDisk(arg); err != nil {
			return err
		}
	}
	if s.k.domainFile == "" {
		for _, arg := range s.k.disks {
			name, path, _ := strings.Cut(arg, "=")
			s.disks = append(s.disks, libvirt.DomainDisk{Target: name, Source: path, Device: "disk", Type: "file", Driver: formatQcow2})
		}
		return nil
	}
	b, err := s.k.readDocument(c, s.k.domainFile)
	if err != nil {
		return err
	}
	if s.domain, err = libvirt.ParseDomain(b); err != nil {
		return badData{fmt.Errorf("%s: %w", escapeName(s.k.domainFile), err)}
	}
	s.disks = s.domain.Disks
	for name := range s.paths {
		if err := s.known(name); err != nil {
			return err
		}
	}
	for _, name := range s.chosen {
		if err := s.known(name); err != nil {
			return err
		}
	}
	return nil
}

// known refuses a --disk that the domain has not.
func (s *checkpointSet) known(name string) error {
	if _, err := s.domain.Disk(name); err != nil {
		return usagef("--disk: %s: %w", escapeName(s.k.domainFile), err)
	}
	return nil
}

// diskTarget is what the schema takes as the name of a disk.
var diskTarget = regexp.MustCompile(`^(ioemu:)?(fd|hd|sd|vd|xvd|ubd)[a-zA-Z0-9_]+$`)

// readDisk reads one --disk.
func (s *checkpointSet) readDisk(arg string) error {
	name, path, named := strings.Cut(arg, "=")
	switch {
	case !diskTarget.MatchString(name):
		return usagef("--disk %q: it is NAME=PATH, and a NAME is like vda or sdb", arg)
	case named && path == "":
		return usagef("--disk %q: the PATH is missing", arg)
	case !named && s.k.domainFile == "":
		return usagef("--disk %q: it is NAME=PATH; a NAME alone is a disk of --domain", arg)
	case named && s.paths[name] != "", !named && slices.Contains(s.chosen, name):
		return usagef("--disk: %s is named twice", name)
	case named:
		s.paths[name] = path
	default:
		s.chosen = append(s.chosen, name)
	}
	return nil
}

// takesPart says whether a disk was chosen, if any was.
func (s *checkpointSet) takesPart(d libvirt.DomainDisk) bool {
	return len(s.chosen) == 0 || slices.Contains(s.chosen, d.Target)
}

// readDocument reads an XML document that the user names whole, also from a pipe; -:
// standard input.
func (k *checkpointCommand) readDocument(c *console, path string) ([]byte, error) {
	in := c.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, plainError(path, err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, libvirt.MaxDocument+1))
	switch {
	case err != nil:
		return nil, plainError(path, err)
	case len(b) > libvirt.MaxDocument:
		return nil, badData{fmt.Errorf("%s: the document has more than %d bytes, which are not read", escapeName(path), libvirt.MaxDocument)}
	}
	return b, nil
}

// whyNoBitmaps is why a disk of a domain can have no bitmaps that we see; "": it can.
func (s *checkpointSet) whyNoBitmaps(d libvirt.DomainDisk) string {
	switch {
	case d.Source == "":
		return "it is empty"
	case d.ReadOnly || d.Device == "cdrom":
		return "it is read-only"
	case d.Driver == "":
		return "its <driver> does not say the format, which libvirt takes for raw; only qcow2 has bitmaps"
	case d.Driver != formatQcow2:
		return fmt.Sprintf("its format is %s; only qcow2 has bitmaps", escapeName(d.Driver))
	case s.paths[d.Target] == "" && d.Type != "file" && d.Type != "block":
		return fmt.Sprintf("it lies at a source of the type %s; say with --disk %s=PATH where it can be opened", escapeName(d.Type), escapeName(d.Target))
	}
	return ""
}

// place is where the image of a disk is: as the user says, or as the domain does, whose
// document the user named. What the domain says is a path and nothing else.
func (s *checkpointSet) place(d libvirt.DomainDisk) (path string, err error) {
	if path := s.paths[d.Target]; path != "" {
		return path, nil
	}
	target, err := s.k.policy.resolve(qcow2.Ref{Name: d.Source, Format: d.Driver}, s.k.domainFile)
	var refused *refusedError
	switch {
	case errors.As(err, &refused) && filepath.IsAbs(d.Source):
		return d.Source, nil
	case errors.As(err, &refused):
		return "", fmt.Errorf("%s: its disk %s, %s, was not opened: it is no path; say where it is with --disk %s=PATH",
			escapeName(s.k.domainFile), escapeName(d.Target), quote(escapeName(d.Source)), escapeName(d.Target))
	case err != nil:
		return "", err
	case target.raw:
		return "", usagef("--ref: disk %s is to be a qcow2 image, and the PATH says raw:", escapeName(d.Target))
	}
	return target.path, nil
}

// openDisk opens the image of a disk for reading, with as much of its chain as is
// allowed.
func (s *checkpointSet) openDisk(o *opener, d libvirt.DomainDisk) (*layer, error) {
	path, err := s.place(d)
	if err != nil {
		return nil, err
	}
	l, err := o.open(linkArg{name: path, path: path}, refsReported)
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", escapeName(d.Target), err)
	}
	return l, nil
}

// finishBackups finishes or undoes backups with a checkpoint that were interrupted.
// Where no bitmap is to be changed it only tells of them.
func (s *checkpointSet) finishBackups(c *console, disks []libvirt.DomainDisk) error {
	change := !s.k.dry && slices.Contains([]string{"create", "delete", "merge"}, s.k.flags.Arg(0))
	for _, d := range disks {
		path, err := s.place(d)
		if err != nil {
			return err
		}
		if change {
			if err := recoverBackup(c, path, s.k.limits.limits); err != nil {
				return err
			}
			continue
		}
		if note, err := reconstruct.BackupIntentPath(path); err == nil && pathExists(note) {
			c.note("%s: a backup with a checkpoint was interrupted; the next qbit backup of it, or the next change of its checkpoints, finishes or undoes it", escapeName(path))
		}
	}
	return nil
}
