package qcow2_test

import (
	"bytes"
	"io"
	"iter"

	"github.com/qbitkit/qbit/qcow2"
)

// A memDisk is a raw disk in memory, all of it data.
type memDisk []byte

func (d memDisk) Size() int64 { return int64(len(d)) }

func (d memDisk) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(d).ReadAt(p, off) }

func (d memDisk) Extents(off, n int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		if n > 0 {
			yield(qcow2.Extent{Off: off, Len: n, Kind: qcow2.Data, Storage: bytes.NewReader(d),
				Host: qcow2.HostOffset(off), HasHost: true}, nil)
		}
	}
}

// openBuilt opens an image with the files that it names; nil stays closed.
func openBuilt(image, data, backing []byte) (*qcow2.Image, error) {
	return qcow2.Open(bytes.NewReader(image), int64(len(image)), &qcow2.Options{
		OpenRef: func(ref qcow2.Ref) (qcow2.Disk, error) {
			switch {
			case ref.Kind == qcow2.RefData && data != nil:
				return memDisk(data), nil
			case ref.Kind == qcow2.RefBacking && backing != nil:
				return memDisk(backing), nil
			}
			return nil, nil
		},
	})
}

// readAll reads a whole disk.
func readAll(d qcow2.Disk) ([]byte, error) {
	b := make([]byte, d.Size())
	if len(b) == 0 {
		return b, nil
	}
	n, err := d.ReadAt(b, 0)
	if n == len(b) && err == io.EOF {
		err = nil
	}
	return b, err
}

// walkAll walks a whole disk.
func walkAll(d qcow2.Disk) ([]qcow2.Extent, error) {
	var all []qcow2.Extent
	for e, err := range d.Extents(0, d.Size()) {
		if err != nil {
			return all, err
		}
		all = append(all, e)
	}
	return all, nil
}
