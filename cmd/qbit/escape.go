package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// escapeText makes a message safe to print: what could steer a terminal or turn
// the line around (control characters, bidirectional overrides, invalid UTF-8)
// becomes \xNN or \uNNNN. It leaves backslashes alone, since quoted names in the
// message are escaped already.
func escapeText(s string) string {
	return escapeWith(s, isPlain)
}

// escapeName makes a name from an image safe to print, and two names that
// differ stay different: where anything is escaped, so are backslashes.
func escapeName(s string) string {
	if escapeText(s) == s {
		return s
	}
	return escapeWith(s, func(r rune) bool { return r != '\\' && isPlain(r) })
}

// isPlain reports a character that only shows itself. Of the spaces only the
// common one counts; format characters, among them the bidirectional ones, do not.
func isPlain(r rune) bool { return strconv.IsPrint(r) }

func escapeWith(s string, plain func(rune) bool) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\\' && !plain(r):
			b.WriteString(`\\`)
		case plain(r):
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		i += n
	}
	return b.String()
}
