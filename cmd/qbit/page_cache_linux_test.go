package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// held is how many pages of a file are in the page cache.
func held(t *testing.T, path string) uint64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var stat unix.Cachestat_t
	if err := control(f, func(fd uint) error { return unix.Cachestat(fd, &unix.CachestatRange{}, &stat, 0) }); err != nil {
		t.Skipf("cachestat: %v", err)
	}
	return stat.Cache
}

// With --direct a restore leaves in the page cache what was there, and nothing else.
func TestDirectKeepsCache(t *testing.T) {
	dir := t.TempDir()
	disk, out := filepath.Join(dir, "disk"), filepath.Join(dir, "out")
	content := make([]byte, 8<<20)
	for i := range content {
		content[i] = byte(i>>12) | 1
	}
	writeFile(t, disk, content)
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range []struct{ warm, direct bool }{{false, true}, {true, true}, {false, false}} {
		f.Sync()
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil || held(t, disk) != 0 {
			t.Skip("this filesystem is nothing but page cache")
		}
		if c.warm {
			f.ReadAt(make([]byte, len(content)), 0)
		}
		args := []string{"restore", "-q", "--reflink=never", "-o", out, "raw:" + disk}
		if c.direct {
			args = append(args, "--direct")
		}
		if _, stderr, status := qbit(args...); status != 0 {
			t.Skip(stderr)
		}
		if got, want := held(t, disk) > 64, c.warm || !c.direct; got != want {
			t.Errorf("%+v: %d pages of what was read are in the page cache", c, held(t, disk))
		}
		if got := held(t, out) > 64; got == c.direct {
			t.Errorf("%+v: %d pages of what was written are in the page cache", c, held(t, out))
		}
		os.Remove(out)
	}
}
