package reconstruct

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"
)

// ErrNoDirect says that a file cannot be written around the page cache.
var ErrNoDirect = errors.New("it cannot be written around the page cache: the filesystem has no direct I/O")

const (
	// directAlign is to what direct writes are aligned, in the file and in memory:
	// no device of today wants more.
	directAlign = 4096
	// directBounce is how much of what is not aligned in memory is moved at a time.
	directBounce = 1 << 20
)

// A directFile writes whole blocks around the page cache, and the rest through it. It
// may be used from several goroutines, for ranges that do not overlap.
type directFile struct {
	through *os.File
	around  *os.File    // the same file, opened for direct I/O
	refused atomic.Bool // what is aligned for us is not for the system: all goes through
	bounce  sync.Pool   // of *[]byte, aligned
}

// openDirect opens an open file again, for direct I/O.
func openDirect(f *os.File) (*directFile, error) {
	around, err := os.OpenFile(f.Name(), os.O_WRONLY|directFlag|openNonblock, 0)
	switch {
	case directFlag == 0 || unsupported(err):
		err = ErrNoDirect
	case err == nil:
		err = sameFile(f, around)
	}
	if err != nil {
		around.Close() // nil is refused
		return nil, directError(f.Name(), err)
	}
	return &directFile{through: f, around: around, bounce: sync.Pool{New: newBounce}}, nil
}

func directError(path string, err error) error {
	var known *fs.PathError
	if errors.As(err, &known) {
		return err
	}
	return &fs.PathError{Op: "open for direct I/O", Path: path, Err: err}
}

func sameFile(a, b *os.File) error {
	one, err := a.Stat()
	if err != nil {
		return err
	}
	other, err := b.Stat()
	if err == nil && !os.SameFile(one, other) {
		err = errors.New("another file took its place meanwhile")
	}
	return err
}

// newBounce is memory that is aligned.
func newBounce() any {
	p := make([]byte, directBounce+directAlign)
	p = p[directAlign-misaligned(p):][:directBounce]
	return &p
}

// misaligned is how many bytes p begins behind an aligned address.
func misaligned(p []byte) int { return int(uintptr(unsafe.Pointer(unsafe.SliceData(p))) % directAlign) }

// WriteAt writes all of p.
func (d *directFile) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("writing at a negative offset (%d)", off)
	}
	head := int(min(int64(len(p)), -off&(directAlign-1)))
	whole := (len(p) - head) &^ (directAlign - 1)
	done := 0
	for _, part := range []struct {
		n     int
		write func([]byte, int64) (int, error)
	}{{head, d.through.WriteAt}, {whole, d.writeWhole}, {len(p) - head - whole, d.through.WriteAt}} {
		if part.n == 0 {
			continue
		}
		n, err := part.write(p[done:done+part.n], off+int64(done))
		if done += n; err != nil {
			return done, err
		}
	}
	return done, nil
}

// writeWhole writes whole blocks at an aligned offset.
func (d *directFile) writeWhole(p []byte, off int64) (int, error) {
	if d.refused.Load() {
		return d.through.WriteAt(p, off)
	}
	n, err := d.writeAround(p, off)
	if unsupported(err) {
		d.refused.Store(true)
		rest, err := d.through.WriteAt(p[n:], off+int64(n))
		return n + rest, err
	}
	return n, err
}

func (d *directFile) writeAround(p []byte, off int64) (int, error) {
	if misaligned(p) == 0 {
		return d.around.WriteAt(p, off)
	}
	buf := d.bounce.Get().(*[]byte)
	defer d.bounce.Put(buf)
	done := 0
	for done < len(p) {
		part := (*buf)[:copy(*buf, p[done:])]
		n, err := d.around.WriteAt(part, off+int64(done))
		if done += n; err != nil {
			return done, err
		}
	}
	return done, nil
}

func (d *directFile) close() {
	if d != nil {
		d.around.Close() // what it wrote is with the device: nothing is left to fail
	}
}

// openDirect opens the file for direct I/O, where that is wanted.
func (o *Output) openDirect() (err error) {
	if o.opts.Direct {
		o.direct, err = openDirect(o.f)
	}
	return err
}

// Direct has what is written from now on go around the page cache. It is called
// before the first write. The error wraps ErrNoDirect where that cannot be.
func (t *OntoTarget) Direct() (err error) {
	t.f.direct, err = openDirect(t.f.File)
	return err
}
