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
	size := v.img.geometry.ClusterSize()
	for len(p) > 0 {
		l2, err := v.l2Table(off / v.img.geometry.l2Coverage())
		if err != nil {
			return err
		}
		s, err := v.l2Slice(l2, off)
		if err != nil {
			return err
		}
		entry, _ := s.entry(off)
		if rule := v.checkCompressed(entry); rule != "" || !entry.compressed() {
			return s.fail(off, "it was a sound compressed cluster a moment ago: the file changes")
		}
		in := off - s.clusterStart(off)
		n := min(int64(len(p)), size-in)
		if err := v.img.clusters.read(p[:n], in, entry); err != nil {
			return s.failStream(off, err)
		}
		p, off = p[n:], off+n
	}
	return nil
}
