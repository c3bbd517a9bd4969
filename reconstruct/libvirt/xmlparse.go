package libvirt

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Bounds of what is read; a document beyond one of them is refused with a
// FormatError.
const (
	// MaxDocument is the most bytes of a document: libvirt's own protocol
	// carries no longer string.
	MaxDocument = 4 << 20
	// MaxDepth is the most levels of elements, that of libxml2 too.
	MaxDepth = 256
	// MaxAttributes is the most attributes of an element.
	MaxAttributes = 256
	// MaxNodes is the most elements, texts and comments of a document. A domain
	// with a thousand disks has about thirty thousand.
	MaxNodes = 128 << 10
)

// A parser builds the tree of a document. It works on the raw tokens, so that
// every byte of the document belongs to a node.
type parser struct {
	structure string
	b         []byte // the document
	plain     []byte // the same, with spaces for the line breaks and tabs in tags
	doc       *node
	open      []*node  // the document and the elements that are open
	spaces    []string // the default namespace in each of them
	nodes     int
}

// parseDocument reads b, which must be a document with this top element.
func parseDocument(structure, top string, b []byte) (*node, error) {
	if len(b) > MaxDocument {
		return nil, &FormatError{structure, top, fmt.Sprint(len(b), " bytes"),
			fmt.Sprintf("a document has at most %d bytes", MaxDocument)}
	}
	doc := &node{kind: documentNode}
	p := &parser{structure: structure, b: bytes.Clone(b), plain: bytes.Clone(b), doc: doc, open: []*node{doc}, spaces: []string{""}}
	if err := p.run(); err != nil {
		return nil, err
	}
	root := doc.root()
	if root == nil {
		return nil, p.fail("", "the document has no element")
	}
	if !root.is(top) {
		return nil, p.fail(root.name, "the top element must be <"+top+">, in no namespace")
	}
	return doc, nil
}

// root is the top element of a document.
func (n *node) root() *node {
	for _, k := range n.kids {
		if k.kind == elementNode {
			return k
		}
	}
	return nil
}

func (p *parser) fail(value, msg string) error {
	var path []string
	for _, n := range p.open[1:] {
		path = append(path, n.name)
	}
	where := strings.Join(path, "/")
	if where == "" {
		where = "document"
	}
	return &FormatError{p.structure, where, value, msg}
}

func (p *parser) run() error {
	if err := p.prepare(); err != nil {
		return err
	}
	d := xml.NewDecoder(bytes.NewReader(p.plain))
	for {
		from := d.InputOffset()
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			return p.finish()
		}
		if err != nil {
			return p.fail("", shortened(err.Error()))
		}
		if err := p.token(token, p.b[from:d.InputOffset()], from == 0); err != nil {
			return err
		}
	}
}

func (p *parser) finish() error {
	if len(p.open) > 1 {
		return p.fail("", "the document ends inside this element")
	}
	return nil
}

// prepare looks at the tags before the decoder does: an element with too many
// attributes is refused before they are gathered, and a line break or tab in the
// value of an attribute becomes a space (XML 1.0, section 3.3.3), which the
// decoder leaves out.
func (p *parser) prepare() error {
	for rest := p.plain; ; {
		i := bytes.IndexByte(rest, '<')
		if i < 0 {
			return nil
		}
		rest = rest[i:]
		if after, ok := skipMarkup(rest); ok {
			rest = after
			continue
		}
		n, width := tagWidth(rest)
		if n > MaxAttributes {
			return p.fail(fmt.Sprint("more than ", MaxAttributes, " attributes"), tooWide)
		}
		for k, c := range rest[:width] {
			if c == '\t' || c == '\n' || c == '\r' {
				rest[k] = ' '
			}
		}
		rest = rest[width:]
	}
}

var tooWide = fmt.Sprintf("an element has at most %d attributes", MaxAttributes)

// tagWidth counts the attributes of the tag that b begins with, by their equals
// signs, and the bytes of the tag. It stops where there are too many.
func tagWidth(b []byte) (attrs, width int) {
	var quote byte
	for i, c := range b {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '>':
			return attrs, i + 1
		case c == '"', c == '\'':
			quote = c
		case c == '=':
			if attrs++; attrs > MaxAttributes {
				return attrs, i + 1
			}
		}
	}
	return attrs, len(b)
}

// token adds one token, which stands as raw in the document.
func (p *parser) token(token xml.Token, raw []byte, first bool) error {
	switch t := token.(type) {
	case xml.StartElement:
		return p.start(t, raw)
	case xml.EndElement:
		return p.close(t, raw)
	case xml.CharData:
		if len(p.open) == 1 && !first && len(bytes.Trim(raw, whiteSpace)) > 0 ||
			first && len(bytes.Trim(bytes.TrimPrefix(raw, []byte(byteOrderMark)), whiteSpace)) > 0 {
			return p.fail(string(t), "text outside of the top element")
		}
		return p.add(&node{kind: textNode, text: string(t), raw: raw})
	case xml.Directive:
		return p.fail("", "a document type declaration is not accepted: libvirt writes none, and entities are never expanded")
	case xml.ProcInst:
		if t.Target == "xml" && len(p.doc.kids) > 0 && !p.afterMark() {
			return p.fail("", "the XML declaration must stand at the beginning")
		}
	}
	return p.add(&node{kind: otherNode, raw: raw})
}

// afterMark says whether only a byte order mark was read.
func (p *parser) afterMark() bool {
	return len(p.doc.kids) == 1 && string(p.doc.kids[0].raw) == byteOrderMark
}

// add puts n into the innermost open element.
func (p *parser) add(n *node) error {
	if p.nodes++; p.nodes > MaxNodes {
		return p.fail(fmt.Sprint("more than ", MaxNodes, " parts"),
			fmt.Sprintf("a document has at most %d elements, texts and comments", MaxNodes))
	}
	in := p.open[len(p.open)-1]
	in.kids = append(in.kids, n)
	return nil
}

func (p *parser) start(t xml.StartElement, raw []byte) error {
	n := &node{kind: elementNode, name: written(t.Name), raw: raw}
	if len(p.open) > MaxDepth {
		return p.fail("", fmt.Sprintf("elements are nested more than %d deep", MaxDepth))
	}
	if len(p.open) == 1 && p.doc.root() != nil {
		return p.fail(n.name, "a second top element")
	}
	if err := p.attributes(n, t.Attr); err != nil {
		return err
	}
	space := p.spaces[len(p.spaces)-1]
	if v, ok := n.lookup("xmlns"); ok {
		space = v
	}
	n.foreign = t.Name.Space != "" || space != ""
	if err := p.add(n); err != nil {
		return err
	}
	p.open = append(p.open, n)
	p.spaces = append(p.spaces, space)
	return nil
}

func (p *parser) attributes(n *node, list []xml.Attr) error {
	if len(list) > MaxAttributes {
		return p.fail(fmt.Sprint(len(list), " attributes"), tooWide)
	}
	for _, a := range list {
		name := written(a.Name)
		if _, twice := n.lookup(name); twice {
			return p.fail(n.name+"/@"+name, "an attribute stands twice in an element")
		}
		n.attrs = append(n.attrs, attr{name, a.Value})
	}
	return nil
}

// written is a name as it stands in the document, with its prefix.
func written(n xml.Name) string {
	if n.Space == "" {
		return n.Local
	}
	return n.Space + ":" + n.Local
}

// close ends the innermost element; a tag that closes itself has no end tag.
func (p *parser) close(t xml.EndElement, raw []byte) error {
	last := len(p.open) - 1
	if last == 0 || p.open[last].name != written(t.Name) {
		return p.fail(written(t.Name), "this end tag does not belong to the element that is open")
	}
	if len(raw) > 0 {
		p.open[last].end = raw
	}
	p.open, p.spaces = p.open[:last], p.spaces[:last]
	return nil
}
