package chainmaker

import (
	"context"
	"fmt"
	"os"
)

// backupDirectly makes the checkpoint through libvirt and the backups through
// QEMU's own command. The guest is paused, so both are of the same moment.
func (m *maker) backupDirectly(ctx context.Context, t Target, points []*Point) error {
	cp, err := m.writeCheckpointXML(points[0].Checkpoint)
	if err != nil {
		return err
	}
	defer os.Remove(cp)
	if _, err := m.virsh(ctx, "checkpoint-create", m.chain.Domain, cp); err != nil {
		return err
	}
	for i, d := range m.disks {
		if err := m.blockdevBackup(ctx, d, t, points[i]); err != nil {
			return err
		}
	}
	return nil
}

const (
	targetNode = "qbit-target"
	backupJob  = "qbit-backup"
)

// blockdevBackup attaches the target, runs the job and lets go of it.
func (m *maker) blockdevBackup(ctx context.Context, d *liveDisk, t Target, p *Point) error {
	node := object{"driver": "qcow2", "node-name": targetNode, "backing": nil,
		"file": object{"driver": "file", "filename": p.File}}
	if t.Backing != BackingNone && p.Parent != "" {
		node["backing"] = d.node
	}
	if err := m.qmp(ctx, "blockdev-add", node, nil); err != nil {
		return err
	}
	job := object{"job-id": backupJob, "device": d.node, "target": targetNode,
		"sync": "full", "compress": t.Compression != "", "auto-dismiss": false}
	if p.Parent != "" {
		job["sync"], job["bitmap"], job["bitmap-mode"] = "bitmap", p.Bitmap, "never"
	}
	if err := m.qmp(ctx, "blockdev-backup", job, nil); err != nil {
		return err
	}
	if err := m.awaitJob(ctx); err != nil {
		return err
	}
	return m.qmp(ctx, "blockdev-del", object{"node-name": targetNode}, nil)
}

// awaitJob waits for QEMU's job to conclude and dismisses it.
func (m *maker) awaitJob(ctx context.Context) error {
	var jobs []struct{ ID, Status, Error string }
	err := await(ctx, backupJob, func() (bool, error) {
		err := m.qmp(ctx, "query-jobs", nil, &jobs)
		return len(jobs) == 1 && jobs[0].Status == "concluded", err
	})
	if err != nil {
		return err
	}
	if jobs[0].Error != "" {
		return fmt.Errorf("blockdev-backup: %s", jobs[0].Error)
	}
	return m.qmp(ctx, "job-dismiss", object{"id": backupJob}, nil)
}

// keepInterval freezes what changed since the parent checkpoint under a name of
// its own: the parent's bitmap goes on recording, and would later say more.
func (m *maker) keepInterval(ctx context.Context, d *liveDisk, p *Point) error {
	add := object{"node": d.node, "name": p.Bitmap, "persistent": true, "disabled": true}
	merge := object{"node": d.node, "target": p.Bitmap, "bitmaps": []string{p.Parent}}
	actions := []object{{"type": "block-dirty-bitmap-add", "data": add}, {"type": "block-dirty-bitmap-merge", "data": merge}}
	if err := m.qmp(ctx, "transaction", object{"actions": actions}, nil); err != nil {
		return err
	}
	b, err := m.block(ctx, d)
	if err != nil {
		return err
	}
	for _, bitmap := range b.Inserted.Bitmaps {
		if bitmap.Name == p.Bitmap && bitmap.Count > 0 {
			return nil
		}
	}
	return fmt.Errorf("%s: bitmap %s is clean: no guest write arrived", d.Target, p.Bitmap)
}
