package virtnbd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/adler32"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/streams"
)

// text is content that compresses, and in which no two places are alike.
func text(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	words := make([][]byte, 200)
	for i := range words {
		words[i] = fmt.Appendf(nil, "%x ", r.Uint64()>>r.IntN(60))
	}
	p := make([]byte, 0, n+20)
	for len(p) < n {
		p = append(p, words[r.IntN(len(words))]...)
	}
	return p[:n]
}

func open(t testing.TB, file []byte, opts *Options) *Stream {
	t.Helper()
	s, err := Open(bytes.NewReader(file), int64(len(file)), opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func extents(t testing.TB, d qcow2.Disk, off, n int64) []qcow2.Extent {
	t.Helper()
	var list []qcow2.Extent
	for e, err := range d.Extents(off, n) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

func whole(t testing.TB, d qcow2.Disk) []byte {
	t.Helper()
	p := bytes.Repeat([]byte{0xaa}, int(d.Size()))
	if n, err := d.ReadAt(p, 0); n != len(p) || err != nil && err != io.EOF {
		t.Fatalf("read %d of %d bytes: %v", n, len(p), err)
	}
	return p
}

func verify(t testing.TB, s *Stream, file []byte) {
	t.Helper()
	var last int64
	sum, err := s.VerifySum(context.Background(), func(n int64) { last = n })
	if err != nil {
		t.Errorf("Verify: %v", err)
	}
	if want := adler32.Checksum(file); sum != want || last != int64(len(file)) {
		t.Errorf("sum %d of %d bytes, want %d of %d", sum, last, want, len(file))
	}
}

func TestPlain(t *testing.T) {
	a, b := text(1, 5000), text(2, 300)
	w := streams.New(streams.Meta{VirtualSize: 20000, DataSize: 5300})
	w.Data(1000, a)
	hostA := w.Len() - 5002
	w.Zero(6000, 1000)
	w.Zero(7000, 500)
	w.Data(7500, b)
	hostB := w.Len() - 302
	w.Stop()
	file := w.Bytes()
	s := open(t, file, nil)
	want := []qcow2.Extent{
		{Off: 0, Len: 1000},
		{Off: 1000, Len: 5000, Kind: qcow2.Data, Storage: s.r, Host: qcow2.HostOffset(hostA), HasHost: true},
		{Off: 6000, Len: 1500, Kind: qcow2.Zero},
		{Off: 7500, Len: 300, Kind: qcow2.Data, Storage: s.r, Host: qcow2.HostOffset(hostB), HasHost: true},
		{Off: 7800, Len: 12200},
	}
	same := cmp.Comparer(func(a, b io.ReaderAt) bool { return a == b })
	if d := cmp.Diff(want, extents(t, s, 0, 20000), same); d != "" {
		t.Error(d)
	}
	disk := make([]byte, 20000)
	copy(disk[1000:], a)
	copy(disk[7500:], b)
	if !bytes.Equal(whole(t, s), disk) {
		t.Error("other bytes were read")
	}
	wantTally := Tally{DataFrames: 2, ZeroFrames: 2, DataBytes: 5300, ZeroBytes: 1500, StoredBytes: 5300, Stop: true}
	if d := cmp.Diff(wantTally, s.Tally()); d != "" {
		t.Error(d)
	}
	if !s.HasZeroFrames() {
		t.Error("zero frames were not seen")
	}
	verify(t, s, file)
	one := s.Meta()
	two, err := ReadMeta(bytes.NewReader(file), int64(len(file)))
	if d := cmp.Diff(one, two); d != "" || err != nil {
		t.Error(d, err)
	}
}

// Frames in every form, several of them in one payload, with frames that are
// skipped and frames that are empty between them.
func TestLZ4Forms(t *testing.T) {
	content := text(3, 300000)
	noise := make([]byte, 70000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	content = append(content, noise...)
	skip := []byte{0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3}
	forms := map[string]streams.Form{
		"of the tool":    {},
		"no size":        {NoSize: true},
		"independent":    {Independent: true},
		"no checksums":   {NoBlockSum: true, NoContentSum: true},
		"large blocks":   {BlockBits: 22},
		"stored":         {Stored: true},
		"stored no size": {Stored: true, NoSize: true, NoBlockSum: true, BlockBits: 18},
	}
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			w := streams.New(streams.Meta{VirtualSize: 1 << 20, DataSize: 2 * 370000, Compressed: 2})
			w.LZ4(100, content, 0, form)
			other := form
			other.NoSize = !form.NoSize
			w.Parts(500000, 370000, true, skip, form.Frame(nil), form.Frame(content[:100]), other.Frame(content[100:200001]),
				skip, form.Frame(content[200001:]), form.Frame(nil))
			w.Stop()
			disk := make([]byte, 1<<20)
			copy(disk[100:], content)
			copy(disk[500000:], content)
			s := open(t, w.Bytes(), nil)
			if !bytes.Equal(whole(t, s), disk) {
				t.Error("other bytes were read")
			}
			for off := int64(0); off < 1<<20; off += 33333 {
				p := make([]byte, min(33333, 1<<20-off))
				if _, err := s.ReadAt(p, off); err != nil || !bytes.Equal(p, disk[off:][:len(p)]) {
					t.Fatalf("piece at %d: %v", off, err)
				}
			}
			verify(t, s, w.Bytes())
			list := extents(t, s, 0, 1<<20)
			if len(list) != 5 || list[1].Kind != qcow2.Compressed || list[3].Len != 370000 {
				t.Errorf("%+v", list)
			}
		})
	}
}

func TestTrailer(t *testing.T) {
	make := func(trailer func(w *streams.Writer)) []byte {
		w := streams.New(streams.Meta{VirtualSize: 1 << 20, DataSize: 9000, Compressed: 2})
		w.LZ4(0, text(1, 5000), 2000, streams.Form{})
		w.LZ4(10000, text(2, 4000), 0, streams.Form{})
		w.Stop()
		trailer(w)
		return w.Bytes()
	}
	sound := make(func(w *streams.Writer) { w.Trailer() })
	s := open(t, sound, nil)
	if !s.Tally().Trailer {
		t.Error("the trailer was not seen")
	}
	verify(t, s, sound)
	none := make(func(*streams.Writer) {})
	verify(t, open(t, none, nil), none)

	end := bytes.LastIndex(sound, []byte("stop ")) + headerLen
	for at := end; at < len(sound); at++ {
		if c := sound[at]; c == ' ' && at < len(sound)-headerLen {
			continue // JSON may have any space
		}
		broken := bytes.Clone(sound)
		broken[at] ^= 1
		s, err := Open(bytes.NewReader(broken), int64(len(broken)), nil)
		if err != nil {
			t.Fatalf("byte %d: %v", at-end, err)
		}
		if list := Findings(s.Verify(context.Background(), nil)); len(list) != 1 || list[0].Structure != "trailer" {
			t.Fatalf("byte %d of the trailer (%q): %v", at-end, sound[at], list)
		}
	}
	for cut := end + 1; cut < len(sound); cut++ {
		s := open(t, sound[:cut], nil)
		if list := Findings(s.Verify(context.Background(), nil)); len(list) != 1 {
			t.Fatalf("cut after %d bytes of the trailer: %v", cut-end, list)
		}
	}
}

// Trailers that are framed well and hold something else.
func TestWrongTrailer(t *testing.T) {
	w := packed(10000, 6000)
	w.LZ4(0, text(1, 5000), 2000, streams.Form{})
	w.LZ4(6000, text(2, 1000), 0, streams.Form{})
	w.Stop()
	file := w.Bytes()
	w.Trailer()
	sound := string(w.Bytes()[len(file) : w.Len()-headerLen-2])
	for json, good := range map[string]bool{
		sound: true, " " + strings.ReplaceAll(sound, ",", " ,\n") + " ": true,
		sound + " 5": false, sound + "]": false, sound[:len(sound)-1] + ", 5]": false, sound[:len(sound)-1]: false,
		"[]": false, "": false, "[": false, strings.Replace(sound, ", ", ", 0, ", 1): false,
		strings.Replace(sound, "}", "", 1): false, "[" + strings.Repeat("9", 100): false,
	} {
		full := fmt.Appendf(bytes.Clone(file), "%s\r\ncomp %016x %016x\r\n", json, 0, len(json))
		s := open(t, full, nil)
		list := Findings(s.Verify(context.Background(), nil))
		if good != (len(list) == 0) || len(list) > 1 || !s.Tally().Trailer {
			t.Errorf("%q: %v", json, list)
		}
	}
}

func TestOutOfOrder(t *testing.T) {
	w := streams.New(streams.Meta{VirtualSize: 4000, DataSize: 2000})
	a, b := text(1, 1000), text(2, 1000)
	w.Zero(3000, 500)
	w.Data(2000, b)
	w.Zero(2999, 1)
	w.Data(0, a)
	w.Zero(3500, 500)
	w.Stop()
	w2 := streams.New(streams.Meta{VirtualSize: 4000, DataSize: 2000})
	w2.Zero(3000, 500)
	w2.Data(2000, b[:999])
	w2.Zero(2999, 1)
	w2.Data(0, a)
	w2.Stop()
	if _, err := Open(bytes.NewReader(w.Bytes()), w.Len(), nil); err == nil {
		t.Error("frames that overlap were accepted")
	}
	s := open(t, w2.Bytes(), nil)
	disk := make([]byte, 4000)
	copy(disk, a)
	copy(disk[2000:], b[:999])
	if !bytes.Equal(whole(t, s), disk) {
		t.Error("other bytes were read")
	}
	list := extents(t, s, 0, 4000)
	if len(list) != 5 || list[3].Kind != qcow2.Zero || list[3].Len != 501 {
		t.Errorf("%+v", list)
	}
}

func TestReadMeta(t *testing.T) {
	tests := []struct {
		name, json string
		want       Meta
	}{
		{"as the tool has it", `{"virtualSize": 10, "dataSize": 4, "date": "2024-05-06T07:08:09.123456", "diskName": "vda", "diskFormat": "qcow2",
			"checkpointName": "virtnbdbackup.1", "compressed": false, "compressionMethod": "lz4", "parentCheckpoint": "virtnbdbackup.0",
			"incremental": true, "streamVersion": 2}`,
			Meta{VirtualSize: 10, DataSize: 4, Date: "2024-05-06T07:08:09.123456", DiskName: "vda", DiskFormat: "qcow2",
				CheckpointName: "virtnbdbackup.1", CompressionMethod: "lz4", ParentCheckpoint: "virtnbdbackup.0", Incremental: true, StreamVersion: 2}},
		{"first releases", `{"virtual-size": 10, "data_size": 4, "stream-version": 1, "disk_uuid": "x"}`,
			Meta{VirtualSize: 10, DataSize: 4, StreamVersion: 1}},
		{"no parent", `{"virtualSize": 1, "parentCheckpoint": false, "streamVersion": 2}`, Meta{VirtualSize: 1, DataSize: -1, StreamVersion: 2}},
		{"null parent", `{"virtualSize": 1, "parentCheckpoint": null}`, Meta{VirtualSize: 1, DataSize: -1, StreamVersion: 1}},
		{"level", `{"virtualSize": 1, "compressed": 3, "streamVersion": 2}`, Meta{VirtualSize: 1, DataSize: -1, StreamVersion: 2, Compressed: true, CompressionLevel: 3}},
		{"level 0", `{"virtualSize": 1, "compressed": 0, "streamVersion": 2}`, Meta{VirtualSize: 1, DataSize: -1, StreamVersion: 2, Compressed: true}},
		{"true", `{"virtualSize": 1, "compressed": true, "streamVersion": 2}`, Meta{VirtualSize: 1, DataSize: -1, StreamVersion: 2, Compressed: true}},
		{"texts", `{"virtualSize": "12", "dataSize": "3", "streamVersion": "2", "compressed": "2", "incremental": "True", "checkpointName": 7}`,
			Meta{VirtualSize: 12, DataSize: 3, StreamVersion: 2, Compressed: true, CompressionLevel: 2, Incremental: true, CheckpointName: "7"}},
		{"false as a text", `{"virtualSize": 1, "compressed": "False", "incremental": 0}`, Meta{VirtualSize: 1, DataSize: -1, StreamVersion: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := streams.New(streams.Meta{JSON: tt.json})
			got, err := ReadMeta(bytes.NewReader(w.Bytes()), w.Len())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(Meta{}, "Unknown")); d != "" {
				t.Error(d)
			}
			if want := strings.Contains(tt.json, "disk_uuid"); want != (string(got.Unknown["disk_uuid"]) == `"x"`) || !want && len(got.Unknown) != 0 {
				t.Errorf("unknown keys: %v", got.Unknown)
			}
		})
	}
}

func TestNoStream(t *testing.T) {
	for _, file := range []string{"", "m", "meta", "meta ", "QFI\xfb and so on", "meta data of the file, in words that go on and on\r\n",
		"data 0000000000000000 0000000000000001\r\nx\r\n", strings.Repeat("\x00", 5000)} {
		if _, err := ReadMeta(strings.NewReader(file), int64(len(file))); !errors.Is(err, ErrNotStream) {
			t.Errorf("%.20q: %v", file, err)
		}
		if _, err := Open(strings.NewReader(file), int64(len(file)), nil); !errors.Is(err, ErrNotStream) {
			t.Errorf("%.20q: %v", file, err)
		}
	}
}

func TestMetaTime(t *testing.T) {
	for date, want := range map[string]string{
		"2024-05-06T07:08:09.123456":       "2024-05-06T07:08:09.123456Z",
		"2024-05-06T07:08:09":              "2024-05-06T07:08:09Z",
		"2024-05-06 07:08:09":              "2024-05-06T07:08:09Z",
		"2024-05-06T07:08:09+02:00":        "2024-05-06T05:08:09Z",
		"2024-05-06T07:08:09.123456+00:00": "2024-05-06T07:08:09.123456Z",
		"2024-05-06":                       "2024-05-06T00:00:00Z",
		"yesterday":                        "",
		"":                                 "",
	} {
		got, ok := Meta{Date: date}.Time()
		if ok != (want != "") || ok && got.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("%q: %v, %v", date, got, ok)
		}
	}
}

func TestChecksumFile(t *testing.T) {
	if n, err := ReadChecksum(strings.NewReader("4294967295\n")); n != 1<<32-1 || err != nil {
		t.Error(n, err)
	}
	for _, none := range []string{"", "{checksum}", "None\n"} {
		if _, err := ReadChecksum(strings.NewReader(none)); !errors.Is(err, ErrNoChecksum) {
			t.Errorf("%q: %v", none, err)
		}
	}
	for _, bad := range []string{"4294967296", "0x12", "-1", strings.Repeat("1", 100), "12 13"} {
		var format *FormatError
		if _, err := ReadChecksum(strings.NewReader(bad)); !errors.As(err, &format) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	p := text(1, 3<<20)
	if n, err := Sum(context.Background(), bytes.NewReader(p), int64(len(p)), nil); n != adler32.Checksum(p) || err != nil {
		t.Error(n, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Sum(ctx, bytes.NewReader(p), int64(len(p)), nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestXXH32(t *testing.T) {
	for s, want := range map[string]uint32{"": 0x02cc5d05, "a": 0x550d7456, "abc": 0x32d153ff,
		"Nobody inspects the spammish repetition": 0xe2293b2f} {
		if got := checksum([]byte(s)); got != want {
			t.Errorf("%q: %#x, want %#x", s, got, want)
		}
	}
	p := text(1, 1000)
	for n := range p {
		var x xxh32
		x.reset()
		x.write(p[:n/3])
		x.write(p[n/3 : n/2])
		x.write(p[n/2 : n])
		if got, want := x.sum(), streams.XXH32(p[:n]); got != want {
			t.Fatalf("%d bytes: %#x, want %#x", n, got, want)
		}
	}
}
