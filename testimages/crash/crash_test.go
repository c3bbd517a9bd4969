package crash

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
)

const commit = 0 // where the protocols below write their one committing byte

// twoWrites replaces the record at 1024, then commits.
type twoWrites struct {
	syncData, syncCommit, commitFirst bool
}

func (p twoWrites) run(f *File) error {
	data := func() error {
		_, err := f.WriteAt(bytes.Repeat([]byte{7}, 1024), 1024)
		if err == nil && p.syncData {
			err = f.Sync()
		}
		return err
	}
	link := func() error {
		_, err := f.WriteAt([]byte{1}, commit)
		if err == nil && p.syncCommit {
			err = f.Sync()
		}
		return err
	}
	steps := []func() error{data, link}
	if p.commitFirst {
		steps = []func() error{link, data}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	f.Mark()
	return nil
}

// verdict says what is wrong with a state of twoWrites: a commit without its
// data, or no commit although it was promised.
func verdict(s *State) string {
	b := append(s.Bytes(), make([]byte, 2048)...)
	committed := b[commit] == 1
	if committed && !bytes.Equal(b[1024:2048], bytes.Repeat([]byte{7}, 1024)) {
		return "committed without its data"
	}
	if !committed && s.Marks > 0 {
		return "promised and not there"
	}
	return ""
}

func TestProtocols(t *testing.T) {
	for _, row := range []struct {
		name     string
		protocol twoWrites
		want     string // what must be found wrong; ""; nothing
	}{
		{"right", twoWrites{syncData: true, syncCommit: true}, ""},
		{"no sync between", twoWrites{syncCommit: true}, "committed without its data"},
		{"no sync at the end", twoWrites{syncData: true}, "promised and not there"},
		{"wrong order", twoWrites{syncData: true, syncCommit: true, commitFirst: true}, "committed without its data"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := New(make([]byte, 2048))
			if err := row.protocol.run(f); err != nil {
				t.Fatal(err)
			}
			found := map[string]bool{}
			count := f.States(nil, func(s *State) bool {
				found[verdict(s)] = true
				return true
			})
			delete(found, "")
			if row.want == "" && len(found) > 0 || row.want != "" && (len(found) != 1 || !found[row.want]) {
				t.Errorf("found %v in %+v, want %q", found, count, row.want)
			}
		})
	}
}

// The whole list of states of a small case.
func TestStatesOfOneWrite(t *testing.T) {
	f := New([]byte("old"))
	if _, err := f.WriteAt(bytes.Repeat([]byte("n"), 1024), 0); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	count := f.States(&Options{Random: -1}, func(s *State) bool {
		got[string(s.Bytes())] = true
		return true
	})
	n, zero := strings.Repeat("n", 512), strings.Repeat("\x00", 512)
	old := "old" + zero[3:]
	for _, want := range []string{
		"old", n, old + n, // none; the first, the second sector alone
		old + zero, // the new size alone
		n + n,      // all, and all but the size
		n + zero,   // all but the second sector
	} {
		if !got[want] {
			t.Errorf("missing: %.8q… of %d bytes", want, len(want))
		}
		delete(got, want)
	}
	if len(got) > 0 || count.States != 6 || count.Skipped != 0 {
		t.Errorf("%+v, and %d beyond the six", count, len(got))
	}
}

func TestTruncateMayBeLost(t *testing.T) {
	f := New(bytes.Repeat([]byte("a"), 1000))
	if err := f.Truncate(10); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("b"), 20); err != nil {
		t.Fatal(err)
	}
	sizes := map[int64]bool{}
	f.States(nil, func(s *State) bool {
		sizes[s.Size()] = true
		return true
	})
	for _, want := range []int64{1000, 10, 21} {
		if !sizes[want] {
			t.Errorf("no state of %d bytes: %v", want, sizes)
		}
	}
	if got, want := f.Bytes(), append(append([]byte("aaaaaaaaaa"), make([]byte, 10)...), 'b'); !bytes.Equal(got, want) {
		t.Errorf("the program sees %q, want %q", got, want)
	}
}

// The later of two writes to one sector carries the earlier one.
func TestVersionsOfASector(t *testing.T) {
	f := New(make([]byte, 512))
	for i, c := range []byte("xy") {
		if _, err := f.WriteAt([]byte{c}, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]bool{}
	f.States(nil, func(s *State) bool {
		got[string(s.Bytes()[:2])] = true
		return true
	})
	if len(got) != 3 || !got["\x00\x00"] || !got["x\x00"] || !got["xy"] {
		t.Errorf("versions %v, want none, x, xy", got)
	}
}

// What was given before a mark is given again after it, each write alone too.
func TestStatesAfterAMark(t *testing.T) {
	f := New(make([]byte, 4096))
	for i := range int64(4) {
		if _, err := f.WriteAt([]byte{1}, i*1024); err != nil {
			t.Fatal(err)
		}
	}
	f.Mark()
	after := map[string]bool{}
	f.States(&Options{Random: -1}, func(s *State) bool {
		if b := s.Bytes(); s.Marks == 1 {
			after[string([]byte{b[0], b[1024], b[2048], b[3072]})] = true
		}
		return true
	})
	// None, all, four alone, four missing.
	if len(after) != 10 || !after["\x00\x01\x00\x00"] {
		t.Errorf("%d states after the mark, want 10: %v", len(after), after)
	}
}

func TestFaults(t *testing.T) {
	protocol := twoWrites{syncData: true, syncCommit: true}
	mine := errors.New("mine")
	n := 1
	for ; ; n++ {
		f := New(make([]byte, 2048))
		f.Fail(Fault{N: n, Err: mine, Short: 600})
		err := protocol.run(f)
		if f.Failed() == 0 {
			break
		}
		if err != mine {
			t.Errorf("fault %d: %v", n, err)
		}
		if n == 1 && (f.Bytes()[1024+599] != 7 || f.Bytes()[1024+600] != 0) {
			t.Error("a short write must write 600 bytes")
		}
		f.States(nil, func(s *State) bool {
			if bad := verdict(s); bad != "" {
				t.Errorf("fault %d: %v: %s", n, s, bad)
			}
			return true
		})
	}
	if n != 5 {
		t.Errorf("%d operations could fail, want 4", n-1)
	}
}

func TestFaultFromThenOnAndReads(t *testing.T) {
	f := New([]byte("abc"))
	f.Fail(Fault{N: 2, From: true, Reads: true})
	if _, err := f.ReadAt(make([]byte, 3), 0); err != nil {
		t.Errorf("the first: %v", err)
	}
	if _, err := f.ReadAt(make([]byte, 3), 0); !errors.Is(err, errFault) {
		t.Errorf("the second: %v", err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("the third must fail")
	}
	if err := f.Truncate(0); err == nil {
		t.Error("the fourth must fail")
	}
	if f.Failed() != 3 || string(f.Bytes()) != "abc" {
		t.Errorf("%d failed, %q left", f.Failed(), f.Bytes())
	}
}

// A Sync after one that failed makes nothing durable.
func TestSyncAfterAFailedOne(t *testing.T) {
	f := New(nil)
	if _, err := f.WriteAt([]byte("a"), 0); err != nil {
		t.Fatal(err)
	}
	f.Fail(Fault{N: 1})
	if f.Sync() == nil || f.Sync() != nil {
		t.Fatal("the first sync must fail, the second must not")
	}
	f.Mark()
	lost := false
	f.States(nil, func(s *State) bool {
		lost = lost || s.Marks == 1 && s.Size() == 0
		return true
	})
	if !lost {
		t.Error("no state shows that the write was lost")
	}
}

func TestGuard(t *testing.T) {
	f := New(make([]byte, 100))
	forbidden := errors.New("forbidden")
	f.Guard(func(op Op) error {
		if op.Kind == Write && op.Off < 50 {
			return forbidden
		}
		return nil
	})
	f.Fail(Fault{N: 1000, Short: 1})
	if n, err := f.WriteAt([]byte("a"), 49); !errors.Is(err, forbidden) || n != 0 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := f.WriteAt([]byte("a"), 50); err != nil {
		t.Error(err)
	}
	if ops := f.Ops(); len(ops) != 1 || ops[0] != (Op{Write, 50, 1}) {
		t.Errorf("recorded %v", ops)
	}
}

// A File must do what os.File does.
func TestLikeAFile(t *testing.T) {
	real, err := os.Create(t.TempDir() + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close()
	f := New(nil)
	for _, p := range [][]byte{nil, []byte("ab"), make([]byte, 3000)} {
		for _, off := range []int64{0, 1, 511, 5000} {
			for _, size := range []int64{6000, 700, 1024, 0, 9000} {
				if f.Truncate(size) != nil || real.Truncate(size) != nil {
					t.Fatal("truncate")
				}
				n, err := f.WriteAt(p, off)
				n2, err2 := real.WriteAt(p, off)
				if n != n2 || err != nil || err2 != nil {
					t.Fatalf("write: %d, %v, and %d, %v", n, err, n2, err2)
				}
				same(t, f, real)
			}
		}
	}
}

func same(t *testing.T, f *File, real *os.File) {
	t.Helper()
	for _, off := range []int64{0, 500, 7000} {
		a, b := make([]byte, 4000), make([]byte, 4000)
		n, err := f.ReadAt(a, off)
		n2, err2 := real.ReadAt(b, off)
		if n != n2 || err != err2 || !bytes.Equal(a, b) {
			t.Fatalf("read at %d: %d, %v, and %d, %v", off, n, err, n2, err2)
		}
	}
	if n, err := f.ReadAt(make([]byte, 1), f.Size()); n != 0 || err != io.EOF {
		t.Fatalf("read at the end: %d, %v", n, err)
	}
}

func TestStateFile(t *testing.T) {
	f := New(nil)
	if _, err := f.WriteAt([]byte("abc"), 0); err != nil {
		t.Fatal(err)
	}
	f.States(nil, func(s *State) bool {
		before := string(s.Bytes())
		again := s.File()
		if string(again.Bytes()) != before {
			t.Errorf("starts with %q, want %q", again.Bytes(), before)
		}
		if _, err := again.WriteAt([]byte("x"), 700); err != nil {
			t.Error(err)
		}
		if string(s.Bytes()) != before {
			t.Error("writing to the new file changed the state")
		}
		return true
	})
	if string(f.Bytes()) != "abc" {
		t.Error("writing to the new file changed the old one")
	}
}

func TestSeveralGoroutines(t *testing.T) {
	f := New(nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				if _, err := f.WriteAt([]byte{byte(i + 1)}, int64(i+8*j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for at, b := range f.Bytes() {
		if int(b) != at%8+1 {
			t.Fatalf("byte %d is %d", at, b)
		}
	}
}

// Some MiB and many operations stay affordable, and what is left out is counted.
func TestMaximum(t *testing.T) {
	f := New(nil)
	b := bytes.Repeat([]byte{1}, 64<<10)
	for i := range 64 {
		if _, err := f.WriteAt(b, int64(i*len(b))); err != nil {
			t.Fatal(err)
		}
	}
	last := false
	count := f.States(&Options{Max: 5000}, func(s *State) bool {
		last = last || s.Ops == 64 && s.Size() == 4<<20
		return true
	})
	if count.States < 2500 || count.States > 7500 || count.Skipped < 100000 || !last {
		t.Errorf("%+v, about 5000 wanted; the last state was given: %t", count, last)
	}
	stopped := f.States(nil, func(s *State) bool { return s.Ops < 1 })
	if stopped.States != 2 {
		t.Errorf("%d states after yield returned false", stopped.States)
	}
}
