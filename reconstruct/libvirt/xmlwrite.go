package libvirt

import (
	"bytes"
	"unicode/utf8"
)

// appendTo appends n as XML: its own bytes where it has them, else as libvirt
// writes, with single quotes.
func (n *node) appendTo(b []byte) []byte {
	switch {
	case n.kind == elementNode:
		return n.appendElement(b)
	case n.kind == documentNode:
		return n.appendKids(b)
	case n.raw != nil:
		return append(b, n.raw...)
	}
	return appendEscaped(b, n.text, false)
}

func (n *node) appendElement(b []byte) []byte {
	b = n.appendStart(b)
	if len(n.kids) == 0 && n.end == nil {
		return append(b, "/>"...)
	}
	b = append(b, '>')
	b = n.appendKids(b)
	if n.end != nil {
		return append(b, n.end...)
	}
	b = append(b, "</"...)
	b = append(b, n.name...)
	return append(b, '>')
}

func (n *node) appendKids(b []byte) []byte {
	for _, k := range n.kids {
		b = k.appendTo(b)
	}
	return b
}

// appendStart appends the start tag up to its > or />.
func (n *node) appendStart(b []byte) []byte {
	if n.raw != nil {
		tag := bytes.TrimSuffix(n.raw, []byte(">"))
		if n.end == nil {
			tag = bytes.TrimSuffix(tag, []byte("/"))
		}
		return append(b, tag...)
	}
	b = append(b, '<')
	b = append(b, n.name...)
	for _, a := range n.attrs {
		b = append(b, ' ')
		b = append(b, a.name...)
		b = append(b, "='"...)
		b = appendEscaped(b, a.value, true)
		b = append(b, '\'')
	}
	return b
}

// appendEscaped appends s so that a parser gives it back: in an attribute line
// breaks and tabs too, which it would turn into spaces. A character that XML
// cannot hold becomes U+FFFD.
func appendEscaped(b []byte, s string, inAttr bool) []byte {
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1, !inXML(r):
			b = append(b, "\ufffd"...)
		case escapes(r, inAttr) != "":
			b = append(b, escapes(r, inAttr)...)
		default:
			b = append(b, s[i:i+size]...)
		}
		i += size
	}
	return b
}

func escapes(r rune, inAttr bool) string {
	switch r {
	case '&':
		return "&amp;"
	case '<':
		return "&lt;"
	case '>':
		return "&gt;"
	case '"':
		return "&quot;"
	case '\'':
		return "&apos;"
	case '\r':
		return "&#13;"
	case '\n':
		if inAttr {
			return "&#10;"
		}
	case '\t':
		if inAttr {
			return "&#9;"
		}
	}
	return ""
}

// inXML says whether XML 1.0, section 2.2, allows the character.
func inXML(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' ||
		r >= 0x20 && r <= 0xd7ff || r >= 0xe000 && r <= 0xfffd || r >= 0x10000 && r <= 0x10ffff
}
