package libvirt

import (
	"bytes"
	"slices"
	"strings"
)

// setAttr gives n an attribute, at the end where it is new. The start tag keeps
// its bytes where nothing changes.
func (n *node) setAttr(name, value string) {
	for i, a := range n.attrs {
		if a.name != name {
			continue
		}
		if a.value != value {
			n.attrs[i].value = value
			n.raw = nil
		}
		return
	}
	n.attrs = append(n.attrs, attr{name, value})
	n.raw = nil
}

func (n *node) dropAttrs(names ...string) {
	had := len(n.attrs)
	n.attrs = slices.DeleteFunc(n.attrs, func(a attr) bool { return slices.Contains(names, a.name) })
	if len(n.attrs) != had {
		n.raw = nil
	}
}

// putAttr makes an attribute mean value, where leaving it out means def: it is
// neither written nor removed where that changes no meaning.
func (n *node) putAttr(name, value, def string) {
	old, has := n.lookup(name)
	switch {
	case has && old == value, !has && value == def:
	case value == "":
		n.dropAttrs(name)
	default:
		n.setAttr(name, value)
	}
}

// setContent makes s the text of n.
func (n *node) setContent(s string) {
	if n.content() != s {
		n.kids = []*node{newText(s)}
	}
}

// remove takes nodes out of n, each with the white space in front of it.
func (n *node) remove(gone ...*node) {
	if len(gone) == 0 {
		return
	}
	set := make(map[*node]bool, len(gone))
	for _, g := range gone {
		set[g] = true
	}
	var kept []*node
	for _, k := range n.kids {
		if !set[k] {
			kept = append(kept, k)
		} else if last := len(kept) - 1; last >= 0 && kept[last].blank() {
			kept = kept[:last]
		}
	}
	n.kids = kept
	if n.empty() {
		n.kids, n.end = nil, nil
	}
}

// removeAll takes all of libvirt's elements of these names out of n.
func (n *node) removeAll(names ...string) {
	for _, name := range names {
		n.remove(n.children(name)...)
	}
}

// empty says whether n holds nothing but white space.
func (n *node) empty() bool {
	return !slices.ContainsFunc(n.kids, func(k *node) bool { return !k.blank() })
}

// blank says whether n is nothing but white space.
func (n *node) blank() bool {
	return n.kind == textNode && strings.Trim(n.text, whiteSpace) == "" && !bytes.HasPrefix(n.raw, []byte("<"))
}

// insert puts kid into n, a line of its own at depth levels below the top, behind
// the last element that order has before it or beside it.
func (n *node) insert(kid *node, depth int, order ...string) {
	rank := slices.Index(order, kid.name)
	at := 0
	for i, k := range n.kids {
		if k.kind != elementNode || k.foreign {
			continue
		}
		if r := slices.Index(order, k.name); r >= 0 && r <= rank {
			at = i + 1
		}
	}
	if n.empty() {
		n.kids = []*node{lineBreak(depth - 1)}
		at = 0
	}
	n.kids = slices.Insert(n.kids, at, lineBreak(depth), kid)
}

func lineBreak(depth int) *node { return newText("\n" + strings.Repeat("  ", max(depth, 0))) }

// need is the element called name of n, made where there is none.
func (n *node) need(name string, depth int, order ...string) *node {
	if have := n.child(name); have != nil {
		return have
	}
	made := newElement(name)
	n.insert(made, depth, order...)
	return made
}

// putContent makes the text of n's element called name mean value; an element is
// neither made nor removed where that changes no meaning.
func (n *node) putContent(name, value string, depth int, order ...string) {
	switch {
	case n.child(name).content() == value:
	case value == "":
		n.remove(n.child(name))
	default:
		n.need(name, depth, order...).setContent(value)
	}
}

// indent moves all lines of n by some spaces to the right, or to the left.
// Elements of a namespace stay as they are: libvirt gives them back unread.
func (n *node) indent(by int) {
	if n.foreign {
		return
	}
	for i, k := range n.kids {
		if k.kind == elementNode {
			k.indent(by)
		} else if at := strings.LastIndexByte(k.text, '\n'); k.blank() && at >= 0 {
			n.kids[i] = newText(k.text[:at+1] + moved(k.text[at+1:], by))
		}
	}
}

func moved(spaces string, by int) string {
	if by >= 0 {
		return spaces + strings.Repeat(" ", by)
	}
	return strings.TrimPrefix(spaces, strings.Repeat(" ", -by))
}
