package main

import (
	"context"
	"fmt"
	"html"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/chainmaker"
	"github.com/qbitkit/qbit/testimages/interop"
)

// TestInteropLibvirtGoesOn makes a bitmap with qbit in an image that no guest has
// open, and tells libvirt that it is a checkpoint. The guest must go on recording
// into it, and a backup since it must be right; also after another change by qbit.
func TestInteropLibvirtGoesOn(t *testing.T) {
	interop.Need(t, append(chainmaker.Tools(), "qemu-io")...)
	m := newMachine(t)
	links := []string{m.path("full.qcow2")}
	interop.Run(t, "qemu-img", "convert", "-O", "qcow2", m.image, links[0])
	m.qbit("bitmap", "--add", "-g", "64k", m.image, "offline")
	m.qbit("bitmap", "--add", "-g", "4k", "--set", "8k+4k", m.image, "finer")
	m.qbit("bitmap", "--add", "--disable", "--set", "1M+64k", m.image, "still")

	m.virsh("start", m.domain, "--paused")
	m.virsh("checkpoint-create", m.domain, m.checkpointXML("offline", true), "--redefine", "--redefine-validate")
	m.expectRefused("missing")
	m.guestWrites("offline", "finer")
	links = append(links, m.backup("offline", "second"))
	m.expectRestored(links)
	m.guestWrites("offline", "finer", "second")
	m.virsh("destroy", m.domain, "--graceful")
	m.expectBitmaps("offline", "finer", "still", "second")

	m.qbit("bitmap", "--merge", "finer", "--set", "5M+1", m.image, "offline")
	m.want["offline"].Set(5<<20, 1)
	must(0, m.want["offline"].Union(m.want["finer"]))
	m.qbit("bitmap", "--remove", m.image, "finer")
	m.virsh("start", m.domain, "--paused")
	m.guestWrites("offline", "second")
	links = append(links, m.backup("second", "third"))
	m.expectRestored(links)
	m.expectRestored([]string{links[0], m.backup("offline", "fourth")})
	m.virsh("destroy", m.domain, "--graceful")
	m.expectBitmaps("offline", "still", "second", "third", "fourth")
	interop.Run(t, "qemu-img", "check", m.image)
}

// A machine is a domain with one disk, in a libvirt of its own.
type machine struct {
	*testing.T
	host          *chainmaker.Host
	dir           string
	domain, image string
	size          int64
	rng           *rand.Rand
	want          map[string]*bitmap.Bitmap
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{T: t, dir: dir, domain: "goes-on", image: filepath.Join(dir, "disk.qcow2"), size: 24<<20 + 512,
		rng: rand.New(rand.NewPCG(11, 0)), want: map[string]*bitmap.Bitmap{}}
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", m.image, fmt.Sprint(m.size))
	interop.Run(t, "qemu-io", "-c", "write -P 9 0 9M", "-c", "write -P 8 20M 700k", m.image)
	for name, granularity := range map[string]int64{"offline": 64 << 10, "finer": 4 << 10, "still": 64 << 10} {
		m.addWanted(name, granularity)
	}
	m.want["finer"].Set(8<<10, 4<<10)
	m.want["still"].Set(1<<20, 64<<10)
	host, err := chainmaker.Start(t.Context(), filepath.Join(dir, "libvirt"))
	if err != nil {
		t.Fatal(err)
	}
	m.host = host
	t.Cleanup(m.close)
	m.virsh("define", m.write("domain.xml", m.domainXML()))
	return m
}

func (m *machine) addWanted(name string, granularity int64) {
	m.want[name] = must(bitmap.New(m.size, granularity))
}

// close ends the domain, which the host does not know, and libvirt.
func (m *machine) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if state, err := m.host.Virsh(ctx, "domstate", m.domain); err == nil && !strings.Contains(state, "shut off") {
		m.host.Virsh(ctx, "destroy", m.domain)
	}
	if _, err := m.host.Virsh(ctx, "undefine", m.domain, "--checkpoints-metadata"); err != nil {
		m.Error(err)
	}
	if err := m.host.Close(); err != nil {
		m.Error(err)
	}
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m *machine) write(name, text string) string {
	m.Helper()
	writeFile(m.T, m.path(name), []byte(text))
	return m.path(name)
}

func (m *machine) virsh(args ...string) string {
	m.Helper()
	out, err := m.host.Virsh(m.Context(), args...)
	if err != nil {
		m.Fatal(err)
	}
	return out
}

func (m *machine) qbit(args ...string) {
	m.Helper()
	if out, said, status := qbit(args...); status != 0 {
		m.Fatalf("qbit %q: status %d\n%s%s", args, status, out, said)
	}
}

func (m *machine) domainXML() string {
	return fmt.Sprintf(`<domain type='qemu'>
  <name>%s</name>
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap' detect_zeroes='off'/>
      <source file='%s'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
  <seclabel type='none'/>
</domain>
`, m.domain, html.EscapeString(m.image))
}

// checkpointXML is a checkpoint whose bitmap has its name. A redefinition needs
// the time and the domain of that moment.
func (m *machine) checkpointXML(name string, redefine bool) string {
	m.Helper()
	more := ""
	if redefine {
		dump := regexp.MustCompile(`^<\?xml.*\?>`).ReplaceAllString(m.virsh("dumpxml", m.domain), "")
		more = "<creationTime>1700000000</creationTime>" + dump
	}
	return m.write(name+".checkpoint.xml", fmt.Sprintf(
		"<domaincheckpoint><name>%[1]s</name><disks><disk name='vda' checkpoint='bitmap' bitmap='%[1]s'/></disks>%[2]s</domaincheckpoint>\n",
		name, more))
}

// expectRefused shows that libvirt does look for the bitmap.
func (m *machine) expectRefused(name string) {
	m.Helper()
	_, err := m.host.Virsh(m.Context(), "checkpoint-create", m.domain, m.checkpointXML(name, true), "--redefine", "--redefine-validate")
	if err == nil {
		m.Fatalf("libvirt took checkpoint %q, which has no bitmap", name)
	}
}

// guestWrites writes through the monitor; all of it is to be recorded in these
// bitmaps.
func (m *machine) guestWrites(recording ...string) {
	m.Helper()
	for i := range 12 {
		length := 512 * (1 + m.rng.Int64N(400))
		off := m.rng.Int64N(m.size-length+1) &^ 511
		verb := []string{fmt.Sprintf("write -P %d", 10+i), "write -z", "write -z -u", "discard"}[m.rng.IntN(4)]
		m.guest(fmt.Sprintf("%s %d %d", verb, off, length))
		for _, name := range recording {
			m.want[name].Set(off, length)
		}
	}
	m.guest("flush")
}

func (m *machine) guest(operation string) {
	m.Helper()
	m.virsh("qemu-monitor-command", m.domain, "--hmp",
		fmt.Sprintf(`qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "%s"`, operation))
}

// backup pushes what changed since a checkpoint, and makes a new checkpoint.
func (m *machine) backup(since, checkpoint string) string {
	m.Helper()
	target := m.path(checkpoint + ".qcow2")
	xml := m.write(checkpoint+".backup.xml", fmt.Sprintf(`<domainbackup mode='push'>
  <incremental>%s</incremental>
  <disks>
    <disk name='vda' type='file'><target file='%s'/><driver type='qcow2'/></disk>
  </disks>
</domainbackup>
`, since, html.EscapeString(target)))
	m.virsh("backup-begin", m.domain, xml, m.checkpointXML(checkpoint, false))
	m.addWanted(checkpoint, 64<<10)
	m.awaitBackup()
	return target
}

func (m *machine) awaitBackup() {
	m.Helper()
	ctx, cancel := context.WithTimeout(m.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(m.virsh("domjobinfo", m.domain), "None") {
		select {
		case <-tick.C:
		case <-ctx.Done():
			m.Fatal("the backup does not end")
		}
	}
	if done := m.virsh("domjobinfo", m.domain, "--completed"); !strings.Contains(done, "Completed") {
		m.Fatalf("the backup ended as %s", done)
	}
}

// expectRestored restores the chain and wants the disk as it is now; the guest is
// paused, and what it wrote was flushed.
func (m *machine) expectRestored(links []string) {
	m.Helper()
	truth, restored := m.path("truth.raw"), m.path("restored.raw")
	interop.Run(m.T, "qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", m.image, truth)
	m.qbit(append(append([]string{"restore", "-q"}, links...), "-o", restored)...)
	if got, want := fileSHA256(m.T, restored), fileSHA256(m.T, truth); got != want {
		m.Fatalf("restored from %q: sha256 %s, the disk has %s", links, got, want)
	}
	must(0, os.Remove(restored))
}

// expectBitmaps reads the image after the guest has let go of it.
func (m *machine) expectBitmaps(names ...string) {
	m.Helper()
	f := must(os.Open(m.image))
	defer f.Close()
	img := must(qcow2.Open(f, must(f.Stat()).Size(), nil))
	if list := must(img.Bitmaps()); len(list) != len(names) {
		m.Fatalf("%d bitmaps, there must be %q: %+v", len(list), names, list)
	}
	for _, name := range names {
		if got := must(img.LoadBitmap(name)); !got.Equal(m.want[name]) {
			m.Fatalf("bitmap %q has %d dirty bytes of granularity %d, must have %d of %d", name,
				got.Count(), got.Granularity(), m.want[name].Count(), m.want[name].Granularity())
		}
	}
}
