package reconstruct

import (
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"sync"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// A windowed disk shows another one where the bitmap is dirty. All else is zero, and so
// is what lies beyond the end of the other one; it has the size of the bitmap.
type windowed struct {
	qcow2.Disk
	seen  *bitmap.Bitmap
	files *fileNames
}

// Size implements qcow2.Disk.
func (w *windowed) Size() int64 { return w.seen.Size() }

// Extents implements qcow2.Disk.
func (w *windowed) Extents(off, n int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		if off < 0 || n < 0 || off > w.Size() || n > w.Size()-off {
			yield(qcow2.Extent{}, fmt.Errorf("range [%d, +%d) is outside of the disk (%d bytes)", off, n, w.Size()))
			return
		}
		for run := range w.seen.Runs(off, n) {
			if !w.run(run, yield) {
				return
			}
		}
	}
}

// run yields the extents of a run; false: the walk is over.
func (w *windowed) run(run bitmap.Run, yield func(qcow2.Extent, error) bool) bool {
	zero := qcow2.Extent{Off: run.Off, Len: run.Len, Kind: qcow2.Zero}
	size := w.Disk.Size()
	if !run.Dirty || run.Off >= size {
		return yield(zero, nil)
	}
	end := run.Off + run.Len
	for e, err := range w.Disk.Extents(run.Off, min(end, size)-run.Off) {
		if e.Storage != nil {
			e.Storage = w.files.canonical(e.Storage)
		}
		if !yield(e, err) || err != nil {
			return false
		}
	}
	return end <= size || yield(zero.Slice(size, end), nil)
}

// fileNames finds storages that are the same file, so that a file which was opened
// twice is one place.
type fileNames struct {
	mu    sync.Mutex
	known []knownStorage
}

// A knownStorage is a storage and the first one that was seen of its file.
type knownStorage struct {
	storage, first io.ReaderAt
	info           fs.FileInfo
}

// canonical is the first storage that was seen of the file that s is.
func (f *fileNames) canonical(s io.ReaderAt) io.ReaderAt {
	file := sysFile(s)
	if file == nil {
		return s
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range f.known {
		if sameValue(k.storage, s) {
			return k.first
		}
	}
	info, err := file.Stat()
	if err != nil {
		return s
	}
	first := s
	for _, k := range f.known {
		if os.SameFile(k.info, info) {
			first = k.first
			break
		}
	}
	f.known = append(f.known, knownStorage{s, first, info})
	return first
}
