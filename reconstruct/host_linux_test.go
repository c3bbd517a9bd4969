package reconstruct

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestOutputUmask(t *testing.T) {
	old := syscall.Umask(0o027)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "x")
	out, err := CreateOutput(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := out.File().Stat(); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v while it is written, want 0600", info.Mode())
	}
	if err := out.Commit(); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, want 0640", info.Mode())
	}
}

// A FIFO must not make us wait.
func TestOntoFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	if _, err := OpenOnto(path, 0, nil); err == nil {
		t.Error("a FIFO is accepted")
	}
	if _, err := CreateRaw(path, 0, &OutputOptions{Overwrite: true}); err == nil {
		t.Error("a FIFO is replaced")
	}
}

func TestSymlinkIsNotReplaced(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "link")
	if err := os.Symlink("file", path); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateRaw(path, 0, &OutputOptions{Overwrite: true}); err == nil {
		t.Error("a symbolic link is replaced")
	}
	os.Remove(path)
	target, err := CreateRaw(path, 0, &OutputOptions{Overwrite: true})
	if err != nil {
		t.Fatal(err)
	}
	os.Symlink("file", path) // it appears meanwhile
	if err := target.Commit(); err == nil {
		t.Error("a symbolic link that appeared is replaced")
	}
	if names := entries(t, folder); names != "link" {
		t.Errorf("left %q", names)
	}
}

func TestRawTargetIsSparse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	target, err := CreateRaw(path, 1<<40, nil)
	if err != nil {
		t.Skip(err)
	}
	if _, err := Copy(t.Context(), target, sparseDisk{size: 1 << 40, at: 1 << 39, data: []byte("x")}, nil); err != nil {
		t.Fatal(err)
	}
	if err := target.Commit(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() != 1<<40 || info.Sys().(*syscall.Stat_t).Blocks > 1000 {
		t.Errorf("%+v, %v", info, err)
	}
}

// A stream into a full device ends with the error of the device.
func TestFullDevice(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	d := sparseDisk{size: 1 << 30}
	if _, err := Copy(t.Context(), NewStream(f), d, nil); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
}

// A real block device: root alone can make one.
func TestOntoDevice(t *testing.T) {
	r := rand.New(rand.NewPCG(50, 50))
	d := bigDisk(r, 9<<20+777)
	junk := bytes.Repeat([]byte{0xaa}, 10<<20)
	file := filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(file, junk, 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make a loop device")
	}
	out, err := exec.Command("losetup", "--find", "--show", file).Output()
	if err != nil {
		t.Skipf("losetup: %v", err)
	}
	device := strings.TrimSpace(string(out))
	defer exec.Command("losetup", "--detach", device).Run()
	for way := range int32(len(zeroModes) + 1) {
		copyOntoDevice(t, device, way, d, junk)
	}
	if _, err := OpenOnto(device, 11<<20, nil); err == nil {
		t.Error("a device that is too small is accepted")
	}
}

func copyOntoDevice(t *testing.T, device string, way int32, d *fake, junk []byte) {
	t.Helper()
	if err := os.WriteFile(device, junk, 0); err != nil {
		t.Fatal(err)
	}
	target, err := OpenOnto(device, d.Size(), nil)
	if err != nil {
		t.Fatal(err)
	}
	target.way.Store(way)
	if _, err := Copy(t.Context(), target, d, nil); err != nil {
		t.Fatal(err)
	}
	if err := target.Commit(); err != nil {
		t.Error(err)
	}
	if target.way.Load() != way {
		t.Logf("way %d of zeroing is not known to this device", way)
	}
	wantFile(t, device, append(d.guest(), junk[d.Size():]...))
}
