package virtnbd

import "math"

// headerLen is the length of a frame's header.
const headerLen = 40

// The kinds of frames.
const (
	kindMeta = "meta"
	kindData = "data"
	kindZero = "zero"
	kindStop = "stop"
	kindComp = "comp"
)

// A header is that of a frame.
type header struct {
	kind          string
	start, length int64
	host          int64 // where it stands
}

// readHeader reads the header of the next frame.
func readHeader(t *tape) (header, error) {
	host := t.pos
	b, err := t.take(headerLen, "frame header", "kind")
	if err != nil {
		return header{}, err
	}
	return parseHeader(b, host)
}

func parseHeader(b []byte, host int64) (header, error) {
	h := header{host: host}
	fail := func(field string, at, n int, msg string) (header, error) {
		return header{}, formatError("frame header", field, host+int64(at), shown(b[at:at+n]), msg)
	}
	if h.kind = knownKind(b[:4]); h.kind == "" {
		return fail("kind", 0, 4, "must be meta, data, zero, stop or comp")
	}
	if b[4] != ' ' || b[21] != ' ' {
		return fail("separators", 0, headerLen, "a space must follow the kind and the start")
	}
	if string(b[38:40]) != "\r\n" {
		return fail("line end", 38, 2, "must be CR LF")
	}
	var ok bool
	if h.start, ok = parseHex(b[5:21]); !ok {
		return fail("start", 5, 16, "must be 16 hexadecimal digits, below 2^63")
	}
	if h.length, ok = parseHex(b[22:38]); !ok {
		return fail("length", 22, 16, "must be 16 hexadecimal digits, below 2^63")
	}
	return h, nil
}

// knownKind is the kind that b names, without an allocation; empty for others.
func knownKind(b []byte) string {
	switch string(b) {
	case kindMeta:
		return kindMeta
	case kindData:
		return kindData
	case kindZero:
		return kindZero
	case kindStop:
		return kindStop
	case kindComp:
		return kindComp
	}
	return ""
}

func parseHex(b []byte) (int64, bool) {
	var n uint64
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		n = n<<4 | uint64(c)
	}
	return int64(n), n <= math.MaxInt64
}

// readLineEnd reads the CR LF behind a payload.
func readLineEnd(t *tape, structure string) error {
	host := t.pos
	b, err := t.take(2, structure, "line end")
	if err == nil && string(b) != "\r\n" {
		err = formatError(structure, "line end", host, shown(b), "CR LF must follow the payload")
	}
	return err
}
