package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/qbitkit/qbit/qcow2/inflate"
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

// A clusterBuffer is what one goroutine needs to decode clusters.
type clusterBuffer struct {
	decoder clusterDecoder
	host    HostOffset // of in
	in      []byte     // bytes of the file
	out     []byte     // for a cluster of which only a part is wanted, with spare
}

// A clusterDecoder fills dst, a whole cluster, from the stream that src begins
// with. More bytes may follow the stream. It may write up to the capacity of dst,
// and is faster where that is longer than dst by spare.
type clusterDecoder interface {
	decode(dst, src []byte) error
	spare() int
}

// maxZstdWindow is the largest window of libzstd. Nothing is allocated for it: a
// cluster is decoded in place.
const maxZstdWindow = 128 << 20

// maxPacked is the most bytes of the file that are read at a time for several
// compressed clusters.
const maxPacked = 512 << 10

// buffer returns a buffer that holds no bytes of the file; give it back to the pool.
func (c *clusterReader) buffer() (*clusterBuffer, error) {
	if b, ok := c.pool.Get().(*clusterBuffer); ok {
		b.in = b.in[:0] // the file may have changed
		return b, nil
	}
	b := &clusterBuffer{decoder: &deflateDecoder{}}
	if c.method == CompressionZstd {
		var err error
		if b.decoder, err = newZstdDecoder(c.window); err != nil {
			return nil, err
		}
	}
	size := c.geometry.ClusterSize()
	b.out = make([]byte, size, size+int64(b.decoder.spare()))
	return b, nil
}

// A hostSpan is a range of the file.
type hostSpan struct{ off, end HostOffset }

func (s hostSpan) len() int64 { return int64(s.end - s.off) }

func (s hostSpan) contains(o hostSpan) bool { return s.off <= o.off && o.end <= s.end }

// with is the range that holds both.
func (s hostSpan) with(o hostSpan) hostSpan {
	return hostSpan{off: min(s.off, o.off), end: max(s.end, o.end)}
}

// span is where the bytes of a compressed cluster are, which checkCompressed found
// to be in the file.
func (c *clusterReader) span(entry l2Entry) hostSpan {
	host, length := entry.compressedRange(c.geometry)
	return hostSpan{off: host, end: host + HostOffset(min(length, c.size-int64(host)))}
}

func (b *clusterBuffer) span() hostSpan {
	return hostSpan{off: b.host, end: b.host + HostOffset(len(b.in))}
}

// fetch reads a range of the file into b.
func (c *clusterReader) fetch(b *clusterBuffer, s hostSpan) error {
	if int64(cap(b.in)) < s.len() {
		b.in = make([]byte, max(s.len(), min(maxPacked, 2*int64(cap(b.in)))))
	}
	b.host, b.in = s.off, b.in[:s.len()]
	if err := readFull(c.r, b.in, s.off); err != nil {
		return fmt.Errorf("reading a compressed cluster at %s: %w", s.off, err)
	}
	return nil
}

// decode fills p with a cluster's bytes from byte skip on; span is in b. Where p is
// the whole cluster it is decoded in place, and up to the capacity of p written over.
func (c *clusterReader) decode(b *clusterBuffer, p []byte, skip int64, span hostSpan) error {
	out, size := p, c.geometry.ClusterSize()
	if int64(len(p)) < size || cap(p)-len(p) < b.decoder.spare() {
		out = b.out
	}
	src := b.in[span.off-b.host : span.end-b.host]
	if err := b.decoder.decode(out, src); err != nil {
		return &streamError{host: span.off, length: span.len(), method: c.method, window: c.window, err: err}
	}
	if len(p) > 0 && &out[0] != &p[0] {
		copy(p, out[skip:])
	}
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
	inflate inflate.Decoder
}

func (d *deflateDecoder) spare() int { return 0 }

func (d *deflateDecoder) decode(dst, src []byte) error {
	n, err := d.inflate.Decode(dst, src)
	if err == inflate.ErrEnd || err == inflate.ErrCut {
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

// spare is room behind the output that lets the decoder use its fast path.
func (d *zstdDecoder) spare() int { return 16 }

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
