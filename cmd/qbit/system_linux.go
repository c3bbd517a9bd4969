package main

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	nonBlock     = unix.O_NONBLOCK
	noAccessTime = unix.O_NOATIME
)

// allocatedBytes is how much of its filesystem a file occupies.
func allocatedBytes(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// nextRun finds where the first run of data (or of hole) at or after off begins
// and ends within [off, end). Filesystems without holes have one run of data.
func nextRun(f *imageFile, off, end int64) (isData bool, runEnd int64) {
	data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO:
		return false, end
	case err != nil:
		return true, end
	case data > off:
		return false, min(data, end)
	}
	hole, err := unix.Seek(int(f.Fd()), off, unix.SEEK_HOLE)
	if err != nil {
		return true, end
	}
	return true, min(hole, end)
}
