package qcow2

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	second "github.com/lima-vm/go-qcow2reader/image/qcow2"
	secondlog "github.com/lima-vm/go-qcow2reader/log"

	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// A sinkFile forgets what is written and remembers how far.
type sinkFile struct{ end int64 }

func (f *sinkFile) ReadAt(p []byte, off int64) (int, error) { return 0, io.EOF }
func (f *sinkFile) WriteAt(p []byte, off int64) (int, error) {
	f.end = max(f.end, off+int64(len(p)))
	return len(p), nil
}
func (f *sinkFile) Truncate(int64) error { return nil }
func (f *sinkFile) Sync() error          { return nil }

// textCluster compresses to about a quarter.
func textCluster(rng *rand.Rand, n int) []byte {
	b := make([]byte, 0, n+60)
	for len(b) < n {
		b = fmt.Appendf(b, "%d cluster table offset %d\n", rng.IntN(1000), rng.IntN(100000))
	}
	return b[:n]
}

var bothCompressions = []CompressionType{CompressionZlib, CompressionZstd}

// Compressing allocates nothing for a cluster, once encoders are there.
func TestWriteCompressedAllocations(t *testing.T) {
	for _, method := range bothCompressions {
		w, err := Create(&sinkFile{}, Layout{Size: 1 << 30, Compression: method})
		if err != nil {
			t.Fatal(err)
		}
		p := append(textCluster(rand.New(rand.NewPCG(1, 1)), 60<<10), make([]byte, 4<<10)...)
		off := int64(0)
		n := testing.AllocsPerRun(200, func() {
			if err := w.WriteCompressed(p, off); err != nil {
				t.Fatal(err)
			}
			off += int64(len(p))
		})
		if n >= 1 { // the garbage collector may take an encoder away
			t.Errorf("%s: %v allocations a cluster", method, n)
		}
	}
}

// compressOne writes a disk of one cluster and says how it is stored.
func compressOne(t *testing.T, p []byte, method CompressionType) (Kind, []byte) {
	t.Helper()
	f := crash.New(nil)
	w, err := Create(f, Layout{Size: int64(len(p)), Compression: method})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteCompressed(p, 0); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := Open(f, f.Size(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(p))
	if n, err := img.ReadAt(got, 0); n != len(p) || !bytes.Equal(got, p) {
		t.Errorf("the guest reads something else: %v", err)
	}
	for e := range img.Extents(0, int64(len(p))) {
		return e.Kind, f.Bytes()
	}
	return Absent, nil
}

// QEMU inflates with a window of 4 KiB: noise that comes again further away than
// that must not be found, and what is nearer must.
func TestDeflateWindow(t *testing.T) {
	noise := make([]byte, 5000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	e, err := newClusterEncoder(CompressionZlib, DefaultClusterSize)
	if err != nil {
		t.Fatal(err)
	}
	e.out.limit *= 2
	for _, distance := range []int{1000, 4000, 4097, 4200, 5000} {
		packed, _ := e.encode(bytes.Repeat(noise[:distance], 14)[:13*distance])
		if found := len(packed) < 6*distance; found != (distance <= 4096) {
			t.Errorf("noise of %d bytes 13 times takes %d bytes", distance, len(packed))
		}
	}
}

// Small disks end inside their only cluster: it is compressed with zeros behind it.
func TestWriteCompressedShort(t *testing.T) {
	for _, method := range bothCompressions {
		for _, n := range []int{1, 511, 512, 40000, 65535, 65536} {
			p := textCluster(rand.New(rand.NewPCG(2, uint64(n))), n)
			if kind, _ := compressOne(t, p, method); kind != Compressed {
				t.Errorf("%s, %d bytes: stored as %v", method, n, kind)
			}
			noise := make([]byte, n)
			for i := range noise {
				noise[i] = byte(rand.Uint32())
			}
			if kind, _ := compressOne(t, noise, method); n > 65000 && kind != Data {
				t.Errorf("%s, %d bytes of noise: stored as %v", method, n, kind)
			}
			if kind, _ := compressOne(t, make([]byte, n), method); kind != Absent {
				t.Errorf("%s, %d zeros: stored as %v", method, n, kind)
			}
		}
	}
}

// A zstd frame says how long its content is, and has no checksum that QEMU would
// have to count.
func TestZstdFrame(t *testing.T) {
	e, err := newClusterEncoder(CompressionZstd, DefaultClusterSize)
	if err != nil {
		t.Fatal(err)
	}
	packed, ok := e.encode(textCluster(rand.New(rand.NewPCG(3, 3)), DefaultClusterSize))
	var h zstd.Header
	if err := h.Decode(packed); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if !h.HasFCS || h.FrameContentSize != DefaultClusterSize || h.HasCheckSum || h.WindowSize > DefaultClusterSize {
		t.Errorf("the frame header is %+v", h)
	}
}

// The refcount of a host cluster counts the compressed clusters in it, up to what
// its width can say and no further.
func TestWriteCompressedRefcounts(t *testing.T) {
	const cluster, n = 4096, 400
	for bits := 1; bits <= 64; bits *= 2 {
		f := crash.New(nil)
		w, err := Create(f, Layout{Size: n * cluster, ClusterSize: cluster, RefcountBits: bits})
		if err != nil {
			t.Fatal(err)
		}
		for i := range int64(n) {
			if err := w.WriteCompressed(bytes.Repeat([]byte{byte(i), 1}, cluster/2), i*cluster); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := checkSound(f, f.Size()); err != nil {
			t.Errorf("%d bits: %v", bits, err)
		}
		a, _ := build.AuditFile(f, f.Size())
		packed, most := 0, uint64(0)
		for i, c := range a.Clusters {
			if c.Count == 0 {
				t.Errorf("%d bits: cluster %d is not used", bits, i)
			}
			if c.Use == build.UsedByPacked {
				packed, most = packed+1, max(most, c.Count)
			}
		}
		wantMost := uint64(1)<<min(bits, 7) - 1
		if most < min(wantMost, 100) || bits < 8 && (most != wantMost || packed != (n+int(most)-1)/int(most)) {
			t.Errorf("%d bits: %d clusters in %d host clusters, %d at the most in one", bits, n, packed, most)
		}
	}
}

// Where compressed and plain clusters take turns, little is lost between them.
func TestWriteCompressedBesidePlain(t *testing.T) {
	const cluster, n = 4096, 1000
	f := crash.New(nil)
	w, err := Create(f, Layout{Size: 2 * n * cluster, ClusterSize: cluster})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(4, 4))
	noise := make([]byte, cluster)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	for i := range int64(n) {
		for j, p := range [][]byte{textCluster(rng, cluster), noise} {
			if err := w.WriteCompressed(p, (2*i+int64(j))*cluster); err != nil {
				t.Fatal(err)
			}
		}
	}
	packed := w.packed.total
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := checkSound(f, f.Size()); err != nil {
		t.Error(err)
	}
	if most := (n*cluster + packed) * 104 / 100; f.Size() > most || packed == 0 {
		t.Errorf("%d plain clusters and %d bytes of compressed ones take %d bytes, more than %d", n, packed, f.Size(), most)
	}
}

// What was reserved for compressed clusters and not used is given back.
func TestWriteCompressedGivesBack(t *testing.T) {
	const cluster, n = 4096, 1000
	f := crash.New(nil)
	w, err := Create(f, Layout{Size: n * cluster, ClusterSize: cluster})
	if err != nil {
		t.Fatal(err)
	}
	rng, most := rand.New(rand.NewPCG(11, 11)), HostOffset(0)
	for i := range int64(n) {
		if err := w.WriteCompressed(textCluster(rng, cluster), i*cluster); err != nil {
			t.Fatal(err)
		}
		most = max(most, w.packed.end-w.packed.at)
	}
	if left := w.packed.end - w.packed.at; left < cluster || most < 4*cluster {
		t.Fatalf("%d bytes are left of at most %d: nothing is tried", left, most)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := checkSound(f, f.Size()); err != nil {
		t.Error(err)
	}
	a, err := build.AuditFile(f, f.Size())
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range a.Clusters {
		if c.Count == 0 {
			t.Errorf("cluster %d of %d is not used", i, len(a.Clusters))
		}
	}
}

func TestWriteCompressedRefuses(t *testing.T) {
	const cluster = 4096
	text := textCluster(rand.New(rand.NewPCG(5, 5)), cluster)
	for _, c := range []struct {
		name, want string
		do         func(w *Writer) error
	}{
		{"inside a cluster", "whole clusters", func(w *Writer) error { return w.WriteCompressed(text, 512) }},
		{"a part", "whole clusters", func(w *Writer) error { return w.WriteCompressed(text[:1000], 0) }},
		{"outside", "outside of the disk", func(w *Writer) error { return w.WriteCompressed(text, 10*cluster) }},
		{"before", "outside of the disk", func(w *Writer) error { return w.WriteCompressed(text, -cluster) }},
		{"twice", "compressed already", func(w *Writer) error { return w.WriteCompressed(text, cluster) }},
		{"written again", "compressed already", func(w *Writer) error { _, err := w.WriteAt(text[:9], cluster); return err }},
		{"zeros over it", "compressed already", func(w *Writer) error { return w.Zero(cluster+9, 9) }},
		{"zeros over the second", "compressed already", func(w *Writer) error { return w.Zero(2*cluster, cluster) }},
		{"zeros over the third", "compressed already", func(w *Writer) error { return w.Zero(3*cluster, cluster) }},
		{"zeros compressed over it", "compressed already", func(w *Writer) error { return w.WriteCompressed(make([]byte, cluster), cluster) }},
		{"placed", "compressed already", func(w *Writer) error { _, _, err := w.Place(cluster, 1); return err }},
	} {
		w, err := Create(crash.New(nil), Layout{Size: 10 * cluster, ClusterSize: cluster, Sparse: true})
		if err != nil {
			t.Fatal(err)
		}
		for i := range int64(3) { // an odd number of bytes each: descriptors end in any bit
			p := append(bytes.Clone(text[:cluster-20*i]), make([]byte, 20*i)...)
			if err := w.WriteCompressed(p, (i+1)*cluster); err != nil {
				t.Fatal(err)
			}
			if i == 0 && w.packed.at%2 == 0 {
				w.packed.at++
			}
		}
		if err := c.do(w); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	w, err := Create(crash.New(nil), Layout{Size: cluster, DataFile: &DataFileLayout{File: crash.New(nil), Name: "d"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteCompressed(text, 0); err == nil || !strings.Contains(err.Error(), "data file") {
		t.Errorf("with a data file: %v", err)
	}
}

// A fillingReader fills the buffer of every Read: the second reader reads only once.
type fillingReader struct{ io.ReadCloser }

func (f fillingReader) Read(p []byte) (int, error) { return io.ReadFull(f.ReadCloser, p) }

// Images of every layout that go-qcow2reader knows read the same with it.
func TestWriterSecondReader(t *testing.T) {
	secondlog.SetWarnFunc(func(string) {})
	second.SetDecompressor(second.CompressionTypeZlib, func(r io.Reader) (io.ReadCloser, error) {
		return fillingReader{flate.NewReader(r)}, nil
	})
	second.SetDecompressor(second.CompressionTypeZstd, func(r io.Reader) (io.ReadCloser, error) {
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		return fillingReader{d.IOReadCloser()}, err
	})
	for i, c := range layoutTrials() {
		if c.dataFile {
			continue
		}
		rng := rand.New(rand.NewPCG(10, uint64(i)))
		m := newWriterModel(&c)
		ops := c.operations(rng, m, 60)
		f := crash.New(nil)
		if err, closeErr := c.makeLayout(&spaceFile{File: f}, nil, m, ops, false); err != nil || closeErr != nil {
			t.Fatal(err, closeErr)
		}
		b := f.Bytes()
		clear(b[8:20]) // the backing file
		img, err := second.Open(bytes.NewReader(b), nil)
		if err != nil || img.Readable() != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := make([]byte, c.layout.Size)
		if n, err := img.ReadAt(got, 0); n != len(got) || !bytes.Equal(got, m.bytes) {
			t.Errorf("%s: the second reader reads something else: %d bytes, %v", c.name, n, err)
		}
	}
}

func BenchmarkWriteCompressed(b *testing.B) {
	for _, method := range bothCompressions {
		b.Run(method.String(), func(b *testing.B) {
			p := textCluster(rand.New(rand.NewPCG(6, 6)), DefaultClusterSize)
			b.SetBytes(int64(len(p)))
			w, err := Create(&sinkFile{}, Layout{Size: 16 << 40, Compression: method})
			if err != nil {
				b.Fatal(err)
			}
			off := int64(0)
			for b.Loop() {
				if err := w.WriteCompressed(p, off); err != nil {
					b.Fatal(err)
				}
				off += int64(len(p))
			}
		})
	}
}
