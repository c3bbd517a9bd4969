package build

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// streamImage has one compressed cluster, which stores stream.
func streamImage(clusterBits int, useZstd bool, stream []byte, sectors *uint64) *Image {
	return Must(Spec{ClusterBits: clusterBits, Size: 2 << clusterBits, Zstd: useZstd, Clusters: map[uint64]Cluster{
		1: {Form: Packed, Stream: stream, Sectors: sectors},
	}})
}

func (b *book) stream(when string, useZstd bool, name, rule string, stream []byte) {
	img := streamImage(12, useZstd, stream, nil)
	b.add(when, "compressed cluster", img, img.Bytes, patch{name: name, field: "entry 1", rule: rule})
}

// compressed is Compress for content that cannot fail.
func compressed(content []byte, useZstd bool) []byte {
	s, err := Compress(content, useZstd)
	if err != nil {
		panic(err)
	}
	return s
}

// stored is a deflate block without compression, the last one.
func stored(content []byte) []byte {
	s := binary.LittleEndian.AppendUint16([]byte{1}, uint16(len(content)))
	s = binary.LittleEndian.AppendUint16(s, ^uint16(len(content)))
	return append(s, content...)
}

func (b *book) streams() {
	const one = "the stream gives one cluster"
	content := madeUp(1, "stream", 4096, true)
	good := compressed(content, false)
	b.stream(WhenRead, false, "garbage", one, bytes.Repeat([]byte{0xff}, 700))
	b.stream(WhenRead, false, "zeros", one, make([]byte, 700))
	b.stream(WhenRead, false, "too short", one, compressed(content[:4095], false))
	b.stream(WhenRead, false, "empty", one, compressed(nil, false))
	b.stream(WhenRead, false, "with a zlib header", "deflate streams are raw", append([]byte{0x78, 0x9c}, good...))
	b.stream(WhenRead, false, "stored length and its complement differ", one, append([]byte{1, 0, 16, 0, 16}, content...))
	// A block with fixed codes: length 3, distance 4, and nothing before it.
	b.stream(WhenRead, false, "distance before the start", one, []byte{0x03, 0x62, 0x00})
	b.stream(WhenAny, false, "too long", "decompression stops after one cluster", compressed(append(content, content...), false))
	b.stream(WhenAny, false, "bytes after its end", "decompression stops after one cluster", append(slices.Clone(good), "behind"...))

	cut := uint64(0)
	img := streamImage(12, false, stored(madeUp(1, "x", 4096, false)), &cut)
	b.add(WhenRead, "compressed cluster", img, img.Bytes, patch{
		name: "too few sectors", field: "entry 1", rule: "the stream lies in the sectors that the entry gives",
	})
	most := uint64(15)
	img = streamImage(12, false, good, &most)
	b.add(WhenAny, "compressed cluster", img, img.Bytes, patch{
		name: "sectors beyond the end of the file", field: "entry 1", rule: "compressed data lies in the file",
	})
}

func (b *book) zstdStreams() {
	const one = "the frames give one cluster"
	content := madeUp(1, "stream", 4096, true)
	good := compressed(content, true)
	b.stream(WhenRead, true, "zstd: garbage", one, bytes.Repeat([]byte{0xff}, 700))
	b.stream(WhenRead, true, "zstd: zeros", one, make([]byte, 700))
	b.stream(WhenRead, true, "zstd: too short", one, compressed(content[:4095], true))
	b.stream(WhenRead, true, "zstd: too long", one, compressed(append(slices.Clone(content), 1), true))
	b.stream(WhenRead, true, "zstd: deflate instead", "the compression type is zstd", compressed(content, false))
	// The last bytes of the frame are a checksum of its content.
	wrong := slices.Clone(good)
	wrong[len(wrong)-1] ^= 1
	b.stream(WhenRead, true, "zstd: wrong checksum", one, wrong)
	b.stream(WhenRead, true, "zstd: frame is cut", one, good[:len(good)/2])
	b.stream(WhenRead, true, "zstd: wrong content size", one, rawFrame(content, 4095))
	b.stream(WhenRead, true, "zstd: huge content size", one, rawFrame(content, 1<<31))
	b.stream(WhenRead, true, "zstd: window of 2 TiB", one, windowFrame(content))
	b.stream(WhenRead, true, "zstd: wants a dictionary", one, dictionaryFrame(content))
}

const zstdMagic = "\x28\xb5\x2f\xfd"

// rawFrame is a zstd frame of one raw block that claims a content size.
func rawFrame(content []byte, size uint32) []byte {
	f := append([]byte(zstdMagic), 0xa0) // single segment, four bytes of content size
	f = binary.LittleEndian.AppendUint32(f, size)
	return append(f, rawBlock(content)...)
}

// windowFrame claims a window of more than any memory.
func windowFrame(content []byte) []byte {
	return append(append([]byte(zstdMagic), 0x00, 0xff), rawBlock(content)...)
}

func dictionaryFrame(content []byte) []byte {
	f := append([]byte(zstdMagic), 0xa3)
	f = binary.LittleEndian.AppendUint32(f, 0x12345678)
	f = binary.LittleEndian.AppendUint32(f, uint32(len(content)))
	return append(f, rawBlock(content)...)
}

func rawBlock(content []byte) []byte {
	h := uint32(len(content))<<3 | 1
	return append([]byte{byte(h), byte(h >> 8), byte(h >> 16)}, content...)
}

// bombs are streams that grow to a multiple of the cluster.
func (b *book) bombs() {
	zeros := make([]byte, 64<<20)
	img := streamImage(16, false, compressed(zeros, false), nil)
	b.add(WhenAny, "compressed cluster", img, img.Bytes, patch{
		name: "bomb", field: "entry 1", rule: "decompression stops after one cluster",
	})
	img = streamImage(16, true, zstdBomb(), nil)
	b.add(WhenRead, "compressed cluster", img, img.Bytes, patch{
		name: "zstd: bomb", field: "entry 1", rule: "the frames give one cluster",
	})
	img = streamImage(16, true, compressed(zeros, true), nil)
	b.add(WhenRead, "compressed cluster", img, img.Bytes, patch{
		name: "zstd: bomb that says so", field: "entry 1", rule: "the frames give one cluster",
	})
	img = streamImage(16, true, bytes.Repeat(emptyFrame(), 8000), nil)
	b.add(WhenRead, "compressed cluster", img, img.Bytes, patch{
		name: "zstd: thousands of empty frames", field: "entry 1", rule: "the frames give one cluster",
	})
}

// zstdBomb gives 2 GiB of zeros: blocks of one repeated byte, 128 KiB each.
func zstdBomb() []byte {
	f := append([]byte(zstdMagic), 0x00, 0x38) // a window of 128 KiB, no content size
	const n = 16384
	for i := range n {
		h := uint32(128<<10)<<3 | 1<<1
		if i == n-1 {
			h |= 1
		}
		f = append(f, byte(h), byte(h>>8), byte(h>>16), 0)
	}
	return f
}

func emptyFrame() []byte {
	return append([]byte(zstdMagic), 0x20, 0x00, 0x01, 0x00, 0x00)
}
