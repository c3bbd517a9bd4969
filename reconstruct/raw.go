package reconstruct

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/qbitkit/qbit/qcow2"
)

// A HoleFinder tells where a file has data. Offsets are bytes, at or after off;
// both methods return io.EOF where off is at or beyond the end of the file.
// They may be called from several goroutines.
type HoleFinder interface {
	// NextData is the offset of the first byte that is not in a hole; io.EOF
	// where there is none.
	NextData(off int64) (int64, error)
	// NextHole is the offset of the first byte in a hole. The end of the file
	// counts as one.
	NextHole(off int64) (int64, error)
}

// RawOptions are the options of NewRaw.
type RawOptions struct {
	// HolesAbsent makes holes Absent: in an increment, a hole means "unchanged".
	// Otherwise they are Zero, as in a full backup.
	HolesAbsent bool
}

// NewRaw is the disk that a raw file holds: size bytes, which r must have. Holes
// are found where r is a HoleFinder, or an *os.File on a system and filesystem
// that tell them (finding them moves the offset of the file descriptor);
// elsewhere all is data. opts may be nil.
func NewRaw(r io.ReaderAt, size int64, opts *RawOptions) qcow2.Disk {
	d := &rawDisk{r: r, size: size}
	if opts != nil {
		d.opts = *opts
	}
	switch r := r.(type) {
	case HoleFinder:
		d.holes = r
	case *os.File:
		d.holes = fileHoles{r}
	}
	return d
}

type rawDisk struct {
	r     io.ReaderAt
	size  int64
	holes HoleFinder // nil: all is data
	opts  RawOptions
}

func (d *rawDisk) Size() int64 { return d.size }

func (d *rawDisk) ReadAt(p []byte, off int64) (int, error) {
	return diskReadAt(p, off, d.size, func(p []byte, off int64) (int, error) {
		if err := readFull(d.r, p, off); err != nil {
			return 0, fmt.Errorf("reading %d bytes of a raw file at %d: %w", len(p), off, err)
		}
		return len(p), nil
	})
}

func (d *rawDisk) Extents(off, n int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		if err := checkRange(off, n, d.size); err != nil {
			yield(qcow2.Extent{}, err)
			return
		}
		m := merger{emit: func(e qcow2.Extent) bool { return yield(e, nil) }}
		for end := off + n; off < end; {
			e, err := d.run(off, end)
			if err != nil {
				if m.flush() {
					yield(qcow2.Extent{}, fmt.Errorf("looking for holes of a raw file at %d: %w", off, err))
				}
				return
			}
			if !m.add(e) {
				return
			}
			off = e.End()
		}
		m.flush()
	}
}

// run is the hole or the data that begins at off.
func (d *rawDisk) run(off, end int64) (qcow2.Extent, error) {
	if d.holes == nil {
		return d.data(off, end), nil
	}
	data, err := d.nextData(off)
	if err != nil {
		return qcow2.Extent{}, err
	}
	if data > off {
		return d.hole(off, min(data, end)), nil
	}
	hole, err := d.holes.NextHole(off)
	if err != nil {
		return qcow2.Extent{}, unexpected(err)
	}
	if hole <= off { // the file changes under us: data it is
		hole = end
	}
	return d.data(off, min(hole, end)), nil
}

// nextData is where data begins, size for a hole up to the end.
func (d *rawDisk) nextData(off int64) (int64, error) {
	data, err := d.holes.NextData(off)
	if !errors.Is(err, io.EOF) {
		return data, err
	}
	// A hole up to the end, or no file here at all: it was cut.
	if _, err := d.holes.NextHole(d.size - 1); err != nil {
		return 0, unexpected(err)
	}
	return d.size, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (d *rawDisk) data(off, end int64) qcow2.Extent {
	return qcow2.Extent{Off: off, Len: end - off, Kind: qcow2.Data, Storage: d.r,
		Host: qcow2.HostOffset(off), HasHost: true}
}

func (d *rawDisk) hole(off, end int64) qcow2.Extent {
	if d.opts.HolesAbsent {
		return qcow2.Extent{Off: off, Len: end - off}
	}
	e := d.data(off, end)
	e.Kind = qcow2.Zero
	return e
}
