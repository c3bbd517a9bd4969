package qcow2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/qbitkit/qbit/testimages/crash"
)

// makeImage runs a Writer from Create to Close. Errors of WriteAt end it, or are
// passed over; the result is the first error of each kind.
func makeImage(f File, size, cluster int64, pieces []writerPiece, goOn bool) (writeErr, closeErr error) {
	w, err := Create(f, Layout{Size: size, ClusterSize: cluster})
	if err != nil {
		return err, err
	}
	w.budget = 2 * cluster
	for _, p := range pieces {
		n, err := w.WriteAt(p.data, p.off)
		if err == nil && n != len(p.data) {
			return fmt.Errorf("%d of %d bytes written, and no error", n, len(p.data)), nil
		}
		if err != nil && writeErr == nil {
			writeErr = err
		}
		if err != nil && !goOn {
			return writeErr, w.Close()
		}
	}
	return writeErr, w.Close()
}

// A writerTrial is an image that is made again and again.
type writerTrial struct {
	name          string
	old           []byte // what the file held
	size, cluster int64
	pieces        []writerPiece
}

func writerTrials(t *testing.T) []writerTrial {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, 4))
	old := crash.New(nil)
	if _, err := makeImage(old, 100000, 512, []writerPiece{{50, []byte("old")}, {70000, []byte("old")}}, false); err != nil {
		t.Fatal(err)
	}
	trials := []writerTrial{
		{"nothing", nil, 0, 512, nil},
		{"512", nil, 200001, 512, writerPieces(rng, 200001, 512, 4)},
		{"4K", nil, 2<<20 + 1, 4096, writerPieces(rng, 2<<20+1, 4096, 1)},
		{"over an image", old.Bytes(), 200001, 512, writerPieces(rng, 200001, 512, 3)},
	}
	return trials
}

// right checks that a file is no image yet, or is the whole one.
func (c *writerTrial) right(r io.ReaderAt, size int64) (opened bool, err error) {
	img, err := Open(r, size, nil)
	var format *FormatError
	if errors.Is(err, ErrNotQcow2) || errors.As(err, &format) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, expectPieces(img, c.size, c.cluster, c.pieces)
}

// In every state that a crash can leave the file is no image, or the whole one,
// refcounts included; once Close has returned it is the whole one.
func TestWriterCrash(t *testing.T) {
	for _, c := range writerTrials(t) {
		t.Run(c.name, func(t *testing.T) {
			f := crash.New(c.old)
			if writeErr, err := makeImage(f, c.size, c.cluster, c.pieces, false); writeErr != nil || err != nil {
				t.Fatal(writeErr, err)
			}
			f.Mark()
			final, whole := f.Bytes(), 0
			count := f.States(&crash.Options{Max: 4000}, func(s *crash.State) bool {
				b := s.Bytes()
				if c.old != nil && bytes.Equal(b, c.old) && s.Marks == 0 {
					return true
				}
				opened, err := c.right(bytes.NewReader(b), s.Size())
				switch {
				case err != nil:
					t.Errorf("%v: opens, and is wrong: %v", s, err)
				case opened && !bytes.Equal(b, final):
					t.Errorf("%v: opens before the file is whole", s)
				case !opened && s.Marks > 0:
					t.Errorf("%v: does not open, though Close returned", s)
				case opened:
					whole++
				}
				return !t.Failed()
			})
			if whole == 0 || count.States < 8 {
				t.Errorf("%d whole images in %+v", whole, count)
			}
		})
	}
}

// Every operation failing in turn, once or from then on, is an error, whether the
// caller ends with the first error or goes on; and never leaves a wrong image.
func TestWriterFaults(t *testing.T) {
	for _, c := range writerTrials(t)[:3] {
		for _, fault := range []crash.Fault{
			{Short: 0}, {Short: 100}, {Short: 104}, {Short: 1 << 30}, {From: true, Short: 300},
		} {
			for _, goOn := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d,%t,%t", c.name, fault.Short, fault.From, goOn), func(t *testing.T) {
					c.fail(t, fault, goOn)
				})
			}
		}
	}
}

// fail makes each operation fail in turn.
func (c *writerTrial) fail(t *testing.T, fault crash.Fault, goOn bool) {
	t.Helper()
	for n := 1; !t.Failed(); n++ {
		f := crash.New(c.old)
		fault.N, fault.Reads = n, true
		fault.Err = fmt.Errorf("failure %d", n)
		f.Fail(fault)
		writeErr, closeErr := makeImage(f, c.size, c.cluster, c.pieces, goOn)
		failed := f.Failed() > 0
		f.Fail(crash.Fault{})
		if opened, err := c.right(f, f.Size()); err != nil {
			t.Errorf("%v: the file is a wrong image: %v", fault.Err, err)
		} else if !failed && opened && n > 3 {
			return // no operation was left that could fail
		}
		if closeErr == nil || !errors.Is(closeErr, fault.Err) {
			t.Errorf("%v: WriteAt gave %v, Close %v", fault.Err, writeErr, closeErr)
		}
		if n%7 == 0 {
			c.crashAfterFault(t, f, fault.Err)
		}
	}
}

func (c *writerTrial) crashAfterFault(t *testing.T, f *crash.File, failure error) {
	t.Helper()
	f.States(&crash.Options{Max: 20}, func(s *crash.State) bool {
		if _, err := c.right(s, s.Size()); err != nil {
			t.Errorf("%v, then %v: a wrong image: %v", failure, s, err)
		}
		return !t.Failed()
	})
}
