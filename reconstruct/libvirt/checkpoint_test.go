package libvirt

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// plainly compares what documents say, not how.
var plainly = cmp.Options{
	cmpopts.IgnoreUnexported(Checkpoint{}, CheckpointDisk{}, Backup{}, BackupDisk{}, Domain{}),
	cmpopts.EquateEmpty(),
}

func mustCheckpoint(t testing.TB, doc string) *Checkpoint {
	t.Helper()
	c, err := ParseCheckpoint([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sample is a document as libvirt tells it, with all that the schema has.
const sample = `<domaincheckpoint>
  <name>monday</name>
  <description>after the update</description>
  <parent>
    <name>sunday</name>
  </parent>
  <creationTime>1700000000</creationTime>
  <disks>
    <disk name='vda' checkpoint='bitmap' bitmap='monday' size='1048576'/>
    <disk name='vdb' checkpoint='bitmap' bitmap='other'/>
    <disk name='hdc' checkpoint='no'/>
  </disks>
  <domain type='kvm'>
    <name>guest</name>
    <uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid>
    <devices>
      <disk type='file' device='disk'>
        <driver name='qemu' type='qcow2'/>
        <source file='/images/a.qcow2'/>
        <target dev='vda' bus='virtio'/>
      </disk>
      <disk type='block' device='cdrom'>
        <source dev='/dev/sr0'/>
        <target dev='hdc' bus='ide'/>
        <readonly/>
      </disk>
    </devices>
  </domain>
</domaincheckpoint>
`

func TestParseCheckpoint(t *testing.T) {
	c := mustCheckpoint(t, sample)
	want := &Checkpoint{
		Name: "monday", Description: "after the update", Parent: "sunday", CreationTime: 1700000000,
		Disks: []CheckpointDisk{
			{Name: "vda", Checkpoint: "bitmap", Bitmap: "monday", Size: 1 << 20},
			{Name: "vdb", Checkpoint: "bitmap", Bitmap: "other", Size: -1},
			{Name: "hdc", Checkpoint: "no", Size: -1},
		},
	}
	if d := cmp.Diff(want, c, plainly); d != "" {
		t.Error(d)
	}
	if c.DomainName() != "guest" || c.DomainUUID() != "c7a5fdbd-edaf-9455-926a-d65c16db1809" {
		t.Errorf("domain %q %q", c.DomainName(), c.DomainUUID())
	}
	disks := []DomainDisk{
		{Target: "vda", Bus: "virtio", Device: "disk", Type: "file", Source: "/images/a.qcow2", Driver: "qcow2"},
		{Target: "hdc", Bus: "ide", Device: "cdrom", Type: "block", Source: "/dev/sr0", ReadOnly: true},
	}
	if d := cmp.Diff(disks, c.DomainDisks()); d != "" {
		t.Error(d)
	}
	if got := c.Created(); !got.Equal(time.Date(2023, 11, 14, 22, 13, 20, 0, time.UTC)) {
		t.Errorf("created %v", got)
	}
}

// writtenAnew puts the document together anew, out of what was read of it.
func writtenAnew(c *Checkpoint) string {
	made := &Checkpoint{Name: c.Name, Description: c.Description, Parent: c.Parent, CreationTime: c.CreationTime}
	for _, d := range c.Disks {
		made.Disks = append(made.Disks, CheckpointDisk{Name: d.Name, Checkpoint: d.Checkpoint, Bitmap: d.Bitmap, Size: d.Size})
	}
	made.SetDomain(c.Domain())
	return string(made.Append())
}

// What libvirt wrote comes back, both kept and written anew.
func TestRealCheckpoints(t *testing.T) {
	files, err := filepath.Glob("../../testimages/chains/*/cp*.xml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no frozen documents: %v", err)
	}
	docs := map[string]string{"sample": sample}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if Sniff(b) == KindCheckpoint {
			docs[name] = string(b)
		}
	}
	if len(docs) < 30 {
		t.Fatalf("only %d checkpoints", len(docs))
	}
	for name, doc := range docs {
		c := mustCheckpoint(t, doc)
		if got := string(c.Append()); got != doc {
			t.Errorf("%s comes back as\n%s", name, cmp.Diff(doc, got))
		}
		if got := writtenAnew(c); got != doc {
			t.Errorf("%s is made as\n%s", name, cmp.Diff(doc, got))
		}
		if c.DomainUUID() == "" || len(c.DomainDisks()) == 0 || len(c.Disks) == 0 || c.CreationTime == 0 {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// What a user writes is shorter than what libvirt tells.
func TestShortCheckpoints(t *testing.T) {
	const disk = "<domaincheckpoint><name>n</name><creationTime>7</creationTime><disks><disk name='vda' %/></disks></domaincheckpoint>"
	for _, c := range []struct{ attrs, kind, bitmap, name string }{
		{"", "bitmap", "", "n"},
		{"checkpoint='bitmap'", "bitmap", "", "n"},
		{"bitmap=''", "bitmap", "", "n"},
		{"bitmap='b/ m'", "bitmap", "b/ m", "b/ m"},
		{"checkpoint='no'", "no", "", ""},
	} {
		cp := mustCheckpoint(t, strings.Replace(disk, "%", c.attrs, 1))
		d := cp.Disks[0]
		if d.Checkpoint != c.kind || d.Bitmap != c.bitmap || d.BitmapName(cp) != c.name || d.Size != -1 {
			t.Errorf("%s: %+v, bitmap %q", c.attrs, d, d.BitmapName(cp))
		}
		if cp.Name = ""; d.Bitmap == "" && d.Checkpoint != "no" && d.BitmapName(cp) != "7" {
			t.Errorf("%s: without a name the bitmap is %q", c.attrs, d.BitmapName(cp))
		}
	}
	for _, doc := range []string{"<domaincheckpoint/>", "<domaincheckpoint><name/><disks/></domaincheckpoint>"} {
		c := mustCheckpoint(t, doc)
		if d := cmp.Diff(&Checkpoint{}, c, plainly); d != "" || c.ResolvedName() != "" || !c.Created().IsZero() {
			t.Errorf("%s: %s", doc, d)
		}
		if got := string(c.Append()); got != doc || c.Domain() != nil {
			t.Errorf("%s comes back as %s", doc, got)
		}
	}
}

func TestCheckpointRules(t *testing.T) {
	const top = "domaincheckpoint"
	disk := func(attrs string) string { return "<disks><disk name='vda'/><disk " + attrs + "/></disks>" }
	for _, c := range []struct{ body, path, msg string }{
		{"<name>../escape</name>", top + "/name", "letters"},
		{"<name>.hidden</name>", top + "/name", "letters"},
		{"<name>a/b</name>", top + "/name", "letters"},
		{"<name>a b</name>", top + "/name", "letters"},
		{"<name>a\n</name>", top + "/name", "letters"},
		{"<name>é</name>", top + "/name", "letters"},
		{"<name>a<b/></name>", top + "/name", "text is wanted"},
		{"<name>a</name><name>b</name>", top + "/name", "at most one"},
		{"<description/><description/>", top + "/description", "at most one"},
		{"<parent><name>..</name></parent>", top + "/parent/name", "letters"},
		{"<parent/><parent/>", top + "/parent", "at most one"},
		{"<parent><name/><name/></parent>", top + "/parent/name", "at most one"},
		{"<disks/><disks/>", top + "/disks", "at most one"},
		{"<domain/><domain/>", top + "/domain", "at most one"},
		{"<creationTime>now</creationTime>", top + "/creationTime", "whole number"},
		{"<creationTime>-1</creationTime>", top + "/creationTime", "whole number"},
		{"<creationTime>9223372036854775808</creationTime>", top + "/creationTime", "whole number"},
		{disk(""), top + "/disks/disk[2]/@name", "must be there"},
		{disk("name=''"), top + "/disks/disk[2]/@name", "must be there"},
		{disk("name='vda'"), top + "/disks/disk[2]/@name", "twice"},
		{disk("name='vdb' checkpoint='yes'"), top + "/disks/disk[2]/@checkpoint", "no or bitmap"},
		{disk("name='vdb' checkpoint=''"), top + "/disks/disk[2]/@checkpoint", "no or bitmap"},
		{disk("name='vdb' size='1 KiB'"), top + "/disks/disk[2]/@size", "whole number"},
		{disk("name='vdb' size=''"), top + "/disks/disk[2]/@size", "whole number"},
		{disk("name='vdb' size='18446744073709551615'"), top + "/disks/disk[2]/@size", "whole number"},
		{disk("name='vdb' checkpoint='no' size='0'"), top + "/disks/disk[2]/@size", "no size"},
		{disk("name='vdb' checkpoint='no' bitmap='b'"), top + "/disks/disk[2]/@bitmap", "no bitmap"},
	} {
		_, err := ParseCheckpoint([]byte("<domaincheckpoint>" + c.body + "</domaincheckpoint>"))
		t.Run(c.body, func(t *testing.T) { wantFormat(t, err, c.path, c.msg) })
	}
}

// strange is a document with much that this package does not know.
const strange = `<?xml version="1.0"?>
<!-- kept -->
<domaincheckpoint   xmlns:v="urn:v" v:made="by &quot;x&quot;">
	<v:name>not the name</v:name>
	<other xmlns="urn:o"><name>nor this</name><disks><disk/></disks></other>
	<name >cp</name ><!-- too -->
	<disks v:a="1">
		<disk name="vda" v:flag="on" later='x'><future a="1"/></disk>
		<v:disk/>
		<disk name='vdb' size="007"/>
	</disks>
	<active>1</active>
	<creationTime> 007 </creationTime>
	<v:meta><![CDATA[ <x> ]]></v:meta>
</domaincheckpoint>
<!-- end -->`

func TestUnknownSurvives(t *testing.T) {
	c := mustCheckpoint(t, strange)
	if got := string(c.Append()); got != strange {
		t.Fatal(cmp.Diff(strange, got))
	}
	if c.Name != "cp" || len(c.Disks) != 2 || c.CreationTime != 7 || c.Disks[1].Size != 7 {
		t.Errorf("%+v", c)
	}
	c.Name, c.Parent, c.Description = "cp2", "cp1", "new"
	c.Disks[0].Bitmap = "b"
	c.Disks[1].Size = 8
	want := strings.NewReplacer(
		"<name >cp</name ><!-- too -->", "<name >cp2</name >\n  <description>new</description>\n  <parent>\n    <name>cp1</name>\n  </parent><!-- too -->",
		`<disk name="vda" v:flag="on" later='x'>`, `<disk name='vda' v:flag='on' later='x' bitmap='b'>`,
		`<disk name='vdb' size="007"/>`, `<disk name='vdb' size='8'/>`,
	).Replace(strange)
	if got := string(c.Append()); got != want {
		t.Error(cmp.Diff(want, got))
	}
	if d := cmp.Diff(c, mustCheckpoint(t, string(c.Append())), plainly); d != "" {
		t.Error(d)
	}
}

func TestChangeDisks(t *testing.T) {
	c := mustCheckpoint(t, strange)
	c.Disks = []CheckpointDisk{{Name: "vdc"}, c.Disks[1], c.Disks[0], {Name: "vdd", Checkpoint: "no", Bitmap: "x"}}
	got := string(c.Append())
	const want = "<disks v:a=\"1\">\n    <disk name='vdc' checkpoint='bitmap'/>\n    <disk name='vdb' size=\"007\"/>\n" +
		"    <disk name=\"vda\" v:flag=\"on\" later='x'><future a=\"1\"/></disk>\n    <disk name='vdd' checkpoint='no'/>\n\t\t<v:disk/>\n\t</disks>"
	if !strings.Contains(got, want) {
		t.Errorf("want in it\n%s\nhave\n%s", want, got)
	}
	again := mustCheckpoint(t, got)
	again.Disks = nil
	if got := string(again.Append()); !strings.Contains(got, "<v:disk/>") || len(mustCheckpoint(t, got).Disks) != 0 {
		t.Errorf("without disks:\n%s", got)
	}
	plain := mustCheckpoint(t, sample)
	plain.Disks = nil
	if got := string(plain.Append()); strings.Contains(got, "<disks") {
		t.Errorf("without disks:\n%s", got)
	}
	// A disk that stands twice is two, each with what it holds.
	twice := mustCheckpoint(t, strange)
	twice.Disks = append(twice.Disks, twice.Disks[0])
	twice.Disks[2].Name = "vdz"
	if d := cmp.Diff(twice, mustCheckpoint(t, string(twice.Append())), plainly); d != "" {
		t.Error(d)
	}
	// A disk of another document brings what it holds.
	moved := &Checkpoint{Name: "m", Disks: mustCheckpoint(t, strange).Disks[:1]}
	moved.Disks = append(moved.Disks, moved.Disks[0])
	moved.Disks[1].Name = "vdz"
	if got := string(moved.Append()); strings.Count(got, `<future a="1"/>`) != 2 {
		t.Errorf("moved:\n%s", got)
	}
}

func TestCheckpointFieldsGo(t *testing.T) {
	c := mustCheckpoint(t, sample)
	c.Name, c.Description, c.Parent, c.CreationTime = "", "", "", 0
	c.Disks[0].Size = -1
	c.Disks[1].Checkpoint = "no"
	c.SetDomain(nil)
	const want = `<domaincheckpoint>
  <disks>
    <disk name='vda' checkpoint='bitmap' bitmap='monday'/>
    <disk name='vdb' checkpoint='no'/>
    <disk name='hdc' checkpoint='no'/>
  </disks>
</domaincheckpoint>
`
	if got := string(c.Append()); got != want {
		t.Error(cmp.Diff(want, got))
	}
}

func TestCheckpointDomain(t *testing.T) {
	c := mustCheckpoint(t, strings.Replace(sample, "<domaincheckpoint>", "<domaincheckpoint xmlns:q='urn:q'>", 1))
	d := c.Domain()
	if doc := string(d.Append()); !strings.HasPrefix(doc, "<domain type='kvm' xmlns:q='urn:q'>\n  <name>") {
		t.Errorf("alone it is\n%s", doc)
	}
	if err := d.SetDiskPath("vda", "/r/a.qcow2", ""); err != nil {
		t.Fatal(err)
	}
	if got := c.DomainDisks()[0].Source; got != "/images/a.qcow2" {
		t.Errorf("the copy changed the checkpoint to %s", got)
	}
	c.SetDomain(d)
	if got := c.DomainDisks()[0].Source; got != "/r/a.qcow2" {
		t.Errorf("after SetDomain it is %s", got)
	}
}

func TestCheckpointDisk(t *testing.T) {
	c := mustCheckpoint(t, strings.Replace(sample, "disk name='vda'", "disk name='/images/a.qcow2'", 1))
	if d, ok := c.Disk("vda"); !ok || d.Size != 1<<20 {
		t.Errorf("by its source: %+v %v", d, ok)
	}
	if d, ok := c.Disk("vdb"); !ok || d.Bitmap != "other" {
		t.Errorf("by its target: %+v %v", d, ok)
	}
	if d, ok := c.Disk("vdz"); ok {
		t.Errorf("not listed: %+v", d)
	}
}

func TestValidate(t *testing.T) {
	if err := (&Checkpoint{Name: "a"}).Validate(); err != nil {
		t.Error(err)
	}
	wantFormat(t, (&Checkpoint{Name: "../a"}).Validate(), "domaincheckpoint/name", "letters")
	wantFormat(t, (&Checkpoint{CreationTime: -1}).Validate(), "domaincheckpoint/creationTime", "whole")
	wantFormat(t, (&Backup{Mode: "x"}).Validate(), "domainbackup/@mode", "push or pull")
	if err := (&Backup{}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestNotFound(t *testing.T) {
	d, err := ParseDomain([]byte("<domain><devices><disk><target dev='vda'/></disk></devices></domain>"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Disk("vdb")
	var missing *NotFoundError
	if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &missing) || len(missing.Have) != 1 {
		t.Errorf("have %v", err)
	}
}
