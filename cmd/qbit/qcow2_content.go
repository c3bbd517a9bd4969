package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
)

// A newImage is a qcow2 image that is being made under a temporary name.
type newImage struct {
	*qcow2.Writer
	dst  *reconstruct.FileTarget
	size int64 // of its disk
}

// imageSpec says what image to make.
type imageSpec struct {
	path     string
	layout   qcow2.Layout // Size is that of the disk that is written
	compress bool
	block    int64 // blocks of zeros that are looked for, where they are larger than clusters
	output   reconstruct.OutputOptions
	data     *reconstruct.Output // the external data file of the layout; nil: none
}

// createImage begins a new image. The format allows any size, but QEMU passes over
// what is behind the last whole sector: the disk of the image ends with one.
func createImage(c *console, s imageSpec) (*newImage, error) {
	disk := s.layout.Size
	if over := disk % 512; over != 0 {
		s.layout.Size += 512 - over
		c.note("%s: the disk ends within a sector, which QEMU would not read; the image has %d zero bytes more", escapeName(s.path), 512-over)
	}
	out, err := reconstruct.CreateOutput(s.path, &s.output)
	if err != nil {
		return nil, cannotCreate(s.path, s.output.Overwrite, err)
	}
	w, err := qcow2.Create(out.Storage(), s.layout)
	if err != nil {
		out.Abort()
		return nil, fmt.Errorf("%s: %w", escapeName(s.path), err)
	}
	return &newImage{Writer: w, dst: reconstruct.NewFileTarget(out, s.content(w, disk)), size: s.layout.Size}, nil
}

// cannotCreate says what can be done about a file that cannot be made.
func cannotCreate(path string, force bool, err error) error {
	info, statErr := os.Lstat(path)
	replaceable := statErr == nil && info.Mode().IsRegular()
	err = plainError(path, err)
	switch {
	case errors.Is(err, reconstruct.ErrNoDirect):
		return fmt.Errorf("%w; leave out --direct", err)
	case errors.Is(err, fs.ErrExist) && replaceable && !force:
		return fmt.Errorf("%w; --force replaces it", err)
	}
	return err
}

// content is what writes the guest's bytes.
func (s *imageSpec) content(w *qcow2.Writer, disk int64) reconstruct.Content {
	cluster := s.layout.ClusterSize
	if cluster == 0 {
		cluster = qcow2.DefaultClusterSize
	}
	image := imageContent{Writer: w, block: max(cluster, s.block), disk: disk, size: s.layout.Size}
	switch {
	case s.compress:
		return &compressedContent{image}
	case s.data != nil:
		return &dataContent{image, s.data}
	}
	return &placedContent{image}
}

// An imageContent has whole clusters written, so that a cluster of zeros can stay
// unallocated, or become a zero cluster.
type imageContent struct {
	*qcow2.Writer
	block      int64
	disk, size int64 // of the disk that is written, and of the image's, which may end later
}

func (i *imageContent) Traits() reconstruct.Traits { return reconstruct.Traits{Block: i.block} }

// A compressedContent compresses what is written.
type compressedContent struct{ imageContent }

func (c *compressedContent) WriteAt(p []byte, off int64) (int, error) {
	n := len(p)
	if end := off + int64(n); end == c.disk && end < c.size {
		p = append(p[:n:n], make([]byte, c.size-end)...)
	}
	if err := c.Writer.WriteCompressed(p, off); err != nil {
		return 0, err
	}
	return n, nil
}

// A placedContent says where clusters stand, so that blocks can be shared.
type placedContent struct{ imageContent }

// Place implements reconstruct.Placer.
func (p *placedContent) Place(off, n int64) (host, run int64, err error) {
	at, run, err := p.Writer.Place(off, n)
	return int64(at), run, err
}

// A dataContent has its bytes in an external data file, which gets its name before the
// image does.
type dataContent struct {
	imageContent
	data *reconstruct.Output
}

func (d *dataContent) Close() error {
	if err := d.Writer.Close(); err != nil {
		return err
	}
	return d.data.Commit()
}

// compressFlag is --compress, with or without a type.
type compressFlag struct {
	text string
	kind qcow2.CompressionType
	on   bool
}

func (f *compressFlag) String() string { return f.text }
func (f *compressFlag) Type() string   { return "deflate|zstd" }

func (f *compressFlag) Set(s string) (err error) {
	f.text, f.on = s, true
	f.kind, err = parseCompression(s)
	return err
}
