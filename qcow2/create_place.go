package qcow2

import "fmt"

// Place allocates the clusters of guest bytes for a caller that fills them in the
// file itself, as where a filesystem shares extents between files. The result is
// where the byte at off stands in the file, and how many bytes from there on
// belong to the range: at least one, and at most n, which must be positive. What
// is placed and not filled has to be written with WriteAt, or reads as what the
// file holds there. It may be called from several goroutines, as WriteAt may.
func (w *Writer) Place(off, n int64) (host HostOffset, run int64, err error) {
	if off < 0 || n <= 0 || off > w.size || n > w.size-off {
		return 0, 0, fmt.Errorf("placing [%d, +%d): empty, or outside of the disk (%d bytes)", off, n, w.size)
	}
	host, run, err = w.place(off, n)
	if err != nil {
		w.fail(err)
	}
	return host, run, err
}
