package main

import (
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/qbitkit/qbit/testimages/build"
)

func TestOpenKinds(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(dir+"/fifo", 0o666); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", dir+"/socket")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for path, want := range map[string]string{
		dir + "/fifo": "a FIFO", dir + "/socket": "a socket", dir: "a directory", "/dev/null": "a character device",
		dir + "/gone": "no such file",
	} {
		if _, err := openFile(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error is %v, want %q", path, err, want)
		}
	}
}

// A FIFO as backing file must not make us wait, whatever the policy.
func TestOpenFIFOBelow(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(dir+"/fifo", 0o666); err != nil {
		t.Fatal(err)
	}
	writeImage(t, dir+"/top", build.Spec{ClusterBits: 10, Backing: "fifo", BackingFormat: "raw"})
	for _, policy := range []refPolicy{{trust: true}, {allow: []string{dir}}} {
		if _, err := openOverlay(t, policy, dir+"/top"); err == nil || !strings.Contains(err.Error(), "a FIFO") {
			t.Errorf("with %+v: error is %v", policy, err)
		}
	}
}

func TestOpenReadsOnly(t *testing.T) {
	path := t.TempDir() + "/image"
	writeFile(t, path, []byte("content"))
	f, err := openFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("the file can be written")
	}
	if f.size != 7 {
		t.Errorf("size is %d, want 7", f.size)
	}
}

func TestForeignFormats(t *testing.T) {
	pad := func(s string) []byte { return append([]byte(s), make([]byte, 1024-len(s))...) }
	vdi := make([]byte, 1024)
	copy(vdi[0x40:], "\x7f\x10\xda\xbe")
	fixedVHD := make([]byte, 2048)
	copy(fixedVHD[1536:], "conectix")
	for want, content := range map[string][]byte{
		"vmdk": pad("KDMV"), "vhdx": pad("vhdxfile"), "vdi": vdi, "vpc": fixedVHD, "parallels": pad("WithoutFreeSpace"),
		"qed": pad("QED\x00"), "luks": pad("LUKS\xba\xbe"), "qcow (version 1)": pad("QFI\xfb\x00\x00\x00\x01"),
		"asif": pad("shdw"),
	} {
		path := t.TempDir() + "/image"
		writeFile(t, path, content)
		_, err := openOverlay(t, refPolicy{}, path)
		if err == nil || !strings.Contains(err.Error(), "it is a "+want+" image") || statusOf(err) != exitFailed {
			t.Errorf("%s: error is %v", want, err)
		}
	}
}

func TestNotQcow2(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "short": "QFI", "text": strings.Repeat("hello", 1000), "zeros": strings.Repeat("\x00", 5000)} {
		path := t.TempDir() + "/image"
		writeFile(t, path, []byte(content))
		if _, err := openOverlay(t, refPolicy{}, path); err == nil || !strings.Contains(err.Error(), "not a qcow2 image") || statusOf(err) != exitBad {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

// raw is the user's word: the content is not looked at.
func TestRawIsNotProbed(t *testing.T) {
	path := t.TempDir() + "/image"
	writeImage(t, path, build.Spec{Backing: "/etc/passwd"})
	c, _ := testConsole()
	o, err := new(sourceFlags).newOpener(c)
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	ch, err := o.openDisk("raw:" + path)
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 4)
	if _, err := ch.disk.ReadAt(head, 0); err != nil || string(head) != "QFI\xfb" {
		t.Errorf("the disk begins with %q, %v", head, err)
	}
	info, err := os.Stat(path)
	if err != nil || ch.disk.Size() != info.Size() {
		t.Errorf("the disk has %d bytes, %v", ch.disk.Size(), err)
	}
}
