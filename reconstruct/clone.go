package reconstruct

import (
	"io"
	"math/bits"
	"os"
	"sync"
	"sync/atomic"

	"github.com/qbitkit/qbit/qcow2"
)

const (
	// shareLeast is the least that is shared: what a filesystem writes down of a
	// shared range costs more than to copy a shorter one.
	shareLeast = 32 << 10
	// shareMost is the most that one unit, and so one system call, shares.
	shareMost = 256 << 20
)

// A FileStorage is the storage of extents that is a file of the system: what it has
// at an offset is what the file has there. An *os.File is one without having the
// method.
type FileStorage interface {
	io.ReaderAt
	// SysFile is the file, open for reading; nil where there is none after all.
	SysFile() *os.File
}

// sysFile is the file that a storage is, or nil.
func sysFile(storage io.ReaderAt) *os.File {
	switch s := storage.(type) {
	case *os.File:
		return s
	case FileStorage:
		return s.SysFile()
	}
	return nil
}

// A Placer is a Content that says where in the file bytes of the disk belong, so
// that others than itself can put them there.
type Placer interface {
	// Place makes room for the n bytes of the disk at off, n > 0, if it has to. It
	// returns where the first stands in the file, and how many stand there in a
	// row, 1 to n. What nothing is put into must be written after all. It is called
	// as WriteAt is.
	Place(off, n int64) (host, run int64, err error)
}

// A shareTarget is a Target in a file that a filesystem can have share blocks.
type shareTarget interface {
	Placer
	shareFile() *os.File // nil: it cannot
}

// Place implements Placer.
func (rawContent) Place(off, n int64) (host, run int64, err error) { return off, n, nil }

func (t *FileTarget) shareFile() *os.File {
	if _, ok := t.Content.(Placer); ok {
		return t.out.File()
	}
	return nil
}

// Place implements Placer, where the content does.
func (t *FileTarget) Place(off, n int64) (host, run int64, err error) {
	return t.Content.(Placer).Place(off, n)
}

func (t *OntoTarget) shareFile() *os.File {
	if t.f.parallel { // a device has no blocks to share
		return nil
	}
	return t.f.File
}

// Place implements Placer.
func (t *OntoTarget) Place(off, n int64) (host, run int64, err error) { return off, n, nil }

// A span is a range of the disk.
type span struct{ off, end int64 }

// A sharer has a filesystem share blocks between storages and a target, instead of
// copying what is in them. It may be used from several goroutines.
type sharer struct {
	dst   shareTarget
	file  *os.File // of dst
	block int64    // of the disk: what is shared is made of whole ones
	align int64    // of offsets in files
	clone func(dst, src *os.File, to, from, n int64) error

	sources sync.Map // *os.File to *shareSource
}

// A shareSource is what is known of a file from which blocks may be shared.
type shareSource struct {
	size    int64
	worked  atomic.Bool
	refused atomic.Bool // for good
}

// newSharer is a sharer for a target; nil where that has nothing to share.
func newSharer(dst Target, block int64) *sharer {
	t, ok := dst.(shareTarget)
	if !ok {
		return nil
	}
	f := t.shareFile()
	if f == nil {
		return nil
	}
	align := fsBlock(f)
	if align <= 0 || align > shareLeast || bits.OnesCount64(uint64(align)) != 1 {
		align = 4096
	}
	return &sharer{dst: t, file: f, block: max(align, block), align: align, clone: cloneRange}
}

// source is the file that holds an extent, and what is known of it; nil where its
// bytes cannot be shared.
func (s *sharer) source(e qcow2.Extent) (*os.File, *shareSource) {
	if e.Kind != qcow2.Data || e.Storage == nil {
		return nil, nil
	}
	f := sysFile(e.Storage)
	if f == nil {
		return nil, nil
	}
	known, ok := s.sources.Load(f)
	if !ok {
		known, _ = s.sources.LoadOrStore(f, newShareSource(f))
	}
	src := known.(*shareSource)
	if src.refused.Load() {
		return nil, nil
	}
	return f, src
}

func newShareSource(f *os.File) *shareSource {
	src := &shareSource{}
	info, err := f.Stat()
	src.refused.Store(err != nil || !info.Mode().IsRegular())
	if err == nil {
		src.size = info.Size()
	}
	return src
}

// likely reports an extent of a file that has shared before.
func (s *sharer) likely(e qcow2.Extent) bool {
	_, src := s.source(e)
	return src != nil && src.worked.Load()
}

// share has the target share what it can of an extent, and returns which range of
// the disk that is; an empty one where it is nothing. Nothing that goes wrong here
// is an error: what is not shared is copied.
func (s *sharer) share(e qcow2.Extent) span {
	f, src := s.source(e)
	if f == nil {
		return span{}
	}
	off, end := s.whole(e, src.size)
	if end-off < shareLeast {
		return span{}
	}
	done := off
	for done < end {
		n := s.shareRun(f, src, e, done, end)
		if n == 0 {
			break
		}
		done += n
	}
	return span{off, done}
}

// whole is the part of an extent that can be shared with a source of size bytes:
// whole blocks, at places in files that are aligned.
func (s *sharer) whole(e qcow2.Extent, size int64) (off, end int64) {
	host := int64(e.Host)
	if host < 0 || host > size-e.Len {
		return 0, 0 // it is cut off, which reading finds out
	}
	off = (e.Off + s.block - 1) &^ (s.block - 1)
	end = e.End() &^ (s.block - 1)
	if (host+off-e.Off)&(s.align-1) != 0 {
		return 0, 0
	}
	return off, end
}

// shareRun shares what stands in a row from off on, whole blocks of it, and returns
// how much that is; 0: nothing.
func (s *sharer) shareRun(f *os.File, src *shareSource, e qcow2.Extent, off, end int64) int64 {
	if !src.worked.Load() {
		if end = min(end, off+s.block); !s.worthTrying(f, int64(e.Host)+off-e.Off, end-off) {
			return 0
		}
	}
	host, n, err := s.dst.Place(off, end-off)
	if n &^= s.block - 1; err != nil || n <= 0 || host&(s.align-1) != 0 {
		return 0
	}
	if err := s.clone(s.file, f, host, int64(e.Host)+off-e.Off, n); err != nil {
		src.refused.CompareAndSwap(false, !momentary(err))
		return 0
	}
	src.worked.Store(true)
	return n
}

// worthTrying reports that the first block to be shared of a file is not zero. What
// is placed in vain stays allocated, so it should be something to be written then.
func (s *sharer) worthTrying(f *os.File, host, n int64) bool {
	p := make([]byte, n)
	return readFull(f, p, host) == nil && !allZero(p)
}
