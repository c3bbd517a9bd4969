package qcow2

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// fallocate has the filesystem set space aside.
func fallocate(f File, off, n int64) error {
	file, ok := f.(syscall.Conn)
	if !ok {
		return fmt.Errorf("setting space aside in a %T: %w", f, errors.ErrUnsupported)
	}
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	done := conn.Control(func(fd uintptr) {
		for {
			if err = unix.Fallocate(int(fd), 0, off, n); err != unix.EINTR {
				return
			}
		}
	})
	if err == nil {
		err = done
	}
	if err != nil {
		return fmt.Errorf("setting %d bytes aside at %d: %w", n, off, err)
	}
	return nil
}
