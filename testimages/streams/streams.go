// Package streams writes backups in the stream container of virtnbdbackup, sound
// ones and broken ones.
//
// It knows the format a second time: it shares no code with the reader, so that
// the two cannot agree on a mistake. What it writes is what the tool writes, byte
// for byte where LZ4 plays no part.
//
//	w := streams.New(streams.Meta{VirtualSize: 1 << 20, DataSize: 4096, DiskName: "vda"})
//	w.Data(65536, content)
//	w.Zero(0, 65536)
//	w.Stop()
//	file := w.Bytes()
package streams

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Meta is what the meta frame says, in the order and with the keys of the tool. The
// zero value of a field is written as the tool writes what it does not know.
type Meta struct {
	VirtualSize      int64
	DataSize         int64
	Date             string // default "2024-05-06T07:08:09.123456"
	DiskName         string // default "vda"
	DiskFormat       string // default "qcow2"
	CheckpointName   string // default "virtnbdbackup.0"
	Compressed       any    // nil: false; an int is the level
	ParentCheckpoint any    // nil: ""
	Incremental      bool
	StreamVersion    int    // 0: 2
	JSON             string // instead of all that
}

func (m Meta) json() string {
	if m.JSON != "" {
		return m.JSON
	}
	text := func(s, otherwise string) string {
		if s == "" {
			s = otherwise
		}
		b, _ := json.Marshal(s)
		return string(b)
	}
	value := func(v, otherwise any) string {
		if v == nil {
			v = otherwise
		}
		b, _ := json.Marshal(v)
		return string(b)
	}
	version := m.StreamVersion
	if version == 0 {
		version = 2
	}
	fields := []string{
		fmt.Sprintf(`"virtualSize": %d`, m.VirtualSize),
		fmt.Sprintf(`"dataSize": %d`, m.DataSize),
		`"date": ` + text(m.Date, "2024-05-06T07:08:09.123456"),
		`"diskName": ` + text(m.DiskName, "vda"),
		`"diskFormat": ` + text(m.DiskFormat, "qcow2"),
		`"checkpointName": ` + text(m.CheckpointName, "virtnbdbackup.0"),
		`"compressed": ` + value(m.Compressed, false),
		`"compressionMethod": "lz4"`,
		`"parentCheckpoint": ` + value(m.ParentCheckpoint, ""),
		fmt.Sprintf(`"incremental": %v`, m.Incremental),
		fmt.Sprintf(`"streamVersion": %d`, version),
	}
	return "{\n    " + strings.Join(fields, ",\n    ") + "\n}"
}

// A Writer writes one stream into memory. The zero value has no meta frame.
type Writer struct {
	buf   bytes.Buffer
	sizes []string // of the payloads, as the trailer has them
}

// New begins a stream with its meta frame.
func New(m Meta) *Writer {
	w := &Writer{}
	text := m.json()
	w.Frame("meta", 0, int64(len(text)))
	w.Raw([]byte(text + "\r\n"))
	return w
}

// Bytes is what was written so far.
func (w *Writer) Bytes() []byte { return bytes.Clone(w.buf.Bytes()) }

// Len is how much was written so far.
func (w *Writer) Len() int64 { return int64(w.buf.Len()) }

// Raw writes any bytes.
func (w *Writer) Raw(p []byte) { w.buf.Write(p) }

// Frame writes the header of a frame.
func (w *Writer) Frame(kind string, start, length int64) {
	fmt.Fprintf(&w.buf, "%s %016x %016x\r\n", kind, start, length)
}

// Data writes a plain data frame.
func (w *Writer) Data(start int64, p []byte) { w.Payload(start, int64(len(p)), p) }

// Zero writes a zero frame.
func (w *Writer) Zero(start, length int64) { w.Frame("zero", start, length) }

// LZ4 writes a data frame whose payload is LZ4 frames of at most most bytes of p
// each; 0 means one frame, as the tool writes them below 32 MiB.
func (w *Writer) LZ4(start int64, p []byte, most int, o Form) {
	var parts [][]byte
	for rest := p; len(rest) > 0; {
		n := len(rest)
		if most > 0 {
			n = min(n, most)
		}
		parts = append(parts, o.Frame(rest[:n]))
		rest = rest[n:]
	}
	w.Parts(start, int64(len(p)), most > 0, parts...)
}

// Payload writes a data frame of any payload, compressed or not.
func (w *Writer) Payload(start, length int64, payload []byte) {
	w.Parts(start, length, false, payload)
}

// Parts writes a data frame whose payload is in parts; listed says that the trailer
// names each, as the tool does from 32 MiB on.
func (w *Writer) Parts(start, length int64, listed bool, parts ...[]byte) {
	w.Frame("data", start, length)
	total, list := 0, make([]string, 0, len(parts))
	for _, p := range parts {
		w.Raw(p)
		total += len(p)
		list = append(list, fmt.Sprint(len(p)))
	}
	w.Raw([]byte("\r\n"))
	size := fmt.Sprint(total)
	if listed {
		size = fmt.Sprintf(`{"%d": [%s]}`, total, strings.Join(list, ", "))
	}
	w.sizes = append(w.sizes, size)
}

// Stop writes the stop frame.
func (w *Writer) Stop() { w.Frame("stop", 0, 0) }

// Trailer writes the trailer that compressed streams have behind the stop frame.
func (w *Writer) Trailer() {
	text := "[" + strings.Join(w.sizes, ", ") + "]"
	w.Raw([]byte(text + "\r\n"))
	w.Frame("comp", 0, int64(len(text)))
}
