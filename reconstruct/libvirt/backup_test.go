package libvirt

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustBackup(t testing.TB, doc string) *Backup {
	t.Helper()
	b, err := ParseBackup([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const luks = `<encryption format='luks'>
          <secret type='passphrase' uuid='0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f'/>
        </encryption>`

// pushJob and pullJob are documents as libvirt tells them, with all that the
// schema has.
const pushJob = `<domainbackup mode='push'>
  <incremental>sunday</incremental>
  <disks>
    <disk name='vda' backup='yes' type='file' backupmode='incremental' incremental='sunday' index='7'>
      <driver type='raw'/>
      <target file='/backup/vda.raw'>
        ` + luks + `
      </target>
    </disk>
    <disk name='vdb' backup='yes' type='block' backupmode='full'>
      <target dev='/dev/vg/vdb'/>
    </disk>
    <disk name='hda' backup='no'/>
  </disks>
</domainbackup>
`

const pullJob = `<domainbackup mode='pull'>
  <incremental>sunday</incremental>
  <server transport='tcp' tls='yes' name='localhost' port='10809'/>
  <disks>
    <disk name='vda' backup='yes' type='file' exportname='x/a' exportbitmap='changed'>
      <driver type='qcow2'/>
      <scratch file='/scratch/a'/>
    </disk>
    <disk name='vdb' backup='yes' type='block' backupmode='incremental'>
      <scratch dev='/dev/b'/>
    </disk>
    <disk name='vdc' backup='yes' type='file' backupmode='full'/>
  </disks>
</domainbackup>
`

func TestParseBackup(t *testing.T) {
	push := &Backup{Mode: "push", Incremental: "sunday", Disks: []BackupDisk{
		{Name: "vda", Backup: true, BackupMode: "incremental", Incremental: "sunday", Type: "file", DriverType: "raw",
			Target: "/backup/vda.raw", Encryption: []byte(luks), Index: 7},
		{Name: "vdb", Backup: true, BackupMode: "full", Type: "block", Target: "/dev/vg/vdb"},
		{Name: "hda"},
	}}
	pull := &Backup{Mode: "pull", Incremental: "sunday",
		Server: &BackupServer{Transport: "tcp", Name: "localhost", Port: 10809, TLS: "yes"},
		Disks: []BackupDisk{
			{Name: "vda", Backup: true, ExportName: "x/a", ExportBitmap: "changed", Type: "file", DriverType: "qcow2", Scratch: "/scratch/a"},
			{Name: "vdb", Backup: true, BackupMode: "incremental", Type: "block", Scratch: "/dev/b"},
			{Name: "vdc", Backup: true, BackupMode: "full", Type: "file"},
		}}
	for doc, want := range map[string]*Backup{pushJob: push, pullJob: pull} {
		got := mustBackup(t, doc)
		if d := cmp.Diff(want, got, plainly); d != "" {
			t.Error(d)
		}
		if s := string(got.Append()); s != doc {
			t.Error(cmp.Diff(doc, s))
		}
		if s := string(want.Append()); s != doc {
			t.Errorf("made anew: %s", cmp.Diff(doc, s))
		}
	}
	if p := push.Disks[0].Path() + pull.Disks[0].Path(); p != "/backup/vda.raw/scratch/a" {
		t.Errorf("paths %s", p)
	}
}

// The documents that chains were made by, which a user wrote, come back.
func TestRealBackups(t *testing.T) {
	files, err := filepath.Glob("../../testimages/chains/*/*.backup.xml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d frozen documents: %v", len(files), err)
	}
	for _, name := range files {
		doc, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b := mustBackup(t, string(doc))
		if got := string(b.Append()); got != string(doc) {
			t.Errorf("%s comes back as\n%s", name, cmp.Diff(string(doc), got))
		}
		if d, ok := b.Disk("vda"); !ok || d.Target == "" || b.Mode != "push" {
			t.Errorf("%s: %+v", name, b)
		}
		again := mustBackup(t, string(backupAnew(b).Append()))
		if d := cmp.Diff(b, again, plainly); d != "" {
			t.Errorf("%s made anew: %s", name, d)
		}
	}
}

// backupAnew is the same backup without the document that it was read from.
func backupAnew(b *Backup) *Backup {
	made := &Backup{Mode: b.Mode, Incremental: b.Incremental, Server: b.Server}
	for _, d := range b.Disks {
		d.node = nil
		made.Disks = append(made.Disks, d)
	}
	return made
}

// Every combination of what the document and the disk say, beside what libvirt
// makes of it.
func TestBase(t *testing.T) {
	for _, c := range []struct{ doc, disk, want string }{
		{"", "", ""},
		{"", "backupmode='full'", ""},
		{"", "incremental='d'", "d"},
		{"", "backupmode='incremental' incremental='d'", "d"},
		{"", "backupmode='incremental'", "error"},
		{"", "backupmode='full' incremental='d'", "error"},
		{"c", "", "c"},
		{"c", "backupmode='full'", ""},
		{"c", "incremental='d'", "d"},
		{"c", "backupmode='incremental' incremental='d'", "d"},
		{"c", "backupmode='incremental'", "c"},
		{"c", "backupmode='full' incremental='d'", "error"},
		{"c", "backup='no'", ""},
		{"c", "backup='no' incremental='d' backupmode='nonsense'", ""},
		{"", "incremental=''", "error"},
		{"", "incremental='../d'", "error"},
	} {
		doc := fmt.Sprintf("<domainbackup><incremental>%s</incremental><disks><disk name='vda' %s/></disks></domainbackup>", c.doc, c.disk)
		got := "error"
		if b, err := ParseBackup([]byte(doc)); err == nil {
			if got, err = b.Disks[0].Base(b); err != nil {
				t.Errorf("%q and %s: parsed, and then %v", c.doc, c.disk, err)
			}
		}
		if got != c.want {
			t.Errorf("%q and %s: base %q, want %q", c.doc, c.disk, got, c.want)
		}
	}
	for _, d := range []BackupDisk{{Backup: true, BackupMode: "incremental"}, {Backup: true, BackupMode: "other", Incremental: "c"}} {
		if base, err := d.Base(&Backup{}); err == nil {
			t.Errorf("%+v made by hand has the base %q", d, base)
		}
	}
}

func TestBackupDefaults(t *testing.T) {
	b := mustBackup(t, "<domainbackup mode='pull'><disks><disk name='vda'/><disk name='vdb' exportname='e' exportbitmap='m'/></disks></domainbackup>")
	a, e := b.Disks[0], b.Disks[1]
	if !a.Backup || a.Type != "file" || a.ResolvedExportName() != "vda" || a.ResolvedExportBitmap() != "backup-vda" {
		t.Errorf("%+v", a)
	}
	if e.ResolvedExportName() != "e" || e.ResolvedExportBitmap() != "m" {
		t.Errorf("%+v", e)
	}
	if b := mustBackup(t, "<domainbackup/>"); b.Mode != "push" || b.Server != nil || b.Disks != nil {
		t.Errorf("%+v", b)
	}
	s := mustBackup(t, "<domainbackup mode='pull'><server name='h'/></domainbackup>").Server
	if d := cmp.Diff(&BackupServer{Transport: "tcp", Name: "h"}, s); d != "" {
		t.Error(d)
	}
	u := mustBackup(t, "<domainbackup mode='pull'><server transport='unix' socket='/run/s'/></domainbackup>").Server
	if d := cmp.Diff(&BackupServer{Transport: "unix", Socket: "/run/s"}, u); d != "" {
		t.Error(d)
	}
	fd := mustBackup(t, "<domainbackup mode='pull'><server transport='fd' fdgroup='g'/></domainbackup>").Server
	if d := cmp.Diff(&BackupServer{Transport: "fd", FDGroup: "g"}, fd); d != "" {
		t.Error(d)
	}
}

func TestBackupRules(t *testing.T) {
	const top = "domainbackup"
	disk := func(rest string) string { return "<disks><disk " + rest + "</disks>" }
	pull := " mode='pull'"
	for _, c := range []struct{ attrs, body, path, msg string }{
		{" mode='both'", "", top + "/@mode", "push or pull"},
		{" mode=''", "", top + "/@mode", "push or pull"},
		{"", "<incremental>a/b</incremental>", top + "/incremental", "letters"},
		{"", "<incremental/><incremental/>", top + "/incremental", "at most one"},
		{"", "<server name='h'/>", top + "/server", "only a pull"},
		{pull, "<server/><server/>", top + "/server", "at most one"},
		{pull, "<server transport='rdma'/>", top + "/server/@transport", "tcp or unix or fd"},
		{pull, "<server transport='unix'/>", top + "/server/@socket", "must be there"},
		{pull, "<server transport='unix' socket='a'/>", top + "/server/@socket", "absolute"},
		{pull, "<server transport='fd'/>", top + "/server/@fdgroup", "must be there"},
		{pull, "<server port='65536'/>", top + "/server/@port", "0 to 65535"},
		{pull, "<server tls='maybe'/>", top + "/server/@tls", "yes or no"},
		{"", "<disks/><disks/>", top + "/disks", "at most one"},
		{"", disk("/>"), top + "/disks/disk[1]/@name", "must be there"},
		{"", disk("name='a'/><disk name='a'/>"), top + "/disks/disk[2]/@name", "twice"},
		{"", disk("name='a' backup='maybe'/>"), top + "/disks/disk[1]/@backup", "yes or no"},
		{"", disk("name='a' backupmode='diff'/>"), top + "/disks/disk[1]/@backupmode", "full or incremental"},
		{"", disk("name='a' backupmode='incremental'/>"), top + "/disks/disk[1]/@backupmode", "must name a checkpoint"},
		{"", disk("name='a' incremental=''/>"), top + "/disks/disk[1]/@incremental", "must name"},
		{"", disk("name='a' backupmode='full' incremental='c'/>"), top + "/disks/disk[1]/@incremental", "full backup"},
		{"", disk("name='a' type='network'/>"), top + "/disks/disk[1]/@type", "file or block"},
		{"", disk("name='a' index='-1'/>"), top + "/disks/disk[1]/@index", "whole number"},
		{"", disk("name='a'><target file='rel'/></disk>"), top + "/disks/disk[1]/target/@file", "absolute"},
		{"", disk("name='a' type='block'><target dev='rel'/></disk>"), top + "/disks/disk[1]/target/@dev", "absolute"},
		{pull, disk("name='a'><scratch file='C:x'/></disk>"), top + "/disks/disk[1]/scratch/@file", "absolute"},
		{pull, disk("name='a'><scratch/><scratch/></disk>"), top + "/disks/disk[1]/scratch", "at most one"},
		{"", disk("name='a'><driver/><driver/></disk>"), top + "/disks/disk[1]/driver", "at most one"},
		{"", disk("name='a'><target><encryption/><encryption/></target></disk>"), top + "/disks/disk[1]/target/encryption", "at most one"},
	} {
		_, err := ParseBackup([]byte("<domainbackup" + c.attrs + ">" + c.body + "</domainbackup>"))
		t.Run(c.attrs+c.body, func(t *testing.T) { wantFormat(t, err, c.path, c.msg) })
	}
}

// What libvirt keeps in its own files, and what it may say one day, stays.
func TestBackupUnknownSurvives(t *testing.T) {
	const doc = `<domainbackup mode="pull" id="3">
	<server transport='tcp' name='h' port='0010'><x/></server>
	<disks><!-- c --><disk name='vda' state='running' type='file' later="1">
		<driver type='qcow2' x='1'/><scratch file='/s' x='1'><seclabel model='dac'/></scratch><extra/></disk>
		<disk name='vdb' backup='no' type='weird' incremental=''/>
	</disks>
	<privateData><objects><secret type='tlskey' alias='k'/></objects></privateData>
</domainbackup>`
	b := mustBackup(t, doc)
	if got := string(b.Append()); got != doc {
		t.Fatal(cmp.Diff(doc, got))
	}
	if b.Disks[0].State != "running" || b.Server.Port != 10 {
		t.Errorf("%+v", b)
	}
	b.Incremental, b.Server.Port, b.Disks[0].Scratch, b.Disks[0].ExportName = "c", 11, "/t", "e"
	b.Disks[0].Encryption = []byte("<encryption format='luks'/>")
	want := strings.NewReplacer(
		`id="3">`, "id=\"3\">\n  <incremental>c</incremental>",
		"port='0010'", "port='11'",
		`<disk name='vda' state='running' type='file' later="1">`, `<disk name='vda' state='running' type='file' exportname='e' later='1'>`,
		"<scratch file='/s' x='1'><seclabel", "<scratch file='/t' x='1'>\n        <encryption format='luks'/><seclabel",
	).Replace(doc)
	if got := string(b.Append()); got != want {
		t.Error(cmp.Diff(want, got))
	}
}

func TestBackupChanges(t *testing.T) {
	b := mustBackup(t, pushJob)
	b.Disks[0].Type, b.Disks[0].Target = "block", "/dev/x"
	b.Disks[0].Encryption, b.Disks[0].DriverType = nil, ""
	b.Disks[1].Backup = false
	b.Disks[2].Backup = true
	b.Incremental = ""
	const want = `<domainbackup mode='push'>
  <disks>
    <disk name='vda' backup='yes' type='block' backupmode='incremental' incremental='sunday' index='7'>
      <target dev='/dev/x'/>
    </disk>
    <disk name='vdb' backup='no' backupmode='full'/>
    <disk name='hda' backup='yes' type='file'/>
  </disks>
</domainbackup>
`
	if got := string(b.Append()); got != want {
		t.Error(cmp.Diff(want, got))
	}
	pull := mustBackup(t, pushJob)
	pull.Mode, pull.Server = ModePull, &BackupServer{Name: "h", Port: 1}
	pull.Disks = pull.Disks[1:2]
	pull.Disks[0].Target, pull.Disks[0].Scratch = "", "/s"
	got := string(pull.Append())
	if strings.Contains(got, "<target") || !strings.Contains(got, "<scratch dev='/s'/>") {
		t.Errorf("a pull job of a push job:\n%s", got)
	}
	if d := cmp.Diff("h", mustBackup(t, got).Server.Name); d != "" {
		t.Error(d)
	}
	pull.Server = nil
	if got := string(pull.Append()); strings.Contains(got, "server") {
		t.Errorf("without the server:\n%s", got)
	}
	bad := &Backup{Disks: []BackupDisk{{Name: "a", Backup: true, Target: "/t", Encryption: []byte("<x>")}}}
	if got := string(bad.Append()); strings.Contains(got, "<x>") {
		t.Errorf("bytes that are no element:\n%s", got)
	}
}
