//go:build !linux

package main

import (
	"errors"
	"os"
)

// allocate has the filesystem make room for a file; here nothing does.
func allocate(*os.File, int64) error {
	return errors.New("this system makes no room in advance: use preallocation=full or off")
}
