package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// plan finds out which disks take part, and in what.
func (r *backupRun) plan(args []string) error {
	if err := r.readDomain(); err != nil {
		return err
	}
	var err error
	if len(args) == 1 {
		err = r.planDisk(args[0])
	} else {
		err = r.planDomain()
	}
	if err != nil {
		return err
	}
	return r.loadTree()
}

func (r *backupRun) readDomain() (err error) {
	if r.b.domain == "" {
		return nil
	}
	r.domain, err = readLibvirtDocument(r.b.domain, libvirt.ParseDomain)
	return err
}

// readLibvirtDocument reads a document of libvirt that the user names; -: no such thing.
func readLibvirtDocument[T any](path string, parse func([]byte) (T, error)) (doc T, err error) {
	file, err := openFile(path)
	if err != nil {
		return doc, err
	}
	defer file.Close()
	if file.size > maxDomainXML {
		return doc, fmt.Errorf("%s: the document has %d bytes; more than %d are not read", escapeName(path), file.size, maxDomainXML)
	}
	b := make([]byte, file.size)
	if _, err := file.ReadAt(b, 0); err != nil && file.size > 0 {
		return doc, plainError(path, err)
	}
	if doc, err = parse(b); err != nil {
		return doc, fmt.Errorf("%s: %w", escapeName(path), err)
	}
	return doc, nil
}

// planDisk plans the backup of one disk that the user names.
func (r *backupRun) planDisk(arg string) error {
	d := &backupDisk{source: parseLink(arg, pathExists), outFormat: r.b.format, base: r.b.since}
	if r.b.checkpoint != "" && d.source.snapshot != "" {
		return usagef("%s: a checkpoint is of the disk as it is now, not of a snapshot", escapeName(arg))
	}
	var err error
	if d.target, err = r.targetOf(d.source.path); err != nil {
		return err
	}
	r.disks = []*backupDisk{d}
	if r.b.checkpoint != "" {
		if err := r.newCheckpoint(&libvirt.Checkpoint{Name: r.b.checkpoint, Disks: []libvirt.CheckpointDisk{{Name: d.target}}}); err != nil {
			return err
		}
		d.bitmap = r.b.checkpoint
	}
	d.out = r.b.out
	if info, err := os.Stat(r.b.out); err == nil && info.IsDir() {
		d.out = r.defaultName(d, r.b.out)
	} else if err == nil && info.Mode()&os.ModeDevice != 0 {
		d.device = true
	}
	r.folder = filepath.Dir(d.out)
	if d.device {
		r.folder = "." // documents do not belong into /dev
	}
	return nil
}

// targetOf is what the disk in a file is called.
func (r *backupRun) targetOf(path string) (string, error) {
	if r.domain == nil {
		if r.b.disk != "" {
			return r.b.disk, nil
		}
		return "vda", nil
	}
	if r.b.disk != "" {
		d, err := r.domain.Disk(r.b.disk)
		return d.Target, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", plainError(path, err)
	}
	var names []string
	for _, d := range r.domain.Disks {
		if other, err := os.Stat(d.Source); err == nil && os.SameFile(info, other) {
			return d.Target, nil
		}
		names = append(names, d.Target)
	}
	return "", usagef("%s: the domain %s has no disk in that file; --disk says which of %s it is", escapeName(path),
		escapeName(r.domain.Name), escapeName(strings.Join(names, ", ")))
}

// newCheckpoint takes the checkpoint that is to be made, which gets a name and a time.
func (r *backupRun) newCheckpoint(cp *libvirt.Checkpoint) error {
	cp.CreationTime = r.now.Unix()
	if cp.Name == "" {
		cp.Name = cp.ResolvedName()
	}
	if r.domain != nil {
		if err := cp.Align(r.domain.Disks); err != nil {
			return fmt.Errorf("checkpoint %s: %w", escapeName(cp.Name), err)
		}
		cp.SetDomain(r.domain)
	}
	if err := cp.Validate(); err != nil {
		return usagef("checkpoint %s: %w", escapeName(cp.Name), err)
	}
	r.checkpoint = cp
	return nil
}

// planDomain plans the backup of the disks of a domain.
func (r *backupRun) planDomain() error {
	if err := r.planDomainCheckpoint(); err != nil {
		return err
	}
	doc := &libvirt.Backup{Incremental: r.b.since}
	if r.b.xml != "" {
		var err error
		if doc, err = readLibvirtDocument(r.b.xml, libvirt.ParseBackup); err != nil {
			return err
		}
	}
	if doc.Mode == libvirt.ModePull {
		return fmt.Errorf("%s: it asks for pull mode, in which libvirt serves a running guest's disks for as long as a client reads them; "+
			"a disk at rest is read as it is: leave out mode='pull', and name target files", escapeName(r.b.xml))
	}
	if err := r.planDisks(doc); err != nil {
		return err
	}
	if len(r.disks) == 0 {
		return fmt.Errorf("%s: no disk takes part in the backup: those that are empty or read-only do not, and of a list only what it names", escapeName(r.b.domain))
	}
	return r.planFolder()
}

func (r *backupRun) planDomainCheckpoint() error {
	switch {
	case r.b.cpXML != "":
		cp, err := readLibvirtDocument(r.b.cpXML, libvirt.ParseCheckpoint)
		if err != nil {
			return err
		}
		made := &libvirt.Checkpoint{Name: cp.Name, Description: cp.Description}
		for _, d := range cp.Disks { // anew, so that all is written as libvirt writes it
			made.Disks = append(made.Disks, libvirt.CheckpointDisk{Name: d.Name, Checkpoint: d.Checkpoint, Bitmap: d.Bitmap})
		}
		return r.newCheckpoint(made)
	case r.b.checkpoint != "":
		return r.newCheckpoint(&libvirt.Checkpoint{Name: r.b.checkpoint})
	}
	return nil
}

// planFolder decides where the documents go, which is one folder.
func (r *backupRun) planFolder() error {
	if r.b.out != "" {
		info, err := os.Stat(r.b.out)
		if err != nil || !info.IsDir() {
			return usagef("-o %s: with --domain it is a folder that is there", escapeName(r.b.out))
		}
		r.folder = r.b.out
		return nil
	}
	for _, d := range r.disks {
		if d.out != "" && !d.device {
			r.folder = filepath.Dir(d.out)
			return nil
		}
	}
	r.folder = "."
	return nil
}

// planDisks makes the disks of the run of those of the domain.
func (r *backupRun) planDisks(doc *libvirt.Backup) error {
	for _, listed := range doc.Disks {
		if _, err := r.domain.Disk(listed.Name); err != nil {
			return fmt.Errorf("%s: %w", escapeName(r.b.xml), err)
		}
	}
	for _, dom := range r.domain.Disks {
		d := &backupDisk{target: dom.Target, format: dom.Driver}
		if err := r.planBackup(d, dom, doc); err != nil {
			return fmt.Errorf("disk %s: %w", escapeName(dom.Target), err)
		}
		if r.checkpoint != nil {
			if cp, ok := r.checkpoint.Disk(dom.Target); ok {
				d.bitmap = cp.BitmapName(r.checkpoint)
			}
		}
		if d.out == "" && d.bitmap == "" {
			continue
		}
		if err := r.findSource(d, dom); err != nil {
			return fmt.Errorf("disk %s: %w", escapeName(dom.Target), err)
		}
		if d.out == anyName {
			d.out = r.defaultName(d, r.b.out)
		}
		r.disks = append(r.disks, d)
	}
	return r.checkSources()
}

// anyName stands for a file that is to be named like the image; no file is.
const anyName = "\x00"

// planBackup says what part a disk has in the backup.
func (r *backupRun) planBackup(d *backupDisk, dom libvirt.DomainDisk, doc *libvirt.Backup) error {
	listed, ok := doc.Disk(dom.Target)
	writable := dom.Source != "" && !dom.ReadOnly && dom.Device != "cdrom"
	switch {
	case len(doc.Disks) == 0:
		listed = libvirt.BackupDisk{Name: dom.Target, Backup: writable}
	case ok && listed.Backup && dom.Source == "":
		return errors.New("it is empty, and cannot be backed up")
	}
	if !listed.Backup {
		return nil
	}
	if listed.Encryption != nil {
		return errors.New("its target is to be encrypted, which qbit does not write: leave out <encryption>, and encrypt the file, or the disk that it lies on")
	}
	var err error
	if d.base, err = listed.Base(doc); err != nil {
		return err
	}
	d.outFormat = r.b.format
	if listed.DriverType != "" {
		d.outFormat = listed.DriverType
	}
	d.out, d.device = listed.Target, listed.Type == "block"
	if d.out == "" {
		d.out = anyName
	}
	return d.checkFormat()
}

// checkFormat refuses formats that qbit does not write, or that cannot hold what they
// should.
func (d *backupDisk) checkFormat() error {
	switch {
	case d.outFormat != formatQcow2 && d.outFormat != formatRaw:
		return fmt.Errorf("its backup is to be %s, and qbit writes qcow2 and raw", escapeName(d.outFormat))
	case d.outFormat == formatRaw && d.incremental():
		return fmt.Errorf("its increment is to be a raw file, which cannot hold one: a range that was zeroed and one that did not change would look the same; use qcow2")
	case d.device && d.out == anyName:
		return errors.New("its backup is to go to a block device, and none is named")
	}
	return nil
}

// findSource finds the file that a disk of the domain is in.
func (r *backupRun) findSource(d *backupDisk, dom libvirt.DomainDisk) error {
	path := dom.Source
	for _, arg := range r.b.sources {
		target, other, ok := strings.Cut(arg, "=")
		if !ok || target == "" || other == "" {
			return usagef("--source %q: it is TARGET=PATH", arg)
		}
		if target == dom.Target {
			path = other
		}
	}
	switch {
	case dom.Encrypted:
		return errors.New("it is encrypted, which qbit does not read: back it up while the guest runs, or leave it out")
	case path == dom.Source && dom.Type != "" && dom.Type != "file" && dom.Type != "block":
		return fmt.Errorf("it is on a %s source, and qbit reads files and block devices; --source %s=PATH says where it can be read", escapeName(dom.Type), escapeName(dom.Target))
	case dom.Driver != "" && dom.Driver != formatQcow2 && dom.Driver != formatRaw:
		return fmt.Errorf("it is %s, and qbit reads qcow2 and raw disks", escapeName(dom.Driver))
	}
	// A domain that names no driver has a raw disk: nothing is ever probed.
	if d.format == "" {
		d.format = formatRaw
	}
	d.source = linkArg{name: path, path: path, raw: d.format == formatRaw}
	return nil
}

// checkSources finds a --source for no disk.
func (r *backupRun) checkSources() error {
	for _, arg := range r.b.sources {
		target, _, _ := strings.Cut(arg, "=")
		if !slices.ContainsFunc(r.disks, func(d *backupDisk) bool { return d.target == target }) {
			return usagef("--source %s: no disk %s takes part", escapeName(arg), escapeName(target))
		}
	}
	return nil
}
