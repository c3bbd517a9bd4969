package qcow2

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Bytes of the file that stand for the permissions: 100+i is locked by who uses
// permission i, 200+i by who denies it to others.
const (
	lockUsed   = 100
	lockDenied = 200
)

// Lock locks an image in a way that QEMU and other readers and writers here see.
// The lock belongs to the open file: it ends with Unlock, or when f and all its
// duplicates are closed. Two files that one process opened count as strangers.
//
// Errors: *LockError (wraps ErrLocked); ErrNoLocks where the filesystem has none.
func Lock(f *os.File, mode LockMode) error {
	uses, denies := mode.permissions()
	err := takeLocks(f, uses, denies)
	if err == nil {
		err = checkLocks(f, uses, denies)
	}
	if err != nil {
		Unlock(f) // whatever was taken; it cannot fail worse than err
	}
	return err
}

// Unlock frees what Lock took.
func Unlock(f *os.File) error {
	return setLock(f, unix.F_UNLCK, lockUsed, lockDenied+permCount-lockUsed)
}

// takeLocks announces us first; checkLocks then looks for others, so that of two
// who come at the same time at least one sees the other.
func takeLocks(f *os.File, uses, denies uint) error {
	for i := range permCount {
		if uses&(1<<i) != 0 {
			if err := setLock(f, unix.F_RDLCK, int64(lockUsed+i), 1); err != nil {
				return err
			}
		}
		if denies&(1<<i) != 0 {
			if err := setLock(f, unix.F_RDLCK, int64(lockDenied+i), 1); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkLocks(f *os.File, uses, denies uint) error {
	for i := range permCount {
		if uses&(1<<i) != 0 {
			if err := checkLock(f, lockDenied, i); err != nil {
				return err
			}
		}
		if denies&(1<<i) != 0 {
			if err := checkLock(f, lockUsed, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkLock fails if another open file holds the byte of permission i.
func checkLock(f *os.File, base, i int) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: int64(base + i), Len: 1}
	if err := fcntlLock(f, unix.F_OFD_GETLK, &lock); err != nil {
		return err
	}
	if lock.Type != unix.F_UNLCK {
		return &LockError{Permission: permNames[i], Uses: base == lockUsed}
	}
	return nil
}

func setLock(f *os.File, kind int16, start, n int64) error {
	return fcntlLock(f, unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: start, Len: n})
}

func fcntlLock(f *os.File, cmd int, lock *unix.Flock_t) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = fcntlRetry(fd, cmd, lock) }); err != nil {
		return err
	}
	switch {
	case failed == nil:
		return nil
	case errors.Is(failed, unix.EINVAL), errors.Is(failed, unix.ENOTSUP), errors.Is(failed, unix.ENOSYS), errors.Is(failed, unix.ENOLCK):
		return fmt.Errorf("%w (%w)", ErrNoLocks, failed)
	case errors.Is(failed, unix.EAGAIN), errors.Is(failed, unix.EACCES):
		// Only a process that locks in some other way than QEMU takes these.
		return &LockError{Permission: permNames[permOf(lock.Start)]}
	}
	return fmt.Errorf("locking the image: %w", failed)
}

func fcntlRetry(fd uintptr, cmd int, lock *unix.Flock_t) error {
	for {
		if err := unix.FcntlFlock(fd, cmd, lock); err != unix.EINTR {
			return err
		}
	}
}

// permOf is the number of the permission that a byte stands for.
func permOf(start int64) int64 { return start % 100 % permCount }
