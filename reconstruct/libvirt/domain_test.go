package libvirt

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustDomain(t testing.TB, doc string) *Domain {
	t.Helper()
	d, err := ParseDomain([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// guest has a disk of every kind, and what libvirt's schema knows around them.
const guest = `<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>guest</name>
  <uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid>
  <metadata>
    <app:it xmlns:app="urn:app"><disk><target dev="vda"/></disk></app:it>
  </metadata>
  <memory unit='KiB'>219136</memory>
  <devices>
    <disk type='file' device='disk' snapshot='external'>
      <driver name='qemu' type='qcow2' cache='none' discard_no_unref='on'>
        <metadata_cache>
          <max_size unit='bytes'>1234</max_size>
        </metadata_cache>
      </driver>
      <source file='/images/a.qcow2' fdgroup='g' index='3' startupPolicy='optional'>
        <slices>
          <slice type='storage' offset='1' size='2'/>
        </slices>
        <encryption format='luks'/>
        <seclabel model='dac' relabel='no'/>
        <dataStore type='file'/>
      </source>
      <backingStore type='file'>
        <format type='qcow2'/>
        <source file='/images/base.qcow2'/>
        <backingStore/>
      </backingStore>
      <mirror type='file' job='copy'/>
      <target dev='vda' bus='virtio'/>
      <serial>WD-1</serial>
      <address type='pci' slot='0x03'/>
    </disk>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw'/>
      <auth username='u'/>
      <source protocol='rbd' name='pool/image' tls='no'>
        <host name='mon1' port='6789'/>
        <snapshot name='s'/>
        <x:keep xmlns:x='urn:x'/>
      </source>
      <target dev='vdb' bus='virtio'/>
    </disk>
    <disk type='block' device='lun' rawio='yes' sgio='filtered'>
      <source dev='/dev/sdz'>
        <reservations managed='yes'/>
      </source>
      <target dev='sda' bus='scsi'/>
    </disk>
    <disk device='cdrom'>
      <target dev='hdc' bus='ide'/>
      <readonly/>
    </disk>
    <disk type='volume'>
      <source pool='p' volume='v'/>
      <target dev='vdc'/>
      <encryption format='luks'/>
    </disk>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-x'/>
  </qemu:commandline>
</domain>
`

func TestParseDomain(t *testing.T) {
	d := mustDomain(t, guest)
	want := &Domain{Name: "guest", UUID: "c7a5fdbd-edaf-9455-926a-d65c16db1809", Disks: []DomainDisk{
		{Target: "vda", Bus: "virtio", Device: "disk", Type: "file", Source: "/images/a.qcow2", Driver: "qcow2", Encrypted: true},
		{Target: "vdb", Bus: "virtio", Device: "disk", Type: "network", Source: "pool/image", Driver: "raw"},
		{Target: "sda", Bus: "scsi", Device: "lun", Type: "block", Source: "/dev/sdz"},
		{Target: "hdc", Bus: "ide", Device: "cdrom", Type: "file", ReadOnly: true},
		{Target: "vdc", Device: "disk", Type: "volume", Source: "v", Encrypted: true},
	}}
	if diff := cmp.Diff(want, d, plainly); diff != "" {
		t.Error(diff)
	}
	if got := string(d.Append()); got != guest {
		t.Error(cmp.Diff(guest, got))
	}
}

// restored is what becomes of the disks of guest, each beside its target.
var restored = map[string]string{
	"vda": `    <disk type='file' device='disk' snapshot='external'>
      <driver name='qemu' type='qcow2' cache='none' discard_no_unref='on'>
        <metadata_cache>
          <max_size unit='bytes'>1234</max_size>
        </metadata_cache>
      </driver>
      <source file='/r/&apos;vda&apos;' startupPolicy='optional'>
        <seclabel model='dac' relabel='no'/>
      </source>
      <target dev='vda' bus='virtio'/>
      <serial>WD-1</serial>
      <address type='pci' slot='0x03'/>
    </disk>
`,
	"vdb": `    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='/r/&apos;vdb&apos;'>
        <x:keep xmlns:x='urn:x'/>
      </source>
      <target dev='vdb' bus='virtio'/>
    </disk>
`,
	"sda": `    <disk type='file' device='disk'>
      <driver type='qcow2'/>
      <source file='/r/&apos;sda&apos;'/>
      <target dev='sda' bus='scsi'/>
    </disk>
`,
	"hdc": `    <disk device='cdrom'>
      <driver type='qcow2'/>
      <source file='/r/&apos;hdc&apos;'/>
      <target dev='hdc' bus='ide'/>
      <readonly/>
    </disk>
`,
	"vdc": `    <disk type='file'>
      <driver type='qcow2'/>
      <source file='/r/&apos;vdc&apos;'/>
      <target dev='vdc'/>
    </disk>
`,
}

// diskOf is the lines of the disk with this target.
func diskOf(t *testing.T, doc, target string) (before, disk, after string) {
	t.Helper()
	at := strings.Index(doc, "      <target dev='"+target+"'")
	if at < 0 {
		t.Fatalf("no disk %s in\n%s", target, doc)
	}
	from := strings.LastIndex(doc[:at], "    <disk ")
	to := at + strings.Index(doc[at:], "    </disk>\n") + len("    </disk>\n")
	return doc[:from], doc[from:to], doc[to:]
}

func TestSetDiskPath(t *testing.T) {
	for target, want := range restored {
		d := mustDomain(t, guest)
		if err := d.SetDiskPath(target, "/r/'"+target+"'", "qcow2"); err != nil {
			t.Fatal(err)
		}
		before, disk, after := diskOf(t, string(d.Append()), target)
		oldBefore, _, oldAfter := diskOf(t, guest, target)
		if before != oldBefore || after != oldAfter {
			t.Errorf("%s: something beside the disk has changed", target)
		}
		if disk != want {
			t.Errorf("%s: %s", target, cmp.Diff(want, disk))
		}
		got, err := d.Disk(target)
		if err != nil || got.Source != "/r/'"+target+"'" || got.Type != "file" || got.Driver != "qcow2" || got.Encrypted {
			t.Errorf("%s: %+v %v", target, got, err)
		}
	}
}

// A disk that is already so keeps its bytes.
func TestSetDiskPathAgain(t *testing.T) {
	const doc = `<domain><devices><disk device="disk"><driver  type="raw"/><source  file="/r"/><target dev="vda"/></disk></devices></domain>`
	d := mustDomain(t, doc)
	if err := d.SetDiskPath("vda", "/r", "raw"); err != nil {
		t.Fatal(err)
	}
	if got := string(d.Append()); got != doc {
		t.Error(cmp.Diff(doc, got))
	}
}

func TestSetDiskFormat(t *testing.T) {
	d := mustDomain(t, guest)
	if err := d.SetDiskPath("vda", "/r/a.raw", "raw"); err != nil {
		t.Fatal(err)
	}
	if got := string(d.Append()); !strings.Contains(got, "<driver name='qemu' type='raw' cache='none'/>") {
		t.Errorf("as raw:\n%s", got)
	}
	d = mustDomain(t, guest)
	if err := d.SetDiskPath("hdc", `C:\r\a.iso`, ""); err != nil {
		t.Fatal(err)
	}
	if _, disk, _ := diskOf(t, string(d.Append()), "hdc"); strings.Contains(disk, "driver") {
		t.Errorf("without a format:\n%s", disk)
	}
}

func TestSetDiskPathRefuses(t *testing.T) {
	d := mustDomain(t, guest)
	for _, path := range []string{"", "rel", "./a", "/", "C:a", "1:\\a"} {
		wantFormat(t, d.SetDiskPath("vda", path, ""), "domain/devices/disk/source/@file", "absolute")
	}
	if err := d.SetDiskPath("vdz", "/r", ""); err == nil || !strings.Contains(err.Error(), `"hdc"`) {
		t.Errorf("have %v", err)
	}
	two := mustDomain(t, strings.ReplaceAll(guest, "dev='vdb'", "dev='vda'"))
	wantFormat(t, two.SetDiskPath("vda", "/r", ""), "domain/devices/disk[2]/target/@dev", "two disks")
	if got := string(d.Append()); got != guest {
		t.Error("a refusal has changed the document")
	}
}

func TestDomainIdentity(t *testing.T) {
	d := mustDomain(t, guest)
	d.Name, d.UUID = "other & new", ""
	want := strings.Replace(strings.Replace(guest, "<name>guest", "<name>other &amp; new", 1),
		"\n  <uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid>", "", 1)
	if got := string(d.Append()); got != want {
		t.Error(cmp.Diff(want, got))
	}
}

func TestMemory(t *testing.T) {
	for _, c := range []struct {
		element string
		want    int64 // -1: an error
	}{
		{"", 0},
		{"<memory>3</memory>", 3 << 10},
		{"<memory unit=''>3</memory>", 3 << 10},
		{"<memory unit='b'>3</memory>", 3},
		{"<memory unit='Byte'>3</memory>", 3},
		{"<memory unit='bytes'>3</memory>", 3},
		{"<memory unit='KB'>3</memory>", 3000},
		{"<memory unit='k'>3</memory>", 3 << 10},
		{"<memory unit='MiB'>3</memory>", 3 << 20},
		{"<memory unit='mb'>3</memory>", 3e6},
		{"<memory unit='G'>3</memory>", 3 << 30},
		{"<memory unit='TB'>3</memory>", 3e12},
		{"<memory unit='PiB'>3</memory>", 3 << 50},
		{"<memory unit='EB'>3</memory>", 3e18},
		{"<memory unit='EiB'>7</memory>", 7 << 60},
		{"<memory unit='EiB'>8</memory>", -1},
		{"<memory unit='XB'>3</memory>", -1},
		{"<memory unit='KiBi'>3</memory>", -1},
		{"<memory unit='i'>3</memory>", -1},
		{"<memory>x</memory>", -1},
		{"<memory>-1</memory>", -1},
	} {
		got, err := mustDomain(t, "<domain>"+c.element+"</domain>").Memory()
		if err != nil {
			got = -1
		}
		if got != c.want {
			t.Errorf("%s: %d %v, want %d", c.element, got, err, c.want)
		}
	}
}
