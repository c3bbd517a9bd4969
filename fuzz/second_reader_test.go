package fuzz

import (
	"bytes"
	"compress/flate"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
	second "github.com/lima-vm/go-qcow2reader/image/qcow2"
	secondlog "github.com/lima-vm/go-qcow2reader/log"
	"github.com/qbitkit/qbit/qcow2"
)

// maxCompared is how many clusters FuzzSecondReader reads of one image.
const maxCompared = 512

func init() {
	secondlog.SetWarnFunc(func(string) {})
	second.SetDecompressor(second.CompressionTypeZlib, func(r io.Reader) (io.ReadCloser, error) {
		return filling{flate.NewReader(r)}, nil
	})
	second.SetDecompressor(second.CompressionTypeZstd, func(r io.Reader) (io.ReadCloser, error) {
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			return nil, err
		}
		return filling{d.IOReadCloser()}, nil
	})
}

// filling fills the buffer of every Read: the second reader reads only once.
type filling struct{ io.ReadCloser }

func (f filling) Read(p []byte) (int, error) { return io.ReadFull(f.ReadCloser, p) }

// FuzzSecondReader reads an image with go-qcow2reader too. Property: where both
// readers give a cluster, they give the same bytes. It sees one layer, without
// the name of the backing file, and only what our header parser accepts: it
// panics, or takes what memory the image asks for, on much of the rest.
func FuzzSecondReader(f *testing.F) {
	for _, b := range seedFiles(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		ours, err := openImage(file, 0)
		if err != nil || !forSecondReader(ours) {
			return
		}
		alone := bytes.Clone(file)
		clear(alone[8:16]) // backing_file_offset
		theirs, err := second.Open(bytes.NewReader(alone), nil)
		if err != nil || theirs.Readable() != nil {
			return
		}
		if theirs.Size() != ours.Size() {
			t.Fatalf("size %d, the second reader says %d", ours.Size(), theirs.Size())
		}
		compareClusters(t, ours, theirs)
	})
}

// forSecondReader reports that the image has only what the second reader knows.
func forSecondReader(img *qcow2.Image) bool {
	return img.DataFile() == nil && img.Encryption() == "" && img.Header().L1Size > 0
}

func compareClusters(t *testing.T, ours, theirs io.ReaderAt) {
	img := ours.(*qcow2.Image)
	size := img.Geometry().ClusterSize()
	a, b := junk(size), make([]byte, size)
	for i := int64(0); i < maxCompared && i*size < img.Size(); i++ {
		n := min(size, img.Size()-i*size)
		if _, err := ours.ReadAt(a[:n], i*size); err != nil {
			continue
		}
		if got, err := theirs.ReadAt(b[:n], i*size); int64(got) < n || err != nil && err != io.EOF {
			continue
		}
		if !bytes.Equal(a[:n], b[:n]) {
			t.Fatalf("cluster %d: the second reader reads other bytes", i)
		}
	}
}
