package libvirt

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// wantFormat fails unless err is a FormatError at path whose text has msg.
func wantFormat(t *testing.T, err error, path, msg string) {
	t.Helper()
	var format *FormatError
	if !errors.As(err, &format) {
		t.Fatalf("want a FormatError at %s, have %v", path, err)
	}
	if format.Path != path || !strings.Contains(format.Msg, msg) {
		t.Errorf("want %q at %s, have %v", msg, path, err)
	}
}

func TestBytesAreKept(t *testing.T) {
	for _, doc := range []string{
		"<domain/>",
		"<domain></domain>",
		"\ufeff<?xml version=\"1.0\" encoding='utf-8' ?>\n<!-- a --> <domain\n\ta = \"1\"  b='&lt;&#10;' />\r\n<!-- b -->",
		"<domain><![CDATA[<name>]]>&amp;<?pi ?><x:name xmlns:x='u'>é</x:name ></domain>\n",
		"<?pi x?><domain xmlns:q='urn:q' q:a='1'><q:name/></domain>",
	} {
		d, err := ParseDomain([]byte(doc))
		if err != nil {
			t.Errorf("%q: %v", doc, err)
			continue
		}
		if got := string(d.Append()); got != doc {
			t.Errorf("read %q\nwrote %q", doc, got)
		}
	}
}

func TestNotADocument(t *testing.T) {
	for _, c := range []struct{ doc, path, msg string }{
		{"", "document", "no element"},
		{"plain", "document", "outside"},
		{"<!-- x -->", "document", "no element"},
		{"<domaincheckpoint/>", "document", "must be <domain>"},
		{"<domain xmlns='urn:x'/>", "document", "in no namespace"},
		{"<q:domain xmlns:q='urn:x'/>", "document", "in no namespace"},
		{"<domain/><domain/>", "document", "second top element"},
		{"<domain/>x", "document", "outside"},
		{"\ufeffx<domain/>", "document", "outside"},
		{"\n<?xml version='1.0'?><domain/>", "document", "beginning"},
		{"<domain><name></domain>", "domain/name", "does not belong"},
		{"<domain><name>", "domain/name", "ends inside"},
		{"</domain>", "document", "does not belong"},
		{"<domain a='1' b='' a='2'/>", "document", "twice"},
		{"<domain a=1/>", "document", "syntax"},
		{"<domain>&nbsp;</domain>", "domain", "entity"},
		{"<domain>\x01</domain>", "domain", "illegal character"},
		{"<domain>\xff</domain>", "domain", "UTF-8"},
		{"<?xml version='1.0' encoding='latin1'?><domain/>", "document", "encoding"},
		{"<!DOCTYPE domain><domain/>", "document", "document type"},
		{"<domain><!DOCTYPE domain></domain>", "domain", "document type"},
	} {
		_, err := ParseDomain([]byte(c.doc))
		t.Run(c.doc, func(t *testing.T) { wantFormat(t, err, c.path, c.msg) })
	}
}

// hostileMemory is what refusing any document may allocate: some multiple of the
// most that a document may have.
const hostileMemory = 24 * MaxDocument

func TestHostileDocuments(t *testing.T) {
	var wide strings.Builder
	for i := range 800_000 {
		fmt.Fprintf(&wide, " %c=''", 'a'+i%26)
	}
	laughs := "<!DOCTYPE domain [<!ENTITY a 'ha'>"
	for i := range 20 {
		laughs += fmt.Sprintf("<!ENTITY %c '%s'>", 'b'+i, strings.Repeat(fmt.Sprintf("&%c;", 'a'+i), 10))
	}
	for _, c := range []struct{ name, doc, msg string }{
		{"billion laughs", laughs + "]><domain><name>&k;</name></domain>", "document type"},
		{"depth 100000", strings.Repeat("<domain>", 100_000) + strings.Repeat("</domain>", 100_000), "nested more than 256"},
		{"depth 100000, open", strings.Repeat("<domain>", 100_000), "nested more than 256"},
		{"attribute of 100 MB", "<domain a='" + strings.Repeat("x", 100<<20) + "'/>", "at most 4194304 bytes"},
		{"attribute to the limit, open", "<domain a='" + strings.Repeat("x", MaxDocument-20), "XML syntax error"},
		{"many attributes", "<domain" + wide.String() + "/>", "at most 256 attributes"},
		{"many attributes behind a comment", "<!-- > ' --><domain" + wide.String() + "/>", "at most 256 attributes"},
		{"many attributes behind a quote", "<domain a='>' b=\"'>\"" + wide.String() + "/>", "at most 256 attributes"},
		{"many elements", "<domain>" + strings.Repeat("<a/>", 1_000_000) + "</domain>", "at most 131072 elements"},
		{"many texts", "<domain>" + strings.Repeat("a<a/>", 800_000) + "</domain>", "at most 131072 elements"},
		{"long unknown entity", "<domain>&" + strings.Repeat("x", 4_000_000) + ";</domain>", "entity"},
		{"long names", "<domain>" + strings.Repeat("<"+strings.Repeat("y", 60_000)+">", 60), "ends inside"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := []byte(c.doc)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := ParseDomain(b)
			runtime.ReadMemStats(&after)
			var format *FormatError
			if !errors.As(err, &format) || !strings.Contains(format.Msg, c.msg) {
				t.Errorf("want %q, have %.300v", c.msg, err)
			}
			if n := len(err.Error()); n > 1000 {
				t.Errorf("the message has %d bytes", n)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > hostileMemory {
				t.Errorf("%d MiB were allocated", got>>20)
			}
			if Sniff(b) == KindCheckpoint {
				t.Error("taken for a checkpoint")
			}
		})
	}
}

// At the bounds, and not beyond, a document is read.
func TestBounds(t *testing.T) {
	attrs := strings.Builder{}
	for i := range MaxAttributes {
		fmt.Fprintf(&attrs, " a%d='a=b > <=' ", i)
	}
	equals := "<!-- " + strings.Repeat("=", 1000) + " --><![CDATA[]]>"
	for name, doc := range map[string]string{
		"depth":      strings.Repeat("<domain>", MaxDepth) + strings.Repeat("</domain>", MaxDepth),
		"attributes": "<domain" + strings.ReplaceAll(attrs.String(), "<", "") + "/>",
		"equals":     "<domain>" + equals + "<name a='" + strings.Repeat("=", 1000) + "'>" + strings.Repeat("=", 1000) + "</name></domain>",
		"nodes":      "<domain>" + strings.Repeat("<a/>", MaxNodes-1) + "</domain>",
		"bytes":      "<domain>" + strings.Repeat("x", MaxDocument-17) + "</domain>",
	} {
		if _, err := ParseDomain([]byte(doc)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, over := range []string{
		"<domain>" + strings.Repeat("<a/>", MaxNodes) + "</domain>",
		strings.Repeat("<domain>", MaxDepth+1) + strings.Repeat("</domain>", MaxDepth+1),
		"<domain a='' " + attrs.String() + "/>",
		"<domain>" + strings.Repeat("x", MaxDocument-16) + "</domain>",
	} {
		if _, err := ParseDomain([]byte(over)); err == nil {
			t.Errorf("one more was read: %.30q", over)
		}
	}
}

// XML 1.0, section 3.3.3: in an attribute a line break is a space, and one that is
// written as a reference is itself.
func TestAttributesAreNormalized(t *testing.T) {
	const doc = "<domaincheckpoint><!--\n<x a='\n'>\t--><description>a\n\tb</description><![CDATA[<a b='\n'>]]>\n" +
		"<disks><disk name='a\tb\nc&#10;&#9;d'\n\tbitmap=\"\r'\n\"/></disks></domaincheckpoint>"
	c, err := ParseCheckpoint([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	if d := c.Disks[0]; d.Name != "a b c\n\td" || d.Bitmap != " ' " || c.Description != "a\n\tb" {
		t.Errorf("read %q, %q and %q", d.Name, d.Bitmap, c.Description)
	}
	if got := string(c.Append()); got != doc {
		t.Errorf("read %q\nwrote %q", doc, got)
	}
}

// What is written is read again, whatever the text.
func TestEscapes(t *testing.T) {
	const text = "a'b\"c&d<e>f\r\n\tg]]>é\U0001f600 "
	for _, in := range []struct{ text, back string }{
		{text, text}, {"bad \xff \x00 \ufffe \ud7ff", "bad \ufffd \ufffd \ufffd \ud7ff"},
	} {
		c := &Checkpoint{Description: in.text, Disks: []CheckpointDisk{{Name: "vda", Bitmap: in.text}}}
		got, err := ParseCheckpoint(c.Append())
		if err != nil {
			t.Fatal(err)
		}
		if got.Description != in.back || got.Disks[0].Bitmap != in.back {
			t.Errorf("wrote %q, read %q and %q", in.text, got.Description, got.Disks[0].Bitmap)
		}
	}
}

// The caller's bytes are its own after parsing.
func TestBytesAreCopied(t *testing.T) {
	b := []byte("<domain><name>a</name></domain>")
	d, err := ParseDomain(b)
	if err != nil {
		t.Fatal(err)
	}
	copy(b, bytes.Repeat([]byte("x"), len(b)))
	if got := string(d.Append()); got != "<domain><name>a</name></domain>" {
		t.Errorf("wrote %q", got)
	}
}

func TestSniff(t *testing.T) {
	const space = "\ufeff<?xml version='1.0'?>\n<!--\nWARNING: <domain> -->\n <?pi <domain> ?>\n"
	for doc, want := range map[string]DocumentKind{
		"<domaincheckpoint>":          KindCheckpoint,
		"<domainbackup\nmode='pull'>": KindBackup,
		"<domain type='kvm'>":         KindDomain,
		"<domain/>":                   KindDomain,
		space + "<domain>":            KindDomain,
		space + "<domaincheckpoint/>": KindCheckpoint,
		"<domstatus><domain/>":        KindUnknown,
		"<domainsnapshot>":            KindUnknown,
		"<q:domain>":                  KindUnknown,
		"<domain":                     KindUnknown,
		"x<domain>":                   KindUnknown,
		"QFI\xfb":                     KindUnknown,
		"":                            KindUnknown,
		"<!-- <domain>":               KindUnknown,
		"<!DOCTYPE domain><domain>":   KindUnknown,
		strings.Repeat(" ", SniffLen) + "<domain/>": KindUnknown,
	} {
		if got := Sniff([]byte(doc)); got != want {
			t.Errorf("%.60q: %v, want %v", doc, got, want)
		}
	}
}

func TestErrorsAreShort(t *testing.T) {
	long := strings.Repeat("é\x1b[2J", 100_000)
	for _, err := range []error{
		&FormatError{"domain", strings.Repeat("é/", 1000), long, "rule"},
		&NotFoundError{What: "disk", Name: long, Have: strings.Fields(strings.Repeat(long[:99]+" ", 1000))},
		Problem{Kind: ProblemCycle, Cycle: strings.Fields(strings.Repeat("a ", 1000))},
		Problem{Kind: ProblemNoParent, Name: long, Parent: long},
		&PathError{long, long},
	} {
		s := err.Error()
		if len(s) > 20_000 || strings.ContainsRune(s, '\x1b') {
			t.Errorf("%d bytes: %.200q", len(s), s)
		}
	}
}
