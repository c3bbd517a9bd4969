package libvirt

import (
	"slices"
	"strings"
)

// Domain is a copy of the domain that the checkpoint was made of, a document of
// its own; nil where it was left out (--no-domain). libvirt leaves secrets out of
// it.
func (c *Checkpoint) Domain() *Domain {
	old := c.domainNode()
	if old == nil {
		return nil
	}
	n := old.clone()
	n.indent(-2)
	for _, a := range c.doc.root().attrs {
		if _, has := n.lookup(a.name); !has && strings.HasPrefix(a.name, "xmlns:") {
			n.setAttr(a.name, a.value)
		}
	}
	return readDomain(&node{kind: documentNode, kids: []*node{n, newText("\n")}})
}

// SetDomain makes d the domain of the checkpoint, nil leaves it without one.
// libvirt restores a checkpoint (--redefine) only with its domain. d itself is
// copied.
func (c *Checkpoint) SetDomain(d *Domain) {
	if c.doc == nil {
		c.doc = newDocument(checkpointTop)
	}
	var made *node
	if d != nil {
		made = d.written().root()
		made.indent(2)
	}
	root := c.doc.root()
	old := c.domainNode()
	switch {
	case old != nil && made != nil:
		root.kids[slices.Index(root.kids, old)] = made
	case old != nil:
		root.remove(old)
	case made != nil:
		root.insert(made, 1, checkpointOrder...)
	}
}

func (c *Checkpoint) domainNode() *node {
	if c.doc == nil {
		return nil
	}
	return c.doc.root().child(domainTop)
}

// DomainName is the name of the domain; empty where the document does not say. It
// may be any text.
func (c *Checkpoint) DomainName() string {
	return c.domainNode().child("name").content()
}

// DomainUUID is the UUID of the domain as it is written; empty where the document
// does not say.
func (c *Checkpoint) DomainUUID() string {
	return strings.Trim(c.domainNode().child("uuid").content(), whiteSpace)
}

// DomainDisks are the disks of the domain, none where the document does not say.
func (c *Checkpoint) DomainDisks() []DomainDisk {
	return readDomainDisks(c.domainNode())
}
