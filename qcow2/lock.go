package qcow2

import "errors"

// A LockMode is what the holder of a lock means to do with an image. The locks are
// QEMU's: a running guest and a reader here see each other.
type LockMode uint8

const (
	// LockRead is for reading what does not change meanwhile: nobody else may
	// write or resize.
	LockRead LockMode = iota
	// LockReadShared is for reading whatever others do (qemu-img's -U): only a
	// process that forbids all reading is in the way.
	LockReadShared
	// LockWrite is for changing an image: nobody else may write, and who reads
	// must expect changes.
	LockWrite
)

// ErrNoLocks reports a file, or a system, without byte-range locks. The image
// can be read; nothing keeps others from changing it meanwhile.
var ErrNoLocks = errors.New("the filesystem has no locks")

// A LockError says which permission of another process forbids what was asked. It
// wraps ErrLocked.
type LockError struct {
	// Permission is QEMU's name: "consistent read", "write", "write unchanged",
	// "resize".
	Permission string
	// Uses: the other process uses the permission, and the lock that was asked
	// for does not tolerate that. Otherwise the lock needs the permission, and the
	// other process does not share it.
	Uses bool
}

func (e *LockError) Error() string {
	if e.Uses {
		return ErrLocked.Error() + `, which has the permission "` + e.Permission + `"`
	}
	return ErrLocked.Error() + `, which does not share the permission "` + e.Permission + `"`
}

func (e *LockError) Unwrap() error { return ErrLocked }

// The permissions of QEMU's image locking, as bits.
const (
	permConsistentRead = 1 << iota
	permWrite
	permWriteUnchanged
	permResize

	permCount = 4
)

var permNames = [permCount]string{"consistent read", "write", "write unchanged", "resize"}

// permissions are those that a mode uses, and those that it denies to others.
func (m LockMode) permissions() (uses, denies uint) {
	switch m {
	case LockReadShared:
		return permConsistentRead, 0
	case LockWrite:
		return permConsistentRead | permWrite | permWriteUnchanged | permResize, permWrite | permWriteUnchanged | permResize
	default:
		return permConsistentRead, permWrite | permResize
	}
}
