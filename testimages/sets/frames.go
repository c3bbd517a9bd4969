package sets

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/pierrec/lz4/v4"
)

// A stream is a .data file of virtnbdbackup in memory.
type stream struct {
	meta   streamMeta
	frames []frame // data and zero, as they come
	tail   []byte  // what follows the stop frame
}

// streamMeta has the keys in the tool's own order.
type streamMeta struct {
	VirtualSize       int64  `json:"virtualSize"`
	DataSize          int64  `json:"dataSize"`
	Date              string `json:"date"`
	DiskName          string `json:"diskName"`
	DiskFormat        string `json:"diskFormat,omitempty"`
	CheckpointName    string `json:"checkpointName"`
	Compressed        any    `json:"compressed,omitempty"` // false or the level
	CompressionMethod string `json:"compressionMethod,omitempty"`
	ParentCheckpoint  any    `json:"parentCheckpoint"` // "" or false: none
	Incremental       bool   `json:"incremental"`
	StreamVersion     int    `json:"streamVersion,omitempty"`
	StreamVersion1    int    `json:"stream-version,omitempty"` // so spelled in version 1
}

func (m *streamMeta) isCompressed() bool {
	level, ok := m.Compressed.(float64)
	return ok && level > 0
}

// A frame is a run of guest bytes; data is as the file stores it.
type frame struct {
	kind          string // data or zero
	start, length int64
	data          []byte
}

const (
	headLen = 40 // of a frame's header
	term    = "\r\n"
)

// readHead decodes one frame's header.
func readHead(b []byte) (kind string, start, length int64, err error) {
	if len(b) < headLen || string(b[headLen-2:headLen]) != term {
		return "", 0, 0, errors.New("frame header is cut or broken")
	}
	fields := strings.Split(string(b[:headLen-2]), " ")
	if len(fields) != 3 {
		return "", 0, 0, fmt.Errorf("frame header %q", b[:headLen])
	}
	start, err1 := strconv.ParseInt(fields[1], 16, 64)
	length, err2 := strconv.ParseInt(fields[2], 16, 64)
	return fields[0], start, length, errors.Join(err1, err2)
}

func appendHead(b []byte, kind string, start, length int64) []byte {
	return fmt.Appendf(b, "%s %016x %016x%s", kind, start, length, term)
}

// parseStream takes a whole file apart.
func parseStream(b []byte) (*stream, error) {
	kind, _, n, err := readHead(b)
	if err != nil || kind != "meta" || int64(len(b)) < headLen+n+2 {
		return nil, fmt.Errorf("stream does not begin with a meta frame: %v", err)
	}
	s := &stream{}
	if err := json.Unmarshal(b[headLen:headLen+n], &s.meta); err != nil {
		return nil, err
	}
	for b = b[headLen+n+2:]; ; {
		f := frame{}
		if f.kind, f.start, f.length, err = readHead(b); err != nil {
			return nil, err
		}
		b = b[headLen:]
		switch f.kind {
		case "stop":
			s.tail = b
			return s, nil
		case "data":
			if b, err = f.take(b, s.meta.isCompressed()); err != nil {
				return nil, err
			}
		case "zero":
		default:
			return nil, fmt.Errorf("frame of kind %q", f.kind)
		}
		s.frames = append(s.frames, f)
	}
}

// take cuts the payload off and its end.
func (f *frame) take(b []byte, compressed bool) ([]byte, error) {
	n := f.length
	if compressed {
		n = 0
		for got := int64(0); got < f.length; {
			size, plain, err := lz4Frame(b[n:])
			if err != nil {
				return nil, err
			}
			n += size
			got += int64(len(plain))
		}
	}
	if int64(len(b)) < n+2 || string(b[n:n+2]) != term {
		return nil, fmt.Errorf("data at %#x is cut or has no end", f.start)
	}
	f.data = b[:n]
	return b[n+2:], nil
}

// bytes are the guest's.
func (f *frame) bytes(compressed bool) ([]byte, error) {
	if !compressed {
		return f.data, nil
	}
	var all []byte
	for b := f.data; len(b) > 0; {
		n, plain, err := lz4Frame(b)
		if err != nil {
			return nil, err
		}
		all = append(all, plain...)
		b = b[n:]
	}
	if int64(len(all)) != f.length {
		return nil, fmt.Errorf("data at %#x has %d bytes, not %d", f.start, len(all), f.length)
	}
	return all, nil
}

// lz4Frame measures and decodes the LZ4 frame that b begins with.
func lz4Frame(b []byte) (int64, []byte, error) {
	n, err := lz4Length(b)
	if err != nil {
		return 0, nil, err
	}
	plain, err := io.ReadAll(lz4.NewReader(bytes.NewReader(b[:n])))
	return int64(n), plain, err
}

// lz4Length walks over the blocks of a frame.
func lz4Length(b []byte) (int, error) {
	if len(b) < 7 || binary.LittleEndian.Uint32(b) != 0x184d2204 {
		return 0, errors.New("no LZ4 frame")
	}
	flags, at := b[4], 7
	if flags&0x08 != 0 { // content size
		at += 8
	}
	if flags&0x01 != 0 { // dictionary
		at += 4
	}
	for at+4 <= len(b) {
		size := int(binary.LittleEndian.Uint32(b[at:]) &^ (1 << 31))
		at += 4
		if size == 0 {
			if flags&0x04 != 0 {
				at += 4
			}
			break
		}
		at += size
		if flags&0x10 != 0 {
			at += 4
		}
	}
	if at > len(b) {
		return 0, errors.New("LZ4 frame is cut")
	}
	return at, nil
}

// encode writes the stream; dataSize is made right.
func (s *stream) encode() []byte {
	s.meta.DataSize = 0
	for _, f := range s.frames {
		if f.kind == "data" {
			s.meta.DataSize += f.length
		}
	}
	meta, err := json.MarshalIndent(s.meta, "", "    ")
	if err != nil {
		panic(err) // numbers and strings
	}
	b := appendHead(nil, "meta", 0, int64(len(meta)))
	b = append(append(b, meta...), term...)
	for _, f := range s.frames {
		b = appendHead(b, f.kind, f.start, f.length)
		if f.kind == "data" {
			b = append(append(b, f.data...), term...)
		}
	}
	return append(appendHead(b, "stop", 0, 0), s.tail...)
}

// trailer lists the sizes of the payloads, as the tool does after the stop frame.
func (s *stream) trailer() {
	s.tail = nil
	if !s.meta.isCompressed() {
		return
	}
	sizes := []int{}
	for _, f := range s.frames {
		if f.kind == "data" {
			sizes = append(sizes, len(f.data))
		}
	}
	list := strings.ReplaceAll(fmt.Sprint(sizes), " ", ", ")
	s.tail = appendHead([]byte(list+term), "comp", 0, int64(len(list)))
}

// put adds guest bytes as a data frame of the stream's kind.
func (s *stream) put(start int64, b []byte) error {
	f := frame{"data", start, int64(len(b)), b}
	if s.meta.isCompressed() {
		var out bytes.Buffer
		w := lz4.NewWriter(&out)
		if err := w.Apply(lz4.BlockChecksumOption(true), lz4.ChecksumOption(true), lz4.SizeOption(uint64(len(b)))); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		f.data = out.Bytes()
	}
	s.frames = append(s.frames, f)
	return nil
}

// applyStream lays a file over a disk.
func applyStream(disk, file []byte) ([]byte, error) {
	s, err := parseStream(file)
	if err != nil {
		return nil, err
	}
	disk = resize(disk, int(s.meta.VirtualSize))
	for _, f := range s.frames {
		to := disk[f.start : f.start+f.length]
		if f.kind == "zero" {
			clear(to)
			continue
		}
		b, err := f.bytes(s.meta.isCompressed())
		if err != nil {
			return nil, err
		}
		copy(to, b)
	}
	return disk, nil
}
