package main

import (
	"strconv"
	"unicode/utf8"
)

// escapeText makes a message safe to print: what could steer a terminal or turn
// the line around (control characters, bidirectional overrides, invalid UTF-8)
// becomes \xNN or \uNNNN. It leaves backslashes alone, since quoted names in the
// message are escaped already.
func escapeText(s string) string {
	if isPlainText(s) {
		return s
	}
	return escapeWith(s, false)
}

// escapeName makes a name from an image safe to print, and two names that
// differ stay different: where anything is escaped, so are backslashes.
func escapeName(s string) string {
	if isPlainText(s) {
		return s
	}
	return escapeWith(s, true)
}

// isPlain reports a character that only shows itself. Of the spaces only the
// common one counts; format characters, among them the bidirectional ones, do not.
func isPlain(r rune) bool { return strconv.IsPrint(r) }

// isPlainText reports that nothing in s has to be escaped.
func isPlainText(s string) bool {
	for i, r := range s {
		if !isPlain(r) || r == utf8.RuneError && isInvalid(s[i:]) {
			return false
		}
	}
	return true
}

// isInvalid reports that s begins with a byte that is no UTF-8.
func isInvalid(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return r == utf8.RuneError && n == 1
}

// escapeWith escapes s; a hostile name can have megabytes of what is not plain.
func escapeWith(s string, backslashes bool) string {
	b := make([]byte, 0, len(s)+len(s)/2)
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b = appendHex(append(b, `\x`...), uint32(s[i]), 2)
		case r == '\\' && backslashes:
			b = append(b, `\\`...)
		case isPlain(r):
			b = append(b, s[i:i+n]...)
		case r < 0x80:
			b = appendHex(append(b, `\x`...), uint32(r), 2)
		case r < 0x10000:
			b = appendHex(append(b, `\u`...), uint32(r), 4)
		default:
			b = appendHex(append(b, `\U`...), uint32(r), 8)
		}
		i += n
	}
	return string(b)
}

// appendHex appends the last digits of v.
func appendHex(b []byte, v uint32, digits int) []byte {
	for i := digits - 1; i >= 0; i-- {
		b = append(b, "0123456789abcdef"[v>>(4*i)&15])
	}
	return b
}
