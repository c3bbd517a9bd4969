package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/testimages/build"
)

// TestBackupOntoDevice writes a full backup and an increment over what stands for a
// block device, full of old bytes that look like anything but zeros.
func TestBackupOntoDevice(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	img, err := build.Spec{Size: 16 << 12, ClusterBits: 12, Clusters: map[uint64]build.Cluster{1: {Form: build.Normal}, 2: {Form: build.ZeroPlain}},
		Bitmaps: []build.Bitmap{{Name: "cp1", Flags: 2, GranularityBits: 12, Dirty: []build.Range{{Off: 4096, Len: 8192}}}}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, "disk.qcow2", img.Bytes)
	writeFile(t, "vm.xml", []byte("<domain type='qemu'><name>vm</name><devices><disk type='file' device='disk'><driver type='qcow2'/>"+
		"<source file='disk.qcow2'/><target dev='vda'/></disk></devices></domain>"))
	for _, since := range []string{"", "<incremental>cp1</incremental>"} {
		for _, compress := range []string{"--compress", "--memory=64M"} {
			device := filepath.Join(dir, "device")
			writeFile(t, "device", bytes.Repeat([]byte{0xa5}, 2<<20))
			writeFile(t, "backup.xml", []byte(fmt.Sprintf("<domainbackup>%s<disks><disk name='vda' type='block'><target dev='%s'/></disk></disks></domainbackup>", since, device)))
			must(0, os.RemoveAll("out"))
			must(0, os.Mkdir("out", 0o777))
			if out, said, status := qbit("backup", compress, "--domain", "vm.xml", "--xml", "backup.xml", "-o", "out", "--no-backing"); status != 0 {
				t.Fatalf("status %d\n%s%s", status, out, said)
			}
			if out, said, status := qbit("compare", "disk.qcow2", "device"); status != 0 {
				t.Errorf("since %q: %s%s", since, out, said)
			}
			if out, said, status := qbit("check", "device"); status != 0 {
				t.Errorf("since %q: %s%s", since, out, said)
			}
		}
	}
	writeFile(t, "device", bytes.Repeat([]byte{0xa5}, 64<<10))
	_, said, status := qbit("backup", "--domain", "vm.xml", "--xml", "backup.xml", "-o", "out", "--force")
	if status != 1 || !strings.Contains(said, "the device has 65536") {
		t.Errorf("too small a device: status %d, %s", status, said)
	}
}

// TestBackupAfterInterruption has the command find the note of a run that was killed:
// before it was decided, and after.
func TestBackupAfterInterruption(t *testing.T) {
	for state, want := range map[string]string{"prepared": "was undone; make it again", "committed": "was finished: "} {
		dir := must(filepath.EvalSymlinks(t.TempDir()))
		t.Chdir(dir)
		img, err := build.Spec{Size: 16 << 12, ClusterBits: 12, Clusters: map[uint64]build.Cluster{1: {Form: build.Normal}},
			Bitmaps: []build.Bitmap{{Name: "cp1", Flags: 2, GranularityBits: 12}, {Name: "older", Flags: 2, GranularityBits: 12}}}.Build()
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, "disk.qcow2", img.Bytes)
		writeFile(t, ".full.qcow2.qbit-0123abcd.partial", img.Bytes)
		writeFile(t, ".disk.qcow2.qbit-backup", []byte(fmt.Sprintf(`{"format":"qbit-backup-intent","version":1,"run":"0123456789abcdef","state":"%[1]s",
			"images":[{"path":"%[2]s/disk.qcow2","bitmap":"cp1"}],
			"files":[{"partial":"%[2]s/.full.qcow2.qbit-0123abcd.partial","path":"%[2]s/full.qcow2"}]}`, state, dir)))
		out, said, status := qbit("backup", "--no-xml", "disk.qcow2", "-o", "again.qcow2")
		if status != 0 || !strings.Contains(said, "an interrupted backup with checkpoint cp1 "+want) {
			t.Errorf("%s: status %d\n%s%s", state, status, out, said)
		}
		list, _, _ := qbit("bitmap", "disk.qcow2")
		finished := state == "committed"
		if strings.Contains(list, "cp1") != finished || !strings.Contains(list, "older") || pathExists("full.qcow2") != finished {
			t.Errorf("%s: the backup is there: %t, the bitmaps are\n%s", state, pathExists("full.qcow2"), list)
		}
		if left := must(filepath.Glob(".*")); len(left) > 0 {
			t.Errorf("%s: %q was left", state, left)
		}
	}
}
