package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages/chainmaker"
	"github.com/qbitkit/qbit/testimages/interop"
)

// TestInteropLibvirtBackups has qbit and libvirt take turns at the backups of one
// domain: qbit while it is off, libvirt while it runs, each since the other's checkpoint,
// which libvirt takes over as qbit wrote it down. Every point restores to the disk, and
// the folder of all of them is proven.
func TestInteropLibvirtBackups(t *testing.T) {
	interop.Need(t, append(chainmaker.Tools(), "qemu-io", "xmllint")...)
	r := &relay{machine: newMachine(t), chains: map[string][]string{}}
	r.out = r.path("backups")
	must(0, os.Mkdir(r.out, 0o777))
	r.write("live.xml", r.withoutProlog(r.virsh("dumpxml", r.domain)))

	r.off("one", "")
	r.on("one", "two")
	r.off("three", "two")
	r.off("four", "one", "compress=zstd") // since an older one
	made := []string{"one", "three", "four"}
	if os.Getenv("QBIT_FULL") == "1" {
		r.on("four", "five")
		r.off("six", "five")
		made = append(made, "six")
	}
	r.validate(made)
	r.plan()
}

// A relay is a machine with a folder of backups.
type relay struct {
	*machine
	out    string
	chains map[string][]string // by checkpoint: what restores it
	fresh  []string            // checkpoints that libvirt does not know yet
}

func (r *relay) withoutProlog(xml string) string {
	return regexp.MustCompile(`^<\?xml.*\?>`).ReplaceAllString(xml, "")
}

// off makes a backup and a checkpoint by qbit, while the domain is off.
func (r *relay) off(checkpoint, since string, more ...string) {
	r.Helper()
	args := []string{"backup", "--domain", r.path("live.xml"), "-o", r.out, "--checkpoint", checkpoint, "--manifest"}
	if since != "" {
		args = append(args, "--since", since)
	}
	for _, m := range more {
		args = append(args, "--"+m)
	}
	r.qbit(args...)
	r.fresh = append(r.fresh, checkpoint)
	r.took(checkpoint, since, filepath.Join(r.out, "disk.qcow2."+checkpoint))
}

// took compares what a chain restores to with the disk.
func (r *relay) took(checkpoint, since, path string) {
	r.Helper()
	r.chains[checkpoint] = append(slices.Clone(r.chains[since]), path)
	r.expectRestored(r.chains[checkpoint])
}

// on starts the domain, tells libvirt of the checkpoints that qbit made, writes, and has
// libvirt make the next backup.
func (r *relay) on(have, checkpoint string) {
	r.Helper()
	r.virsh("start", r.domain, "--paused")
	for _, name := range r.fresh {
		r.virsh("checkpoint-create", r.domain, filepath.Join(r.out, name+".xml"), "--redefine", "--redefine-validate")
	}
	r.fresh = nil
	r.guestWrites()
	path := r.backup(have, checkpoint)
	now := filepath.Join(r.out, "disk.qcow2."+checkpoint)
	must(0, os.Rename(path, now))
	must(0, os.Rename(r.path(checkpoint+".backup.xml"), filepath.Join(r.out, checkpoint+".backup.xml")))
	r.rename(checkpoint)
	xml := r.virsh("checkpoint-dumpxml", r.domain, checkpoint)
	writeFile(r.T, filepath.Join(r.out, checkpoint+".xml"), []byte(r.withoutProlog(xml)))
	r.took(checkpoint, have, now)
	r.guestWrites()
	r.virsh("destroy", r.domain, "--graceful")
}

// rename says in libvirt's document where the backup is now.
func (r *relay) rename(checkpoint string) {
	path := filepath.Join(r.out, checkpoint+".backup.xml")
	text := strings.ReplaceAll(string(must(os.ReadFile(path))), checkpoint+".qcow2", "disk.qcow2."+checkpoint)
	writeFile(r.T, path, []byte(text))
}

// validate has the schemas of libvirt judge what qbit wrote.
func (r *relay) validate(made []string) {
	r.Helper()
	const schemas = "/usr/share/libvirt/schemas/"
	if _, err := os.Stat(schemas); err != nil {
		return
	}
	for _, name := range made {
		interop.Run(r.T, "xmllint", "--noout", "--relaxng", schemas+"domainbackup.rng", filepath.Join(r.out, name+".backup.xml"))
		interop.Run(r.T, "xmllint", "--noout", "--relaxng", schemas+"domaincheckpoint.rng", filepath.Join(r.out, name+".xml"))
	}
}

// plan wants all backups proven, and the newest point to be the disk.
func (r *relay) plan() {
	r.Helper()
	out, said, status := qbit("plan", r.out)
	if status != 0 || strings.Count(out, "proven") < 3 || strings.Contains(out, "assumed") || strings.Contains(out, "not restorable") {
		r.Fatalf("status %d\n%s%s", status, out, said)
	}
	r.expectRestored([]string{r.out})
	r.qbit("verify", r.out)
	interop.Run(r.T, "qemu-img", "check", r.image)
}
