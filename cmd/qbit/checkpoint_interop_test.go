package main

import (
	"fmt"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/testimages/chainmaker"
	"github.com/qbitkit/qbit/testimages/interop"
)

const checkpointSchema = "/usr/share/libvirt/schemas/domaincheckpoint.rng"

// TestInteropLibvirtCheckpoints has libvirt and qbit take turns at the checkpoints of one
// domain: qbit while it is off, libvirt while it runs. Each takes what the other made,
// both agree on the tree and on the sizes, and backups since checkpoints of either
// restore to the disk.
func TestInteropLibvirtCheckpoints(t *testing.T) {
	interop.Need(t, append(chainmaker.Tools(), "qemu-io", "xmllint")...)
	m := newTurns(t)
	links := []string{m.path("full.qcow2")}
	interop.Run(t, "qemu-img", "convert", "-O", "qcow2", m.image, links[0])
	m.create("offline")
	m.create("second", "--description", "made by qbit <&>")
	m.expectTree()

	m.virsh("start", m.domain, "--paused")
	m.validates("offline", "second")
	m.guestWrites()
	links = append(links, m.backup("second", "third"))
	m.expectRestored(links)
	m.expectRestored([]string{links[0], m.backup("offline", "fourth")})
	m.guestWrites()
	m.expectSizes("offline", "second", "third", "fourth")

	// libvirt's own are taken over; one of them goes, two become one.
	m.takeOver("third", "fourth")
	m.checkpoint("delete", "fourth")
	m.checkpoint("merge", "offline..second", "--into", "both")
	m.handBack([]string{"offline", "second", "fourth"}, "both", "third")

	m.virsh("start", m.domain, "--paused")
	m.validates("both", "third")
	m.guestWrites()
	m.expectRestored([]string{links[0], m.backup("both", "fifth")})
	m.expectRestored(append(links, m.backup("third", "sixth")))
	m.virsh("destroy", m.domain, "--graceful")
	interop.Run(t, "qemu-img", "check", m.image)
}

// TestInteropLibvirtSnapshotCheckpoints has an external snapshot between checkpoints:
// what changed is in the bitmaps of two images.
func TestInteropLibvirtSnapshotCheckpoints(t *testing.T) {
	interop.Need(t, append(chainmaker.Tools(), "qemu-io", "xmllint")...)
	m := newTurns(t)
	m.create("before")
	m.virsh("start", m.domain, "--paused")
	m.guestWrites()
	m.virsh("snapshot-create-as", m.domain, "snap", "--disk-only", "--no-metadata", "--diskspec", "vda,file="+m.path("top.qcow2"), "--diskspec", "vdb,snapshot=no")
	m.guestWrites()
	m.virsh("checkpoint-create-as", m.domain, "after", "--diskspec", "vda,checkpoint=bitmap")
	m.guestWrites()
	m.expectSizes("before", "after")
	m.takeOver("after")
	m.expectTree()
	m.checkpoint("merge", "before..after")
	m.handBack([]string{"before", "after"}, "before")
	m.virsh("start", m.domain, "--paused")
	m.validates("before")
	m.guestWrites()
	m.expectSizes("before")
}

// turns is a machine with two disks whose checkpoints qbit changes too.
type turns struct {
	*machine
	domainFile string
}

func newTurns(t *testing.T) *turns {
	m := &turns{machine: newMachine(t)}
	m.want = map[string]*bitmap.Bitmap{} // not the bitmaps of the other test
	second := m.path("second disk.qcow2")
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", second, "8M")
	xml := strings.Replace(m.virsh("dumpxml", m.domain), "<controller", fmt.Sprintf(`<disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='%s'/>
      <target dev='vdb' bus='virtio'/>
    </disk>
    <controller`, html.EscapeString(second)), 1)
	m.virsh("define", m.write("domain.xml", xml))
	m.dump()
	return m
}

// dump writes the domain as it is now.
func (m *turns) dump() {
	m.Helper()
	m.domainFile = m.write("domain.xml", m.virsh("dumpxml", "--inactive", m.domain))
}

// checkpoint runs a verb of qbit checkpoint, and returns what it printed.
func (m *turns) checkpoint(args ...string) string {
	m.Helper()
	args = append([]string{"checkpoint"}, append(args, "--domain", m.domainFile, "--allow-refs", m.dir)...)
	out, said, status := qbit(args...)
	if status != 0 {
		m.Fatalf("qbit %q: status %d\n%s%s", args, status, out, said)
	}
	return out
}

// create makes a checkpoint with qbit, and has libvirt take it.
func (m *turns) create(name string, more ...string) {
	m.Helper()
	xml := m.checkpoint(append([]string{"create", name}, more...)...)
	m.schema(xml)
	m.redefine(name, xml)
}

// schema holds a document against libvirt's schema.
func (m *turns) schema(xml string) {
	m.Helper()
	interop.Run(m.T, "xmllint", "--noout", "--relaxng", checkpointSchema, m.write("validate.xml", xml))
}

func (m *turns) redefine(name, xml string) {
	m.Helper()
	m.virsh("checkpoint-create", m.domain, m.write(name+".redefined.xml", xml), "--redefine")
}

// validates has libvirt hold its checkpoints against the bitmaps; the domain runs.
func (m *turns) validates(names ...string) {
	m.Helper()
	for _, name := range names {
		file := m.write(name+".validated.xml", m.virsh("checkpoint-dumpxml", m.domain, name))
		m.virsh("checkpoint-create", m.domain, file, "--redefine", "--redefine-validate")
	}
}

// expectTree compares the trees of both.
func (m *turns) expectTree() {
	m.Helper()
	lines := func(s string) string { return strings.TrimSpace(regexp.MustCompile(` *\n`).ReplaceAllString(s, "\n")) }
	if got, want := lines(m.checkpoint("list", "--tree")), lines(m.virsh("checkpoint-list", m.domain, "--tree")); got != want {
		m.Fatalf("the tree of qbit is\n%s\nthat of libvirt\n%s", got, want)
	}
}

var sizeOf = regexp.MustCompile(`<disk name='(\w+)' [^>]*size='(\d+)'`)

// expectSizes ends the domain, and compares what changed since checkpoints with what
// libvirt had said before.
func (m *turns) expectSizes(names ...string) {
	m.Helper()
	want := map[string]string{}
	for _, name := range names {
		doc := m.virsh("checkpoint-dumpxml", m.domain, name, "--size")
		want[name] = fmt.Sprint(sizeOf.FindAllStringSubmatch(doc, -1))
		if !regexp.MustCompile(`vda \d+`).MatchString(strings.ReplaceAll(want[name], "vda 0", "")) {
			m.Fatalf("libvirt says no size, or that nothing changed: %s", doc)
		}
		writeFile(m.T, filepath.Join(m.folder(), name+".xml"), []byte(m.virsh("checkpoint-dumpxml", m.domain, name)))
	}
	m.virsh("destroy", m.domain, "--graceful")
	m.dump()
	for _, name := range names {
		doc := m.checkpoint("show", "--size", name)
		m.schema(doc)
		if got := fmt.Sprint(sizeOf.FindAllStringSubmatch(doc, -1)); got != want[name] {
			m.Errorf("%s: changed by qbit %s, by libvirt %s", name, got, want[name])
		}
	}
}

// folder is where qbit has its documents.
func (m *turns) folder() string {
	folder := strings.TrimSuffix(m.domainFile, ".xml") + ".checkpoints"
	must(0, os.MkdirAll(folder, 0o777))
	return folder
}

// takeOver gives qbit the documents of libvirt's checkpoints; all fits then.
func (m *turns) takeOver(names ...string) {
	m.Helper()
	for _, name := range names {
		m.checkpoint("redefine", m.write(name+".taken.xml", m.virsh("checkpoint-dumpxml", m.domain, name)))
	}
	m.checkpoint("list", "--check")
	m.checkpoint("tree", "--check")
}

// handBack has libvirt forget checkpoints, and take those that qbit has.
func (m *turns) handBack(gone []string, names ...string) {
	m.Helper()
	for _, name := range gone {
		m.virsh("checkpoint-delete", m.domain, name, "--metadata")
	}
	for _, name := range names {
		xml := m.checkpoint("show", name)
		m.schema(xml)
		m.redefine(name, xml)
	}
	m.expectTree()
	m.checkpoint("list", "--check")
}
