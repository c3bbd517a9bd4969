package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"html"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/qbitkit/qbit/testimages/chainmaker"
	"github.com/qbitkit/qbit/testimages/interop"
)

// TestInteropCircle has libvirt and qbit take turns, in random order, at the
// checkpoints and backups of a domain with two disks: libvirt while it runs, qbit
// while it is off, with writes between. Every point of both disks must come back as
// it was: by qbit from the files, by qbit from the folder and what lies beside them,
// and by qemu-img. libvirt takes every checkpoint of qbit's.
func TestInteropCircle(t *testing.T) {
	interop.Need(t, append(chainmaker.Tools(), "qemu-io")...)
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("QBIT_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("QBIT_SEED=%d", seed)
	turns := 10
	if os.Getenv("QBIT_FULL") == "1" {
		turns = 60
	}
	c := newCircle(t, seed)
	for range turns {
		c.turn()
	}
	c.expectEveryPoint()
	c.stop()
	for _, d := range c.disks {
		interop.Run(t, "qemu-img", "check", d.image)
	}
}

// A circle is a domain, what its disks should hold, and the backups that were made.
type circle struct {
	*turns
	rng     *rand.Rand
	disks   []*circleDisk
	running bool
	known   map[string]bool // to libvirt
	live    []string        // checkpoints that were not deleted, oldest first
	points  []circlePoint
	made    int
}

type circleDisk struct {
	target, image, device string
	content               []byte
}

// A circlePoint is one backup of all disks.
type circlePoint struct {
	name, base string // of its checkpoint, and of that since which it is
	sums       map[string]string
}

func newCircle(t *testing.T, seed uint64) *circle {
	c := &circle{turns: newTurns(t), rng: rand.New(rand.NewPCG(seed, 1)), known: map[string]bool{}}
	for i, image := range []string{c.image, c.path("second disk.qcow2")} {
		c.disks = append(c.disks, &circleDisk{target: "vd" + string(rune('a'+i)), image: image,
			device: fmt.Sprintf("/machine/peripheral/virtio-disk%d/virtio-backend", i), content: rawContent(t, image)})
	}
	must(0, os.Mkdir(c.path("backups"), 0o755))
	must(0, os.Mkdir(c.path("documents"), 0o755))
	return c
}

// rawContent is what an image holds, by qemu-img.
func rawContent(t *testing.T, image string, flags ...string) []byte {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "disk.raw")
	interop.Run(t, "qemu-img", append(append([]string{"convert", "-O", "raw"}, flags...), image, raw)...)
	return must(os.ReadFile(raw))
}

// turn is one random act, after some writes.
func (c *circle) turn() {
	c.Helper()
	if c.rng.IntN(2) == 0 {
		c.toggle()
	}
	c.writes()
	switch n := c.rng.IntN(10); {
	case n == 0 && len(c.live) > 2:
		c.delete(c.live[c.rng.IntN(len(c.live))])
	case n == 1:
		c.checkpointAlone()
	default:
		c.backup()
	}
	c.expectSameTree()
}

func (c *circle) toggle() {
	if c.running {
		c.stop()
		return
	}
	c.start()
}

func (c *circle) stop() {
	if c.running {
		c.virsh("destroy", c.domain, "--graceful")
		c.running = false
	}
}

// start hands what qbit has made to libvirt, which looks for the bitmaps.
func (c *circle) start() {
	c.virsh("start", c.domain, "--paused")
	c.running = true
	for _, name := range c.live {
		if !c.known[name] {
			c.virsh("checkpoint-create", c.domain, c.document(name), "--redefine", "--redefine-validate")
			c.known[name] = true
		}
	}
}

func (c *circle) document(name string) string { return filepath.Join(c.path("documents"), name+".xml") }

// writes changes both disks, through whoever has them.
func (c *circle) writes() {
	c.Helper()
	for _, d := range c.disks {
		var operations []string
		for range 1 + c.rng.IntN(6) {
			operations = append(operations, d.draw(c.rng))
		}
		if !c.running {
			args := []string{d.image}
			for _, o := range operations {
				args = append(args, "-c", o)
			}
			interop.Run(c.T, "qemu-io", args...)
			continue
		}
		for _, o := range append(operations, "flush") {
			c.virsh("qemu-monitor-command", c.domain, "--hmp", fmt.Sprintf(`qemu-io -d %s "%s"`, d.device, o))
		}
	}
}

// draw draws a write, and does it to the content.
func (d *circleDisk) draw(rng *rand.Rand) string {
	size := int64(len(d.content))
	length := min(size, 512*(1+rng.Int64N(500)))
	off := rng.Int64N(size-length+1) &^ 511
	pattern := byte(1 + rng.IntN(255))
	if chunk := int64(4 << 20); rng.IntN(8) == 0 { // large ranges are copied in another way
		off, length = rng.Int64N(size/chunk)*chunk, chunk
	}
	kind := []string{fmt.Sprintf("write -P %d", pattern), "write -z", "write -z -u"}[rng.IntN(3)]
	if kind[len(kind)-1] == 'z' || kind[len(kind)-1] == 'u' {
		pattern = 0
	}
	copy(d.content[off:off+length], bytes.Repeat([]byte{pattern}, int(length)))
	return fmt.Sprintf("%s %d %d", kind, off, length)
}

// name is that of the next checkpoint.
func (c *circle) name() string {
	c.made++
	who := "qbit"
	if c.running {
		who = "libvirt"
	}
	return fmt.Sprintf("c%02d-%s", c.made, who)
}

func (c *circle) checkpointAlone() {
	c.Helper()
	name := c.name()
	if c.running {
		c.virsh("checkpoint-create", c.domain, c.newCheckpoint(name))
		c.keepDocument(name)
	} else {
		c.checkpoint("create", name, "--checkpoints", c.path("documents"))
	}
	c.live = append(c.live, name)
}

func (c *circle) newCheckpoint(name string) string {
	return c.write("new.checkpoint.xml", fmt.Sprintf("<domaincheckpoint><name>%s</name></domaincheckpoint>\n", name))
}

// keepDocument keeps what libvirt says of its checkpoint.
func (c *circle) keepDocument(name string) {
	c.Helper()
	writeFile(c.T, c.document(name), []byte(c.virsh("checkpoint-dumpxml", c.domain, name)))
	c.known[name] = true
}

// delete deletes a checkpoint, by libvirt or by qbit; the documents of its children
// name another parent afterwards.
func (c *circle) delete(name string) {
	c.Helper()
	if c.running {
		c.virsh("checkpoint-delete", c.domain, name)
		must(0, os.Remove(c.document(name)))
		for _, other := range c.live {
			if other != name {
				c.keepDocument(other)
			}
		}
	} else {
		c.checkpoint("delete", name, "--checkpoints", c.path("documents"))
		if c.known[name] {
			c.virsh("checkpoint-delete", c.domain, name, "--metadata")
		}
	}
	c.live = slices.DeleteFunc(c.live, func(n string) bool { return n == name })
}

// backup backs up both disks, since a checkpoint that a backup was made with or whole.
func (c *circle) backup() {
	c.Helper()
	p := circlePoint{name: c.name(), sums: map[string]string{}}
	var bases []string
	for _, q := range c.points {
		if slices.Contains(c.live, q.name) {
			bases = append(bases, q.name)
		}
	}
	if len(bases) > 0 && c.rng.IntN(6) > 0 {
		p.base = bases[c.rng.IntN(len(bases))]
		if c.rng.IntN(2) == 0 {
			p.base = bases[len(bases)-1]
		}
	}
	xml := c.write("new.backup.xml", c.backupXML(p))
	if c.running {
		c.virsh("backup-begin", c.domain, xml, c.newCheckpoint(p.name))
		c.awaitBackup()
		c.keepDocument(p.name)
		writeFile(c.T, c.path("backups/"+p.name+".backup.xml"), must(os.ReadFile(xml)))
		writeFile(c.T, c.path("backups/"+p.name+".xml"), must(os.ReadFile(c.document(p.name))))
	} else {
		c.qbit("backup", "--domain", c.domainFile, "--allow-refs", c.dir, "--xml", xml, "--checkpoint-xml", c.newCheckpoint(p.name),
			"--checkpoints", c.path("documents"), "-o", c.path("backups"))
		writeFile(c.T, c.document(p.name), must(os.ReadFile(c.path("backups/"+p.name+".xml"))))
	}
	for _, d := range c.disks {
		p.sums[d.target] = fmt.Sprintf("%x", sha256.Sum256(d.content))
	}
	c.live, c.points = append(c.live, p.name), append(c.points, p)
}

func (c *circle) backupXML(p circlePoint) string {
	var b strings.Builder
	b.WriteString("<domainbackup mode='push'>\n")
	if p.base != "" {
		fmt.Fprintf(&b, "  <incremental>%s</incremental>\n", p.base)
	}
	b.WriteString("  <disks>\n")
	for _, d := range c.disks {
		fmt.Fprintf(&b, "    <disk name='%s' type='file'><target file='%s'/><driver type='qcow2'/></disk>\n", d.target, html.EscapeString(c.file(p.name, d.target)))
	}
	b.WriteString("  </disks>\n</domainbackup>\n")
	return b.String()
}

func (c *circle) file(point, target string) string {
	return c.path("backups/" + target + "." + point + ".qcow2")
}

// expectSameTree: the documents and what libvirt knows make the same tree.
func (c *circle) expectSameTree() {
	c.Helper()
	if !c.running || len(c.live) == 0 {
		return
	}
	want := strings.Fields(c.virsh("checkpoint-list", c.domain, "--tree"))
	got := strings.Fields(c.checkpoint("list", "--tree", "-U", "--checkpoints", c.path("documents")))
	if !slices.Equal(got, want) {
		c.Fatalf("libvirt has the tree\n%q, qbit\n%q", want, got)
	}
}

// expectEveryPoint restores all points in three ways.
func (c *circle) expectEveryPoint() {
	c.Helper()
	for _, p := range c.points {
		for _, d := range c.disks {
			c.expectPoint(p, d)
		}
	}
}

func (c *circle) expectPoint(p circlePoint, d *circleDisk) {
	c.Helper()
	links := c.links(p, d)
	out := c.path("restored.raw")
	c.qbit(append(append([]string{"restore", "-q"}, links...), "-o", out, "--force")...)
	if got := fileSHA256(c.T, out); got != p.sums[d.target] {
		c.Errorf("%s at %s from %q: sha256 %s, it was %s", d.target, p.name, links, got, p.sums[d.target])
	}
	c.qbit("restore", "-q", c.path("backups"), "--disk", d.target, "--at", p.name, "-o", out, "--force")
	if got := fileSHA256(c.T, out); got != p.sums[d.target] {
		c.Errorf("%s at %s from the folder: sha256 %s, it was %s", d.target, p.name, got, p.sums[d.target])
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(c.byQEMU(links))); got != p.sums[d.target] {
		c.Errorf("%s at %s by qemu-img from %q: sha256 %s, it was %s", d.target, p.name, links, got, p.sums[d.target])
	}
}

// links are the files of a point, the full backup first.
func (c *circle) links(p circlePoint, d *circleDisk) []string {
	links := []string{c.file(p.name, d.target)}
	for p.base != "" {
		p = c.points[slices.IndexFunc(c.points, func(q circlePoint) bool { return q.name == p.base })]
		links = append([]string{c.file(p.name, d.target)}, links...)
	}
	return links
}

// byQEMU is the disk as of the last link, by qemu-img alone.
func (c *circle) byQEMU(links []string) []byte {
	c.Helper()
	dir := c.TempDir()
	var top string
	for i, link := range links {
		copied := filepath.Join(dir, fmt.Sprintf("%d.qcow2", i))
		writeFile(c.T, copied, must(os.ReadFile(link)))
		if i > 0 {
			interop.Run(c.T, "qemu-img", "rebase", "-u", "-b", top, "-F", "qcow2", copied)
		}
		top = copied
	}
	return rawContent(c.T, top)
}
