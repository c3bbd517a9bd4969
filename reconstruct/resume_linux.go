package reconstruct

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// openNoFollow refuses a symbolic link.
const openNoFollow = unix.O_NOFOLLOW

// lockResume locks a journal for one process, until the file is closed. It is
// ErrResumeBusy where another has it. A filesystem without locks gives none.
func lockResume(f *os.File) error {
	err := withFd(f, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return ErrResumeBusy
	case unsupported(err), errors.Is(err, unix.ENOLCK):
		return nil
	}
	return err
}

// dropCache has the next reads of a synced file come from where it is stored.
func dropCache(f *os.File) {
	withFd(f, func(fd int) error { return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) })
}
