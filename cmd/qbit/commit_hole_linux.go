package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// punchHole deallocates a range so that it reads as zero. Where that cannot be it is an
// error, and nothing has changed.
func punchHole(f *os.File, off, n int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}
