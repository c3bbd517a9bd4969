package main

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/testimages"
	"github.com/qbitkit/qbit/testimages/chainmaker"
	"github.com/qbitkit/qbit/testimages/interop"
)

// TestInteropContinue restores a chain that libvirt wrote, tells libvirt of the
// restored disk and of its checkpoints, and has it make the next backups: the old
// links and a new one bring back the disk, since each checkpoint.
func TestInteropContinue(t *testing.T) {
	interop.Need(t, append(chainmaker.Tools(), "qemu-io")...)
	m := newRestoredMachine(t, "demo", "cp5", "cp3")
	chain := must(testimages.Extract(t.TempDir(), "demo"))
	old := (&chainOfDisk{points: chain.Disks[0].Points}).links(5)

	m.guestWrites()
	first := m.backup("cp5", "next")
	m.expectRestored(append(append([]string(nil), old...), first))
	m.guestWrites()
	m.expectRestored(append(append([]string(nil), old...), first, m.backup("next", "later")))
	m.guestWrites()
	m.expectRestored(append(append([]string(nil), old[:4]...), m.backup("cp3", "last")))
	m.virsh("checkpoint-delete", m.domain, "cp3")
	m.guestWrites()
	m.expectRestored(append(append([]string(nil), old...), m.backup("cp5", "end")))
	m.virsh("destroy", m.domain, "--graceful")
	interop.Run(t, "qemu-img", "check", m.image)
}

// TestInteropContinueTwo does it with both disks of a domain at once.
func TestInteropContinueTwo(t *testing.T) {
	interop.Need(t, append(chainmaker.Tools(), "qemu-io")...)
	m := newRestoredMachine(t, "twodisks", "cp3")
	chain := must(testimages.Extract(t.TempDir(), "twodisks"))
	for i, writes := range [][]string{{"write -P 40 1M 300k", "discard 3M 1M", "flush"}, {"write -P 41 5M 70k", "write -z 2M 100k", "flush"}} {
		for _, w := range writes {
			m.virsh("qemu-monitor-command", m.domain, "--hmp", fmt.Sprintf(`qemu-io -d /machine/peripheral/virtio-disk%d/virtio-backend "%s"`, i, w))
		}
	}
	xml := m.write("both.backup.xml", fmt.Sprintf(`<domainbackup mode='push'>
  <incremental>cp3</incremental>
  <disks>
    <disk name='vda' type='file'><target file='%[1]s'/><driver type='qcow2'/></disk>
    <disk name='vdb' type='file'><target file='%[2]s'/><driver type='qcow2'/></disk>
  </disks>
</domainbackup>
`, m.path("vda.inc"), m.path("vdb.inc")))
	m.virsh("backup-begin", m.domain, xml)
	m.awaitBackup()
	for _, disk := range chain.Disks {
		m.image = filepath.Join(m.path("disks"), disk.Target+".qcow2")
		old := (&chainOfDisk{points: disk.Points}).links(len(disk.Points) - 1)
		m.expectRestored(append(old, m.path(disk.Target+".inc")))
	}
}

// newRestoredMachine is a domain with the disk of a frozen chain as of its last point,
// as qbit says that it is to be defined, which runs.
func newRestoredMachine(t *testing.T, chain string, checkpoints ...string) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{T: t, dir: dir, image: filepath.Join(dir, "disk.qcow2"), rng: rand.New(rand.NewPCG(12, 0)), want: map[string]*bitmap.Bitmap{}}
	m.domain, m.size = "qbit-"+chain, 8389120
	frozen := must(testimages.Extract(t.TempDir(), chain))
	out, xml := m.image, func(c string) string { return m.image + "." + c + ".xml" }
	if len(frozen.Disks) > 1 {
		out, xml = m.path("disks")+"/", func(c string) string { return filepath.Join(m.path("disks"), c+".xml") }
	}
	args := []string{"restore", "--output=json", filepath.Dir(frozen.Disks[0].Points[0].File), "-O", "qcow2", "-o", out, "--domain-xml", m.path("domain.xml")}
	for _, c := range checkpoints {
		args = append(args, "--continue", c)
	}
	stdout, stderr, status := qbit(args...)
	if status != exitDone {
		t.Fatalf("%s", stderr)
	}
	m.host = must(chainmaker.Start(t.Context(), filepath.Join(dir, "libvirt")))
	t.Cleanup(m.close)
	for _, args := range commandsOf(t, stdout) {
		m.virsh(args...)
	}
	m.virsh("start", m.domain, "--paused")
	for _, c := range checkpoints { // the bitmaps are those that libvirt wants
		m.virsh("checkpoint-create", m.domain, xml(c), "--redefine", "--redefine-validate")
	}
	return m
}
