package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// compressedAlloc bounds what reading one compressed cluster may allocate, the
// decoders included, on top of a few clusters.
const compressedAlloc = 8 << 20

// FuzzCompressed reads a compressed cluster whose stream is any bytes.
// Properties: deflate gives exactly what the standard library gives of the same
// sectors, or an error if that does not fill the cluster; zstd gives what a
// streaming reader gives, and a stream that is whole and gives one cluster is
// never refused, while a frame that gives more is; nothing is written outside
// of the cluster; memory is bounded. The L2 entry tells of fewer sectors than
// the stream has where fewer says so.
func FuzzCompressed(f *testing.F) {
	for _, bits := range []uint8{9, 12, 16} {
		for _, content := range [][]byte{make([]byte, 1<<bits), patterned(1 << bits), bytes.Repeat([]byte("abcd"), 1<<bits/4+9)} {
			addStreams(f, bits, content)
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, bits uint8, useZstd bool, gap uint16, fewer uint8) {
		bits = 9 + bits%8
		gap %= 512
		stream = stream[:min(len(stream), 1<<bits-int(gap))] // more than an L2 entry cannot tell
		img := packedImage(t, stream, bits, useZstd, int(gap), int(fewer))
		got, err := readPacked(t, img)
		checkPacked(t, img, stream, got, err, fewer > 0)
		if useZstd {
			checkRawFrames(t, bits, int(gap%24))
		}
	})
}

// packedImage stores a stream as guest cluster 1.
func packedImage(t *testing.T, stream []byte, bits uint8, useZstd bool, gap, fewer int) *build.Image {
	sectors := uint64(max(0, (gap+len(stream)-1)/512-fewer))
	img, err := build.Spec{
		ClusterBits: int(bits), Size: 3 << bits, Zstd: useZstd,
		Clusters: map[uint64]build.Cluster{1: {Form: build.Packed, Stream: stream, Gap: gap, Sectors: &sectors}},
	}.Build()
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// checkRawFrames reads zstd frames of some bytes more and less than a cluster.
func checkRawFrames(t *testing.T, bits uint8, differ int) {
	for _, n := range []int{1<<bits - differ, 1<<bits + differ} {
		content := patterned(int64(n))
		got, err := readPacked(t, packedImage(t, rawFrame(content), bits, true, 0, 0))
		if (err == nil) != (differ == 0) || err == nil && !bytes.Equal(got, content) {
			t.Fatalf("a frame of %d bytes in a cluster of %d: %v", n, 1<<bits, err)
		}
	}
}

// rawFrame is a zstd frame of one raw block, or of two where one is too small.
func rawFrame(content []byte) []byte {
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 10 << 3} // a window of 1 MiB, no content size
	for len(content) > 0 {
		n := min(len(content), 100<<10)
		header := uint32(n << 3)
		if n == len(content) {
			header |= 1 // the last block
		}
		frame = append(binary.LittleEndian.AppendUint32(frame, header)[:len(frame)+3], content[:n]...)
		content = content[n:]
	}
	return frame
}

func addStreams(f *testing.F, bits uint8, content []byte) {
	for _, useZstd := range []bool{false, true} {
		s, err := build.Compress(content, useZstd)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s, bits-9, useZstd, uint16(0), uint8(0))
		f.Add(s, bits-9, useZstd, uint16(300), uint8(0))
		f.Add(s, bits-9, useZstd, uint16(500), uint8(1))
		f.Add(s[:len(s)-1], bits-9, useZstd, uint16(0), uint8(0))
	}
	f.Add(streamed(f, content), bits-9, true, uint16(0), uint8(0))
	empty := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0}
	f.Add(append(empty, streamed(f, content)...), bits-9, true, uint16(511), uint8(0))
	f.Add(append([]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9}, streamed(f, content)...), bits-9, true, uint16(0), uint8(0))
}

// streamed is one zstd frame as a writer makes it that does not know the length
// beforehand: a window larger than a cluster, no content size.
func streamed(f *testing.F, content []byte) []byte {
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		f.Fatal(err)
	}
	for _, half := range [][]byte{content[:len(content)/2], content[len(content)/2:]} {
		if _, err := w.Write(half); err != nil {
			f.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	return out.Bytes()
}

func patterned(n int64) []byte {
	p := make([]byte, n)
	_, _ = pattern(n).ReadAt(p, 0)
	return p
}

// readPacked reads guest cluster 1, in a buffer with a cluster of 0xaa before
// and after it.
func readPacked(t *testing.T, img *build.Image) ([]byte, error) {
	size := int64(img.ClusterSize)
	p := bytes.Repeat([]byte{0xaa}, int(3*size))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	q, err := qcow2.Open(bytes.NewReader(img.Bytes), int64(len(img.Bytes)), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = q.ReadAt(p[size:2*size], size)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > compressedAlloc+8*uint64(size) {
		t.Fatalf("%d bytes were allocated for a cluster of %d bytes", got, size)
	}
	if !all(p[:size], 0xaa) || !all(p[2*size:], 0xaa) {
		t.Fatal("the read wrote outside of its buffer")
	}
	var format *qcow2.FormatError
	if err != nil && !errors.As(err, &format) {
		t.Fatalf("not a FormatError: %v", err)
	}
	return p[size : 2*size], err
}

func checkPacked(t *testing.T, img *build.Image, stream, got []byte, err error, cut bool) {
	sectors := packedSectors(img)
	if !img.Spec.Zstd {
		checkDeflate(t, sectors, got, err)
		return
	}
	want := make([]byte, img.ClusterSize)
	if err == nil {
		_, wantErr := io.ReadFull(zstdReader(t, sectors), want)
		if errors.Is(wantErr, zstd.ErrWindowSizeExceeded) {
			return
		}
		if wantErr != nil || !bytes.Equal(got, want) {
			t.Fatalf("a streaming reader says %v; same bytes: %v", wantErr, bytes.Equal(got, want))
		}
		return
	}
	if cut {
		return
	}
	whole, wantErr := io.ReadAll(io.LimitReader(zstdReader(t, stream), int64(len(want))+1))
	if wantErr == nil && len(whole) == len(want) {
		t.Fatalf("refused, though the stream is whole and gives one cluster: %v", err)
	}
}

// checkDeflate compares with the standard library; see FuzzInflate for what it does not
// read of a stream that is cut off.
func checkDeflate(t *testing.T, sectors, got []byte, err error) {
	t.Helper()
	want, wantErr := stdInflate(sectors, len(got))
	switch {
	case err == nil && wantErr == io.ErrUnexpectedEOF:
		checkCut(t, sectors, len(got), got, nil, want)
	case (err == nil) != (wantErr == nil), err == nil && !bytes.Equal(got, want):
		t.Fatalf("error %v, the standard library says %v; same bytes: %v", err, wantErr, bytes.Equal(got, want))
	}
}

// packedSectors are the bytes that the L2 entry of guest cluster 1 tells of.
func packedSectors(img *build.Image) []byte {
	p := img.Entry(1)
	entry := binary.BigEndian.Uint64(img.Bytes[p.Off:]) & (1<<62 - 1)
	shift := 62 - (img.Spec.ClusterBits - 8)
	host := entry & (1<<shift - 1)
	end := host&^511 + (entry>>shift+1)*512
	return img.Bytes[host:min(end, uint64(len(img.Bytes)))]
}

// zstdReader takes windows of 8 MiB, so that it stays small: less than the
// reader under test, which needs no memory for them.
func zstdReader(t *testing.T, b []byte) io.Reader {
	d, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}
