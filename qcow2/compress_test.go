package qcow2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// packedDisk is an image of n compressed clusters of 64 KiB, one behind the other, and
// what a guest reads of it.
func packedDisk(tb testing.TB, n int, zstd bool) (*build.Image, []byte) {
	tb.Helper()
	rng := rand.New(rand.NewPCG(7, 8))
	var want []byte
	clusters := map[uint64]build.Cluster{}
	for i := range n {
		var b bytes.Buffer
		for b.Len() < 64<<10 {
			fmt.Fprintf(&b, "%d is a line in %d; ", rng.IntN(1000), i)
		}
		content := b.Bytes()[:64<<10]
		want = append(want, content...)
		clusters[uint64(i)] = build.Cluster{Form: build.Packed, Content: content}
	}
	img, err := build.Spec{ClusterBits: 16, Size: uint64(n) << 16, Zstd: zstd, Clusters: clusters}.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return img, want
}

// A readLog is a file that keeps what is read of it and may have a byte that cannot be.
type readLog struct {
	b     []byte
	bad   int64 // 0: none
	reads []int
}

var errBadByte = errors.New("this byte cannot be read")

func (r *readLog) ReadAt(p []byte, off int64) (int, error) {
	r.reads = append(r.reads, len(p))
	if r.bad != 0 && off <= r.bad && r.bad < off+int64(len(p)) {
		return 0, errBadByte
	}
	return bytes.NewReader(r.b).ReadAt(p, off)
}

// TestCompressedReads wants neighbours to be read at once, whatever part of them is asked
// for, and nothing to be written behind the buffer.
func TestCompressedReads(t *testing.T) {
	for _, zstd := range []bool{false, true} {
		t.Run(fmt.Sprintf("zstd=%v", zstd), func(t *testing.T) {
			img, want := packedDisk(t, 64, zstd)
			file := &readLog{b: img.Bytes}
			q := openPacked(t, file, img)
			for _, r := range [][2]int{{0, len(want)}, {1, len(want) - 1}, {0, len(want) - 1}, {65536, 3 * 65536}, {65536, 65540}, {70000, 70001}, {100, 65537}} {
				p := bytes.Repeat([]byte{0xaa}, r[1]-r[0]+100)
				file.reads = nil
				n, err := q.ReadAt(p[:r[1]-r[0]], int64(r[0]))
				if err != nil || n != r[1]-r[0] || !bytes.Equal(p[:n], want[r[0]:r[1]]) {
					t.Fatalf("%d to %d: %d bytes, %v", r[0], r[1], n, err)
				}
				if !bytes.Equal(p[n:], bytes.Repeat([]byte{0xaa}, 100)) {
					t.Errorf("%d to %d: bytes behind the buffer were written", r[0], r[1])
				}
				if most := 4 + 2*len(img.Bytes)/(512<<10); len(file.reads) > most {
					t.Errorf("%d to %d: %d reads, want at most %d", r[0], r[1], len(file.reads), most)
				}
			}
		})
	}
}

// TestCompressedBesideUnreadable reads clusters whose neighbours cannot be read.
func TestCompressedBesideUnreadable(t *testing.T) {
	img, want := packedDisk(t, 20, false)
	file := &readLog{b: img.Bytes}
	q := openPacked(t, file, img)
	file.bad = int64(packedAt(img, 12)) + 600
	p := make([]byte, 12<<16)
	if _, err := q.ReadAt(p, 0); err != nil || !bytes.Equal(p, want[:len(p)]) {
		t.Fatalf("12 clusters before the one that cannot be read: %v", err)
	}
	if _, err := q.ReadAt(p[:1<<16], 12<<16); !errors.Is(err, errBadByte) {
		t.Fatalf("the one that cannot be read: %v", err)
	}
	name := fmt.Sprintf("at %#x", packedAt(img, 12))
	if _, err := q.ReadAt(make([]byte, 20<<16), 0); !errors.Is(err, errBadByte) || !strings.Contains(err.Error(), name) {
		t.Fatalf("all of them: %v, which does not say %q", err, name)
	}
	if _, err := q.ReadAt(p[:7<<16], 13<<16); err != nil || !bytes.Equal(p[:7<<16], want[13<<16:]) {
		t.Fatalf("those behind it: %v", err)
	}
}

// packedAt is where the stream of a cluster begins.
func packedAt(img *build.Image, cluster uint64) uint64 {
	entry := img.Entry(cluster)
	var v uint64
	for _, b := range img.Bytes[entry.Off:][:8] {
		v = v<<8 | uint64(b)
	}
	return v & (1<<54 - 1)
}

func openPacked(tb testing.TB, r io.ReaderAt, img *build.Image) *qcow2.Image {
	tb.Helper()
	q, err := qcow2.Open(r, int64(len(img.Bytes)), nil)
	if err != nil {
		tb.Fatal(err)
	}
	return q
}

// TestCompressedAllocations wants reading many clusters to allocate no more than reading one.
func TestCompressedAllocations(t *testing.T) {
	for _, zstd := range []bool{false, true} {
		img, want := packedDisk(t, 64, zstd)
		q := openPacked(t, bytes.NewReader(img.Bytes), img)
		p := make([]byte, len(want))
		read := func(n int) func() {
			return func() {
				if _, err := q.ReadAt(p[:n], 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		one, all := testing.AllocsPerRun(5, read(1<<16)), testing.AllocsPerRun(5, read(len(p)))
		if all > one+3 { // a collection of garbage may take what is kept
			t.Errorf("zstd=%v: %v allocations for 64 clusters, %v for one", zstd, all, one)
		}
	}
}

func BenchmarkCompressed(b *testing.B) {
	for _, zstd := range []bool{false, true} {
		img, want := packedDisk(b, 64, zstd)
		q := openPacked(b, bytes.NewReader(img.Bytes), img)
		p := make([]byte, len(want))
		b.Run(fmt.Sprintf("zstd=%v", zstd), func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := q.ReadAt(p, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
