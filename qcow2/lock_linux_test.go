package qcow2

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/qbitkit/qbit/testimages/interop"
)

func openForLock(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func emptyFile(t *testing.T) string {
	t.Helper()
	path := t.TempDir() + "/image"
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLockModes(t *testing.T) {
	for _, test := range []struct {
		first, second LockMode
		conflict      string
	}{
		{LockRead, LockRead, ""},
		{LockRead, LockReadShared, ""},
		{LockReadShared, LockRead, ""},
		{LockReadShared, LockReadShared, ""},
		{LockReadShared, LockWrite, ""},
		{LockWrite, LockReadShared, ""},
		{LockRead, LockWrite, `does not share the permission "write"`},
		{LockWrite, LockRead, `has the permission "write"`},
		{LockWrite, LockWrite, `does not share the permission "write"`},
	} {
		path := emptyFile(t)
		first, second := openForLock(t, path, os.O_RDWR), openForLock(t, path, os.O_RDWR)
		if err := Lock(first, test.first); err != nil {
			t.Fatal(err)
		}
		err := Lock(second, test.second)
		if (err == nil) != (test.conflict == "") || err != nil && !strings.Contains(err.Error(), test.conflict) {
			t.Errorf("%d then %d: error is %v, want %q", test.first, test.second, err, test.conflict)
		}
		if err != nil && !errors.Is(err, ErrLocked) {
			t.Errorf("%v does not wrap ErrLocked", err)
		}
		if err := Unlock(first); err != nil {
			t.Fatal(err)
		}
		if err := Lock(second, test.second); err != nil {
			t.Errorf("after %d was unlocked: %v", test.first, err)
		}
	}
}

// A lock that fails leaves none of its bytes locked.
func TestLockFailsWhole(t *testing.T) {
	path := emptyFile(t)
	reader, writer, other := openForLock(t, path, os.O_RDONLY), openForLock(t, path, os.O_RDWR), openForLock(t, path, os.O_RDONLY)
	if err := Lock(reader, LockRead); err != nil {
		t.Fatal(err)
	}
	if err := Lock(writer, LockWrite); !errors.Is(err, ErrLocked) {
		t.Fatalf("error is %v", err)
	}
	if err := Lock(other, LockRead); err != nil {
		t.Errorf("the refused writer is in the way: %v", err)
	}
}

// The bytes are QEMU's.
func TestLockBytes(t *testing.T) {
	for mode, want := range map[LockMode][]int64{
		LockRead:       {100, 201, 203},
		LockReadShared: {100},
		LockWrite:      {100, 101, 102, 103, 201, 202, 203},
	} {
		path := emptyFile(t)
		if err := Lock(openForLock(t, path, os.O_RDWR), mode); err != nil {
			t.Fatal(err)
		}
		probe := openForLock(t, path, os.O_RDWR)
		var got []int64
		for at := range int64(300) {
			lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: at, Len: 1}
			if err := unix.FcntlFlock(probe.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
				t.Fatal(err)
			}
			if lock.Type != unix.F_UNLCK {
				got = append(got, at)
			}
		}
		if len(got) != len(want) {
			t.Errorf("mode %d holds %v, want %v", mode, got, want)
			continue
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("mode %d holds %v, want %v", mode, got, want)
			}
		}
	}
}

// Where another program locked a byte for itself alone, that is said too.
func TestLockTaken(t *testing.T) {
	path := emptyFile(t)
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: 201, Len: 1}
	if err := unix.FcntlFlock(openForLock(t, path, os.O_RDWR).Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	if err := Lock(openForLock(t, path, os.O_RDONLY), LockRead); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), `"write"`) {
		t.Errorf("error is %v", err)
	}
}

// holdImage keeps an image open in qemu-io until the test ends.
func holdImage(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("qemu-io", args...)
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
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	// Its answer to a command says that the image is open.
	io.WriteString(in, "length\n")
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), "MiB") {
			return
		}
	}
	t.Fatal("qemu-io ended")
}

func qemuImage(t *testing.T) string {
	t.Helper()
	interop.Need(t, "qemu-img", "qemu-io")
	path := t.TempDir() + "/image.qcow2"
	interop.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
	return path
}

func TestInteropLockQEMUHolds(t *testing.T) {
	for _, test := range []struct {
		args       []string
		read, both bool // we may read; we may write
	}{
		{[]string{"-f", "qcow2"}, false, false},
		{[]string{"-f", "qcow2", "-r"}, true, false},
		{[]string{"-f", "qcow2", "-r", "-U"}, true, true},
	} {
		path := qemuImage(t)
		holdImage(t, append(test.args, path)...)
		f := openForLock(t, path, os.O_RDWR)
		if err := Lock(f, LockRead); (err == nil) != test.read || err != nil && !errors.Is(err, ErrLocked) {
			t.Errorf("qemu-io %v: LockRead gives %v", test.args, err)
		}
		Unlock(f)
		if err := Lock(f, LockReadShared); err != nil {
			t.Errorf("qemu-io %v: LockReadShared gives %v", test.args, err)
		}
		Unlock(f)
		if err := Lock(f, LockWrite); (err == nil) != test.both {
			t.Errorf("qemu-io %v: LockWrite gives %v", test.args, err)
		}
	}
}

func TestInteropLockWeHold(t *testing.T) {
	for _, test := range []struct {
		mode                LockMode
		read, shared, write bool // what QEMU may do
	}{
		{LockRead, true, true, false},
		{LockReadShared, true, true, true},
		{LockWrite, false, true, false},
	} {
		path := qemuImage(t)
		if err := Lock(openForLock(t, path, os.O_RDWR), test.mode); err != nil {
			t.Fatal(err)
		}
		try := func(want bool, tool string, args ...string) {
			out, err := exec.Command(tool, append(args, path)...).CombinedOutput()
			if (err == nil) != want || !want && !strings.Contains(string(out), "lock") {
				t.Errorf("mode %d: %s %v: %v, %s", test.mode, tool, args, err, out)
			}
		}
		try(test.read, "qemu-img", "info")
		try(test.shared, "qemu-img", "info", "-U")
		try(test.write, "qemu-io", "-f", "qcow2", "-c", "write 0 64k")
	}
}
