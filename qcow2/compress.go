package qcow2

import (
	"bytes"
	stdflate "compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// A clusterReader reads compressed clusters. It may be used from several
// goroutines; buffers and decoders are kept for the next cluster.
type clusterReader struct {
	r        io.ReaderAt
	size     int64 // of the file
	geometry Geometry
	method   CompressionType
	window   int64     // the largest that a zstd frame may ask for
	pool     sync.Pool // of *clusterBuffer
}

// A clusterBuffer is what decoding one cluster needs.
type clusterBuffer struct {
	decoder clusterDecoder
	in      []byte
	out     []byte
}

// A clusterDecoder fills dst, a whole cluster, from the stream that src begins
// with. More bytes may follow the stream.
type clusterDecoder interface {
	decode(dst, src []byte) error
}

// maxZstdWindow is the largest window of libzstd. Nothing is allocated for it: a
// cluster is decoded in place.
const maxZstdWindow = 128 << 20

// zstdSpare is room behind the output that lets the decoder use its fast path.
const zstdSpare = 16

func (c *clusterReader) buffer() (*clusterBuffer, error) {
	if b, ok := c.pool.Get().(*clusterBuffer); ok {
		return b, nil
	}
	size := c.geometry.ClusterSize()
	b := &clusterBuffer{out: make([]byte, size, size+zstdSpare)}
	var err error
	if c.method == CompressionZstd {
		b.decoder, err = newZstdDecoder(c.window)
	} else {
		b.decoder = &deflateDecoder{}
	}
	return b, err
}

// read fills p with the bytes of a compressed cluster from byte skip on.
func (c *clusterReader) read(p []byte, skip int64, entry l2Entry) error {
	b, err := c.buffer()
	if err != nil {
		return err
	}
	defer c.pool.Put(b)
	host, length := entry.compressedRange(c.geometry)
	length = min(length, c.size-int64(host))
	if int64(cap(b.in)) < length {
		b.in = make([]byte, length)
	}
	src := b.in[:length]
	if err := readFull(c.r, src, host); err != nil {
		return fmt.Errorf("reading a compressed cluster at %s: %w", host, err)
	}
	if err := b.decoder.decode(b.out, src); err != nil {
		return &streamError{host: host, length: length, method: c.method, window: c.window, err: err}
	}
	copy(p, b.out[skip:])
	return nil
}

// A streamError is a compressed cluster that cannot be decoded. Who knows the
// L2 entry makes a FormatError of it.
type streamError struct {
	host   HostOffset
	length int64
	method CompressionType
	window int64 // that was allowed
	err    error
}

func (e *streamError) Error() string {
	return fmt.Sprintf("the %s stream (up to %d bytes at %s) must give one cluster: %v", e.method, e.length, e.host, e.err)
}

// A deflateDecoder decodes raw deflate. A cluster is right when it is full,
// whether or not the stream has ended: writers differ.
type deflateDecoder struct {
	src   bytes.Reader
	flate io.ReadCloser
}

func (d *deflateDecoder) decode(dst, src []byte) error {
	d.src.Reset(src)
	if d.flate == nil {
		d.flate = flate.NewReader(&d.src)
	} else if err := d.flate.(flate.Resetter).Reset(&d.src, nil); err != nil {
		return err
	}
	n, err := io.ReadFull(d.flate, dst)
	if err == io.ErrUnexpectedEOF {
		// The fast decoder asks for as many bits as an end of block has, and
		// loses the last bytes of a stream that has none.
		n, err = io.ReadFull(stdflate.NewReader(bytes.NewReader(src)), dst)
	}
	if err == io.ErrUnexpectedEOF || err == io.EOF {
		return fmt.Errorf("it ends after %d of %d bytes", n, len(dst))
	}
	return err
}

// A zstdDecoder decodes one or more zstd frames that together give a cluster.
type zstdDecoder struct {
	zstd *zstd.Decoder
}

func newZstdDecoder(window int64) (*zstdDecoder, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1),
		zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxWindow(uint64(max(window, zstd.MinWindowSize))))
	return &zstdDecoder{zstd: z}, err
}

func (d *zstdDecoder) decode(dst, src []byte) error {
	out := dst[:0]
	for len(out) < len(dst) {
		n, err := zstdFrameLength(src)
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", len(out), len(dst), err)
		}
		if out, err = d.zstd.DecodeAll(src[:n], out); err != nil {
			return err
		}
		src = src[n:]
	}
	if len(out) > len(dst) {
		return fmt.Errorf("it gives %d bytes, more than a cluster (%d)", len(out), len(dst))
	}
	return nil
}

var errZstdShort = errors.New("the zstd frame does not end in the cluster's sectors")

const (
	zstdMagic          = 0xfd2fb528
	zstdSkippableMagic = 0x184d2a50 // low four bits free
)

// zstdFrameLength is the length in bytes of the zstd frame that b begins with
// (RFC 8878, section 3.1). The length in an L2 entry is only known to the
// sector, and the decoder refuses bytes behind the last frame.
func zstdFrameLength(b []byte) (int, error) {
	if len(b) < 8 {
		return 0, errZstdShort
	}
	m := binary.LittleEndian.Uint32(b)
	if m&^15 == zstdSkippableMagic {
		n := uint64(binary.LittleEndian.Uint32(b[4:])) + 8
		if n > uint64(len(b)) {
			return 0, errZstdShort
		}
		return int(n), nil
	}
	if m != zstdMagic {
		return 0, fmt.Errorf("the zstd magic is missing, %#x was found", m)
	}
	return zstdBlocksEnd(b, zstdHeaderLength(b[4]), b[4]&4 != 0)
}

// zstdHeaderLength is the length of magic and frame header, from the frame
// header descriptor.
func zstdHeaderLength(descriptor byte) int {
	singleSegment := descriptor&0x20 != 0
	n := 5 + [...]int{0, 1, 2, 4}[descriptor&3] + [...]int{0, 2, 4, 8}[descriptor>>6]
	switch {
	case !singleSegment:
		n++ // window descriptor
	case descriptor>>6 == 0:
		n++ // a single segment always has its content size
	}
	return n
}

// zstdBlocksEnd walks the block headers from off; the result is the end of the
// frame.
func zstdBlocksEnd(b []byte, off int, checksum bool) (int, error) {
	for {
		if off+3 > len(b) {
			return 0, errZstdShort
		}
		h := int(b[off]) | int(b[off+1])<<8 | int(b[off+2])<<16
		size := h >> 3
		if h>>1&3 == 1 {
			size = 1 // one byte, repeated
		}
		off += 3 + size
		if off > len(b) {
			return 0, errZstdShort
		}
		if h&1 != 0 {
			break
		}
	}
	if checksum {
		off += 4
	}
	if off > len(b) {
		return 0, errZstdShort
	}
	return off, nil
}
