package qcow2_test

import (
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
)

// benchImage is an image of n clusters, all stored the same way.
func benchImage(b *testing.B, n uint64, s build.Spec, one build.Cluster) *qcow2.Image {
	b.Helper()
	s.Size = n << s.ClusterBits
	s.Clusters = map[uint64]build.Cluster{}
	for i := range n {
		s.Clusters[i] = one
	}
	img, err := openBuilt(build.Must(s).Bytes, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	return img
}

// BenchmarkImageExtents walks images of which no two clusters can be merged, for they
// are all stored in one place, and one that is a single extent.
func BenchmarkImageExtents(b *testing.B) {
	const clusters = 16384
	shared := func(bits int) build.Cluster {
		return build.Cluster{Form: build.Normal, Share: "one", Content: make([]byte, 1<<bits)}
	}
	sub := shared(14)
	sub.Form, sub.Alloc, sub.Zero = build.Sub, 0x00ff00ff, 0xff000000
	for _, c := range []struct {
		name string
		img  *qcow2.Image
	}{
		{"scattered", benchImage(b, clusters, build.Spec{ClusterBits: 12}, shared(12))},
		{"extended", benchImage(b, clusters, build.Spec{ClusterBits: 14, ExtendedL2: true}, sub)},
		{"zero", benchImage(b, clusters, build.Spec{ClusterBits: 12}, build.Cluster{Form: build.ZeroPlain})},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for _, err := range c.img.Extents(0, c.img.Size()) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/clusters, "ns/cluster")
		})
	}
}

// BenchmarkReadPlain reads 16 MiB of data in pieces of 512 KiB. BenchmarkCompressed
// has the other ways to store it.
func BenchmarkReadPlain(b *testing.B) {
	const bits, clusters, piece = 16, 256, 512 << 10
	img := benchImage(b, clusters, build.Spec{ClusterBits: bits}, build.Cluster{Form: build.Normal})
	b.SetBytes(img.Size())
	b.ReportAllocs()
	p := make([]byte, piece)
	for b.Loop() {
		for off := int64(0); off < img.Size(); off += piece {
			if _, err := img.ReadAt(p, off); err != nil {
				b.Fatal(err)
			}
		}
	}
}
