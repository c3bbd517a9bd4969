package main

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	for _, test := range []struct{ in, text, name string }{
		{"plain.qcow2", "plain.qcow2", "plain.qcow2"},
		{"größe 日本", "größe 日本", "größe 日本"},
		{"a\x1b[31mb", `a\x1b[31mb`, `a\x1b[31mb`},
		{"two\nlines\r\t", `two\x0alines\x0d\x09`, `two\x0alines\x0d\x09`},
		{"bad\xff\xc3", `bad\xff\xc3`, `bad\xff\xc3`},
		{"\u202egnp.exe", `\u202egnp.exe`, `\u202egnp.exe`},
		{"\u2066x\u2069\u200b", `\u2066x\u2069\u200b`, `\u2066x\u2069\u200b`},
		{"c1\u009b31m", `c1\u009b31m`, `c1\u009b31m`},
		{"tag\U000e0041", `tag\U000e0041`, `tag\U000e0041`},
		{`C:\x`, `C:\x`, `C:\x`},
		{"\\x1b\x1b", `\x1b\x1b`, `\\x1b\x1b`},
		{"real \ufffd", "real \ufffd", "real \ufffd"},
		{"", "", ""},
	} {
		if got := escapeText(test.in); got != test.text {
			t.Errorf("escapeText(%q) = %q, want %q", test.in, got, test.text)
		}
		if got := escapeName(test.in); got != test.name {
			t.Errorf("escapeName(%q) = %q, want %q", test.in, got, test.name)
		}
	}
}

// FuzzEscape: what comes out is one line of printable UTF-8, escaping it again
// changes nothing, and escaped names stay different.
func FuzzEscape(f *testing.F) {
	f.Add("a\x1bb", `a\x1bb`)
	f.Add("\xff", `\xff`)
	f.Fuzz(func(t *testing.T, a, b string) {
		got := escapeText(a)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !isPlain(r) }) {
			t.Fatalf("escapeText(%q) = %q", a, got)
		}
		if again := escapeText(got); again != got {
			t.Fatalf("escaping %q again gives %q", got, again)
		}
		if a != b && len(a) > 0 && escapeText(a) != a && escapeText(b) != b && escapeName(a) == escapeName(b) {
			t.Fatalf("%q and %q both become %q", a, b, escapeName(a))
		}
	})
}
