package chainmaker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// Make makes a chain with a libvirt of its own, whose folder is removed again.
func Make(ctx context.Context, dir string, spec Spec) (*Chain, error) {
	private, err := os.MkdirTemp("", "libvirt")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	h, err := Start(ctx, private)
	if err != nil {
		return nil, err
	}
	c, err := h.Make(ctx, dir, spec)
	return c, errors.Join(err, h.Close())
}

// Make makes a chain in dir, an absolute path of which it creates the last part
// only. Afterwards the domain is gone and the live images are closed, with the
// bitmaps of every checkpoint and interval in them.
func (h *Host) Make(ctx context.Context, dir string, spec Spec) (*Chain, error) {
	spec, err := spec.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("make chain: %w", err)
	}
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("make chain: folder is not absolute: %s", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make chain: %w", err)
	}
	m := &maker{host: h, dir: dir, spec: spec}
	if err := errors.Join(m.run(ctx), m.leave()); err != nil {
		return nil, fmt.Errorf("make chain in %s: %w", dir, err)
	}
	return &m.chain, nil
}

func (m *maker) run(ctx context.Context) error {
	if err := m.start(ctx); err != nil {
		return err
	}
	if err := m.versions(ctx); err != nil {
		return err
	}
	for m.point = 0; m.point <= m.spec.Increments; m.point++ {
		if err := m.makePoint(ctx); err != nil {
			return fmt.Errorf("point %d: %w", m.point, err)
		}
	}
	if _, err := m.virsh(ctx, "destroy", m.chain.Domain, "--graceful"); err != nil {
		return err
	}
	return m.settle(ctx)
}

// leave removes the domain, also after a failure or when the caller's time is up.
func (m *maker) leave() error {
	for _, d := range m.disks {
		os.Remove(d.guest.noise)
	}
	os.Remove(m.path("domain.xml"))
	if !slices.Contains(m.host.domains, m.chain.Domain) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return m.host.remove(ctx, m.chain.Domain)
}

// makePoint lets the guest work, takes the truth, and backs up.
func (m *maker) makePoint(ctx context.Context) error {
	if err := m.resize(ctx); err != nil {
		return err
	}
	if err := m.act(ctx); err != nil {
		return err
	}
	t := m.spec.target(m.point)
	points := make([]*Point, len(m.disks))
	for i, d := range m.disks {
		points[i] = m.newPoint(d, t)
		if err := m.prepare(ctx, d, points[i]); err != nil {
			return err
		}
	}
	if err := m.backup(ctx, t, points); err != nil {
		return err
	}
	return m.finish(ctx, points)
}

func (m *maker) resize(ctx context.Context) error {
	size, ok := m.spec.Resize[m.point]
	if !ok {
		return nil
	}
	d := m.disks[0]
	d.size = size
	_, err := m.virsh(ctx, "blockresize", m.chain.Domain, d.Target, strconv.FormatInt(size, 10)+"B")
	return err
}

func (m *maker) newPoint(d *liveDisk, t Target) *Point {
	name := "full"
	p := &Point{Checkpoint: fmt.Sprintf("cp%d", m.point), Format: t.format()}
	if m.point > 0 {
		name = fmt.Sprintf("inc%d", m.point)
		p.Parent = fmt.Sprintf("cp%d", m.point-1)
		p.Bitmap = "interval-" + p.Checkpoint
		p.Lossy = t.Lossy()
	}
	p.File = m.path(d.prefix() + name + "." + p.Format)
	return p
}

// prepare records what must be known before the backup: truth and interval.
func (m *maker) prepare(ctx context.Context, d *liveDisk, p *Point) error {
	if err := m.takeTruth(ctx, d, p); err != nil {
		return err
	}
	if m.spec.PushTruth {
		if err := m.checkTruth(ctx, d, p); err != nil {
			return err
		}
	}
	if p.Parent == "" {
		return nil
	}
	return m.keepInterval(ctx, d, p)
}

// backup writes the files in whichever way can.
func (m *maker) backup(ctx context.Context, t Target, points []*Point) error {
	method := "push"
	direct := t.direct(m.point == 0)
	if direct {
		method = "blockdev-backup"
	} else if !t.plain() {
		method = "push --reuse-external"
	}
	files := map[string]string{}
	for i, d := range m.disks {
		points[i].Method = method
		files[d.Target] = points[i].File
		if direct || !t.plain() {
			if err := m.createTarget(ctx, d, t, points[i]); err != nil {
				return err
			}
		}
	}
	if direct {
		return m.backupDirectly(ctx, t, points)
	}
	p := points[0]
	xml, err := m.push(ctx, pushJob{name: p.Checkpoint, files: files, format: p.Format,
		since: p.Parent, checkpoint: p.Checkpoint, reuse: !t.plain()})
	for _, p := range points {
		p.BackupXML = xml
	}
	return err
}

func (m *maker) createTarget(ctx context.Context, d *liveDisk, t Target, p *Point) error {
	backing := ""
	if t.Backing == BackingNamed && p.Parent != "" {
		backing = d.Source
	}
	return createQcow2(ctx, p.File, d.size, t.options(), backing)
}

// finish records what came out.
func (m *maker) finish(ctx context.Context, points []*Point) error {
	xml, err := m.dumpCheckpoint(ctx, points[0].Checkpoint)
	if err != nil {
		return err
	}
	for i, p := range points {
		p.CheckpointXML = xml
		made, err := info(ctx, p.File, p.Format)
		if err != nil {
			return err
		}
		if made.VirtualSize != p.Size {
			return fmt.Errorf("%s has %d bytes, the disk %d", p.File, made.VirtualSize, p.Size)
		}
		p.Backing = made.Backing
		m.disks[i].Points = append(m.disks[i].Points, *p)
	}
	return nil
}

// settle checks that the closed images hold every bitmap, fit for use.
func (m *maker) settle(ctx context.Context) error {
	for _, d := range m.disks {
		if err := checkBitmaps(ctx, &d.Disk); err != nil {
			return err
		}
		m.chain.Disks = append(m.chain.Disks, d.Disk)
	}
	return nil
}

func checkBitmaps(ctx context.Context, d *Disk) error {
	i, err := info(ctx, d.Source, "qcow2")
	if err != nil {
		return err
	}
	usable := map[string]bool{}
	for _, b := range i.Specific.Data.Bitmaps {
		usable[b.Name] = !slices.Contains(b.Flags, "in-use")
	}
	for _, p := range d.Points {
		if !usable[p.Checkpoint] || p.Bitmap != "" && !usable[p.Bitmap] {
			return fmt.Errorf("%s: bitmaps of %s are not usable: %v", d.Source, p.Checkpoint, usable)
		}
	}
	return nil
}
