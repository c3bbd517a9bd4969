package chainmaker

import (
	"context"
	"fmt"
	"html"
	"os"
	"strings"
)

// A pushJob is one backup-begin.
type pushJob struct {
	name       string            // of the XML files
	files      map[string]string // disk target -> file
	format     string
	since      string // checkpoint that it is incremental to; "" for a full
	checkpoint string // to create at the same moment; "" for none
	reuse      bool   // the files exist
}

// push runs the job to its end and returns the path of its XML.
func (m *maker) push(ctx context.Context, j pushJob) (string, error) {
	xml := m.path(j.name + ".backup.xml")
	if err := os.WriteFile(xml, []byte(m.backupXML(j)), 0o644); err != nil {
		return "", err
	}
	args := []string{"backup-begin", m.chain.Domain, xml}
	if j.checkpoint != "" {
		cp, err := m.writeCheckpointXML(j.checkpoint)
		if err != nil {
			return "", err
		}
		defer os.Remove(cp)
		args = append(args, cp)
	} else {
		defer os.Remove(xml)
	}
	if j.reuse {
		args = append(args, "--reuse-external")
	}
	if _, err := m.virsh(ctx, args...); err != nil {
		return "", err
	}
	return xml, m.awaitPush(ctx)
}

// awaitPush waits until libvirt has no job, and asks how it ended.
func (m *maker) awaitPush(ctx context.Context) error {
	err := await(ctx, "backup job", func() (bool, error) {
		text, err := m.virsh(ctx, "domjobinfo", m.chain.Domain)
		return jobType(text) == "None", err
	})
	if err != nil {
		return err
	}
	text, err := m.virsh(ctx, "domjobinfo", m.chain.Domain, "--completed")
	if err == nil && jobType(text) != "Completed" {
		err = fmt.Errorf("backup job ended as %q", text)
	}
	return err
}

func jobType(text string) string {
	_, rest, _ := strings.Cut(text, "Job type:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

func (m *maker) backupXML(j pushJob) string {
	var b strings.Builder
	b.WriteString("<domainbackup mode='push'>\n")
	if j.since != "" {
		fmt.Fprintf(&b, "  <incremental>%s</incremental>\n", j.since)
	}
	b.WriteString("  <disks>\n")
	for _, d := range m.disks {
		file, ok := j.files[d.Target]
		if !ok {
			fmt.Fprintf(&b, "    <disk name='%s' backup='no'/>\n", d.Target)
			continue
		}
		fmt.Fprintf(&b, "    <disk name='%s' type='file'>\n      <target file='%s'/>\n      <driver type='%s'/>\n    </disk>\n",
			d.Target, html.EscapeString(file), j.format)
	}
	b.WriteString("  </disks>\n</domainbackup>\n")
	return b.String()
}

// writeCheckpointXML asks for a bitmap on every disk.
func (m *maker) writeCheckpointXML(name string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "<domaincheckpoint>\n  <name>%s</name>\n  <disks>\n", name)
	for _, d := range m.disks {
		fmt.Fprintf(&b, "    <disk name='%s' checkpoint='bitmap'/>\n", d.Target)
	}
	b.WriteString("  </disks>\n</domaincheckpoint>\n")
	path := m.path(name + ".request.xml")
	return path, os.WriteFile(path, []byte(b.String()), 0o644)
}

// dumpCheckpoint keeps what libvirt knows of the checkpoint.
func (m *maker) dumpCheckpoint(ctx context.Context, name string) (string, error) {
	text, err := m.virsh(ctx, "checkpoint-dumpxml", m.chain.Domain, name)
	if err != nil {
		return "", err
	}
	path := m.path(name + ".xml")
	return path, os.WriteFile(path, []byte(text+"\n"), 0o644)
}
