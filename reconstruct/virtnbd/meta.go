package virtnbd

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/qbitkit/qbit/qcow2"
)

// maxMeta is the longest meta frame that is read. The tool's have some 500 bytes.
const maxMeta = 64 << 10

// Meta is what the meta frame of a stream says. All of it is the file's bytes:
// texts may hold any character.
type Meta struct {
	VirtualSize int64 // of the disk, in bytes
	// DataSize is the sum of the lengths of all data frames; -1 where it is not
	// said. Only Verify compares.
	DataSize   int64
	Date       string // see Time
	DiskName   string // "vda"
	DiskFormat string // of the source: "qcow2", "raw"
	// CheckpointName is that which the backup made, or of which it holds the end.
	CheckpointName   string
	ParentCheckpoint string // empty: none
	// Compressed says that payloads are LZ4 frames. A stream that was compressed
	// at level 0 is one of them: only "false" means plain.
	Compressed bool
	// CompressionLevel is that which the tool was told; 0 where it is not said.
	CompressionLevel  int
	CompressionMethod string // "lz4", in plain streams too; empty in old ones
	// Incremental: the stream holds what changed. Its file name says nothing
	// about that: a full backup can lie under the name of an increment.
	Incremental bool
	// StreamVersion is 1 or 2; 1 where it is not said.
	StreamVersion int
	// Unknown holds what is said beyond that, by its key.
	Unknown map[string]json.RawMessage
}

// dateLayouts are the forms of ISO 8601 that Python's isoformat and people write.
// Fractions of a second may follow in each.
var dateLayouts = []string{
	time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05",
	"2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02",
}

// Time is Date, where it can be understood. The tool writes the local time of its
// host and not its zone: such a date is taken for UTC, and can be wrong by hours.
func (m Meta) Time() (time.Time, bool) {
	for _, layout := range dateLayouts {
		if t, err := time.Parse(layout, m.Date); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// ReadMeta reads the meta frame of a stream of size bytes, and nothing else: at
// most 64 KiB and some. The rest of the file may be broken. A file that is no
// stream is ErrNotStream; a meta frame that cannot be right is a *FormatError, and
// a version or compression method that is not known a *qcow2.UnsupportedError.
func ReadMeta(r io.ReaderAt, size int64) (Meta, error) {
	t := tape{r: r, size: size, buf: make([]byte, 1024)}
	return readMeta(&t)
}

func readMeta(t *tape) (Meta, error) {
	h, err := metaHeader(t)
	if err != nil {
		return Meta{}, err
	}
	switch {
	case h.start != 0:
		return Meta{}, formatError("meta frame", "start", h.host+5, number(h.start), "must be 0")
	case h.length > maxMeta:
		return Meta{}, formatError("meta frame", "length", h.host+22, number(h.length),
			fmt.Sprintf("must not be above %d", maxMeta))
	}
	text, err := t.take(int(h.length), "meta frame", "JSON")
	if err != nil {
		return Meta{}, err
	}
	m, err := parseMeta(text, h.host+headerLen)
	if err != nil {
		return Meta{}, err
	}
	return m, readLineEnd(t, "meta frame")
}

// metaHeader reads the first header of a file.
func metaHeader(t *tape) (header, error) {
	b, err := t.peek(int(min(headerLen, t.left())))
	if err != nil {
		return header{}, err
	}
	if !looksLikeMeta(b) {
		return header{}, ErrNotStream
	}
	return readHeader(t)
}

// looksLikeMeta reports that b is a header of a meta frame, or the beginning of
// one, of six bytes at least.
func looksLikeMeta(b []byte) bool {
	const form = "meta 0000000000000000 0000000000000000\r\n"
	if len(b) < len("meta 0") {
		return false
	}
	for i, c := range b {
		if _, hex := parseHex(b[i : i+1]); c != form[i] && !(hex && form[i] == '0') {
			return false
		}
	}
	return true
}

// check refuses what parseMeta understood and Open could not read.
func (m Meta) check(host int64) error {
	switch {
	case m.StreamVersion < 1:
		return formatError("meta frame", "streamVersion", host, number(int64(m.StreamVersion)), "must be 1 or 2")
	case m.StreamVersion > 2:
		return &qcow2.UnsupportedError{Feature: fmt.Sprintf("virtnbdbackup stream version %d", m.StreamVersion)}
	case m.Compressed && m.StreamVersion < 2:
		return formatError("meta frame", "compressed", host, "true", "a stream of version 1 is never compressed")
	case m.Compressed && m.CompressionMethod != "" && m.CompressionMethod != "lz4":
		return &qcow2.UnsupportedError{Feature: fmt.Sprintf("virtnbdbackup compression method %.40q", m.CompressionMethod)}
	}
	return nil
}
