package libvirt

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"libvirt.org/go/libvirtxml"

	"github.com/qbitkit/qbit/testimages/interop"
)

const schemas = "/usr/share/libvirt/schemas/"

// validate fails unless libvirt's own schema takes every document.
func validate(t *testing.T, schema string, docs map[string][]byte) {
	t.Helper()
	interop.Need(t, "xmllint", "virsh") // virsh comes with the schemas
	args := []string{"--noout", "--relaxng", schemas + schema}
	names := map[string]string{}
	for name, doc := range docs {
		file := filepath.Join(t.TempDir(), "doc.xml")
		if err := os.WriteFile(file, doc, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, file)
		names[file] = name
	}
	interop.Run(t, "xmllint", args...)
}

// fullCheckpoints are checkpoints as users of the package make them.
func fullCheckpoints(t *testing.T) map[string][]byte {
	edited := mustCheckpoint(t, sample)
	edited.Name, edited.Disks = "edited", append(edited.Disks, CheckpointDisk{Name: "/images/a b.qcow2"})
	edited.Disks[0].Size, edited.Disks[1].Checkpoint = -1, "no"
	parsed := mustCheckpoint(t, sample)
	return map[string][]byte{
		"empty":  (&Checkpoint{}).Append(),
		"name":   (&Checkpoint{Name: "a.b-c_1"}).Append(),
		"anew":   []byte(writtenAnew(parsed)),
		"edited": edited.Append(),
		"disks": (&Checkpoint{Description: "<&>'\"\r\n é", CreationTime: 1, Parent: "p", Disks: []CheckpointDisk{
			{Name: "vda"}, {Name: "vdb", Checkpoint: "no", Bitmap: "x"}, {Name: "vdc", Bitmap: "it's\n", Size: 5}}}).Append(),
	}
}

// withoutDomain is a checkpoint whose domain, which stands for others in these
// tests and has no more than its disks, the schema need not take.
func withoutDomain(t *testing.T, doc []byte) []byte {
	c := mustCheckpoint(t, string(doc))
	c.SetDomain(nil)
	return c.Append()
}

func TestCheckpointSchema(t *testing.T) {
	docs := map[string][]byte{}
	for name, doc := range fullCheckpoints(t) {
		docs[name] = withoutDomain(t, doc)
	}
	files, _ := filepath.Glob("../../testimages/chains/*/cp?.xml")
	for i, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c := mustCheckpoint(t, string(b))
		d := c.Domain()
		if err := d.SetDiskPath(d.Disks[0].Target, "/restored/it's.raw", "raw"); err != nil {
			t.Fatal(err)
		}
		d.Name += " restored"
		c.SetDomain(d)
		c.Description = "a <description>"
		if docs[name] = c.Append(); i%2 == 0 {
			docs[name] = []byte(writtenAnew(c))
		}
	}
	validate(t, "domaincheckpoint.rng", docs)
}

// The schema is a judge that says no.
func TestSchemaJudges(t *testing.T) {
	interop.Need(t, "xmllint", "virsh")
	bad := filepath.Join(t.TempDir(), "bad.xml")
	if err := os.WriteFile(bad, (&Checkpoint{Name: "../escape"}).Append(), 0o600); err != nil {
		t.Fatal(err)
	}
	out := interop.Run(t, "sh", "-c", "xmllint --noout --relaxng "+schemas+"domaincheckpoint.rng "+bad+" 2>&1 || echo refused")
	if !strings.Contains(string(out), "refused") {
		t.Errorf("xmllint took a wrong document: %s", out)
	}
}

func TestBackupSchema(t *testing.T) {
	disks := []BackupDisk{
		{Name: "vda", Backup: true, Target: "/t/it's", DriverType: "raw", Encryption: []byte(luks)},
		{Name: "vdb", Backup: true, BackupMode: DiskIncremental, Incremental: "c", Type: "block", Target: "/dev/t"},
		{Name: "vdc", Backup: true, BackupMode: DiskFull},
		{Name: "vdd"},
	}
	scratch := []BackupDisk{
		{Name: "vda", Backup: true, ExportName: "e/x", ExportBitmap: "m", Scratch: "/s", DriverType: "qcow2", Encryption: []byte(luks)},
		{Name: "vdb", Backup: true, Type: "block", Scratch: "/dev/s", DriverType: "qcow2"},
		{Name: "vdc", Backup: true},
		{Name: "vdd"},
	}
	changed := mustBackup(t, strings.ReplaceAll(pushJob, " index='7'", ""))
	changed.Disks[1].Backup, changed.Disks[2].Backup = false, true
	changed.Disks[0].Type, changed.Disks[0].Target, changed.Disks[0].DriverType = "block", "/dev/y", ""
	turned := mustBackup(t, pullJob)
	turned.Mode, turned.Server = ModePush, nil
	for i := range turned.Disks {
		turned.Disks[i].ExportName, turned.Disks[i].ExportBitmap = "", ""
	}
	validate(t, "domainbackup.rng", map[string][]byte{
		"empty":   (&Backup{}).Append(),
		"push":    (&Backup{Incremental: "c", Disks: disks}).Append(),
		"tcp":     (&Backup{Mode: ModePull, Server: &BackupServer{Name: "h", Port: 1, TLS: "yes"}, Disks: scratch}).Append(),
		"unix":    (&Backup{Mode: ModePull, Server: &BackupServer{Transport: "unix", Socket: "/s"}}).Append(),
		"changed": changed.Append(),
		"turned":  turned.Append(),
	})
}

func TestDomainSchema(t *testing.T) {
	b, err := os.ReadFile("../../testimages/chains/demo/cp0.xml")
	if err != nil {
		t.Fatal(err)
	}
	whole := string(mustCheckpoint(t, string(b)).Domain().Append())
	from, to := strings.Index(whole, "    <disk "), strings.Index(whole, "    </disk>\n")
	docs := map[string][]byte{}
	for target := range restored {
		// Debian's schema is older than these two.
		doc := strings.NewReplacer(" discard_no_unref='on'", "", "        <dataStore type='file'/>\n", "").Replace(guest)
		_, disk, _ := diskOf(t, doc, target)
		d := mustDomain(t, whole[:from]+disk+whole[to+len("    </disk>\n"):])
		if err := d.SetDiskPath(target, "/r/a.qcow2", "qcow2"); err != nil {
			t.Fatal(err)
		}
		docs[target] = []byte(strings.ReplaceAll(string(d.Append()), "<x:keep xmlns:x='urn:x'/>", ""))
		docs[target] = []byte(strings.ReplaceAll(string(docs[target]), "slot='0x03'", "domain='0' bus='0' slot='0x03' function='0'"))
	}
	validate(t, "domain.rng", docs)
}

// A second reader by other people finds the same in what we write.
func TestLibvirtxmlAgrees(t *testing.T) {
	var cp libvirtxml.DomainCheckpoint
	c := mustCheckpoint(t, sample)
	if err := cp.Unmarshal(writtenAnew(c)); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range cp.Disks.Disks {
		names = append(names, fmt.Sprintf("%s %s %s %d", d.Name, d.Checkpoint, d.Bitmap, d.Size))
	}
	want := []string{"vda bitmap monday 1048576", "vdb bitmap other 0", "hdc no  0"}
	if d := cmp.Diff(want, names); d != "" || cp.Name != c.Name || cp.Parent.Name != c.Parent || cp.Description != c.Description ||
		cp.CreationTime != fmt.Sprint(c.CreationTime) || cp.Domain.UUID != c.DomainUUID() {
		t.Errorf("%s\n%+v", d, cp)
	}
	var dom libvirtxml.Domain
	d := mustDomain(t, guest)
	if err := d.SetDiskPath("vdb", "/r/b", "qcow2"); err != nil {
		t.Fatal(err)
	}
	if err := dom.Unmarshal(string(d.Append())); err != nil {
		t.Fatal(err)
	}
	if got := dom.Devices.Disks[1]; got.Source.File == nil || got.Source.File.File != "/r/b" || got.Source.Network != nil ||
		got.Driver.Type != "qcow2" || got.Target.Dev != "vdb" {
		t.Errorf("%+v", got)
	}
	var job libvirtxml.DomainBackup
	if err := job.Unmarshal(string(backupAnew(mustBackup(t, pullJob)).Append())); err != nil {
		t.Fatal(err)
	}
	if job.Pull == nil || job.Pull.Server.TCP.Port != 10809 || len(job.Pull.Disks.Disks) != 3 ||
		job.Pull.Disks.Disks[0].Scratch.File.File != "/scratch/a" || job.Incremental != "sunday" {
		t.Errorf("%+v", job)
	}
}

// libvirt's test driver, which lives inside of virsh, takes the checkpoints that
// we write, gives them back as we wrote them, and draws the same tree.
func TestVirshAgrees(t *testing.T) {
	interop.Need(t, "virsh")
	dir := t.TempDir()
	b, err := os.ReadFile("../../testimages/chains/demo/cp0.xml")
	if err != nil {
		t.Fatal(err)
	}
	dom := mustCheckpoint(t, string(b)).Domain()
	// Each of the others stands behind its parent.
	order := []string{"root@5", "B<root@6", "a<root@7", "a1<a@8", "a2<a@9", "r2@3", "cp10<a1@1", "cp2<a1@2"}
	cps := points(order...)
	define := strings.NewReplacer("type='qemu'", "type='test'", "/usr/bin/qemu-system-x86_64", "/x").Replace(string(dom.Append()))
	domain := mustDomain(t, define)
	file := filepath.Join(dir, "domain.xml")
	if err := os.WriteFile(file, []byte(define), 0o600); err != nil {
		t.Fatal(err)
	}
	script := "define " + file + "; start " + domain.Name + ";"
	var want strings.Builder
	for _, c := range cps {
		c.Disks = []CheckpointDisk{{Name: "vda", Bitmap: "it's <" + c.Name}}
		c.Description = "a 'tree'\n& \"more\""
		without := string(c.Append())
		c.SetDomain(domain)
		file := filepath.Join(dir, c.Name+".xml")
		if err := os.WriteFile(file, c.Append(), 0o600); err != nil {
			t.Fatal(err)
		}
		script += fmt.Sprintf("checkpoint-create %s %s --redefine;", domain.Name, file)
		want.WriteString(without + "\n")
	}
	for _, c := range cps {
		script += fmt.Sprintf("checkpoint-dumpxml %s %s --no-domain;", domain.Name, c.Name)
	}
	script += fmt.Sprintf("checkpoint-list %s --tree", domain.Name)
	out := string(interop.Run(t, "virsh", "-q", "-c", "test:///default", script))
	tree, problems := NewTree(cps)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	squeeze := func(s string) string { return strings.ReplaceAll(s, "\n\n", "\n") }
	if d := cmp.Diff(squeeze(want.String()+lines(tree)), squeeze(out)); d != "" {
		t.Errorf("virsh says:\n%s", d)
	}
}
