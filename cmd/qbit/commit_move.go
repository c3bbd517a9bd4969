package main

import (
	"context"
	"io"
	"runtime"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
)

// moveUnit is the most that is moved at a time, in bytes.
const moveUnit = 2 << 20

// A commitPlan counts what there is to move.
type commitPlan struct {
	data, zero int64 // bytes of the disk
}

// planCommit walks the whole disk: what is wrong with it is found before anything is
// written.
func planCommit(ctx context.Context, disk qcow2.Disk) (plan commitPlan, err error) {
	for e, err := range disk.Extents(0, disk.Size()) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return plan, err
		}
		switch e.Kind {
		case qcow2.Absent:
		case qcow2.Zero:
			plan.zero += e.Len
		default:
			plan.data += e.Len
		}
	}
	return plan, nil
}

// spread marks where a disk is of a kind, in a bitmap of a disk of size bytes.
func (ch *commitChain) spread(ctx context.Context, disk qcow2.Disk, size int64, is func(qcow2.Kind) bool) (*bitmap.Bitmap, error) {
	b, err := bitmap.New(size, ch.granularity())
	if err != nil {
		return nil, err
	}
	for e, err := range disk.Extents(0, disk.Size()) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		if is(e.Kind) {
			b.Set(e.Off, e.Len)
		}
	}
	return b, nil
}

// granularity is the least unit in which the images above the base hold anything.
func (ch *commitChain) granularity() int64 {
	least := ch.image.Geometry().SubclusterSize()
	for _, l := range ch.between {
		least = min(least, l.image.Geometry().SubclusterSize())
	}
	return max(least, bitmap.MinGranularity)
}

// A sink takes guest bytes.
type sink interface {
	WriteAt(p []byte, off int64) (int, error)
	Zero(off, n int64) error
}

// A piece is a part of a disk on its way.
type piece struct {
	off, len int64
	zero     bool
	buf      []byte
	err      error
	ready    chan struct{} // closed when buf, or err, is there
}

// moveHeld writes what a disk holds to a sink, in order, and leaves out what is absent.
func moveHeld(ctx context.Context, disk qcow2.Disk, to sink, done func(n int64)) error {
	return move(ctx, disk, to, done, func(yield func(qcow2.Extent, error) bool) {
		for e, err := range disk.Extents(0, disk.Size()) {
			if (err != nil || e.Kind != qcow2.Absent) && !yield(e, err) {
				return
			}
		}
	})
}

// move writes extents of a disk to a sink, in order. Some are read ahead. All that it
// started has ended when it returns.
func move(ctx context.Context, disk qcow2.Disk, to sink, done func(n int64), extents func(func(qcow2.Extent, error) bool)) error {
	ahead := max(2, min(runtime.GOMAXPROCS(0), 8))
	pieces, buffers := make(chan *piece, ahead), make(chan []byte, ahead)
	for range ahead {
		buffers <- nil
	}
	ctx, stop := context.WithCancelCause(ctx)
	go func() {
		defer close(pieces)
		readAhead(ctx, disk, extents, buffers, pieces)
	}()
	var failed error
	for p := range pieces {
		<-p.ready
		if failed == nil {
			if failed = p.put(ctx, to); failed != nil {
				stop(failed)
			} else {
				done(p.len)
			}
		}
		if p.buf != nil {
			buffers <- p.buf
		}
	}
	if failed == nil {
		failed = context.Cause(ctx)
	}
	stop(nil)
	return failed
}

func (p *piece) put(ctx context.Context, to sink) error {
	switch {
	case p.err != nil:
		return p.err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case p.zero:
		return to.Zero(p.off, p.len)
	}
	_, err := to.WriteAt(p.buf[:p.len], p.off)
	return err
}

// readAhead cuts extents into pieces and has them read. It hands out a buffer only with
// a piece, so that each comes back.
func readAhead(ctx context.Context, disk qcow2.Disk, extents func(func(qcow2.Extent, error) bool), buffers chan []byte, pieces chan<- *piece) {
	for e, err := range extents {
		if err != nil {
			p := &piece{err: err, ready: make(chan struct{})}
			close(p.ready)
			pieces <- p
			return
		}
		for e.Len > 0 {
			if ctx.Err() != nil {
				return
			}
			p := cutPiece(e)
			if p.zero {
				close(p.ready)
			} else {
				p.buf = <-buffers
				go p.read(disk)
			}
			pieces <- p
			if p.len == e.Len {
				break
			}
			e = e.Slice(e.Off+p.len, e.End())
		}
	}
}

// cutPiece is what is moved first of an extent; it ends at a multiple of moveUnit.
func cutPiece(e qcow2.Extent) *piece {
	p := &piece{off: e.Off, len: e.Len, zero: e.Kind == qcow2.Zero, ready: make(chan struct{})}
	if !p.zero {
		p.len = min(e.Len, moveUnit-e.Off%moveUnit)
	}
	return p
}

func (p *piece) read(disk qcow2.Disk) {
	defer close(p.ready)
	if p.buf == nil {
		p.buf = make([]byte, moveUnit)
	}
	if _, err := io.ReadFull(io.NewSectionReader(disk, p.off, p.len), p.buf[:p.len]); err != nil {
		p.err = err
	}
}
