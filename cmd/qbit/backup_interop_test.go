package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages/interop"
)

// A backupCase is a disk whose changes QEMU records.
type backupCase struct {
	name    string
	create  string // options of qemu-img create for the disk
	overlay bool   // the disk is an overlay: changes before it went to its backing file
	target  int64  // cluster size of the increment
}

var backupCases = []backupCase{
	{"plain", "cluster_size=64k", false, 64 << 10},
	{"small clusters", "cluster_size=4k", false, 4 << 10},
	{"large target", "cluster_size=64k", false, 2 << 20},
	{"extended L2", "cluster_size=128k,extended_l2=on", false, 64 << 10},
	{"chain", "cluster_size=64k", true, 64 << 10},
	{"data file", "cluster_size=64k,data_file=disk.data", false, 64 << 10},
}

// TestInteropBackup has QEMU record writes, zeroes and discards in a bitmap, and makes
// the increment of it twice: qbit's holds the same ranges as that of QEMU's own backup
// job, with the same bytes, and both restore to the disk.
func TestInteropBackup(t *testing.T) {
	interop.Need(t, "qemu-img", "qemu-io", "qemu-storage-daemon", "xmllint")
	for i, tt := range backupCases {
		t.Run(tt.name, func(t *testing.T) {
			s := &backupSite{t: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(uint64(i), 3))}
			t.Chdir(s.dir)
			interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", tt.create, "disk.qcow2", "16M")
			s.write("disk.qcow2", 12)
			s.qbit("backup", "--trust", "disk.qcow2", "-o", "full.qcow2", "--checkpoint", "cp1", "--cluster-size", fmt.Sprint(tt.target))
			s.write("disk.qcow2", 8)
			top := "disk.qcow2"
			if tt.overlay {
				top = "over.qcow2"
				interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "disk.qcow2", "-F", "qcow2", top)
				interop.Run(t, "qemu-img", "bitmap", "--add", top, "cp1")
				s.write(top, 8)
			}
			s.increment(tt, top)
			s.documents()
		})
	}
}

// A backupSite is a folder with a disk and its backups.
type backupSite struct {
	t   *testing.T
	dir string
	rng *rand.Rand
}

// write has QEMU write to an image.
func (s *backupSite) write(path string, n int) {
	s.t.Helper()
	args := []string{"-d", "unmap", "-f", "qcow2"}
	for range n {
		off := s.rng.Int64N(15<<20) &^ 511
		length := 512 * (1 + s.rng.Int64N(700))
		verb := []string{fmt.Sprintf("write -P %d", 1+s.rng.IntN(250)), "write -z", "write -z -u", "discard"}[s.rng.IntN(4)]
		args = append(args, "-c", fmt.Sprintf("%s %d %d", verb, off, length))
	}
	interop.Run(s.t, "qemu-io", append(args, path)...)
}

func (s *backupSite) qbit(args ...string) string {
	s.t.Helper()
	var out, errs strings.Builder
	c := systemConsole()
	c.out, c.err = &out, &errs
	if status := run(s.t.Context(), c, args); status != 0 {
		s.t.Fatalf("qbit %q: status %d\n%s%s", args, status, &out, &errs)
	}
	return out.String()
}

// increment makes the increment of cp1 by qbit and by QEMU, and compares.
func (s *backupSite) increment(tt backupCase, top string) {
	s.t.Helper()
	cluster := fmt.Sprint(tt.target)
	before := s.sum(top)
	s.qbit("backup", "--trust", top, "--since", "cp1", "-o", "inc.qcow2", "--no-backing", "--cluster-size", cluster)
	if s.sum(top) != before {
		s.t.Error("the disk is another file after the backup")
	}
	s.qbit("backup", "--trust", top, "--since", "cp1", "-o", "packed.qcow2", "--no-backing", "--no-xml", "--cluster-size", cluster, "--compress=zstd")
	s.qemuIncrement(top, cluster)
	want := s.present("qemu.qcow2")
	for _, name := range []string{"inc.qcow2", "packed.qcow2"} {
		interop.Run(s.t, "qemu-img", "check", "-q", name)
		interop.Run(s.t, "qemu-img", "compare", "-q", name, "qemu.qcow2")
		if got := s.present(name); !slices.Equal(got, want) {
			s.t.Errorf("%s holds %v, and QEMU's own %v", name, got, want)
		}
		interop.Run(s.t, "qemu-img", "rebase", "-u", "-b", "full.qcow2", "-F", "qcow2", name)
		interop.Run(s.t, "qemu-img", "compare", "-q", name, top)
	}
}

func (s *backupSite) sum(path string) string {
	return strings.Fields(string(interop.Run(s.t, "sha256sum", path)))[0]
}

// qemuIncrement has QEMU's backup job write qemu.qcow2. For a chain, the bitmap of the
// image below is merged first, as libvirt does.
func (s *backupSite) qemuIncrement(top, cluster string) {
	interop.Run(s.t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size="+cluster, "qemu.qcow2", "16M")
	if top != "disk.qcow2" {
		interop.Run(s.t, "qemu-img", "bitmap", "--merge", "cp1", "-b", "disk.qcow2", "-F", "qcow2", top, "cp1")
	}
	q := startStorageDaemon(s.t, "--blockdev", "driver=qcow2,node-name=src,discard=unmap,file.driver=file,file.filename="+top,
		"--blockdev", "driver=qcow2,node-name=dst,discard=unmap,file.driver=file,file.filename=qemu.qcow2,file.discard=unmap")
	q.do("blockdev-backup", map[string]any{"job-id": "b", "device": "src", "target": "dst", "sync": "incremental", "bitmap": "cp1"})
	q.wait("BLOCK_JOB_COMPLETED")
	q.end()
}

// present are the ranges that an image without backing file holds, as data or zero.
func (s *backupSite) present(path string) (all [][2]int64) {
	var found []struct {
		Start, Length int64
		Present       bool
	}
	if err := json.Unmarshal(interop.Run(s.t, "qemu-img", "map", "--output=json", path), &found); err != nil {
		s.t.Fatal(err)
	}
	for _, e := range found {
		if n := len(all); !e.Present {
			continue
		} else if n > 0 && all[n-1][1] == e.Start {
			all[n-1][1] += e.Length
		} else {
			all = append(all, [2]int64{e.Start, e.Start + e.Length})
		}
	}
	return all
}

// documents has libvirt's own schemas judge all documents here.
func (s *backupSite) documents() {
	s.t.Helper()
	const schemas = "/usr/share/libvirt/schemas/"
	if _, err := os.Stat(schemas); err != nil {
		return
	}
	for pattern, schema := range map[string]string{"*.backup.xml": "domainbackup.rng", "cp*.xml": "domaincheckpoint.rng"} {
		found, err := filepath.Glob(filepath.Join(s.dir, pattern))
		if err != nil || len(found) == 0 {
			s.t.Fatalf("%s: %v, %v", pattern, found, err)
		}
		for _, path := range found {
			if schema != "domainbackup.rng" && strings.HasSuffix(path, ".backup.xml") {
				continue
			}
			interop.Run(s.t, "xmllint", "--noout", "--relaxng", schemas+schema, path)
		}
	}
}

// A storageDaemon is QEMU's, spoken to over its standard input and output.
type storageDaemon struct {
	t   *testing.T
	cmd *exec.Cmd
	in  *json.Encoder
	out *bufio.Scanner
}

func startStorageDaemon(t *testing.T, args ...string) *storageDaemon {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "qemu-storage-daemon", append(args, "--chardev", "stdio,id=m,signal=off", "--monitor", "chardev=m")...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	q := &storageDaemon{t: t, cmd: cmd, in: json.NewEncoder(in), out: bufio.NewScanner(out)}
	q.do("qmp_capabilities", nil)
	return q
}

// do runs a command and waits for its answer.
func (q *storageDaemon) do(command string, args map[string]any) {
	q.t.Helper()
	message := map[string]any{"execute": command}
	if args != nil {
		message["arguments"] = args
	}
	if err := q.in.Encode(message); err != nil {
		q.t.Fatal(err)
	}
	q.read(func(m map[string]any) bool { _, ok := m["return"]; return ok })
}

// wait waits for an event.
func (q *storageDaemon) wait(event string) {
	q.t.Helper()
	q.read(func(m map[string]any) bool { return m["event"] == event })
}

func (q *storageDaemon) read(until func(map[string]any) bool) {
	q.t.Helper()
	for q.out.Scan() {
		m := map[string]any{}
		if err := json.Unmarshal(q.out.Bytes(), &m); err != nil {
			q.t.Fatalf("%v: %s", err, q.out.Text())
		}
		if data, ok := m["data"].(map[string]any); m["error"] != nil || ok && data["error"] != nil {
			q.t.Fatalf("qemu-storage-daemon: %s", q.out.Text())
		}
		if until(m) {
			return
		}
	}
	q.t.Fatalf("qemu-storage-daemon ended: %v", q.out.Err())
}

// end has it write its bitmaps and leave.
func (q *storageDaemon) end() {
	q.do("quit", nil)
	for q.out.Scan() {
	}
	if err := q.cmd.Wait(); err != nil {
		q.t.Fatal(err)
	}
}
