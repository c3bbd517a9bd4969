package qcow2

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/qbitkit/qbit/testimages/crash"
)

// A writerPiece is a range of the disk that is written at once.
type writerPiece struct {
	off  int64
	data []byte
}

// writerPieces are disjoint ranges of a disk, in random order: several to a
// cluster, and over several clusters, around a few places of it.
func writerPieces(rng *rand.Rand, size, cluster int64, places int) []writerPiece {
	var pieces []writerPiece
	for i := range places {
		from, end := size/int64(places)*int64(i), size/int64(places)*int64(i+1)
		if i == places-1 {
			end = size
		}
		pieces = append(pieces, writerPiecesIn(rng, from, end, cluster, int64(max(1, 6-places/50)))...)
	}
	rng.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
	return pieces
}

func writerPiecesIn(rng *rand.Rand, from, end, cluster, clusters int64) []writerPiece {
	var pieces []writerPiece
	limit := min(end, from+clusters*cluster)
	for off := from; off < limit; {
		n := min(limit-off, 1+rng.Int64N([]int64{300, cluster / 2, 3 * cluster}[rng.IntN(3)]))
		if rng.IntN(3) > 0 {
			pieces = append(pieces, writerPiece{off, writerBytes(rng, n)})
		}
		off += n
	}
	if end-limit > 0 { // the end of the place, too
		n := min(end-limit, 1+rng.Int64N(cluster))
		pieces = append(pieces, writerPiece{end - n, writerBytes(rng, n)})
	}
	return pieces
}

// writerBytes are random, and here and there zero.
func writerBytes(rng *rand.Rand, n int64) []byte {
	b := bytes.Repeat([]byte{byte(rng.IntN(4))}, int(n))
	for i := 0; i < len(b); i += 1 + rng.IntN(200) {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// fillWriter writes the pieces with several goroutines.
func fillWriter(t *testing.T, w *Writer, pieces []writerPiece, goroutines int) {
	t.Helper()
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := g; i < len(pieces); i += goroutines {
				n, err := w.WriteAt(pieces[i].data, pieces[i].off)
				if err != nil || n != len(pieces[i].data) {
					t.Errorf("writing [%d, +%d): %d, %v", pieces[i].off, len(pieces[i].data), n, err)
				}
			}
		})
	}
	wg.Wait()
}

// expectPieces checks that d holds the pieces, zeros elsewhere in their clusters,
// and has extents where a cluster was written and nowhere else.
func expectPieces(d Disk, size, cluster int64, pieces []writerPiece) error {
	if d.Size() != size {
		return fmt.Errorf("a disk of %d bytes, want %d", d.Size(), size)
	}
	clusters := map[int64][]byte{}
	for _, p := range pieces {
		for data, off := p.data, p.off; len(data) > 0; {
			start := off - off%cluster
			if clusters[start] == nil {
				clusters[start] = make([]byte, min(cluster, size-start))
			}
			n := copy(clusters[start][off-start:], data)
			data, off = data[n:], off+int64(n)
		}
	}
	for start, want := range clusters {
		got := make([]byte, len(want))
		if n, err := d.ReadAt(got, start); n != len(got) {
			return fmt.Errorf("reading the cluster at %d: %w", start, err)
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("the cluster at %d holds other bytes", start)
		}
	}
	return expectExtents(d, size, cluster, clusters)
}

type writerRun struct {
	end  int64
	kind Kind
}

func expectExtents(d Disk, size, cluster int64, clusters map[int64][]byte) error {
	var want []writerRun
	add := func(runs []writerRun, end int64, kind Kind) []writerRun {
		if n := len(runs); n > 0 && runs[n-1].kind == kind {
			runs = runs[:n-1]
		}
		return append(runs, writerRun{end, kind})
	}
	starts := make([]int64, 0, len(clusters))
	for start := range clusters {
		starts = append(starts, start)
	}
	slices.Sort(starts)
	at := int64(0)
	for _, start := range starts {
		if start > at {
			want = add(want, start, Absent)
		}
		at = min(size, start+cluster)
		want = add(want, at, Data)
	}
	if at < size {
		want = add(want, size, Absent)
	}
	var got []writerRun
	for e, err := range d.Extents(0, size) {
		if err != nil {
			return err
		}
		got = add(got, e.End(), e.Kind)
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("extents %v, want %v", got, want)
	}
	return nil
}

// writerCases are shapes of disks; the largest ones are written in a few places.
var writerCases = []struct {
	name                string
	size, cluster       int64
	places, goroutines  int
	budget, wantEvicted int64 // of L2 tables; 0: the usual
}{
	{"nothing", 0, 64 << 10, 0, 1, 0, 0},
	{"nothing in 512", 0, 512, 0, 1, 0, 0},
	{"never written", 1 << 30, 64 << 10, 0, 1, 0, 0},
	{"one byte", 1, 512, 1, 1, 0, 0},
	{"odd, 512", 300001, 512, 9, 4, 0, 0},
	{"odd, 4K", 3<<20 + 7, 4096, 9, 4, 0, 0},
	{"odd, 64K", 5<<20 + 513, 64 << 10, 3, 4, 0, 0},
	{"odd, 2M", 50<<20 + 1, 2 << 20, 1, 4, 0, 0},
	{"usual", 64 << 20, 0, 8, 1, 0, 0},
	{"one table kept", 2<<20 + 100, 512, 40, 1, 512, 1},
	{"two tables kept, many goroutines", 2<<20 + 100, 512, 40, 8, 1024, 1},
	{"budget used up", 300 << 30, 64 << 10, 300, 4, 0, 1},
	{"budget used up by small tables", 72 << 20, 512, 2200, 2, 1 << 20, 1},
	{"64 TiB", 64 << 40, 64 << 10, 5, 4, 0, 0},
	{"64 TiB, 2M", 64 << 40, 2 << 20, 2, 2, 0, 0},
	{"128 GiB, 512", 128 << 30, 512, 3, 1, 0, 0},
}

func TestWriter(t *testing.T) {
	for _, c := range writerCases {
		t.Run(c.name, func(t *testing.T) {
			f := crash.New(nil)
			w, err := Create(f, Layout{Size: c.size, ClusterSize: c.cluster})
			if err != nil {
				t.Fatal(err)
			}
			if c.budget > 0 {
				w.budget = c.budget
			}
			cluster := w.geometry.ClusterSize()
			pieces := writerPieces(rand.New(rand.NewPCG(1, uint64(c.size))), c.size, cluster, c.places)
			fillWriter(t, w, pieces, c.goroutines)
			if kept := int64(len(w.tables)) * cluster; kept > w.budget || c.wantEvicted > 0 && kept < w.budget-cluster {
				t.Errorf("%d bytes of L2 tables kept, the budget is %d", kept, w.budget)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			img, err := Open(f, f.Size(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := expectPieces(img, c.size, cluster, pieces); err != nil {
				t.Error(err)
			}
		})
	}
}

// Every table is evicted and read back many times when writes go round.
func TestWriterReadsTablesBack(t *testing.T) {
	const cluster, size = 512, 40 * 64 * 512
	f := crash.New(nil)
	w, err := Create(f, Layout{Size: size, ClusterSize: cluster})
	if err != nil {
		t.Fatal(err)
	}
	w.budget = 4 * cluster
	var pieces []writerPiece
	for i := range int64(64) {
		for table := range int64(40) {
			pieces = append(pieces, writerPiece{(table*64+i)*cluster + i, []byte{byte(i + 1), byte(table + 1)}})
		}
	}
	fillWriter(t, w, pieces, 1)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := Open(f, f.Size(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := expectPieces(img, size, cluster, pieces); err != nil {
		t.Error(err)
	}
}

// Every cluster of the file has the refcount 1, and no other one: at every size up
// to a few refcount blocks of 256 clusters, and where the refcount table of 64
// blocks grows.
func TestWriterRefcounts(t *testing.T) {
	sizes := []int64{0}
	for n := range int64(600) {
		sizes = append(sizes, n+1)
	}
	for n := int64(16000); n < 16140; n += 2 {
		sizes = append(sizes, n)
	}
	zeros := make([]byte, 16140*512)
	for _, n := range sizes {
		f := crash.New(nil)
		w, err := Create(f, Layout{Size: n * 512, ClusterSize: 512})
		if err != nil {
			t.Fatal(err)
		}
		fillWriter(t, w, []writerPiece{{0, zeros[:n*512]}}, 1)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		expectRefcounts(t, n, f.Bytes())
	}
}

// expectRefcounts reads the refcounts of an image of clusters of 512 bytes by hand.
func expectRefcounts(t *testing.T, n int64, b []byte) {
	t.Helper()
	table := b[binary.BigEndian.Uint64(b[48:]):]
	table = table[:512*binary.BigEndian.Uint32(b[56:])]
	for cluster := range len(table) / 8 * 256 {
		want, got := 0, 0
		if cluster < len(b)/512 {
			want = 1
		}
		if block := int(binary.BigEndian.Uint64(table[cluster/256*8:])); block != 0 {
			got = int(binary.BigEndian.Uint16(b[block+cluster%256*2:]))
		}
		if got != want {
			t.Fatalf("%d data clusters: cluster %d of %d has the refcount %d", n, cluster, len(b)/512, got)
		}
	}
	if len(b)%512 != 0 || len(b)/512 > len(table)/8*256 {
		t.Fatalf("%d data clusters: a file of %d bytes, a refcount table of %d", n, len(b), len(table))
	}
}

func TestCreateRefuses(t *testing.T) {
	for _, l := range []Layout{
		{Size: 1, ClusterSize: 256}, {Size: 1, ClusterSize: 4 << 20}, {Size: 1, ClusterSize: 1000},
		{Size: 1, ClusterSize: -512}, {Size: 1, ClusterSize: -1 << 63}, {Size: -1},
		{Size: 128<<30 + 1, ClusterSize: 512}, {Size: 1<<63 - 1},
	} {
		f := crash.New([]byte("kept"))
		if _, err := Create(f, l); err == nil {
			t.Errorf("%+v: no error", l)
		}
		if string(f.Bytes()) != "kept" {
			t.Errorf("%+v: the file was changed", l)
		}
	}
}

func TestWriterRefusesOutside(t *testing.T) {
	f := crash.New(nil)
	w, err := Create(f, Layout{Size: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{-1, 999, 1000, 1001, 1<<63 - 1} {
		if n, err := w.WriteAt([]byte("ab"), off); n != 0 || err == nil {
			t.Errorf("at %d: %d, %v", off, n, err)
		}
	}
	if n, err := w.WriteAt(nil, 1000); n != 0 || err != nil {
		t.Errorf("nothing at the end: %d, %v", n, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := Open(f, f.Size(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := expectPieces(img, 1000, DefaultClusterSize, nil); err != nil {
		t.Error("what was refused must leave nothing: ", err)
	}
}

// A closed Writer must not touch what is an image now.
func TestWriterAfterClose(t *testing.T) {
	f := crash.New(nil)
	w, err := Create(f, Layout{Size: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	before := f.Bytes()
	if _, err := w.WriteAt([]byte("a"), 0); err == nil {
		t.Error("WriteAt: no error")
	}
	if err := w.Close(); err == nil {
		t.Error("Close: no error")
	}
	if !bytes.Equal(f.Bytes(), before) {
		t.Error("the image was changed")
	}
}
