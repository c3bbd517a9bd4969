package chainmaker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"strings"
)

// A liveDisk is a disk of the running domain.
type liveDisk struct {
	Disk
	index  int
	size   int64
	device string // its path in QEMU's object tree
	node   string // the block node of its qcow2 layer
	guest  *guest
}

// maker is one chain being made.
type maker struct {
	host  *Host
	dir   string
	spec  Spec
	chain Chain
	disks []*liveDisk
	point int // the point that is being made; 0 is the full backup
}

func (m *maker) path(name string) string { return filepath.Join(m.dir, name) }

// prefix keeps the file names of further disks apart; the first has none.
func (d *liveDisk) prefix() string {
	if d.index == 0 {
		return ""
	}
	return d.Target + "-"
}

// start creates the live images and the paused domain over them.
func (m *maker) start(ctx context.Context) error {
	m.chain = Chain{Domain: or(m.spec.Domain, "qbit-"+randomName()), Seed: m.spec.Seed}
	for i, size := range m.spec.Sizes {
		if err := m.addDisk(ctx, i, size); err != nil {
			return err
		}
	}
	xml := m.path("domain.xml")
	if err := os.WriteFile(xml, []byte(m.domainXML()), 0o644); err != nil {
		return err
	}
	if _, err := m.virsh(ctx, "define", xml); err != nil {
		return err
	}
	m.host.domains = append(m.host.domains, m.chain.Domain)
	if _, err := m.virsh(ctx, "start", m.chain.Domain, "--paused"); err != nil {
		return err
	}
	return m.findNodes(ctx)
}

func (m *maker) addDisk(ctx context.Context, i int, size int64) error {
	d := &liveDisk{index: i, size: size, device: fmt.Sprintf("/machine/peripheral/virtio-disk%d/virtio-backend", i)}
	d.Target = "vd" + string(rune('a'+i))
	d.Source = m.path(d.prefix() + "disk.qcow2")
	options := []string{fmt.Sprintf("cluster_size=%d", m.spec.SourceCluster)}
	if m.spec.SourceExtendedL2 {
		options = append(options, "extended_l2=on")
	}
	if err := createQcow2(ctx, d.Source, size, options, ""); err != nil {
		return err
	}
	d.guest = newGuest(m.spec.Seed, uint64(i), m.path(d.prefix()+"noise.bin"))
	m.disks = append(m.disks, d)
	return nil
}

func (m *maker) virsh(ctx context.Context, args ...string) (string, error) {
	return m.host.Virsh(ctx, args...)
}

func randomName() string {
	var b [6]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// domainXML has emulation alone, so that no machine is too poor to run it, and
// keeps zeroes that the guest writes as they come.
func (m *maker) domainXML() string {
	var disks strings.Builder
	for _, d := range m.disks {
		fmt.Fprintf(&disks, `    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap' detect_zeroes='off'/>
      <source file='%s'/>
      <target dev='%s' bus='virtio'/>
    </disk>
`, html.EscapeString(d.Source), d.Target)
	}
	return fmt.Sprintf(`<domain type='qemu'>
  <name>%s</name>
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
%s    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
  <seclabel type='none'/>
</domain>
`, html.EscapeString(m.chain.Domain), &disks)
}
