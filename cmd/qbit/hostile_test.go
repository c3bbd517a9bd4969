package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// maxDepth is how many backing files may stand on each other by default.
var maxDepth = int(qcow2.Limits{}.WithDefaults().Depth)

// A hugeImage is an image that costs its maker nothing and its reader as much as
// the reader lets it.
type hugeImage struct {
	name string
	// write writes the image; what it does not write is a hole.
	write func(t *testing.T, path string)
	// says is what the JSON of info must have at the least, by count.
	says map[string]int
}

func hugeImages() []hugeImage {
	return []hugeImage{
		{"65535 bitmaps", writeBitmaps(65535, 12, shortName), map[string]int{`"dirty-bytes": 8192`: 65535, `"granularity": 4096`: 2 * 65535}},
		{"65536 snapshots", writeSnapshots(65536, shortName), map[string]int{`"disk-size": 65536`: 65536, `"vm-clock-sec"`: 65536}},
		{"bitmaps with hostile names", writeBitmaps(65535, 12, hostileName(100)), map[string]int{"bitmap-directory-bytes": 1}},
		{"bitmaps with hostile names, as many as are listed", writeBitmaps(6000, 12, hostileName(1000)), map[string]int{`"name-hex"`: 6000}},
		{"snapshots with hostile names", writeSnapshots(8000, hostileName(900)), map[string]int{`"name-hex"`: 6500, "snapshot-table-bytes": 1}},
		{"snapshots with the longest names", writeSnapshots(120, hostileName(65535)), map[string]int{"snapshot-table-bytes": 1}},
		{"bitmaps that share one large table", writeSharedTable, map[string]int{"bitmap-work is": 60000}},
		{"one bitmap with 2 GiB of bits in a hole", writeHoleBitmap, map[string]int{"bitmap-work is": 1}},
		{"all of it at once", writeAllAtOnce, map[string]int{"bitmap-work is": 30000, "snapshot-table-bytes": 1}},
		{"extensions in all of the first cluster", writeExtensions, nil},
		{"an extension as long as the first cluster", writeLongExtension, map[string]int{`"length": 2096000`: 1}},
		{"feature names in all of the first cluster", writeFeatureNames, map[string]int{`"kind": "incompatible"`: 1024}},
	}
}

func shortName(i int) string { return fmt.Sprintf("bitmap%d", i) }

// hostileName is a name of n bytes that are no UTF-8 and cost most when escaped.
func hostileName(n int) func(int) string {
	return func(i int) string {
		return fmt.Sprintf("%06d", i) + strings.Repeat("\x1b\xff", n/2)[:n-6]
	}
}

func be(values ...any) []byte {
	var b bytes.Buffer
	for _, v := range values {
		if err := binary.Write(&b, binary.BigEndian, v); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

// padTo8 adds zeros up to a multiple of 8.
func padTo8(b []byte) []byte { return append(b, make([]byte, -len(b)&7)...) }

// tableAt is where the tables begin that the tests add to a small image.
const tableAt = 1 << 20

// writeTable writes a sound image with a table added that patch names in its header.
func writeTable(t *testing.T, path string, spec build.Spec, table []byte, patch func(head []byte)) {
	t.Helper()
	img := build.Must(spec)
	patch(img.Bytes)
	writeFile(t, path, img.Bytes)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(table, tableAt)
		err = errorsJoin(err, f.Truncate(tableAt+int64(len(table)+(1<<16))&^(1<<16-1)), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func errorsJoin(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func smallSpec() build.Spec {
	return build.Spec{Size: 16 << 12, ClusterBits: 12, Bitmaps: []build.Bitmap{
		{Name: "first", GranularityBits: 12, Dirty: []build.Range{{Off: 4096, Len: 8192}}}}}
}

// bitmapsData is where the content of the bitmaps extension stands.
func bitmapsData(head []byte) []byte {
	at := bytes.Index(head[:4096], be(uint32(0x23852875), uint32(24)))
	return head[at+8 : at+32]
}

// writeBitmaps writes an image with n bitmaps that share the table of one.
func writeBitmaps(n int, granularity uint8, name func(int) string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		spec := smallSpec()
		img := build.Must(spec)
		first := img.Bytes[img.At("bitmap[0]").Off:]
		var dir []byte
		for i := range n {
			s := name(i)
			dir = append(dir, first[:16]...)
			dir = append(dir, be(uint8(1), granularity, uint16(len(s)), uint32(0))...)
			dir = padTo8(append(dir, s...))
		}
		writeTable(t, path, spec, dir, func(head []byte) {
			copy(bitmapsData(head), be(uint32(n), uint32(0), uint64(len(dir)), uint64(tableAt)))
		})
	}
}

func writeSnapshots(n int, name func(int) string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		spec := smallSpec()
		l1 := binary.BigEndian.Uint64(build.Must(spec).Bytes[40:])
		var table []byte
		for i := range n {
			id, s := fmt.Sprint(i), name(i)
			table = append(table, be(l1, uint32(1), uint16(len(id)), uint16(len(s)), uint32(i), uint32(0), uint64(i)*1e9, uint32(0), uint32(16),
				uint64(0), uint64(16<<12))...)
			table = padTo8(append(append(table, id...), s...))
		}
		writeTable(t, path, spec, table, func(head []byte) {
			copy(head[60:], be(uint32(n), uint64(tableAt)))
		})
	}
}

// A disk of 1 TiB, whose bitmaps of 256 MiB each have one table together, in which
// every entry names one cluster.
func writeSharedTable(t *testing.T, path string) {
	writeBigBitmap(t, path, 65535, 1<<40, shortName)
}

// As many names as are listed, of bitmaps with as much data as is counted and of
// snapshots.
func writeAllAtOnce(t *testing.T, path string) {
	writeBigBitmap(t, path, 40000, 1<<40, hostileName(100))
	from := filepath.Join(t.TempDir(), "snapshots")
	writeSnapshots(8000, hostileName(900))(t, from)
	table, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	const at = 512 << 20
	patchFile(t, path, table[tableAt:], at)
	patchFile(t, path, be(uint32(8000), uint64(at)), 60)
}

func patchFile(t *testing.T, path string, b []byte, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(b, at)
		err = errorsJoin(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A bitmap whose table and data are the holes of a sparse file, or what a file
// system without holes has in their place: nothing that was ever written.
func writeHoleBitmap(t *testing.T, path string) {
	writeBigBitmap(t, path, 1, 1<<43, shortName)
}

// writeBigBitmap makes an image with n bitmaps of a large disk, all with one table.
// Its entries name one cluster if there are several bitmaps, and a cluster each if
// there is one.
func writeBigBitmap(t *testing.T, path string, n int, size uint64, name func(int) string) {
	const tableHost, fileSize = 1 << 30, 8 << 30
	l1Entries := size >> 21             // 2 MiB for each L2 table of 4 KiB
	entries := size / 512 / 8 / 4096    // of the bitmap table
	l1 := fileSize - int64(l1Entries)*8 // in a hole
	var dir []byte
	for i := range n {
		s := name(i)
		dir = append(dir, be(uint64(tableHost), uint32(entries), uint32(0), uint8(1), uint8(9), uint16(len(s)), uint32(0))...)
		dir = padTo8(append(dir, s...))
	}
	table := make([]byte, entries*8)
	for i := range entries {
		host := tableHost + entries*8 + i*4096
		if n > 1 {
			host = tableHost
		}
		binary.BigEndian.PutUint64(table[i*8:], host)
	}
	writeTable(t, path, smallSpec(), dir, func(head []byte) {
		copy(bitmapsData(head), be(uint32(n), uint32(0), uint64(len(dir)), uint64(tableAt)))
		copy(head[24:], be(size))
		copy(head[36:], be(uint32(l1Entries), uint64(l1)))
	})
	patchFile(t, path, table, tableHost)
	if err := os.Truncate(path, fileSize); err != nil {
		t.Fatal(err)
	}
}

// bigHeader is a header with clusters of 2 MiB and the extensions that are given.
func bigHeader(t *testing.T, path string, extensions ...build.Extension) {
	t.Helper()
	writeFile(t, path, build.Must(build.Spec{Size: 1 << 21, ClusterBits: 21, Extensions: extensions}).Bytes)
}

func writeExtensions(t *testing.T, path string) {
	bigHeader(t, path)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(bytes.Repeat(be(uint32(0x11223344), uint32(0)), (2<<20-112)/8), 104)
		err = errorsJoin(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func writeLongExtension(t *testing.T, path string) {
	bigHeader(t, path, build.Extension{Type: 0x11223344, Data: make([]byte, 2096000)})
}

func writeFeatureNames(t *testing.T, path string) {
	row := append([]byte{0, 63}, bytes.Repeat([]byte{0x1b}, 46)...)
	bigHeader(t, path, build.Extension{Type: 0x6803f857, Data: bytes.Repeat(row, 43600)})
}

// maxInfoMemory is what an info of any image may use, in bytes.
const maxInfoMemory = 64 << 20

// TestInfoOfHugeImages runs info as a process of its own on images that claim as
// much as the format lets them: little memory, and an end. The work that counting
// may cost is bounded in bytes (see TestDirtyCounterWork in qcow2); the time is
// only told.
func TestInfoOfHugeImages(t *testing.T) {
	binary := buildQbit(t)
	path := filepath.Join(t.TempDir(), "image")
	for _, image := range hugeImages() {
		t.Run(image.name, func(t *testing.T) {
			image.write(t, path)
			for _, args := range [][]string{{"info", path}, {"info", "--output=json", path}, {"inspect", "--policy", path}} {
				counted := &needles{count: map[string]int{}}
				for needle := range image.says {
					counted.count[needle] = 0
				}
				used := runMeasured(t, counted, append([]string{binary}, args...)...)
				t.Logf("%s: %v of CPU, %d MiB, %d MiB of text", args[:2], used.cpu, used.memory>>20, counted.bytes>>20)
				if used.memory > maxInfoMemory {
					t.Errorf("qbit %s: %d MiB of memory", args[1], used.memory>>20)
				}
				if counted.panics > 0 {
					t.Errorf("qbit %s panics", args[1])
				}
				for needle, want := range image.says {
					if got := counted.count[needle]; args[1] == "--output=json" && got < want {
						t.Errorf("qbit %s: %d times %q, want %d", args[1], got, needle, want)
					}
				}
			}
		})
	}
}

// Lists need no memory, also where the user raises the limits.
func TestInfoStreams(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	writeSnapshots(30000, hostileName(900))(t, path)
	for _, output := range []string{"human", "json"} {
		counted := &needles{count: map[string]int{"029999": 0}}
		used := runMeasured(t, counted, buildQbit(t), "info", "--output="+output, "--limit=snapshot-table-bytes=64M", path)
		t.Logf("%s: %v of CPU, %d MiB, %d MiB of text", output, used.cpu, used.memory>>20, counted.bytes>>20)
		if used.memory > maxInfoMemory || used.status != 0 || counted.count["029999"] == 0 {
			t.Errorf("%s: %d MiB of memory, status %d, the last snapshot stands %d times", output, used.memory>>20, used.status, counted.count["029999"])
		}
	}
}

// usage is what a process needed.
type usage struct {
	cpu    time.Duration
	memory int64 // bytes, at the most
	status int
}

// runMeasured runs a command and measures it. It is not started by this process:
// Linux counts the memory of the process that starts another as that one's.
func runMeasured(t *testing.T, out io.Writer, args ...string) usage {
	t.Helper()
	cmd := exec.Command("measure", args...)
	told := filepath.Join(t.TempDir(), "usage")
	cmd.Env = append(os.Environ(), "MEASURE_TO="+told)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	var u usage
	text, err := os.ReadFile(told)
	if err == nil {
		_, err = fmt.Sscan(string(text), &u.cpu, &u.memory, &u.status)
	}
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// measureMain is the command that runMeasured runs.
func measureMain() {
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	_ = cmd.Run()
	state := cmd.ProcessState
	text := fmt.Sprintln(int64(state.UserTime()+state.SystemTime()), state.SysUsage().(*syscall.Rusage).Maxrss<<10, state.ExitCode())
	if err := os.WriteFile(os.Getenv("MEASURE_TO"), []byte(text), 0o666); err != nil {
		panic(err)
	}
}

// needles counts strings in what is written, line by line.
type needles struct {
	count  map[string]int
	line   []byte
	bytes  int
	panics int
}

func (n *needles) Write(p []byte) (int, error) {
	n.bytes += len(p)
	n.line = append(n.line, p...)
	end := bytes.LastIndexByte(n.line, '\n') + 1
	whole := n.line[:end]
	for needle := range n.count {
		n.count[needle] += bytes.Count(whole, []byte(needle))
	}
	n.panics += bytes.Count(whole, []byte("goroutine "))
	n.line = append(n.line[:0], n.line[end:]...)
	return len(p), nil
}

var _ io.Writer = (*needles)(nil)
