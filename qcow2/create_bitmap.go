package qcow2

import (
	"encoding/binary"
	"fmt"

	"github.com/qbitkit/qbit/bitmap"
)

// AddBitmap adds a bitmap of the disk; auto says that QEMU is to record into it.
// The bits are copied, and written by Close. It belongs to one goroutine.
// Errors: *ExistsError, and errors for a name, size or number outside the limits,
// as of Tx.AddBitmap; version 2 has no bitmaps.
func (w *Writer) AddBitmap(name string, b *bitmap.Bitmap, auto bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	if w.geometry.Version < 3 {
		return fmt.Errorf("adding bitmap %.100q: version 2 holds no bitmaps, version 3 is needed", name)
	}
	if err := w.checkBitmapRoom(name); err != nil {
		return err
	}
	return w.bitmaps.AddBitmap(name, b, auto)
}

// checkBitmapRoom checks that the header has room for the bitmaps extension.
func (w *Writer) checkBitmapRoom(name string) error {
	if _, err := w.firstCluster(w.header(), make([]byte, bitmapExtLength)); err != nil {
		return fmt.Errorf("adding bitmap %.100q: %w", name, err)
	}
	return nil
}

// writeBitmaps writes the bitmaps and their directory; the result is the data of
// the bitmaps extension, nil without bitmaps.
func (w *Writer) writeBitmaps() ([]byte, error) {
	list := w.bitmaps.bitmaps
	if len(list) == 0 {
		return nil, nil
	}
	for i := range list {
		if err := w.writeBitmap(&list[i]); err != nil {
			return nil, fmt.Errorf("writing bitmap %.100q: %w", list[i].info.Name, err)
		}
	}
	content := encodeDirectory(list)
	if len(content) > maxBitmapDirectory {
		return nil, fmt.Errorf("the bitmap directory would have %d bytes, %d are allowed", len(content), maxBitmapDirectory)
	}
	host, err := w.allocate(w.clusters(int64(len(content))))
	if err != nil {
		return nil, err
	}
	data := binary.BigEndian.AppendUint32(nil, uint32(len(list)))
	data = binary.BigEndian.AppendUint32(data, 0)
	data = binary.BigEndian.AppendUint64(data, uint64(len(content)))
	data = binary.BigEndian.AppendUint64(data, uint64(host))
	return data, writeFull(w.f, content, host)
}

// writeBitmap writes data and table of a bitmap: section "Bitmap table".
func (w *Writer) writeBitmap(b *txBitmap) error {
	cluster := w.geometry.ClusterSize()
	entries := make([]uint64, w.clusters(b.bits.WireSize()))
	buf := make([]byte, 0, cluster)
	for i := range entries {
		zero, ones := b.bits.WireState(int64(i)*cluster, cluster)
		switch {
		case zero:
		case ones:
			entries[i] = bitmapEntryAllOnes
		default:
			host, err := w.allocate(1)
			if err != nil {
				return err
			}
			entries[i] = uint64(host)
			buf = b.bits.AppendWire(buf[:0], int64(i)*cluster, int(cluster))
			if err := writeFull(w.f, buf, host); err != nil {
				return err
			}
		}
	}
	var err error
	if b.info.TableOffset, err = w.allocate(w.clusters(int64(len(entries)) * 8)); err != nil {
		return err
	}
	b.info.TableSize = uint32(len(entries))
	return w.writeWords(b.info.TableOffset, entries)
}
