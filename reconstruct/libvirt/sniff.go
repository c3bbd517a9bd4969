package libvirt

import "bytes"

// A DocumentKind says what a file of XML is about.
type DocumentKind uint8

const (
	KindUnknown    DocumentKind = iota // not XML, or XML of another kind
	KindCheckpoint                     // <domaincheckpoint>
	KindBackup                         // <domainbackup>
	KindDomain                         // <domain>
)

func (k DocumentKind) String() string {
	switch k {
	case KindCheckpoint:
		return "checkpoint"
	case KindBackup:
		return "backup"
	case KindDomain:
		return "domain"
	}
	return "unknown"
}

// SniffLen is how much of a file Sniff looks at. The comment that libvirt puts in
// front of its own files is about 300 bytes.
const SniffLen = 16 << 10

// Sniff tells what kind of document begins with b, by its first tag alone: the
// beginning of a file of any length and content will do. It looks at SniffLen
// bytes at the most, and does not say that the document is sound.
func Sniff(b []byte) DocumentKind {
	switch string(firstTag(b[:min(len(b), SniffLen)])) {
	case "domaincheckpoint":
		return KindCheckpoint
	case "domainbackup":
		return KindBackup
	case "domain":
		return KindDomain
	}
	return KindUnknown
}

// firstTag is the name of the first tag of b, behind the declaration, comments
// and white space; nil where something else comes before it.
func firstTag(b []byte) []byte {
	b = bytes.TrimPrefix(b, []byte(byteOrderMark))
	for {
		b = bytes.TrimLeft(b, whiteSpace)
		rest, ok := skipMarkup(b)
		if !ok {
			break
		}
		b = rest
	}
	if len(b) == 0 || b[0] != '<' {
		return nil
	}
	b = b[1:]
	end := bytes.IndexAny(b, whiteSpace+"/>")
	if end < 0 {
		return nil
	}
	return b[:end]
}

const (
	whiteSpace    = " \t\r\n"
	byteOrderMark = "\ufeff"
)

// skipMarkup returns what follows the comment, instruction or CDATA section that
// b begins with, and whether it begins with one. One without an end skips all.
func skipMarkup(b []byte) (rest []byte, ok bool) {
	for _, m := range [...]struct{ open, end string }{
		{"<!--", "-->"}, {"<?", "?>"}, {"<![CDATA[", "]]>"},
	} {
		if !bytes.HasPrefix(b, []byte(m.open)) {
			continue
		}
		b = b[len(m.open):]
		i := bytes.Index(b, []byte(m.end))
		if i < 0 {
			return nil, true
		}
		return b[i+len(m.end):], true
	}
	return b, false
}
