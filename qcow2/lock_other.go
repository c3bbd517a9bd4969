//go:build !linux

package qcow2

import "os"

// Lock cannot lock on this system: QEMU's locks are Linux's. It returns ErrNoLocks.
func Lock(*os.File, LockMode) error { return ErrNoLocks }

// Unlock frees what Lock took.
func Unlock(*os.File) error { return nil }
