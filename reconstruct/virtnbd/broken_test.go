package virtnbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/streams"
)

// A brokenStream is refused by Open (or found by Verify) in this structure and field.
type brokenStream struct {
	name             string
	file             []byte
	structure, field string
}

func plain(size int64) *streams.Writer {
	return streams.New(streams.Meta{VirtualSize: size, DataSize: 1000})
}

func packed(size, data int64) *streams.Writer {
	return streams.New(streams.Meta{VirtualSize: size, DataSize: data, Compressed: 2})
}

// stopped ends a stream.
func stopped(w *streams.Writer) []byte {
	w.Stop()
	return w.Bytes()
}

func withMeta(json string) []byte { return stopped(streams.New(streams.Meta{JSON: json})) }

// withHeader is a stream with that header where the second frame should be.
func withHeader(header string) []byte {
	w := plain(10000)
	w.Raw([]byte(header))
	w.Raw(make([]byte, 1000))
	return w.Bytes()
}

// withFrame is a compressed stream with one data frame of n bytes.
func withFrame(n int64, parts ...[]byte) []byte {
	w := packed(1<<20, n)
	w.Parts(0, n, false, parts...)
	return stopped(w)
}

// edited is p with another byte.
func edited(p []byte, at int, b byte) []byte {
	p = bytes.Clone(p)
	p[at] = b
	return p
}

// descriptor is an LZ4 frame with other flags, and a header checksum that fits.
func descriptor(frame []byte, at int, b byte) []byte {
	p := edited(frame, at, b)
	n := 2
	if p[4]&8 != 0 {
		n += 8
	}
	p[4+n] = byte(streams.XXH32(p[4:4+n]) >> 8)
	return p
}

// sizeOf is an LZ4 frame that claims another content size.
func sizeOf(frame []byte, size uint64) []byte {
	p := bytes.Clone(frame)
	binary.LittleEndian.PutUint64(p[6:], size)
	return descriptor(p, 5, p[5])
}

// cutAfter is file up to the end of what is in it.
func cutAfter(file, part []byte) []byte {
	return file[:bytes.Index(file, part)+len(part)]
}

func brokenMeta() []brokenStream {
	long := `{"virtualSize": 1, "x": "` + strings.Repeat("y", maxMeta) + `"}`
	list := []brokenStream{
		{"start", []byte("meta 0000000000000001 0000000000000002\r\n{}\r\n"), "meta frame", "start"},
		{"too long", withMeta(long), "meta frame", "length"},
		{"cut header", []byte("meta 00000000000000"), "frame header", "kind"},
		{"cut JSON", []byte("meta 0000000000000000 0000000000000012\r\n{}"), "meta frame", "JSON"},
		{"no line end", []byte("meta 0000000000000000 0000000000000012\r\n{\"virtualSize\": 1}stop "), "meta frame", "line end"},
		{"length not below 2^63", []byte("meta 0000000000000000 8000000000000000\r\n{}\r\n"), "frame header", "length"},
		{"two spellings", withMeta(`{"virtualSize": 1, "virtual-size": 2}`), "meta frame", "virtualSize"},
		{"compressed version 1", withMeta(`{"virtualSize": 1, "compressed": 2, "streamVersion": 1}`), "meta frame", "compressed"},
		{"version 0", withMeta(`{"virtualSize": 1, "streamVersion": 0}`), "meta frame", "streamVersion"},
		{"no size", withMeta(`{"dataSize": 0}`), "meta frame", "virtualSize"},
	}
	for _, json := range []string{"", "[]", "null", "7", "{", `{"a": 1} x`, strings.Repeat("[", 60000)} {
		list = append(list, brokenStream{fmt.Sprintf("JSON %.10q", json), bytes.Join([][]byte{
			fmt.Appendf(nil, "meta 0000000000000000 %016x\r\n", len(json)), []byte(json), []byte("\r\n")}, nil), "meta frame", "JSON"})
	}
	for _, value := range []string{"-1", "1.5", "1e3", "9223372036854775808", `"x"`, "true", "null", "{}", "[1]", `""`} {
		list = append(list, brokenStream{"virtual size " + value, withMeta(`{"virtualSize": ` + value + `}`), "meta frame", "virtualSize"})
	}
	for key, value := range map[string]string{"dataSize": "-5", "date": "{}", "diskName": "true", "compressed": `"lz4"`, "incremental": "[]",
		"streamVersion": `"two"`, "checkpointName": "[]", "parentCheckpoint": "true"} {
		list = append(list, brokenStream{key + " " + value, withMeta(`{"virtualSize": 1, "` + key + `": ` + value + `}`), "meta frame", key})
	}
	return list
}

func brokenFrames() []brokenStream {
	data := text(1, 1000)
	overlap := plain(10000)
	overlap.Data(0, data)
	overlap.Zero(999, 10)
	outer := plain(10000)
	outer.Data(5000, data)
	outer.Zero(4000, 3000)
	twice := plain(10000)
	twice.Data(0, data)
	twice.Data(0, data)
	beyond := plain(999)
	beyond.Data(0, data)
	far := plain(10000)
	far.Zero(math.MaxInt64, math.MaxInt64)
	cutData := plain(10000)
	cutData.Data(0, data)
	lineEnd := plain(10000)
	lineEnd.Frame("data", 0, 1000)
	lineEnd.Raw(append(data, "stop 0000"...))
	noStop := plain(10000)
	noStop.Zero(0, 10)
	second := plain(10000)
	second.Raw(plain(10000).Bytes())
	full := stopped(plain(10000))
	huge := plain(math.MaxInt64)
	huge.Frame("data", 0, math.MaxInt64)
	return []brokenStream{
		{"overlap", stopped(overlap), "stream", "frames"},
		{"overlap, out of order", stopped(outer), "stream", "frames"},
		{"twice", stopped(twice), "stream", "frames"},
		{"beyond the disk", stopped(beyond), "data frame", "length"},
		{"far beyond the disk", stopped(far), "zero frame", "length"},
		{"negative start", withHeader("data -000000000000001 0000000000000001\r\n"), "frame header", "start"},
		{"start above 2^63", withHeader("data ffffffffffffffff 0000000000000001\r\n"), "frame header", "start"},
		{"length not hexadecimal", withHeader("data 0000000000000000 000000000000000g\r\n"), "frame header", "length"},
		{"blanks in a number", withHeader("zero 0000000000000000                1\r\n"), "frame header", "length"},
		{"no space", withHeader("zero_0000000000000000 0000000000000001\r\n"), "frame header", "separators"},
		{"no line end", withHeader("zero 0000000000000000 0000000000000001\n\n"), "frame header", "line end"},
		{"unknown kind", withHeader("hole 0000000000000000 0000000000000001\r\n"), "frame header", "kind"},
		{"second meta frame", stopped(second), "frame header", "kind"},
		{"trailer before the stop frame", withHeader("comp 0000000000000000 0000000000000001\r\n"), "frame header", "kind"},
		{"stop with a length", withHeader("stop 0000000000000000 0000000000000001\r\n"), "stop frame", "length"},
		{"cut after a frame", noStop.Bytes(), "stop frame", "kind"},
		{"cut after the meta frame", plain(1).Bytes(), "stop frame", "kind"},
		{"cut in a header", full[:len(full)-1], "frame header", "kind"},
		{"cut in a payload", cutData.Bytes()[:cutData.Len()-3], "data frame", "payload"},
		{"cut in a line end", cutData.Bytes()[:cutData.Len()-1], "data frame", "line end"},
		{"huge payload", huge.Bytes(), "data frame", "payload"},
		{"no line end after a payload", stopped(lineEnd), "data frame", "line end"},
		{"a second stream behind it", append(bytes.Clone(full), full...), "stop frame", "end"},
		{"zeros behind it", append(bytes.Clone(full), make([]byte, 512)...), "stop frame", "end"},
		{"a compressed stream that is plain", func() []byte {
			w := packed(10000, 1000)
			w.Data(0, data)
			return stopped(w)
		}(), "data frame", "payload"},
		{"a plain stream that is compressed", func() []byte {
			w := plain(10000)
			w.LZ4(0, data, 0, streams.Form{})
			w.Zero(1000, 1000)
			w.Zero(3000, 1000)
			w.Zero(5000, 1000)
			return stopped(w)
		}(), "data frame", "line end"},
	}
}

func brokenLZ4() []brokenStream {
	data := text(1, 100000)
	frame := streams.Form{}.Frame(data)
	blind := streams.Form{NoSize: true}.Frame(data)
	return []brokenStream{
		{"version", withFrame(100000, descriptor(frame, 4, frame[4]^0xc0)), "LZ4 frame", "version"},
		{"reserved bit of FLG", withFrame(100000, descriptor(frame, 4, frame[4]|2)), "LZ4 frame", "reserved bits"},
		{"reserved bits of BD", withFrame(100000, descriptor(frame, 5, frame[5]|0x81)), "LZ4 frame", "reserved bits"},
		{"block size", withFrame(100000, descriptor(frame, 5, 3<<4)), "LZ4 frame", "block maximum size"},
		{"header checksum", withFrame(100000, edited(frame, 14, frame[14]^1)), "LZ4 frame", "header checksum"},
		{"content size above 2^63", withFrame(100000, sizeOf(frame, 1<<63)), "LZ4 frame", "content size"},
		{"a bomb", withFrame(1<<20, sizeOf(frame, 1<<40)), "LZ4 frame", "content size"},
		{"content size 0", withFrame(100000, sizeOf(frame, 0)), "LZ4 frame", "content size"},
		{"more than the data frame", withFrame(99999, frame), "LZ4 frame", "content size"},
		{"frames for more", withFrame(100000, frame, frame), "LZ4 frame", "content size"},
		{"frames of no size for more", withFrame(100000, frame, blind), "data frame", "payload"},
		{"frames for less", withFrame(100001, frame), "data frame", "payload"},
		{"frames of no size for much less", withFrame(1<<20, blind), "data frame", "payload"},
		{"no frame", withFrame(100000), "data frame", "payload"},
		{"block too long", withFrame(100000, edited(frame, 18, 1)), "LZ4 frame", "block 0"},
		{"block longer than the descriptor allows", withFrame(100000,
			descriptor(streams.Form{Stored: true, BlockBits: 18}.Frame(data), 5, 4<<4)), "LZ4 frame", "block 0"},
		{"cut in a block", withFrame(100000, frame)[:20000], "LZ4 frame", "block 0"},
		{"cut in a descriptor", cutAfter(withFrame(100000, frame), frame[:8]), "LZ4 frame", "content size"},
		{"cut in a content checksum", cutAfter(withFrame(100000, frame), frame[:len(frame)-2]), "LZ4 frame", "content checksum"},
		{"cut in an end mark", cutAfter(withFrame(100000, frame), frame[:len(frame)-6]), "LZ4 frame", "end mark"},
		{"skippable frame beyond the end", withFrame(1, []byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0x7f}), "LZ4 frame", "skippable frame"},
	}
}

func TestBroken(t *testing.T) {
	for group, list := range map[string][]brokenStream{"meta": brokenMeta(), "frames": brokenFrames(), "LZ4": brokenLZ4()} {
		for _, tt := range list {
			t.Run(group+"/"+tt.name, func(t *testing.T) {
				s, err := Open(bytes.NewReader(tt.file), int64(len(tt.file)), nil)
				var format *FormatError
				if !errors.As(err, &format) {
					t.Fatalf("want an error of %s: %s, have %v, %v", tt.structure, tt.field, s, err)
				}
				if format.Structure != tt.structure || tt.field != "" && format.Field != tt.field {
					t.Errorf("want %s: %s, have %v", tt.structure, tt.field, err)
				}
				if int64(format.Host) > int64(len(tt.file)) {
					t.Errorf("%v lies beyond the end", format.Host)
				}
			})
		}
	}
}

// What Open cannot see is an error of the reads that touch it, and of Verify.
func TestBrokenPayload(t *testing.T) {
	data := text(1, 300000)
	frame := streams.Form{}.Frame(data)
	noSums := streams.Form{NoBlockSum: true, NoContentSum: true}.Frame(data)
	blind := streams.Form{NoSize: true}.Frame(data)
	small := streams.Form{NoSize: true}.Frame(data[:100])
	tests := []struct {
		name  string
		size  int64
		file  []byte
		field string
		sound int64 // bytes before the damage
	}{
		{"block", 300000, withFrame(300000, edited(frame, 1000, frame[1000]^1)), "checksum of block 0", 0},
		{"block 2", 300000, withFrame(300000, edited(frame, len(frame)*5/8, frame[len(frame)*5/8]^1)), "checksum of block 2", 65536},
		{"content checksum", 300000, withFrame(300000, edited(frame, len(frame)-1, frame[len(frame)-1]^1)), "content checksum", 65536},
		{"offset before the beginning", 300000, withFrame(300000, edited(noSums, 19, 0x0f)), "block 0", 0},
		{"shorter than it says", 300001, withFrame(300001, sizeOf(frame, 300001)), "content size", 65536},
		{"longer than it says", 299999, withFrame(299999, sizeOf(frame, 299999)), "block 4", 65536},
		{"no size, shorter", 300001, withFrame(300001, blind), "", 65536},
		{"no size, longer", 299999, withFrame(299999, blind), "block 4", 65536},
		{"no size, one too many", 300000, withFrame(300000, blind, small), "block 0", 65536},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, piece := range []int64{tt.size, 4096, 100000} {
				s := open(t, tt.file, nil)
				readBroken(t, s, tt.size, piece, tt.sound, data)
			}
			s := open(t, tt.file, nil)
			list := Findings(s.Verify(context.Background(), nil))
			if len(list) != 1 || tt.field != "" && list[0].Field != tt.field {
				t.Errorf("Verify found %v, want %s", list, tt.field)
			}
		})
	}
}

// readBroken reads in pieces; none gives wrong bytes, and one fails.
func readBroken(t *testing.T, s *Stream, size, piece, sound int64, data []byte) {
	t.Helper()
	failed := false
	for off := int64(0); off < size; off += piece {
		p := make([]byte, min(piece, size-off))
		_, err := s.ReadAt(p, off)
		var format *FormatError
		switch {
		case err == nil && (off+int64(len(p)) > int64(len(data)) || !bytes.Equal(p, data[off:][:len(p)])):
			t.Fatalf("wrong bytes at %d", off)
		case err == nil:
		case !errors.As(err, &format):
			t.Fatal(err)
		case off+int64(len(p)) <= sound:
			t.Fatalf("nothing is wrong with [%d, +%d): %v", off, len(p), err)
		default:
			failed = true
		}
	}
	if !failed {
		t.Errorf("pieces of %d: nothing failed", piece)
	}
}

func TestUnsupported(t *testing.T) {
	data := text(1, 1000)
	dictionary := streams.Form{NoSize: true}.Frame(data)
	dictionary = append(append(bytes.Clone(dictionary[:6]), 1, 2, 3, 4, 0), dictionary[7:]...)
	dictionary[4] |= 1
	for name, file := range map[string][]byte{
		"version 3":    withMeta(`{"virtualSize": 1, "streamVersion": 3}`),
		"zstd":         withMeta(`{"virtualSize": 1, "streamVersion": 2, "compressed": 1, "compressionMethod": "zstd"}`),
		"dictionary":   withFrame(1000, dictionary),
		"legacy":       withFrame(1000, []byte{2, 0x21, 0x4c, 0x18, 1, 0, 0, 0, 0}),
		"legacy later": withFrame(2000, streams.Form{}.Frame(data), []byte{2, 0x21, 0x4c, 0x18, 1, 0, 0, 0, 0}),
	} {
		var unsupported *qcow2.UnsupportedError
		if _, err := Open(bytes.NewReader(file), int64(len(file)), nil); !errors.As(err, &unsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLimits(t *testing.T) {
	w := plain(10000)
	for i := range int64(20) {
		w.Zero(i*10, 5)
	}
	file := stopped(w)
	open(t, file, &Options{MaxFrames: 20})
	var limit *LimitError
	if _, err := Open(bytes.NewReader(file), int64(len(file)), &Options{MaxFrames: 19}); !errors.As(err, &limit) || limit.Limit != "MaxFrames" {
		t.Error(err)
	}
	frames := withFrame(0, bytes.Repeat(streams.Form{}.Frame(nil), 30))
	open(t, frames, &Options{MaxFrames: 30})
	if _, err := Open(bytes.NewReader(frames), int64(len(frames)), &Options{MaxFrames: 29}); !errors.As(err, &limit) {
		t.Error(err)
	}
	joined := plain(10000)
	for i := range int64(1000) {
		joined.Zero(i*10, 10)
	}
	open(t, stopped(joined), &Options{MaxFrames: 1})
}

// Verify tells all that is wrong, not only the first.
func TestVerifyFindsAll(t *testing.T) {
	w := packed(1<<20, 12345)
	var want []string
	for i := range int64(10) {
		frame := streams.Form{}.Frame(text(uint64(i), 5000))
		if i%3 == 1 {
			frame[100] ^= 4
			want = append(want, "checksum of block 0")
		}
		w.Parts(i*10000, 5000, false, frame)
	}
	w.Stop()
	w.Trailer()
	file := w.Bytes()
	at := bytes.LastIndexByte(file, ']')
	file[at-1] ^= 1
	s := open(t, file, nil)
	err := s.Verify(context.Background(), nil)
	want = append(want, "dataSize", "item 9")
	var got []string
	for _, e := range Findings(err) {
		got = append(got, e.Field)
	}
	if fmt.Sprint(got) != fmt.Sprint([]string{want[0], want[1], want[2], "item 9", "dataSize"}) {
		t.Errorf("found %q", got)
	}
	var format *FormatError
	if !errors.As(err, &format) || strings.Count(err.Error(), "\n") != 4 {
		t.Errorf("%v", err)
	}
}

// A disk that fails is no finding, and Verify stops where it is told to.
func TestVerifyEnds(t *testing.T) {
	w := packed(10<<20, 8<<20)
	w.LZ4(0, text(1, 8<<20), 1<<20, streams.Form{Stored: true})
	file := stopped(w)
	s := open(t, file, nil)
	ctx, cancel := context.WithCancel(context.Background())
	err := s.Verify(ctx, func(n int64) {
		if n > 2<<20 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || len(Findings(err)) > 0 {
		t.Error(err)
	}
	failing := &failingReader{p: file, from: 4 << 20, to: 5 << 20}
	s, err = Open(failing, int64(len(file)), nil)
	if err != nil {
		t.Fatal(err)
	}
	failing.on = true
	if err := s.Verify(context.Background(), nil); !errors.Is(err, errDisk) || len(Findings(err)) > 0 {
		t.Error(err)
	}
}

var errDisk = errors.New("the disk fails")

// A failingReader fails in a range while it is on.
type failingReader struct {
	p        []byte
	from, to int64
	on       bool
}

func (r *failingReader) ReadAt(p []byte, off int64) (int, error) {
	if r.on && off < r.to && off+int64(len(p)) > r.from {
		return 0, errDisk
	}
	return bytes.NewReader(r.p).ReadAt(p, off)
}

// A read that failed because the disk did is tried again.
func TestReadAgain(t *testing.T) {
	data := text(1, 3<<20)
	w := packed(4<<20, 3<<20)
	w.LZ4(0, data, 0, streams.Form{Stored: true})
	file := stopped(w)
	r := &failingReader{p: file, from: 1 << 20, to: 2 << 20}
	s, err := Open(r, int64(len(file)), nil)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1<<20)
	for _, on := range []bool{true, false} {
		r.on = on
		if _, err := s.ReadAt(p, 3<<19); on != errors.Is(err, errDisk) || !on && !bytes.Equal(p, data[3<<19:][:1<<20]) {
			t.Errorf("failing %v: %v", on, err)
		}
	}
}

// A file that became shorter is an error, never zeros.
func TestShorterFile(t *testing.T) {
	w := plain(10000)
	w.Data(0, text(1, 1000))
	file := stopped(w)
	s, err := Open(&shrinking{file}, int64(len(file)), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.r.(*shrinking).p = file[:700]
	if _, err := s.ReadAt(make([]byte, 1000), 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	if err := s.Verify(context.Background(), nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

type shrinking struct{ p []byte }

func (r *shrinking) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(r.p).ReadAt(p, off)
}
