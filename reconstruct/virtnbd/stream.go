package virtnbd

import (
	"fmt"
	"io"
	"iter"

	"github.com/qbitkit/qbit/qcow2"
)

// Options bound what a stream can make Open and ReadAt keep. The zero value is the
// safe choice.
type Options struct {
	// Memory is how many bytes of decoded LZ4 frames are kept, at most; 0 means
	// 64 MiB, and four blocks are kept at least (4 to 16 MiB). The frames of the
	// tool hold 32 MiB: with room for n of them, n goroutines that read a disk
	// upwards together decode in parallel. Plain streams need none.
	Memory int64
	// Shared is memory that the stream shares with others, to be bounded together;
	// nil: it has its own. Memory is then how much of it this one takes at most.
	Shared *Memory
	// MaxFrames is how many runs of guest bytes the frames of a stream may have,
	// and how many LZ4 frames; 0 means 4 Mi. A run takes 24 bytes of memory.
	MaxFrames int64
}

const (
	defaultMemory    = 64 << 20
	defaultMaxFrames = 4 << 20
)

// A Tally counts what a stream holds.
type Tally struct {
	DataFrames, ZeroFrames int64
	DataBytes, ZeroBytes   int64 // of the guest
	StoredBytes            int64 // of all payloads, as they are stored
	LZ4Frames              int64
	Stop                   bool // there is a stop frame: always, once a stream is open
	Trailer                bool // and a trailer behind it, which is framed as it should be
}

// A Stream is the disk that a stream holds, a qcow2.Disk. It may be used from
// several goroutines, and starts none: where one waits for another that decodes the
// LZ4 frame it needs too, it decodes those that come next.
type Stream struct {
	r        io.ReaderAt
	size     int64
	meta     Meta
	tally    Tally
	index    index
	end      int64   // of the stop frame
	marks    []int64 // where data frames begin, every few MiB of the file
	blockMax int     // the largest of all LZ4 frames
	cache    *cache
}

var _ qcow2.Disk = (*Stream)(nil)

// Open reads the headers of all frames of a stream of size bytes, and of the LZ4
// blocks in them; r must stay as it is as long as the Stream is used. opts may be
// nil.
//
// Bytes that break the format are a *FormatError, and so is a file that was cut: a
// stream without its stop frame is refused. ErrNotStream, *LimitError and
// *qcow2.UnsupportedError are the others. Payloads are not read: what is wrong in
// them is told when they are, and by Verify.
func Open(r io.ReaderAt, size int64, opts *Options) (*Stream, error) {
	o := Options{}
	if opts != nil {
		o = *opts
	}
	if o.MaxFrames <= 0 {
		o.MaxFrames = defaultMaxFrames
	}
	if o.Memory <= 0 {
		o.Memory = defaultMemory
	}
	s := &Stream{r: r, size: size}
	w := walker{t: tape{r: r, size: size, buf: make([]byte, walkAhead)}, s: s, limit: o.MaxFrames}
	if err := w.walk(); err != nil {
		return nil, err
	}
	s.cache = newCache(s, &o)
	return s, nil
}

// Meta is what the meta frame says.
func (s *Stream) Meta() Meta { return s.meta }

// Tally counts what the stream holds.
func (s *Stream) Tally() Tally { return s.tally }

// HasZeroFrames reports a zero frame. The tool writes them in full backups only: a
// stream with one under the name of an increment is a full backup.
func (s *Stream) HasZeroFrames() bool { return s.tally.ZeroFrames > 0 }

// Size implements qcow2.Disk: it is Meta().VirtualSize.
func (s *Stream) Size() int64 { return s.meta.VirtualSize }

// Extents implements qcow2.Disk: data frames are Data in a plain stream and
// Compressed in an LZ4 one, zero frames are Zero, and all else is Absent.
func (s *Stream) Extents(off, n int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		if off < 0 || n < 0 || off > s.Size() || n > s.Size()-off {
			yield(qcow2.Extent{}, fmt.Errorf("range [%d, +%d) is outside of the disk (%d bytes)", off, n, s.Size()))
			return
		}
		var last qcow2.Extent
		for e := range s.runs(off, off+n) {
			x := s.extent(e)
			if follows(last, x) {
				last.Len += x.Len
				continue
			}
			if last.Len > 0 && !yield(last, nil) {
				return
			}
			last = x
		}
		if last.Len > 0 {
			yield(last, nil)
		}
	}
}

// A run is a part of an entry, or of what no entry tells of.
type run struct {
	off, len int64
	entry    *entry // nil: absent
	number   int64  // of the entry
}

// runs yields what covers [off, end), without gaps.
func (s *Stream) runs(off, end int64) iter.Seq[run] {
	return func(yield func(run) bool) {
		for i := s.index.search(off); off < end; i++ {
			next, r := end, run{off: off}
			if i < s.index.n {
				e := s.index.at(i)
				if e.off > off && !yield(run{off: off, len: min(e.off, end) - off}) || e.off >= end {
					return
				}
				off = max(off, e.off)
				next, r = min(e.end(), end), run{off: off, entry: e, number: i}
			}
			r.len = next - off
			if !yield(r) {
				return
			}
			off = next
		}
	}
}

func (s *Stream) extent(r run) qcow2.Extent {
	x := qcow2.Extent{Off: r.off, Len: r.len}
	switch {
	case r.entry == nil:
	case r.entry.zero():
		x.Kind = qcow2.Zero
	case s.meta.Compressed:
		x.Kind = qcow2.Compressed
	default:
		x.Kind, x.Storage, x.HasHost = qcow2.Data, s.r, true
		x.Host = qcow2.HostOffset(r.entry.host + r.off - r.entry.off)
	}
	return x
}

// follows reports that one extent can describe a and b. Payloads never adjoin.
func follows(a, b qcow2.Extent) bool {
	return a.Len > 0 && a.Kind == b.Kind && a.Kind != qcow2.Data && a.End() == b.Off
}

// ReadAt implements qcow2.Disk. Absent ranges read as zero. Checksums that LZ4
// frames have are checked; what fails them is never returned, but what a frame
// holds before may have been. Each LZ4 frame is decoded from its beginning, as far
// as it is needed, and kept while there is room.
func (s *Stream) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading at a negative offset (%d)", off)
	}
	if off >= s.Size() {
		return 0, io.EOF
	}
	n := min(int64(len(p)), s.Size()-off)
	for r := range s.runs(off, off+n) {
		if err := s.readRun(r, p[r.off-off:][:r.len]); err != nil {
			return int(r.off - off), err
		}
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (s *Stream) readRun(r run, p []byte) error {
	switch {
	case r.entry == nil || r.entry.zero():
		clear(p)
		return nil
	case s.meta.Compressed:
		return s.cache.read(r.number, p, r.off-r.entry.off)
	}
	return readFull(s.r, p, r.entry.host+r.off-r.entry.off)
}
