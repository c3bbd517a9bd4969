package main

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/qbitkit/qbit/qcow2"
)

// A namedDisk is the disk of a layer whose errors say which file they are about.
type namedDisk struct {
	qcow2.Disk
	path string
}

// A layerError is an error with the path of the file that it is about.
type layerError struct {
	path string
	err  error
}

func (e *layerError) Error() string { return escapeName(e.path) + ": " + e.err.Error() }
func (e *layerError) Unwrap() error { return e.err }

// name adds the path, unless the layer below that failed has its name there.
func (d namedDisk) name(err error) error {
	if err == nil || err == io.EOF || errors.As(err, new(*layerError)) {
		return err
	}
	return &layerError{d.path, err}
}

func (d namedDisk) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.Disk.ReadAt(p, off)
	return n, d.name(err)
}

func (d namedDisk) Extents(off, n int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		for e, err := range d.Disk.Extents(off, n) {
			if !yield(e, d.name(err)) {
				return
			}
		}
	}
}

// BackingDisk is that of the image, if it is one; reconstruct asks for it.
func (d namedDisk) BackingDisk() qcow2.Disk {
	if img, ok := d.Disk.(interface{ BackingDisk() qcow2.Disk }); ok {
		return img.BackingDisk()
	}
	return nil
}

// Unopened is that of the image, if it is one; reconstruct asks for it.
func (d namedDisk) Unopened() *qcow2.Ref {
	if img, ok := d.Disk.(interface{ Unopened() *qcow2.Ref }); ok {
		return img.Unopened()
	}
	return nil
}

// nameLayer puts the name of a single disk before an error that names no file.
func nameLayer(ch *chain, err error) error {
	if len(ch.layers) > 1 || errors.As(err, new(*layerError)) {
		return err
	}
	return fmt.Errorf("%s: %w", escapeName(ch.layers[0].path), err)
}
