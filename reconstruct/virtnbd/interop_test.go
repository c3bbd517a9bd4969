package virtnbd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/qbitkit/qbit/testimages/interop"
	"github.com/qbitkit/qbit/testimages/streams"
)

// python is the interpreter of the installed tool, which has its modules.
func python(t *testing.T) string {
	t.Helper()
	interop.Need(t, "virtnbdbackup")
	path, err := exec.LookPath("virtnbdbackup")
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(script), "\n")
	name, ok := strings.CutPrefix(strings.TrimSpace(line), "#!")
	if !ok || strings.Contains(name, " ") {
		name = "python3"
	}
	interop.Need(t, name)
	return name
}

// toolExtents are what the tool would find on a disk of 40 MiB.
const toolExtents = `[[true, 0, 65536], [false, 65536, 1048576], [true, 1114112, 3407872], [true, 4521984, 512],
	[false, 4522496, 3145216], [true, 7667712, 34275328]]`

// toolDisk is a disk of 40 MiB that is zero where toolExtents says so.
func toolDisk(t *testing.T) ([]byte, string) {
	disk := make([]byte, 40<<20)
	copy(disk, bytes.Repeat(text(1, 1<<20), 40))
	for i := range 200000 {
		disk[9<<20+i] = byte(i * i >> 7) // does not compress
	}
	clear(disk[65536:1114112])
	clear(disk[4522496:7667712])
	clear(disk[20<<20 : 25<<20]) // zeros that are data
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	return disk, path
}

// The tool's own modules write what we read, and we write what they write.
func TestInteropWriter(t *testing.T) {
	interpreter := python(t)
	disk, path := toolDisk(t)
	for _, tt := range []struct {
		compress string
		request  int
		version  int
	}{
		{"false", 32 << 20, 2},
		{"false", 1 << 20, 1},
		{"2", 32 << 20, 2},
		{"2", 1 << 20, 2},
		{"4", 3407872, 2},
		{"0", 2 << 20, 2}, // level 0: compressed, but without a trailer
	} {
		t.Run(fmt.Sprintf("compress %s, request %d", tt.compress, tt.request), func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "sda.full.data")
			interop.Run(t, interpreter, "testdata/write.py", path, out, toolExtents, tt.compress, "full", fmt.Sprint(tt.request), fmt.Sprint(tt.version))
			file, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			s := open(t, file, nil)
			checkToolStream(t, s, tt.compress, disk)
			verify(t, s, file)
			if tt.compress == "false" {
				again(t, s, file, disk, tt.version)
			}
		})
	}
}

func checkToolStream(t *testing.T, s *Stream, compress string, disk []byte) {
	t.Helper()
	if !bytes.Equal(whole(t, s), disk) {
		t.Error("other bytes were read")
	}
	ascend(t, s, 512<<10, 3, disk)
	m, tally := s.Meta(), s.Tally()
	if m.DiskName != "sda" || m.CheckpointName != "virtnbdbackup.0" || m.ParentCheckpoint != "" || m.Incremental ||
		m.Compressed != (compress != "false") || m.DataSize != tally.DataBytes || m.CompressionMethod != "lz4" || len(m.Unknown) > 0 {
		t.Errorf("%+v", m)
	}
	if tally.DataFrames != 4 || tally.ZeroFrames != 2 || tally.Trailer != (compress != "false" && compress != "0") {
		t.Errorf("%+v", tally)
	}
	when, ok := m.Time()
	if age := time.Since(when).Abs(); !ok || age > 48*time.Hour {
		t.Errorf("%q is %v", m.Date, when)
	}
}

// again writes a plain stream anew with the writer that other tests use.
func again(t *testing.T, s *Stream, file, disk []byte, version int) {
	t.Helper()
	var extents [][3]any
	if err := json.Unmarshal([]byte(toolExtents), &extents); err != nil {
		t.Fatal(err)
	}
	w := streams.New(streams.Meta{VirtualSize: s.Size(), DataSize: s.Meta().DataSize, Date: s.Meta().Date, DiskName: "sda", StreamVersion: version})
	for _, e := range extents {
		off, n := int64(e[1].(float64)), int64(e[2].(float64))
		if e[0].(bool) {
			w.Data(off, disk[off:off+n])
		} else {
			w.Zero(off, n)
		}
	}
	w.Stop()
	if !bytes.Equal(w.Bytes(), file) {
		t.Error("the writer of the tests writes other bytes than the tool")
	}
}

// An increment of the tool has nothing but data frames.
func TestInteropIncrement(t *testing.T) {
	interpreter := python(t)
	_, path := toolDisk(t)
	out := filepath.Join(t.TempDir(), "sda.inc.virtnbdbackup.1.data")
	interop.Run(t, interpreter, "testdata/write.py", path, out, toolExtents, "2", "inc", "33554432")
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(f, info.Size(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.HasZeroFrames() || !s.Meta().Incremental || len(extents(t, s, 0, s.Size())) != 5 {
		t.Errorf("%+v, %+v", s.Tally(), s.Meta())
	}
	if err := s.Verify(context.Background(), nil); err != nil {
		t.Error(err)
	}
}

// The tool's LZ4 library reads the frames that the tests write.
func TestInteropForms(t *testing.T) {
	interpreter := python(t)
	content := text(4, 700000)
	for _, form := range []streams.Form{{}, {Independent: true, BlockBits: 18}, {NoSize: true, NoBlockSum: true}, {Stored: true, BlockBits: 22}} {
		path := filepath.Join(t.TempDir(), "frame")
		if err := os.WriteFile(path, form.Frame(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got := interop.Run(t, interpreter, "-c",
			"import sys, lz4.frame; sys.stdout.buffer.write(lz4.frame.decompress(open(sys.argv[1], 'rb').read()))", path)
		if !bytes.Equal(got, content) {
			t.Errorf("%+v: other bytes", form)
		}
	}
}
