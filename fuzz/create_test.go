package fuzz

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/build"
	"github.com/qbitkit/qbit/testimages/crash"
)

// FuzzWriter makes an image as a program of bytes says: the first four are the layout,
// each four of the rest something to write, compress or zero. Properties: no panic;
// what a Writer was made for can be closed; the image opens, nothing is wrong or
// leaked in it, and what was written reads as it should, and nothing else is data.
func FuzzWriter(f *testing.F) {
	for layout := range byte(16) {
		f.Add([]byte{layout, layout * 37, 200, 9, 'w', 0, 3, 90, 'c', 1, 0, 4, 'z', 2, 0, 200, 'c', 9, 9, 9, 'w', 60, 1, 1})
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) < 4 || len(program) > 400 {
			return
		}
		l := fuzzLayout(program)
		file := crash.New(nil)
		w, err := qcow2.Create(file, l)
		if err != nil {
			if l.Validate() == nil {
				t.Fatalf("%+v: %v", l, err)
			}
			return
		}
		x := &written{t: t, w: w, l: l.WithDefaults(), bytes: make([]byte, l.Size), state: map[int64]byte{}}
		for p := program[4:]; len(p) >= 4; p = p[4:] {
			x.do(p[0], int64(p[1])<<8|int64(p[2]), int64(p[3]))
		}
		if err := w.Close(); err != nil {
			t.Fatalf("%+v: Close: %v", l, err)
		}
		x.check(file)
	})
}

// fuzzLayout makes a small layout of four bytes.
func fuzzLayout(p []byte) qcow2.Layout {
	l := qcow2.Layout{ClusterSize: 512 << (p[0] & 3), Version: 3 - int(p[0]>>2&1), RefcountBits: 1 << (p[0] >> 4 & 7),
		Sparse: p[1]&1 != 0, LazyRefcounts: p[1]&2 != 0, Compression: qcow2.CompressionType(p[1] >> 2 & 1),
		Preallocation: qcow2.Preallocation(p[1] >> 3 & 3)}
	if p[1]&32 != 0 {
		l.ExtendedL2, l.ClusterSize = true, 16<<10
	}
	if p[1]&64 != 0 {
		l.Backing = &qcow2.Ref{Name: "base", Format: "raw"}
	}
	if l.Preallocation == qcow2.PreallocationFalloc {
		l.Preallocation = qcow2.PreallocationOff // memory has no space to set aside
	}
	l.Size = int64(p[2])*l.ClusterSize/2 + int64(p[3])
	return l
}

// A written is an image that is being written, and the truth about it.
type written struct {
	t     *testing.T
	w     *qcow2.Writer
	l     qcow2.Layout
	bytes []byte
	state map[int64]byte // of clusters: 'w', 'c' or 'z', whatever was done last
}

// do writes n half clusters or, with 'c', clusters; at counts bytes.
func (x *written) do(op byte, at, n int64) {
	cluster := x.l.ClusterSize
	off := at * 7 % (x.l.Size + 1)
	n = min(n*cluster/16, x.l.Size-off)
	if op == 'c' {
		off -= off % cluster
		n = min((n+cluster-1)/cluster*cluster, x.l.Size-off)
	}
	if n == 0 {
		return
	}
	for c := off / cluster; c*cluster < off+n; c++ {
		if x.state[c] == 'c' {
			return // it may be compressed
		}
	}
	p := bytes.Repeat([]byte{byte(at), byte(at >> 3), 0, byte(n)}, int(n)/4+1)[:n]
	if err := x.write(op, p, off); err != nil {
		x.t.Fatalf("%+v: %c at %d, %d bytes: %v", x.l, op, off, n, err)
	}
}

func (x *written) write(op byte, p []byte, off int64) error {
	kind, n := op, int64(len(p))
	switch op {
	case 'c':
		if err := x.w.WriteCompressed(p, off); err != nil {
			return err
		}
	case 'z':
		if !x.l.Sparse || x.l.Version == 2 && x.l.Backing == nil {
			return nil
		}
		clear(p)
		if err := x.w.Zero(off, n); err != nil {
			return err
		}
	default:
		kind = 'w'
		if _, err := x.w.WriteAt(p, off); err != nil {
			return err
		}
	}
	copy(x.bytes[off:], p)
	for c := off / x.l.ClusterSize; c*x.l.ClusterSize < off+n; c++ {
		x.state[c] = kind
	}
	return nil
}

// check reads the image back.
func (x *written) check(file *crash.File) {
	a, err := build.AuditFile(file, file.Size())
	if err != nil || len(a.Problems) > 0 || a.Leaks > 0 {
		x.t.Fatalf("%+v: the audit finds %q, %d leaks, %v", x.l, a.Problems, a.Leaks, err)
	}
	img, err := qcow2.Open(file, file.Size(), nil)
	if err != nil {
		x.t.Fatalf("%+v: %v", x.l, err)
	}
	if _, err := img.Check(context.Background(), nil, func(f qcow2.Finding) error { return fmt.Errorf("%v", f) }); err != nil {
		x.t.Fatalf("%+v: the check finds %v", x.l, err)
	}
	for e, err := range img.Extents(0, x.l.Size) {
		if err != nil {
			x.t.Fatalf("%+v: %v", x.l, err)
		}
		x.checkExtent(img, e)
	}
}

func (x *written) checkExtent(img *qcow2.Image, e qcow2.Extent) {
	for c := e.Off / x.l.ClusterSize; c*x.l.ClusterSize < e.End(); c++ {
		start := max(e.Off, c*x.l.ClusterSize)
		want := x.bytes[start:min(e.End(), (c+1)*x.l.ClusterSize)]
		s, absent := x.state[c], e.Kind == qcow2.Absent
		if absent && s != 0 && (s == 'w' || x.l.Sparse || len(bytes.Trim(want, "\x00")) > 0) {
			x.t.Fatalf("%+v: cluster %d is absent, and was written (%c)", x.l, c, s)
		}
		if !absent && s == 0 && x.l.Preallocation == qcow2.PreallocationOff {
			x.t.Fatalf("%+v: cluster %d is %v, and was not written", x.l, c, e.Kind)
		}
		got := make([]byte, len(want))
		if n, _ := img.ReadAt(got, start); !absent && (n != len(got) || !bytes.Equal(got, want)) {
			x.t.Fatalf("%+v: cluster %d holds other bytes", x.l, c)
		}
	}
}
