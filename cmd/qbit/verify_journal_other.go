//go:build !linux

package main

import "io/fs"

// inodeOf names a file on its host; here nothing can tell.
func inodeOf(fs.FileInfo) string { return "" }
