package inflate

import (
	"bytes"
	stdflate "compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/flate"
)

const clusterSize = 64 << 10

// A corpus is what one benchmark decodes: clusters of one kind.
type corpus struct {
	name     string
	clusters [][]byte
}

// corpora are clusters of what disks hold. Programs are those of the machine.
func corpora(tb testing.TB) []corpus {
	rng := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 4*clusterSize)
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	text, programs := prose(rng, 16*clusterSize), installed(16*clusterSize)
	mixed := bytes.Join([][]byte{text[:40<<10], programs[:100<<10], random[:20<<10], make([]byte, 50<<10), text[:46<<10]}, nil)
	return []corpus{
		{"text", cut(text)}, {"programs", cut(programs)}, {"mixed", cut(mixed)},
		{"random", cut(random)}, {"zeros", cut(make([]byte, 2*clusterSize))},
	}
}

func cut(b []byte) (clusters [][]byte) {
	for ; len(b) >= clusterSize; b = b[clusterSize:] {
		clusters = append(clusters, b[:clusterSize])
	}
	return clusters
}

// prose is text with the statistics of words: some often, most seldom.
func prose(rng *rand.Rand, n int) []byte {
	words := make([]string, 4000)
	for i := range words {
		w := make([]byte, 2+rng.IntN(9))
		for j := range w {
			w[j] = "etaoinshrdlucmfwypvbgkjqxz"[int(26*rng.Float64()*rng.Float64())]
		}
		words[i] = string(w)
	}
	var b strings.Builder
	for b.Len() < n {
		f := rng.Float64()
		b.WriteString(words[int(float64(len(words))*f*f*f)])
		b.WriteByte(" \n,."[rng.IntN(20)/17])
		if rng.IntN(9) == 0 {
			fmt.Fprintf(&b, "%d: ", rng.IntN(100000))
		}
	}
	return []byte(b.String())[:n]
}

// installed is up to n bytes of the machine's programs, or of this one.
func installed(n int) []byte {
	names, _ := filepath.Glob("/usr/bin/[a-m]*")
	if self, err := os.Executable(); err == nil {
		names = append(names, self)
	}
	var b []byte
	for _, name := range names {
		p, err := os.ReadFile(name)
		if err != nil || len(p) < clusterSize {
			continue
		}
		b = append(b, p[:min(len(p), 4*clusterSize)]...)
		if len(b) >= n {
			return b[:n]
		}
	}
	return b
}

// A deflater is one that clusters are compressed with.
type deflater struct {
	name     string
	compress func(tb testing.TB, b []byte) []byte
}

func deflaters() []deflater {
	ours := func(tb testing.TB, b []byte) []byte {
		return deflated(tb, b, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, 5) })
	}
	qemu := func(tb testing.TB, b []byte) []byte { // a window of 4 KiB
		return deflated(tb, b, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriterWindow(w, 4<<10) })
	}
	ds := []deflater{{"klauspost-5", ours}, {"window-4k", qemu}}
	for _, level := range []int{1, 6, 9} {
		ds = append(ds, deflater{fmt.Sprint("std-", level), func(tb testing.TB, b []byte) []byte {
			return deflated(tb, b, func(w io.Writer) (io.WriteCloser, error) { return stdflate.NewWriter(w, level) })
		}})
	}
	return ds
}

func deflated(tb testing.TB, b []byte, open func(io.Writer) (io.WriteCloser, error)) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := open(&out)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

// BenchmarkDecode decodes clusters, each in sectors as an image has them.
func BenchmarkDecode(b *testing.B) {
	for _, c := range corpora(b) {
		for _, d := range deflaters() {
			var streams [][]byte
			for _, cluster := range c.clusters {
				s := d.compress(b, cluster)
				streams = append(streams, append(s, make([]byte, -len(s)&511)...))
			}
			name := c.name + "/" + d.name
			b.Run(name+"/inflate", func(b *testing.B) { benchInflate(b, streams) })
			b.Run(name+"/klauspost", func(b *testing.B) { benchKlauspost(b, streams) })
		}
	}
}

func benchInflate(b *testing.B, streams [][]byte) {
	b.SetBytes(clusterSize)
	b.ReportAllocs()
	var d Decoder
	dst := make([]byte, clusterSize)
	for i := 0; b.Loop(); i++ {
		if _, err := d.Decode(dst, streams[i%len(streams)]); err != nil {
			b.Fatal(err)
		}
	}
}

func benchKlauspost(b *testing.B, streams [][]byte) {
	b.SetBytes(clusterSize)
	b.ReportAllocs()
	var src bytes.Reader
	r := flate.NewReader(&src)
	dst := make([]byte, clusterSize)
	for i := 0; b.Loop(); i++ {
		src.Reset(streams[i%len(streams)])
		if err := r.(flate.Resetter).Reset(&src, nil); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(r, dst); err != nil {
			b.Fatal(err)
		}
	}
}
