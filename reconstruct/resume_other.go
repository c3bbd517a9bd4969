//go:build !linux

package reconstruct

import "os"

const openNoFollow = 0

// lockResume knows of no lock here.
func lockResume(*os.File) error { return nil }

// dropCache knows of no way here.
func dropCache(*os.File) {}
