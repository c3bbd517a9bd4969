package qcow2

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/testimages/crash"
)

// A layoutTrial is a layout that images are made of; with dataFile, one whose
// guest bytes stand in a file beside it.
type layoutTrial struct {
	name     string
	layout   Layout
	dataFile bool
	dataName string
	raw      bool
	bitmaps  int
}

func backingRef(n int) *Ref {
	return &Ref{Kind: RefBacking, Name: string(bytes.Repeat([]byte("b"), n)), Format: "raw"}
}

// layoutTrials are all that a Layout can say, in small.
func layoutTrials() []layoutTrial {
	trials := []layoutTrial{
		{name: "plain", layout: Layout{ClusterSize: 512}},
		{name: "4K", layout: Layout{ClusterSize: 4096}, bitmaps: 2},
		{name: "v2", layout: Layout{ClusterSize: 512, Version: 2}},
		{name: "v2 backing", layout: Layout{ClusterSize: 1024, Version: 2, Backing: backingRef(1023 - 120)}},
		{name: "sparse", layout: Layout{ClusterSize: 512, Sparse: true}, bitmaps: 3},
		{name: "backing", layout: Layout{ClusterSize: 512, Backing: backingRef(20)}, bitmaps: 1},
		{name: "long backing", layout: Layout{ClusterSize: 4096, Backing: backingRef(1023)}, bitmaps: 1},
		{name: "extended", layout: Layout{ClusterSize: 16 << 10, ExtendedL2: true, Sparse: true}, bitmaps: 1},
		{name: "extended backing", layout: Layout{ClusterSize: 16 << 10, ExtendedL2: true, Backing: backingRef(7), Preallocation: PreallocationMetadata}},
		{name: "extended metadata", layout: Layout{ClusterSize: 32 << 10, ExtendedL2: true, Preallocation: PreallocationMetadata}},
		{name: "lazy zstd", layout: Layout{ClusterSize: 4096, LazyRefcounts: true, Sparse: true, Compression: CompressionZstd}, bitmaps: 1},
		{name: "zstd 512", layout: Layout{ClusterSize: 512, Compression: CompressionZstd}},
		{name: "data file", layout: Layout{ClusterSize: 512}, dataFile: true, bitmaps: 1},
		{name: "data file backing", layout: Layout{ClusterSize: 4096, Backing: backingRef(9)}, dataFile: true},
		{name: "raw data file", layout: Layout{ClusterSize: 4096}, dataFile: true, raw: true, bitmaps: 2},
		{name: "raw data file extended", layout: Layout{ClusterSize: 16 << 10, ExtendedL2: true}, dataFile: true, raw: true},
		{name: "data file extended full", layout: Layout{ClusterSize: 16 << 10, ExtendedL2: true, Preallocation: PreallocationFull}, dataFile: true},
		{name: "metadata", layout: Layout{ClusterSize: 512, Preallocation: PreallocationMetadata}, bitmaps: 1},
		{name: "falloc", layout: Layout{ClusterSize: 1024, Preallocation: PreallocationFalloc}},
		{name: "full", layout: Layout{ClusterSize: 4096, Preallocation: PreallocationFull}},
	}
	for bits := 1; bits <= 64; bits *= 2 {
		trials = append(trials, layoutTrial{name: fmt.Sprintf("refcounts of %d", bits),
			layout: Layout{ClusterSize: 512, RefcountBits: bits, Sparse: bits%3 == 1}, bitmaps: bits % 3})
	}
	for i := range trials {
		trials[i].dataName = "guest.data"
		trials[i].layout.Size = 70*trials[i].layout.ClusterSize + 3*512 + 77
		if trials[i].layout.ClusterSize == 512 {
			trials[i].layout.Size += 200 << 10 // several tables
		}
	}
	return trials
}

// A spaceFile is a file in memory that can set space aside.
type spaceFile struct {
	*crash.File
	asked int64
}

func (f *spaceFile) Allocate(off, n int64) error {
	f.asked += n
	if f.Size() < off+n {
		return f.Truncate(off + n)
	}
	return nil
}

// A writerOp is something to do with a Writer: what a writerPiece says, or zeros,
// or compressed.
type writerOp struct {
	kind byte // 'w', 'z' or 'c'
	off  int64
	n    int64
	data []byte
}

func (o writerOp) do(w *Writer) error {
	switch o.kind {
	case 'z':
		return w.Zero(o.off, o.n)
	case 'c':
		return w.WriteCompressed(o.data, o.off)
	}
	n, err := w.WriteAt(o.data, o.off)
	if err == nil && n != len(o.data) {
		return fmt.Errorf("%d of %d bytes written, and no error", n, len(o.data))
	}
	return err
}

// operations are n random ones; the model does them too.
func (c *layoutTrial) operations(rng *rand.Rand, m *writerModel, n int) []writerOp {
	var ops []writerOp
	for range n {
		if o := c.operation(rng, m); m.canChange(o.off, o.n) {
			ops = append(ops, o)
			switch o.kind {
			case 'w':
				m.write(o.data, o.off)
			case 'z':
				m.zero(o.off, o.n)
			case 'c':
				m.compress(o.data, o.off)
			}
		}
	}
	return ops
}

func (c *layoutTrial) operation(rng *rand.Rand, m *writerModel) writerOp {
	size, cluster := m.layout.Size, m.layout.ClusterSize
	o := writerOp{kind: "wzcc"[rng.IntN(4)], off: rng.Int64N(size)}
	if o.kind == 'z' && !m.layout.Sparse || o.kind == 'c' && c.dataFile {
		o.kind = 'w'
	}
	if o.kind == 'c' || rng.IntN(3) == 0 {
		o.off -= o.off % cluster
	}
	o.n = min(size-o.off, 1+rng.Int64N([]int64{cluster / 2, 2 * cluster, 7 * cluster}[rng.IntN(3)]))
	if o.kind == 'c' {
		o.n = min(size-o.off, (o.n+cluster-1)/cluster*cluster)
	}
	if o.kind != 'z' {
		o.data = modelContent(rng, o.n)
	}
	return o
}

// modelContent is noise, text, one byte, or zeros.
func modelContent(rng *rand.Rand, n int64) []byte {
	switch rng.IntN(5) {
	case 0:
		return make([]byte, n)
	case 1:
		return bytes.Repeat([]byte{byte(rng.IntN(256))}, int(n))
	case 2:
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	b := writerBytes(rng, n)
	for i := 0; i+8 < len(b); i += 3 + rng.IntN(40) {
		copy(b[i:], "qcow2 "[:rng.IntN(6)])
	}
	return b
}

// addBitmaps gives the model bitmaps.
func (c *layoutTrial) addBitmaps(rng *rand.Rand, m *writerModel) {
	for i := range c.bitmaps {
		b, err := bitmap.New(m.layout.Size, 512<<(i*2))
		if err != nil {
			panic(err)
		}
		for range rng.IntN(6) {
			b.Set(rng.Int64N(m.layout.Size), rng.Int64N(m.layout.Size/4))
		}
		if i == 2 {
			b.SetAll()
		}
		m.bitmaps = append(m.bitmaps, modelBits{fmt.Sprintf("bitmap %d", i), i%2 == 0, b})
	}
}

// makeLayout runs a Writer from Create to Close; every error ends it, or, to go on,
// is passed over but for the first one of each kind.
func (c *layoutTrial) makeLayout(f, data File, m *writerModel, ops []writerOp, goOn bool) (opErr, closeErr error) {
	l := c.layout
	if c.dataFile {
		l.DataFile = &DataFileLayout{File: data, Name: c.dataName, Raw: c.raw}
	}
	w, err := Create(f, l)
	if err != nil {
		return err, err
	}
	w.budget = 2 * l.ClusterSize
	for _, o := range ops {
		if err := o.do(w); err != nil {
			opErr = cmpErr(opErr, err)
			if !goOn {
				break
			}
		}
	}
	for _, b := range m.bitmaps {
		opErr = cmpErr(opErr, w.AddBitmap(b.name, b.bits, b.auto))
	}
	return opErr, w.Close()
}

func cmpErr(first, next error) error {
	if first != nil {
		return first
	}
	return next
}
