package crash

import (
	"fmt"
	"sync"
)

// Kind is what an operation does.
type Kind uint8

// The operations on a File.
const (
	Write Kind = iota
	Truncate
	Sync
	Read
)

func (k Kind) String() string {
	return [...]string{"write", "truncate", "sync", "read"}[k]
}

// An Op is one operation on a File.
type Op struct {
	Kind Kind
	Off  int64 // where a read or write begins; the new size of a truncate
	Len  int64 // bytes of a read or write
}

func (o Op) String() string {
	switch o.Kind {
	case Sync:
		return "sync"
	case Truncate:
		return fmt.Sprintf("truncate to %d", o.Off)
	}
	return fmt.Sprintf("%s [%#x, +%#x)", o.Kind, o.Off, o.Len)
}

// A record is an operation that was done, or a mark.
type record struct {
	Op
	mark    bool
	sectors []placed // of a write, as the program saw them afterwards
	before  int64    // size of the file before it
	after   int64    // and after it
}

// A File is a file in memory that records what is done to it. It may be used by
// several goroutines. It keeps every sector that was ever written, and 1 byte for
// every 4096 of its length: it is meant for files of some MiB.
type File struct {
	mu      sync.Mutex
	start   *image
	live    *image
	records []record
	lost    bool // a Sync failed
	fault   Fault
	asked   int
	failed  int
	guard   func(Op) error
}

// New makes a File that holds the bytes of start, all of them synced.
func New(start []byte) *File {
	m := &image{owner: new(owner)}
	m.write(start, 0)
	return newFile(m)
}

func newFile(m *image) *File { return &File{start: m.clone(), live: m} }

// ReadAt implements io.ReaderAt: what the program wrote, synced or not.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if off < 0 {
		return 0, fmt.Errorf("reading at a negative offset (%d)", off)
	}
	if err := f.permit(Op{Read, off, int64(len(p))}); err != nil {
		return 0, err
	}
	return f.live.readAt(p, off)
}

// WriteAt implements io.WriterAt.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if off < 0 {
		return 0, fmt.Errorf("writing at a negative offset (%d)", off)
	}
	err := f.permit(Op{Write, off, int64(len(p))})
	if err != nil {
		p = p[:min(f.shortBy(err), len(p))]
	}
	if len(p) > 0 {
		before := f.live.size
		sectors := f.live.write(p, off)
		f.records = append(f.records, record{Op: Op{Write, off, int64(len(p))}, sectors: sectors,
			before: before, after: f.live.size})
	}
	return len(p), err
}

// Truncate sets the size, as os.File's does.
func (f *File) Truncate(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if size < 0 {
		return fmt.Errorf("truncating to a negative size (%d)", size)
	}
	op := Op{Kind: Truncate, Off: size}
	if err := f.permit(op); err != nil {
		return err
	}
	before := f.live.size
	f.live.resize(size)
	f.records = append(f.records, record{Op: op, before: before, after: size})
	return nil
}

// Sync makes what was written durable, unless an earlier Sync failed.
func (f *File) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.permit(Op{Kind: Sync}); err != nil {
		f.lost = true
		return err
	}
	if !f.lost {
		f.records = append(f.records, record{Op: Op{Kind: Sync}, before: f.live.size, after: f.live.size})
	}
	return nil
}

// Mark notes that the program has promised something here: its Update returned,
// its Close returned. States after it have one more in Marks, and a state that
// could also be left by an earlier crash is given again.
func (f *File) Mark() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records = append(f.records, record{mark: true, before: f.live.size, after: f.live.size})
}

// Size is the file's length in bytes, as the program sees it.
func (f *File) Size() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.live.size
}

// Bytes is a copy of the contents as the program sees them.
func (f *File) Bytes() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.live.bytes()
}

// Ops are the writes, truncates and syncs that were recorded, in order.
func (f *File) Ops() []Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ops []Op
	for _, r := range f.records {
		if !r.mark {
			ops = append(ops, r.Op)
		}
	}
	return ops
}
