package libvirt

import "strconv"

// Append returns the document. A parsed checkpoint comes back byte for byte with
// only the changes of its fields; a new one is laid out as virsh
// checkpoint-dumpxml does. A change to an empty list of Disks removes the list,
// which then means all disks; of a disk that has no part neither bitmap nor size
// are written.
func (c *Checkpoint) Append() []byte {
	return c.written().appendTo(nil)
}

func (c *Checkpoint) written() *node {
	from := c.doc
	if from == nil {
		from = newDocument(checkpointTop)
	}
	doc := from.clone()
	root := doc.root()
	root.putContent("name", c.Name, 1, checkpointOrder...)
	root.putContent("description", c.Description, 1, checkpointOrder...)
	putParent(root, c.Parent)
	putCreationTime(root, c.CreationTime)
	origins := make([]*node, len(c.Disks))
	for i, d := range c.Disks {
		origins[i] = d.node
	}
	syncDisks(root, from.root(), origins, checkpointOrder, func(i int, n *node) { c.Disks[i].write(n) })
	return doc
}

// newDocument is a document of one empty element on a line of its own.
func newDocument(top string) *node {
	return &node{kind: documentNode, kids: []*node{newElement(top), newText("\n")}}
}

func putParent(root *node, name string) {
	parent := root.child("parent")
	if parent.child("name").content() == name {
		return
	}
	if name == "" {
		root.remove(parent)
		return
	}
	root.need("parent", 1, checkpointOrder...).putContent("name", name, 2, "name")
}

// putCreationTime leaves the element alone where it says the same in other
// digits.
func putCreationTime(root *node, seconds int64) {
	const name = "creationTime"
	f := &fields{}
	if s := root.child(name).content(); s != "" && f.number("", s, seconds) == seconds && f.err == nil {
		return
	}
	s := ""
	if seconds != 0 {
		s = strconv.FormatInt(seconds, 10)
	}
	root.putContent(name, s, 1, checkpointOrder...)
}

func (d CheckpointDisk) write(n *node) {
	n.putAttr("name", d.Name, "")
	kind := d.Checkpoint
	if kind == "" {
		kind = "bitmap"
	}
	// libvirt always says it; a parsed disk that did not goes on without.
	if d.node != nil || kind != "bitmap" {
		n.putAttr("checkpoint", kind, "bitmap")
	} else {
		n.setAttr("checkpoint", kind)
	}
	bitmap := d.Bitmap
	if kind == "no" {
		bitmap = ""
	}
	n.putAttr("bitmap", bitmap, "")
	d.writeSize(n)
}

func (d CheckpointDisk) writeSize(n *node) {
	old, has := n.lookup("size")
	f := &fields{}
	switch {
	case d.Size < 0, d.Size == 0 && d.node == nil, d.Checkpoint == "no":
		n.dropAttrs("size")
	case !has || f.number("", old, d.Size) != d.Size || f.err != nil:
		n.setAttr("size", strconv.FormatInt(d.Size, 10))
	}
}
