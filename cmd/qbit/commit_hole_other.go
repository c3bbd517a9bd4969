//go:build !linux

package main

import (
	"errors"
	"os"
)

// punchHole deallocates a range; here it cannot.
func punchHole(*os.File, int64, int64) error { return errors.ErrUnsupported }
