package qcow2

import "io"

// File is what creating or changing an image needs. Sync is the only ordering:
// writes between two syncs may reach the disk in any order.
type File interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
}
