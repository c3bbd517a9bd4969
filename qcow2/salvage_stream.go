package qcow2

import (
	"io"
	"sync"

	"github.com/qbitkit/qbit/qcow2/inflate"
)

// A streamReader decodes compressed clusters as far as they go: unlike a clusterReader it
// tells how much came before an error, and whether a stream ends with its cluster.
type streamReader struct {
	r        io.ReaderAt
	size     int64 // of the file
	geometry Geometry
	method   CompressionType
	window   int64
	pool     sync.Pool // of *streamBuffer
}

// A streamBuffer is what decoding one cluster needs.
type streamBuffer struct {
	in      []byte
	out     []byte // a cluster, and a byte more than it may give
	inflate inflate.Decoder
	zstd    *zstdDecoder
}

func newStreamReader(img *Image) *streamReader {
	return &streamReader{r: img.r, size: img.size, geometry: img.geometry, method: img.header.CompressionType, window: img.limits.ZstdWindow}
}

// unpack decodes a compressed cluster and gives use what it has of it: all of it, a
// beginning of whole sectors, or nothing; and what is wrong.
func (s *streamReader) unpack(e l2Entry, use func(cluster []byte, why Reason)) {
	b, ok := s.pool.Get().(*streamBuffer)
	if !ok {
		b = &streamBuffer{out: make([]byte, s.geometry.ClusterSize()+1)}
	}
	defer s.pool.Put(b)
	src, readable := s.load(b, e)
	got, ended := s.decode(b, src)
	size := len(b.out) - 1
	switch {
	case got == size && ended:
		use(b.out[:size], "")
	case got >= size:
		use(b.out[:size], ReasonStreamEnd)
	case !readable:
		use(b.out[:got&^(salvageSector-1)], ReasonUnreadable)
	default:
		use(b.out[:got&^(salvageSector-1)], ReasonStream)
	}
}

// load reads the bytes that the stream of an entry is in, or those before the first
// sector that cannot be read.
func (s *streamReader) load(b *streamBuffer, e l2Entry) (src []byte, readable bool) {
	host, length := e.compressedRange(s.geometry)
	length = max(0, min(length, s.size-int64(host)))
	if int64(cap(b.in)) < length {
		b.in = make([]byte, length)
	}
	src = b.in[:length]
	if readFull(s.r, src, host) == nil {
		return src, true
	}
	for n := 0; n < len(src); {
		next := min(len(src), n+salvageSector-int(host+HostOffset(n))&(salvageSector-1))
		if readFull(s.r, src[n:next], host+HostOffset(n)) != nil {
			return src[:n], false
		}
		n = next
	}
	return src, true
}

// decode says how many bytes the stream gives, in b.out, up to one more than it should, and
// whether it ends with them.
func (s *streamReader) decode(b *streamBuffer, src []byte) (n int, ended bool) {
	if s.method == CompressionZstd {
		return s.decodeZstd(b, src)
	}
	n, err := b.inflate.Decode(b.out, src)
	return n, err == inflate.ErrEnd
}

// decodeZstd is decode for zstd, of which nothing is had where something is wrong.
func (s *streamReader) decodeZstd(b *streamBuffer, src []byte) (n int, ended bool) {
	if b.zstd == nil {
		z, err := newZstdDecoder(s.window)
		if err != nil {
			return 0, false
		}
		b.zstd = z
	}
	size := len(b.out) - 1
	if b.zstd.decode(b.out[:size:size], src) != nil {
		return 0, false
	}
	return size, true
}
