//go:build !linux

package main

import (
	"io/fs"
	"syscall"
)

const (
	nonBlock     = syscall.O_NONBLOCK
	noAccessTime = 0
)

// allocatedBytes is how much of its filesystem a file occupies.
func allocatedBytes(info fs.FileInfo) int64 { return info.Size() }

// nextRun says where holes are; here nothing can tell.
func nextRun(_ *imageFile, _, end int64) (isData bool, runEnd int64) { return true, end }
