package libvirt

import (
	"bytes"
	"slices"
	"strconv"
)

var (
	backupOrder = []string{"incremental", "server", "disks"}
	storeOrder  = []string{"driver", "target", "scratch"}
	// backupAttrs is the order in which libvirt writes the attributes of a disk.
	backupAttrs = []string{"name", "backup", "state", "type", "backupmode", "incremental", "exportname",
		"exportbitmap", "index"}
)

// Append returns the document. A parsed backup comes back byte for byte with only
// the changes of its fields; a new one is laid out as virsh backup-dumpxml does.
// A change to an empty list of Disks removes the list, which then means all disks;
// a disk that loses its part loses what only a part can say.
func (b *Backup) Append() []byte {
	from := b.doc
	if from == nil {
		from = newDocument(backupTop)
	}
	doc := from.clone()
	root := doc.root()
	mode, was := orElse(b.Mode, ModePush), orElse(root.attr("mode"), ModePush)
	root.putAttrLike(b.doc != nil, "mode", mode, ModePush)
	root.putContent("incremental", b.Incremental, 1, backupOrder...)
	b.Server.write(root)
	origins := make([]*node, len(b.Disks))
	for i, d := range b.Disks {
		origins[i] = d.node
	}
	syncDisks(root, from.root(), origins, backupOrder, func(i int, n *node) {
		if mode != was {
			n.removeAll(storeName(was))
		}
		b.Disks[i].write(n, mode)
	})
	return doc.appendTo(nil)
}

// putAttrLike writes an attribute that libvirt itself always writes: into what was
// parsed only where it is needed.
func (n *node) putAttrLike(parsed bool, name, value, def string) {
	if !parsed {
		def = ""
	}
	n.putAttr(name, value, def)
}

func (s *BackupServer) write(root *node) {
	n := root.child("server")
	if s == nil {
		if n != nil {
			root.remove(n)
		}
		return
	}
	parsed := n != nil
	n = root.need("server", 1, backupOrder...)
	n.putAttrLike(parsed, "transport", orElse(s.Transport, "tcp"), "tcp")
	n.putAttr("tls", s.TLS, "")
	n.putAttr("name", s.Name, "")
	n.putNumber("port", int64(s.Port))
	n.putAttr("socket", s.Socket, "")
	n.putAttr("fdgroup", s.FDGroup, "")
}

// putNumber makes an attribute mean v, where leaving it out means 0. Other digits
// for the same number stay.
func (n *node) putNumber(name string, v int64) {
	f := &fields{}
	if old, has := n.lookup(name); has && f.number("", old, v) == v && f.err == nil {
		return
	}
	s := ""
	if v != 0 {
		s = strconv.FormatInt(v, 10)
	}
	n.putAttr(name, s, "")
}

func (d BackupDisk) write(n *node, mode string) {
	parsed, had := d.node != nil, n.attr("backup") != "no"
	n.putAttr("name", d.Name, "")
	backup := "yes"
	if !d.Backup {
		backup = "no"
		if had {
			n.dropAttrs("state", "type", "index")
			n.removeAll("driver", "target", "scratch")
		}
	}
	n.putAttrLike(parsed, "backup", backup, "yes")
	if !d.Backup {
		return
	}
	parsed = parsed && had
	was := orElse(n.attr("type"), "file")
	n.putAttr("state", d.State, "")
	n.putAttrLike(parsed, "type", orElse(d.Type, "file"), "file")
	n.putAttr("backupmode", d.BackupMode, "")
	n.putAttr("incremental", d.Incremental, "")
	n.putAttr("exportname", d.ExportName, "")
	n.putAttr("exportbitmap", d.ExportBitmap, "")
	n.putNumber("index", d.Index)
	n.sortAttrs(backupAttrs)
	d.writeStore(n, was, mode)
}

// sortAttrs puts the attributes of a tag that is written anew into an order;
// others come last.
func (n *node) sortAttrs(order []string) {
	if n.raw != nil {
		return
	}
	rank := func(a attr) int {
		if i := slices.Index(order, a.name); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortStableFunc(n.attrs, func(a, b attr) int { return rank(a) - rank(b) })
}

// writeStore writes where the disk is backed up to, or its scratch file. was is
// the type of it that the element had.
func (d BackupDisk) writeStore(n *node, was, mode string) {
	d.writeDriver(n)
	path, name := d.Target, storeName(mode)
	if mode == ModePull {
		path = d.Scratch
	}
	if n.child(name) == nil && path == "" && d.Encryption == nil {
		return
	}
	store := n.need(name, 3, storeOrder...)
	if kind := orElse(d.Type, "file"); kind != was {
		store.dropAttrs(sourceAttr(was))
	}
	store.putAttr(sourceAttr(d.Type), path, "")
	d.writeEncryption(store)
}

func (d BackupDisk) writeDriver(n *node) {
	if d.DriverType == n.child("driver").attr("type") {
		return
	}
	driver := n.need("driver", 3, storeOrder...)
	driver.putAttr("type", d.DriverType, "")
	if len(driver.attrs) == 0 && driver.empty() {
		n.remove(driver)
	}
}

// writeEncryption replaces the <encryption> of a file where it differs. Bytes that
// are no such element are left out.
func (d BackupDisk) writeEncryption(store *node) {
	old := store.child("encryption")
	if old != nil && bytes.Equal(old.appendTo(nil), d.Encryption) {
		return
	}
	if old != nil {
		store.remove(old)
	}
	if len(d.Encryption) == 0 {
		return
	}
	if doc, err := parseDocument("backup", "encryption", d.Encryption); err == nil {
		store.insert(doc.root(), 4, "encryption")
	}
}
