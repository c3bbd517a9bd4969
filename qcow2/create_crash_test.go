package qcow2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/qbitkit/qbit/testimages/crash"
)

// A writerTrial is an image that is made again and again.
type writerTrial struct {
	layoutTrial
	old   []byte // what the file held
	model *writerModel
	ops   []writerOp
	data  *crash.File // of the last time
}

func writerTrials(t *testing.T) []*writerTrial {
	t.Helper()
	all := layoutTrials()
	for i := range all {
		all[i].layout.Size = 9*all[i].layout.ClusterSize + 100
		if all[i].layout.ClusterSize == 512 {
			all[i].layout.Size = 200001 // several tables
		}
	}
	all = append(all, layoutTrial{name: "nothing", layout: Layout{ClusterSize: 512}},
		layoutTrial{name: "nothing, preallocated", layout: Layout{ClusterSize: 512, Preallocation: PreallocationFull}},
		layoutTrial{name: "over an image", layout: Layout{ClusterSize: 512, Size: 200001, Sparse: true}, bitmaps: 1})
	var trials []*writerTrial
	for i, l := range all {
		c := &writerTrial{layoutTrial: l, model: newWriterModel(&l)}
		rng := rand.New(rand.NewPCG(3, uint64(i)))
		if l.layout.Size > 0 {
			c.ops = l.operations(rng, c.model, 10)
			l.addBitmaps(rng, c.model)
		}
		trials = append(trials, c)
	}
	old := crash.New(nil)
	if err, closeErr := trials[0].run(old, false); err != nil || closeErr != nil {
		t.Fatal(err, closeErr)
	}
	trials[len(trials)-1].old = old.Bytes()
	return trials
}

// run makes the image in f. The header must not be written before the data file is
// safe.
func (c *writerTrial) run(f *crash.File, goOn bool) (opErr, closeErr error) {
	c.data = crash.New([]byte("old"))
	if c.dataFile {
		f.Guard(func(o crash.Op) error {
			if ops := c.data.Ops(); o.Kind == crash.Write && o.Off == 0 && ops[len(ops)-1].Kind != crash.Sync {
				return errors.New("the header comes before the data file is safe")
			}
			return nil
		})
		defer f.Guard(nil)
	}
	return c.makeLayout(&spaceFile{File: f}, c.data, c.model, c.ops, goOn)
}

// right checks that a file is no image yet, or is the whole one. What it held
// before may still be there.
func (c *writerTrial) right(r io.ReaderAt, size int64) (opened bool, err error) {
	if b := make([]byte, len(c.old)); c.old != nil && size == int64(len(b)) {
		if err := readFull(r, b, 0); err != nil || bytes.Equal(b, c.old) {
			return false, err
		}
	}
	_, err = Open(r, size, nil)
	var format *FormatError
	if errors.Is(err, ErrNotQcow2) || errors.As(err, &format) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	data := c.data
	if !c.dataFile {
		data = nil
	}
	return true, errors.Join(c.model.check(r, size, data), checkSound(r, size))
}

// In every state that a crash can leave the file is no image, or the whole one,
// refcounts included; once Close has returned it is the whole one.
func TestWriterCrash(t *testing.T) {
	most, states := 600, 0
	if os.Getenv("QBIT_FULL") != "" {
		most = 20000
	}
	for _, c := range writerTrials(t) {
		t.Run(c.name, func(t *testing.T) {
			f := crash.New(c.old)
			if err, closeErr := c.run(f, false); err != nil || closeErr != nil {
				t.Fatal(err, closeErr)
			}
			f.Mark()
			states += c.crash(t, f, most)
		})
	}
	t.Logf("%d states", states)
}

// crash looks at what a crash can leave of f, in which the image was made.
func (c *writerTrial) crash(t *testing.T, f *crash.File, most int) int {
	t.Helper()
	final, whole := f.Bytes(), 0
	count := f.States(&crash.Options{Max: most}, func(s *crash.State) bool {
		b := s.Bytes()
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
	return count.States
}

// Every operation failing in turn, once or from then on, is an error, whether the
// caller ends with the first error or goes on; and never leaves a wrong image.
func TestWriterFaults(t *testing.T) {
	faults := []crash.Fault{{Short: 0}, {Short: 100}, {Short: 104}, {Short: 1 << 30}, {From: true, Short: 300}}
	for i, c := range writerTrials(t) {
		for j, fault := range faults {
			if os.Getenv("QBIT_FULL") == "" && i > 2 && (i+j)%len(faults) != 0 {
				continue
			}
			goOn := (i+j)%2 == 0
			t.Run(fmt.Sprintf("%s/%d,%t,%t", c.name, fault.Short, fault.From, goOn), func(t *testing.T) {
				c.fail(t, fault, goOn)
			})
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
		opErr, closeErr := c.run(f, goOn)
		failed := f.Failed() > 0
		f.Fail(crash.Fault{})
		if opened, err := c.right(f, f.Size()); err != nil {
			t.Errorf("%v: the file is a wrong image: %v", fault.Err, err)
		} else if !failed && opened && n > 3 {
			return // no operation was left that could fail
		}
		if closeErr == nil || !errors.Is(closeErr, fault.Err) {
			t.Errorf("%v: writing gave %v, Close %v", fault.Err, opErr, closeErr)
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
