package maker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// A Disk of a machine that is backed up.
type Disk struct {
	Target string // vda, vdb, …
	Format string // qcow2 or raw
	Size   int64  // in bytes
}

// A domain is a paused machine over its disks: between two writes, which come
// through the monitor, nothing moves.
type domain struct {
	*Daemon
	name  string
	dir   string // of the disks
	disks []Disk
}

func (m *domain) path(d Disk) string {
	return filepath.Join(m.dir, m.name+"-"+d.Target+"."+d.Format)
}

// create makes the disks and defines and starts the machine.
func (m *domain) create(ctx context.Context) error {
	for _, d := range m.disks {
		if _, err := m.Run(ctx, "", "qemu-img", "create", "-q", "-f", d.Format, m.path(d), fmt.Sprint(d.Size)); err != nil {
			return err
		}
	}
	xml := filepath.Join(m.dir, m.name+".xml")
	if err := os.WriteFile(xml, []byte(m.xml()), 0o644); err != nil {
		return err
	}
	if _, err := m.Virsh(ctx, "define", xml); err != nil {
		return err
	}
	_, err := m.Virsh(ctx, "start", "--paused", m.name)
	return err
}

// xml keeps zeroes that the guest writes as they come.
func (m *domain) xml() string {
	var disks strings.Builder
	for _, d := range m.disks {
		fmt.Fprintf(&disks, `    <disk type='file' device='disk'>
      <driver name='qemu' type='%s' discard='unmap' detect_zeroes='off'/>
      <source file='%s'/>
      <target dev='%s' bus='virtio'/>
    </disk>
`, d.Format, m.path(d), d.Target)
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
`, m.name, &disks)
}

// act does one operation of qemu-io's in the guest's place.
func (m *domain) act(ctx context.Context, target, operation string) error {
	device := fmt.Sprintf("/machine/peripheral/virtio-disk%d/virtio-backend", target[2]-'a')
	hmp := fmt.Sprintf("qemu-io -d %s \"%s\"", device, operation)
	said, err := m.Virsh(ctx, "qemu-monitor-command", m.name, "--hmp", hmp)
	if err == nil && strings.Contains(said, "failed") {
		err = fmt.Errorf("%s on %s: %s", operation, target, said)
	}
	return err
}

// resize gives a disk another size; the machine must run.
func (m *domain) resize(ctx context.Context, target string, size int64) error {
	for i := range m.disks {
		if m.disks[i].Target == target {
			m.disks[i].Size = size
		}
	}
	_, err := m.Virsh(ctx, "blockresize", m.name, target, fmt.Sprintf("%dB", size))
	return err
}

// truth is the digest of what a disk holds now, flushed.
func (m *domain) truth(ctx context.Context, d Disk) (string, error) {
	raw := filepath.Join(m.dir, "truth.raw")
	defer os.Remove(raw)
	if _, err := m.Run(ctx, "", "qemu-img", "convert", "-U", "-f", d.Format, "-O", "raw", m.path(d), raw); err != nil {
		return "", err
	}
	f, err := os.Open(raw)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err == nil && n != d.Size {
		err = fmt.Errorf("truth of %s has %d bytes, the disk %d", d.Target, n, d.Size)
	}
	return hex.EncodeToString(h.Sum(nil)), err
}

// stop kills the machine, so that its images are closed.
func (m *domain) stop(ctx context.Context) error {
	_, err := m.Virsh(ctx, "destroy", "--graceful", m.name)
	return err
}

// remove forgets it, whatever state it is in.
func (m *domain) remove(ctx context.Context) error {
	if state, err := m.Virsh(ctx, "domstate", m.name); err == nil && state != "shut off" {
		if err := m.stop(ctx); err != nil {
			return err
		}
	}
	_, err := m.Virsh(ctx, "undefine", m.name, "--checkpoints-metadata")
	return err
}
