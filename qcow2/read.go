package qcow2

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// ReadAt implements Disk.
func (v *view) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading at a negative offset (%d)", off)
	}
	if off >= v.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), v.size-off))
	if err := v.read(p[:n], off); err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// read fills p, which lies in the disk.
func (v *view) read(p []byte, off int64) error {
	var failed error
	m := merger{emit: func(e Extent) bool {
		failed = v.readExtent(p[e.Off-off:][:e.Len], e)
		return failed == nil
	}}
	err := v.walk(off, off+int64(len(p)), m.add)
	if err == nil {
		m.flush()
	}
	if errors.Is(err, errStop) || err == nil {
		return failed
	}
	return err
}

// readExtent reads an extent of this layer.
func (v *view) readExtent(p []byte, e Extent) error {
	switch e.Kind {
	case Data:
		if err := readFull(e.Storage, p, e.Host); err != nil {
			return fmt.Errorf("reading %d bytes at host offset %s: %w", e.Len, e.Host, err)
		}
	case Compressed:
		return v.readCompressed(p, e.Off)
	case Absent:
		return v.readBelow(p, e.Off)
	default:
		clear(p)
	}
	return nil
}

// readBelow reads what is absent in this layer.
func (v *view) readBelow(p []byte, off int64) error {
	if ref := v.img.unopenedBacking(); ref != nil {
		return &RefError{Ref: *ref}
	}
	held := int64(0)
	if v.img.backing != nil {
		held = max(0, min(int64(len(p)), v.img.backing.Size()-off))
	}
	clear(p[held:])
	if held == 0 {
		return nil
	}
	n, err := v.img.backing.ReadAt(p[:held], off)
	if int64(n) == held {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading the backing file: %w", err)
}

// failStream says which entry a compressed cluster that cannot be decoded has.
func (s *l2Slice) failStream(off int64, err error) error {
	var stream *streamError
	if !errors.As(err, &stream) {
		return err
	}
	entry, _ := s.entry(off)
	index := s.first + (off-s.off)>>s.geometry.ClusterBits
	broken := entryError("compressed cluster", index, stream.host, uint64(entry), stream.Error())
	if errors.Is(stream.err, zstd.ErrWindowSizeExceeded) {
		return limitError("zstd-window", stream.window, broken)
	}
	return broken
}

// readCompressed fills p from compressed clusters.
func (v *view) readCompressed(p []byte, off int64) error {
	c := v.img.clusters
	b, err := c.buffer()
	if err != nil {
		return err
	}
	defer c.pool.Put(b)
	for len(p) > 0 {
		s, span, err := v.packed(off)
		if err != nil {
			return err
		}
		if err := v.fetchPacked(b, span, off, off+int64(len(p))); err != nil {
			return err
		}
		in := off - s.clusterStart(off)
		n := min(int64(len(p)), c.geometry.ClusterSize()-in)
		// What follows in p is not there yet: the decoder may use a little of it.
		room := min(int64(len(p)), n+int64(b.decoder.spare()))
		if err := c.decode(b, p[:n:room], in, span); err != nil {
			return s.failStream(off, err)
		}
		p, off = p[n:], off+n
	}
	return nil
}

// packed finds the compressed cluster that holds off: its entry's slice, and where its
// bytes are.
func (v *view) packed(off int64) (l2Slice, hostSpan, error) {
	l2, err := v.l2Table(off / v.img.geometry.l2Coverage())
	if err != nil {
		return l2Slice{}, hostSpan{}, err
	}
	s, err := v.l2Slice(l2, off)
	if err != nil {
		return s, hostSpan{}, err
	}
	entry, _ := s.entry(off)
	if rule := v.checkCompressed(entry); rule != "" || !entry.compressed() {
		return s, hostSpan{}, s.fail(off, "it was a sound compressed cluster a moment ago: the file changes")
	}
	return s, v.img.clusters.span(entry), nil
}

// fetchPacked has b hold span, the bytes of the cluster at off, and in the same read
// those of the clusters that follow it up to end and lie close to it in the file, as
// those that were written one after the other do.
func (v *view) fetchPacked(b *clusterBuffer, span hostSpan, off, end int64) error {
	if b.span().contains(span) {
		return nil
	}
	c := v.img.clusters
	size := c.geometry.ClusterSize()
	near, wanted := span, span.len()
	for next := off&^(size-1) + size; next < end; next += size {
		_, more, err := v.packed(next)
		if err != nil {
			break // it fails when it is its turn
		}
		wanted += more.len()
		grown := near.with(more)
		if grown.len() > maxPacked || grown.len() > 2*wanted {
			break
		}
		near = grown
	}
	err := c.fetch(b, near)
	if err != nil && near != span {
		err = c.fetch(b, span) // it may be another cluster that cannot be read
	}
	return err
}
