package main

import (
	"io"
	"iter"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

// rawDisk is the disk in a raw file. In an increment its holes are absent.
func (o *opener) rawDisk(f *imageFile, increment bool) qcow2.Disk {
	var content io.ReaderAt = f.File // which can tell its holes
	if f.member != nil {
		content = f.member
	}
	d := reconstruct.NewRaw(content, f.size, &reconstruct.RawOptions{HolesAbsent: increment})
	if o.wholeSectors && wholeSectors(f.size) != f.size {
		d = paddedDisk{d}
	}
	return namedDisk{d, f.path}
}

// wholeSectors rounds a size up to a sector, as QEMU does for raw disks.
func wholeSectors(size int64) int64 { return (size + 511) &^ 511 }

// A paddedDisk is a disk with zeros up to the end of its last sector.
type paddedDisk struct {
	qcow2.Disk
}

func (d paddedDisk) Size() int64 { return wholeSectors(d.Disk.Size()) }

func (d paddedDisk) ReadAt(p []byte, off int64) (int, error) {
	n := max(0, min(int64(len(p)), d.Size()-off))
	got, err := d.Disk.ReadAt(p[:n], off)
	if err == io.EOF {
		clear(p[got:n])
		got, err = int(n), nil
	}
	if err == nil && int64(len(p)) > n {
		err = io.EOF
	}
	return got, err
}

func (d paddedDisk) Extents(off, n int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		end, size := off+n, d.Disk.Size()
		var last qcow2.Extent
		if off < size {
			for e, err := range d.Disk.Extents(off, min(end, size)-off) {
				if !yield(e, err) || err != nil {
					return
				}
				last = e
			}
		}
		if off = max(off, size); off < end {
			pad := qcow2.Extent{Off: off, Len: end - off, Kind: qcow2.Zero, Host: qcow2.HostOffset(off), HasHost: true, Storage: last.Storage}
			yield(pad, nil)
		}
	}
}
