package fuzz

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/qbitkit/qbit/reconstruct/libvirt"
)

// said compares what documents say, not how they say it.
var said = cmp.Options{
	cmpopts.IgnoreUnexported(libvirt.Checkpoint{}, libvirt.CheckpointDisk{}, libvirt.Backup{}, libvirt.BackupDisk{}, libvirt.Domain{}),
	cmpopts.EquateEmpty(),
}

func wantSaid(t *testing.T, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got, said); d != "" {
		t.Fatalf("%s: %s", what, d)
	}
}

// seedXML adds the documents of the frozen chains and some with everything that
// the schema and the parser know.
func seedXML(f *testing.F, more ...string) {
	files, err := filepath.Glob("../testimages/chains/*/cp1*.xml")
	if err != nil || len(files) == 0 {
		f.Fatalf("no frozen documents: %v", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, s := range more {
		f.Add([]byte(s))
	}
	f.Add([]byte("<!DOCTYPE domain [<!ENTITY a 'b'>]><domain>&a;</domain>"))
}

// wellRead checks what holds for every document that was read: it is of the kind
// that its beginning shows, and comes back byte for byte.
func wellRead(t *testing.T, kind libvirt.DocumentKind, b, back []byte) {
	t.Helper()
	if got := libvirt.Sniff(b); got != kind && len(b) <= libvirt.SniffLen {
		t.Fatalf("read as a %v, begins like a %v", kind, got)
	}
	if !bytes.Equal(b, back) {
		t.Fatalf("read  %q\nwrote %q", b, back)
	}
}

func refusedWell(t *testing.T, err error) {
	t.Helper()
	var format *libvirt.FormatError
	if !errors.As(err, &format) || len(err.Error()) > 2000 {
		t.Fatalf("refused with %v", err)
	}
}

// FuzzCheckpointXML: what is read is written the same; what it says, written anew
// or with changes, is read the same.
func FuzzCheckpointXML(f *testing.F) {
	seedXML(f, `<?xml version="1.0"?><!-- c --><domaincheckpoint xmlns:v="u"><v:name>x</v:name><name>a</name><description>d<![CDATA[<]]></description>`+
		`<parent> <name>b</name></parent><creationTime>07</creationTime><disks><disk name="/x" bitmap='&#10;' size="5" z='1'><y/></disk>`+
		`<disk name='vdb' checkpoint='no'/></disks><domain><name>n</name></domain><x xmlns='u'><name/></x></domaincheckpoint>`)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := libvirt.ParseCheckpoint(b)
		if err != nil {
			refusedWell(t, err)
			return
		}
		wellRead(t, libvirt.KindCheckpoint, b, c.Append())
		anew := &libvirt.Checkpoint{Name: c.Name, Description: c.Description, Parent: c.Parent, CreationTime: c.CreationTime}
		for i := range c.Disks {
			d := &c.Disks[i]
			if d.Size >= 0 {
				d.Size = d.Size/2 + 1 // 0 says nothing in a new disk
			}
			anew.Disks = append(anew.Disks, libvirt.CheckpointDisk{Name: d.Name, Checkpoint: d.Checkpoint, Bitmap: d.Bitmap, Size: d.Size})
		}
		wantSameCheckpoint(t, "written anew", anew)
		c.Name, c.Parent, c.CreationTime = c.Name+"1", "p"+c.Parent, c.CreationTime/2
		c.Disks = append(c.Disks, libvirt.CheckpointDisk{Name: fmt.Sprint("new", len(b)), Checkpoint: "bitmap", Size: -1})
		c.Description = ""
		wantSameCheckpoint(t, "changed", c)
		c.SetDomain(c.Domain())
		wantSameCheckpoint(t, "with its domain", c)
	})
}

func wantSameCheckpoint(t *testing.T, what string, c *libvirt.Checkpoint) {
	t.Helper()
	out := c.Append()
	if len(out) > libvirt.MaxDocument {
		return
	}
	again, err := libvirt.ParseCheckpoint(out)
	if err != nil {
		t.Fatalf("%s: %v\n%q", what, err, out)
	}
	wantSaid(t, what, c, again)
	if c.DomainName() != again.DomainName() || c.DomainUUID() != again.DomainUUID() {
		t.Fatalf("%s: another domain: %q", what, out)
	}
	wantSaid(t, what, c.DomainDisks(), again.DomainDisks())
}

// FuzzBackupXML: the same of backups, and every disk has a base.
func FuzzBackupXML(f *testing.F) {
	seedXML(f, `<domainbackup mode="pull"><incremental>c</incremental><server transport='unix' socket='/s' tls='no'/><disks><disk name='vda' `+
		`backup='yes' type='block' exportname='e' exportbitmap='b' index='3'><driver type='qcow2'/><scratch dev='/d'><encryption format='luks'/>`+
		`</scratch></disk><disk name='vdb' backup='no' x='1'/><disk name='vdc' backupmode='full'/></disks><privateData/></domainbackup>`,
		`<domainbackup><disks><disk name='vda' backupmode='incremental' incremental='c'><target file='/t'><seclabel/></target></disk></disks></domainbackup>`)
	f.Fuzz(func(t *testing.T, b []byte) {
		job, err := libvirt.ParseBackup(b)
		if err != nil {
			refusedWell(t, err)
			return
		}
		wellRead(t, libvirt.KindBackup, b, job.Append())
		made := &libvirt.Backup{Mode: job.Mode, Incremental: job.Incremental, Server: job.Server}
		for i := range job.Disks {
			d := &job.Disks[i]
			if _, err := d.Base(job); err != nil {
				t.Fatal(err)
			}
			made.Disks = append(made.Disks, libvirt.BackupDisk{Name: d.Name, Backup: d.Backup, BackupMode: d.BackupMode,
				Incremental: d.Incremental, ExportName: d.ExportName, ExportBitmap: d.ExportBitmap, Type: d.Type,
				DriverType: d.DriverType, Target: d.Target, Scratch: d.Scratch, Index: d.Index, State: d.State})
			if d.Backup {
				d.Encryption, d.Index = nil, d.Index/2
				d.BackupMode, d.Incremental, d.ExportName = libvirt.DiskIncremental, "x"+d.Incremental, d.ExportName+"'"
			}
		}
		wantSameBackup(t, "written anew", made)
		job.Incremental += "y"
		job.Disks = append(job.Disks, libvirt.BackupDisk{Name: fmt.Sprint("new", len(b)), Backup: true, Type: "file"})
		wantSameBackup(t, "changed", job)
	})
}

func wantSameBackup(t *testing.T, what string, job *libvirt.Backup) {
	t.Helper()
	out := job.Append()
	if len(out) > libvirt.MaxDocument {
		return
	}
	again, err := libvirt.ParseBackup(out)
	if err != nil {
		t.Fatalf("%s: %v\n%q", what, err, out)
	}
	wantSaid(t, what, job, again)
}

// FuzzDomainXML: the same of domains; a disk that is set to a file is there, and
// the others are as they were.
func FuzzDomainXML(f *testing.F) {
	seedXML(f, `<domain type='kvm'><name>n</name><uuid> u </uuid><memory unit='k'>1</memory><devices><disk type='network' device='lun' rawio='no'>`+
		`<driver type='qcow2' discard_no_unref='on'><metadata_cache/></driver><auth/><source protocol='rbd' name='x'><host/><slices/></source>`+
		`<backingStore/><mirror/><target dev='vda' bus='scsi'/></disk><disk><target dev='vdb'/><readonly/></disk></devices></domain>`)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := libvirt.ParseCheckpoint(b); err == nil && c.Domain() != nil {
			b = c.Domain().Append()
		}
		d, err := libvirt.ParseDomain(b)
		if err != nil {
			refusedWell(t, err)
			return
		}
		wellRead(t, libvirt.KindDomain, b, d.Append())
		_, _ = d.Memory()
		old := d.Disks
		for i := range min(len(old), 3) {
			setDisk(t, d, old[i].Target, i)
		}
		d.Name += "'<"
		out := d.Append()
		again, err := libvirt.ParseDomain(out)
		if err != nil {
			t.Fatalf("%v\n%q", err, out)
		}
		wantSaid(t, "changed", d, again)
		if len(again.Disks) != len(old) {
			t.Fatalf("%d disks have become %d", len(old), len(again.Disks))
		}
	})
}

// setDisk sets the disk with i before it, which has this target, to a file.
func setDisk(t *testing.T, d *libvirt.Domain, target string, i int) {
	before := d.Disks
	if err := d.SetDiskPath(target, "/r/'<", "raw"); err != nil {
		refusedWell(t, err) // two disks have this target
		return
	}
	for k, disk := range d.Disks {
		want := before[k]
		if k == i {
			want.Type, want.Source, want.Driver, want.Encrypted = "file", "/r/'<", "raw", false
			if want.Device == "lun" {
				want.Device = "disk"
			}
		}
		wantSaid(t, "set", want, disk)
	}
}
