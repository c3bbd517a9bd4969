package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// create makes the files of all backups, under the names that they have until the end.
func (r *backupRun) create(ctx context.Context) error {
	inputs, err := r.inputs()
	if err != nil {
		return err
	}
	for _, d := range r.disks {
		if d.out == "" {
			continue
		}
		if d.outFormat == formatQcow2 && d.disk.Size()%512 != 0 {
			d.disk = paddedDisk{d.disk}
		}
		if d.dst, err = r.createTarget(ctx, d, inputs); err != nil {
			return err
		}
		r.commit.AddTarget(d.dst)
	}
	return nil
}

// inputs are the files that must not be replaced.
func (r *backupRun) inputs() ([]fs.FileInfo, error) {
	inputs, err := r.o.inputs()
	for _, f := range r.locked {
		inputs = append(inputs, f.info)
	}
	return inputs, err
}

func (r *backupRun) createTarget(ctx context.Context, d *backupDisk, inputs []fs.FileInfo) (reconstruct.Target, error) {
	output := reconstruct.OutputOptions{Overwrite: r.b.force, Inputs: inputs}
	switch {
	case d.device && d.outFormat == formatQcow2:
		return r.createOnDevice(ctx, d, inputs)
	case d.device:
		dst, err := reconstruct.OpenOnto(d.out, d.disk.Size(), inputs)
		if err != nil {
			return nil, plainError(d.out, err)
		}
		return dst, nil
	case d.outFormat == formatRaw:
		dst, err := reconstruct.CreateRaw(d.out, d.disk.Size(), &output)
		if err != nil {
			return nil, r.exists(d.out, err)
		}
		return dst, nil
	}
	spec := r.imageSpec(d)
	spec.output = output
	image, err := createImage(r.c, spec)
	if err != nil {
		return nil, err
	}
	return image.dst, nil
}

// imageSpec is what image a backup is.
func (r *backupRun) imageSpec(d *backupDisk) imageSpec {
	return imageSpec{path: d.out, compress: r.b.compress.on, layout: qcow2.Layout{Size: d.disk.Size(), ClusterSize: int64(r.b.clusterSize),
		Sparse: d.incremental(), Compression: r.b.compress.kind, Backing: d.backing}}
}

// createOnDevice begins an image on a block device.
func (r *backupRun) createOnDevice(ctx context.Context, d *backupDisk, inputs []fs.FileInfo) (reconstruct.Target, error) {
	onto, err := reconstruct.OpenOnto(d.out, 0, inputs)
	if err != nil {
		return nil, plainError(d.out, err)
	}
	spec := r.imageSpec(d)
	dst, err := reconstruct.NewDeviceTarget(ctx, onto, func(f qcow2.File) (reconstruct.Content, error) {
		w, err := qcow2.Create(f, spec.layout)
		if err != nil {
			return nil, err
		}
		return spec.content(w, d.disk.Size()), nil
	})
	if err != nil {
		return nil, plainError(d.out, err)
	}
	return dst, nil
}

// exists says what can be done about a file that is there.
func (r *backupRun) exists(path string, err error) error {
	if errors.Is(err, fs.ErrExist) && !r.b.force {
		return fmt.Errorf("%w; --force replaces it", plainError(path, err))
	}
	return plainError(path, err)
}

// copy writes the backup of a disk.
func (r *backupRun) copy(ctx context.Context, d *backupDisk) error {
	var m *meter
	opts := &reconstruct.BackupOptions{Changed: d.changed, Unit: int64(r.b.clusterSize), Seal: r.b.manifest, Digests: r.digestsOf(d),
		KeepZeros: r.b.keepZeros, Workers: r.b.workers, Memory: int64(r.b.memory),
		Progress: func(p reconstruct.Progress) {
			if m == nil {
				m = newMeter(r.c, &r.b.progressFlags, "backup "+d.target, p.Total)
			}
			m.Set(p.Done)
		}}
	if d.parent != nil {
		opts.Parent = d.parent.view
	}
	var err error
	d.result, err = reconstruct.Backup(ctx, d.dst, d.disk, opts)
	if m != nil && err != nil {
		m.clearLine()
	}
	if err != nil {
		return nameLayer(&chain{layers: []*layer{d.layer}, links: []reconstruct.Link{{Name: d.source.name, Disk: d.layer.disk}}}, err)
	}
	if m != nil {
		m.Finish()
	}
	return nil
}

// digestsOf are the digests to compute. For those of an increment all of the disk has
// to be read, so they have to be asked for.
func (r *backupRun) digestsOf(d *backupDisk) []string {
	switch {
	case r.b.asked():
		return digestNames(r.b.digests)
	case d.incremental():
		return nil
	}
	return []string{reconstruct.Tree}
}

// addDocuments adds the documents of libvirt to what is committed.
func (r *backupRun) addDocuments() error {
	if err := r.addCheckpointXML(); err != nil || r.b.noXML {
		return err
	}
	doc, err := r.backupXML()
	if err != nil || doc == nil {
		return err
	}
	return r.addDocument(r.backupXMLPath(), doc.Append())
}

func (r *backupRun) addCheckpointXML() error {
	path := r.b.cpXMLOut
	switch {
	case r.checkpoint == nil:
		return nil
	case path == "" && r.b.noXML:
		return nil
	case path == "":
		path = filepath.Join(r.folder, r.checkpoint.Name+".xml")
	}
	if err := r.addDocument(path, r.checkpoint.Append()); err != nil {
		return err
	}
	kept := r.keptCheckpoints()
	if kept == "" || sameFolder(kept, filepath.Dir(path)) {
		return nil
	}
	return r.addDocument(filepath.Join(kept, r.checkpoint.Name+".xml"), r.checkpoint.Append())
}

func sameFolder(a, b string) bool {
	one, err := os.Stat(a)
	other, otherErr := os.Stat(b)
	return err == nil && otherErr == nil && os.SameFile(one, other)
}

// backupXMLPath is where the backup's document goes: plan knows by the names which
// checkpoint was made with it.
func (r *backupRun) backupXMLPath() string {
	name := fmt.Sprint(r.now.Unix())
	switch {
	case r.checkpoint != nil:
		name = r.checkpoint.Name
	case len(r.disks) == 1 && r.disks[0].out == r.b.out:
		name = stemOf(filepath.Base(r.b.out))
	}
	return filepath.Join(r.folder, name+".backup.xml")
}

func stemOf(name string) string {
	if stem := name[:len(name)-len(filepath.Ext(name))]; stem != "" {
		return stem
	}
	return name
}

func (r *backupRun) addDocument(path string, content []byte) error {
	inputs, err := r.inputs()
	if err != nil {
		return err
	}
	if err := r.commit.AddDocument(path, content, &reconstruct.OutputOptions{Overwrite: r.b.force, Inputs: inputs}); err != nil {
		return r.exists(path, err)
	}
	r.documents = append(r.documents, path)
	return nil
}

// backupXML is what was backed up, as libvirt would have been told; nil: nothing was.
func (r *backupRun) backupXML() (*libvirt.Backup, error) {
	doc := &libvirt.Backup{Mode: libvirt.ModePush}
	bases := map[string]bool{}
	for _, d := range r.disks {
		if d.out == "" {
			continue
		}
		path, err := filepath.Abs(d.out)
		if err != nil {
			return nil, err
		}
		entry := libvirt.BackupDisk{Name: d.target, Backup: true, BackupMode: libvirt.DiskFull, Type: "file", DriverType: d.outFormat, Target: path}
		if d.device {
			entry.Type = "block"
		}
		if d.incremental() {
			entry.BackupMode, entry.Incremental = libvirt.DiskIncremental, d.base
		}
		doc.Disks = append(doc.Disks, entry)
		bases[d.base] = true
		doc.Incremental = d.base
	}
	if len(doc.Disks) == 0 {
		return nil, nil
	}
	if len(bases) > 1 {
		doc.Incremental = ""
	}
	r.addAbsent(doc)
	return doc, doc.Validate()
}

// addAbsent lists the disks of the domain that have no part.
func (r *backupRun) addAbsent(doc *libvirt.Backup) {
	if r.domain == nil {
		return
	}
	for _, dom := range r.domain.Disks {
		if _, ok := doc.Disk(dom.Target); !ok {
			doc.Disks = append(doc.Disks, libvirt.BackupDisk{Name: dom.Target})
		}
	}
}
