package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// isCold reports a file of which the page cache holds next to nothing: less than a
// sixteenth. Kernels before 6.5 do not tell; then no file is taken for one.
func isCold(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	var held unix.Cachestat_t
	err = control(f, func(fd uint) error { return unix.Cachestat(fd, &unix.CachestatRange{}, &held, 0) })
	return err == nil && held.Cache < uint64(info.Size())/uint64(os.Getpagesize())/16
}

// forget drops what the page cache holds of a file and need not be stored.
func forget(f *os.File) {
	control(f, func(fd uint) error { return unix.Fadvise(int(fd), 0, 0, unix.FADV_DONTNEED) }) // advice: it cannot fail
}

func control(f *os.File, do func(fd uint) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = do(uint(fd)) }); err != nil {
		return err
	}
	return failed
}
