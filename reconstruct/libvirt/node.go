package libvirt

import (
	"slices"
	"strings"
)

// A node is a part of a document. What was read keeps its bytes in raw; what was
// made or changed has none, and is written anew.
type node struct {
	kind    nodeKind
	name    string // of an element, as written, with its prefix
	foreign bool   // an element of a namespace: not libvirt's, whatever its name
	attrs   []attr
	kids    []*node
	text    string // of a text, decoded
	raw     []byte // start tag of an element; all of a text or other; nil: write anew
	end     []byte // end tag of an element; none where it closes itself
}

type nodeKind uint8

const (
	documentNode nodeKind = iota
	elementNode
	textNode  // character data or a CDATA section
	otherNode // comment, instruction
)

type attr struct{ name, value string }

func newElement(name string, attrs ...attr) *node {
	return &node{kind: elementNode, name: name, attrs: attrs}
}

func newText(s string) *node { return &node{kind: textNode, text: s} }

// is says whether n is libvirt's element of this name.
func (n *node) is(name string) bool {
	return n.kind == elementNode && !n.foreign && n.name == name
}

// child is the first element called name directly below n, nil if there is none
// or n is nil.
func (n *node) child(name string) *node {
	if n == nil {
		return nil
	}
	for _, k := range n.kids {
		if k.is(name) {
			return k
		}
	}
	return nil
}

// children are all elements called name directly below n.
func (n *node) children(name string) []*node {
	var found []*node
	if n == nil {
		return nil
	}
	for _, k := range n.kids {
		if k.is(name) {
			found = append(found, k)
		}
	}
	return found
}

func (n *node) hasElements() bool {
	return slices.ContainsFunc(n.kids, func(k *node) bool { return k.kind == elementNode })
}

// lookup is the value of an attribute, and whether there is one.
func (n *node) lookup(name string) (string, bool) {
	if n == nil {
		return "", false
	}
	for _, a := range n.attrs {
		if a.name == name {
			return a.value, true
		}
	}
	return "", false
}

func (n *node) attr(name string) string {
	v, _ := n.lookup(name)
	return v
}

// content is the text directly in n.
func (n *node) content() string {
	if n == nil {
		return ""
	}
	var all strings.Builder
	for _, k := range n.kids {
		if k.kind == textNode {
			all.WriteString(k.text)
		}
	}
	return all.String()
}

// clone is a copy that can be changed without changing n.
func (n *node) clone() *node {
	c := *n
	c.attrs = slices.Clone(n.attrs)
	c.kids = make([]*node, len(n.kids))
	for i, k := range n.kids {
		c.kids[i] = k.clone()
	}
	return &c
}
