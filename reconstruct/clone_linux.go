package reconstruct

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// cloneRange makes the n bytes at to of dst share the blocks of those at from of
// src, as FICLONERANGE does. After an error some of them may share them, and the
// others are what they were.
func cloneRange(dst, src *os.File, to, from, n int64) error {
	return withFd(dst, func(into int) error {
		return withFd(src, func(fd int) error {
			arg := unix.FileCloneRange{Src_fd: int64(fd), Src_offset: uint64(from), Src_length: uint64(n), Dest_offset: uint64(to)}
			return unix.IoctlFileCloneRange(into, &arg)
		})
	})
}

// withFd calls do with the descriptor of f, and again while a signal interrupts it.
func withFd(f *os.File, do func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		for failed = do(int(fd)); errors.Is(failed, unix.EINTR); failed = do(int(fd)) {
		}
	})
	if err != nil {
		return err
	}
	return failed
}

// fsBlock is the size of the blocks of the filesystem of f, to which what is shared
// is aligned; 0 where it is not known.
func fsBlock(f *os.File) int64 {
	var stat unix.Statfs_t
	if err := withFd(f, func(fd int) error { return unix.Fstatfs(fd, &stat) }); err != nil {
		return 0
	}
	return int64(stat.Bsize)
}

// momentary reports an error with which sharing one range failed, and that says
// nothing about the next one. All others are those of two files (of different
// filesystems, or of one that shares nothing).
func momentary(err error) bool {
	for _, now := range []unix.Errno{unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.ENOMEM, unix.EAGAIN} {
		if errors.Is(err, now) {
			return true
		}
	}
	return false
}
