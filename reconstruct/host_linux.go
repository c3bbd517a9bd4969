package reconstruct

import (
	"errors"
	"io"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fileHoles finds the holes of a file with lseek(2).
type fileHoles struct{ f *os.File }

func (h fileHoles) NextData(off int64) (int64, error) {
	next, err := h.seek(off, unix.SEEK_DATA)
	if unsupported(err) {
		return off, nil
	}
	return next, err
}

func (h fileHoles) NextHole(off int64) (int64, error) {
	next, err := h.seek(off, unix.SEEK_HOLE)
	if unsupported(err) {
		return math.MaxInt64, nil
	}
	return next, err
}

func (h fileHoles) seek(off int64, whence int) (int64, error) {
	next, err := h.f.Seek(off, whence)
	if errors.Is(err, unix.ENXIO) {
		return 0, io.EOF
	}
	return next, err
}

// unsupported reports an error with which a kernel, a filesystem or a device
// says that it does not know an operation.
func unsupported(err error) bool {
	for _, no := range []unix.Errno{unix.EOPNOTSUPP, unix.ENOSYS, unix.EINVAL, unix.ENOTTY, unix.ENODEV} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// The ways to zero a range without writing it, for files and for block devices
// (there they are what BLKDISCARD with the promise of zeros and BLKZEROOUT do). The
// last one is for block devices of kernels before 4.9, whose fallocate(2) knows none.
var zeroModes = []uint32{
	unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE,
	unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE,
	zeroOut,
}

// zeroOut is no mode of fallocate(2), but ioctl BLKZEROOUT.
const zeroOut = 1 << 31

// zeroRange makes a range read as zero with the given way of zeroModes.
func zeroRange(f *os.File, mode uint32, off, n int64) error {
	return withFd(f, func(fd int) error {
		if mode == zeroOut {
			return blockZeroOut(fd, off, n)
		}
		return unix.Fallocate(fd, mode, off, n)
	})
}

func blockZeroOut(fd int, off, n int64) error {
	area := [2]uint64{uint64(off), uint64(n)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&area))); errno != 0 {
		return errno
	}
	return nil
}

// openExclusive is the flag with which a block device that is mounted or held
// by another is refused.
const openExclusive = unix.O_EXCL

// openNonblock keeps the opening of a FIFO from waiting.
const openNonblock = unix.O_NONBLOCK

// directFlag opens a file for direct I/O.
const directFlag = unix.O_DIRECT

// renameNew renames a file and refuses to replace another.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if unsupported(err) {
		return linkNew(from, to)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// startWriteback has the system begin to store what was written to f, and does
// not wait for that. What goes wrong comes out at the next sync.
func startWriteback(f *os.File) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	conn.Control(func(fd uintptr) {
		unix.SyncFileRange(int(fd), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	})
}
