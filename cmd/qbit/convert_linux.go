package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// allocate has the filesystem make room for a file of size bytes.
func allocate(f *os.File, size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		if err != unix.EINTR {
			return err
		}
	}
}
