package main

import (
	"fmt"
	"io/fs"
	"syscall"
)

// inodeOf names a file on its host, whatever it is called.
func inodeOf(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
