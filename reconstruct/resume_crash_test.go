package reconstruct

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/crash"
)

// A twin is one of two files of one program. Every operation on one of them is a
// mark in both, so that states of the two with the same number of marks are of the
// same moment.
type twin struct {
	*crash.File
	other *crash.File
	turn  *sync.Mutex
}

func newTwins(data, journal *crash.File) (twin, twin) {
	turn := new(sync.Mutex)
	return twin{data, journal, turn}, twin{journal, data, turn}
}

func (t twin) mark(err error) error {
	t.File.Mark()
	t.other.Mark()
	return err
}

func (t twin) WriteAt(p []byte, off int64) (int, error) {
	t.turn.Lock()
	defer t.turn.Unlock()
	n, err := t.File.WriteAt(p, off)
	return n, t.mark(err)
}

func (t twin) Truncate(size int64) error {
	t.turn.Lock()
	defer t.turn.Unlock()
	return t.mark(t.File.Truncate(size))
}

func (t twin) Sync() error {
	t.turn.Lock()
	defer t.turn.Unlock()
	return t.mark(t.File.Sync())
}

// noEnd is the end of files in memory.
type noEnd struct{}

func (noEnd) commit() error { return nil }
func (noEnd) leave() error  { return nil }
func (noEnd) forget() error { return nil }

// sparseData is a disk of some chunks with a little data in most of them: each
// sector more is another state.
func sparseData(seed uint64) *fake {
	r := rand.New(rand.NewPCG(seed, 60))
	d := newFake(r, 4*ChunkSize+5000, 4096, func(i int) qcow2.Kind {
		if at := i % (ChunkSize / 4096); at%500 == 1 && i/(ChunkSize/4096) != 2 {
			return qcow2.Data
		}
		return qcow2.Absent
	})
	d.kinds[len(d.kinds)-1] = qcow2.Compressed
	return d
}

// resumeOn begins or goes on with a restore in two files, as they are.
func resumeOn(t testing.TB, d *fake, data, journal *crash.File) *ResumeTarget {
	t.Helper()
	one, two := newTwins(data, journal)
	j, err := ReadResumeJournal(journal, journal.Size())
	if err != nil { // the header is durable before the other file is there
		head, _, err := appendResumeHead(nil, &ResumeHeader{Size: d.Size()})
		if err != nil {
			t.Fatal(err)
		}
		*journal, *data = *crash.New(head), *crash.New(nil)
		return resumeOn(t, d, data, journal)
	}
	file := resumeFile{File: one}
	if err := file.cut(t.Context(), j.Sums, d.Size()); err != nil {
		return nil
	}
	if err := two.Truncate(j.end); err != nil {
		return nil
	}
	target := &ResumeTarget{data: file, end: noEnd{}, sums: j.Sums, log: newResumeLog(two, file.Sync, j)}
	target.log.batch = 1 // syncs whenever no other sync is under way
	return target
}

// A resumeTrial restores a disk again and again.
type resumeTrial struct {
	*testing.T
	disk *fake
	want []byte
	tree string
	rng  *rand.Rand

	kept, states int
}

func newResumeTrial(t *testing.T, seed uint64) *resumeTrial {
	d := sparseData(seed)
	want := d.guest()
	return &resumeTrial{T: t, disk: d, want: want, tree: fmt.Sprintf("xxh64-4m:%016x", naiveTree(want)), rng: rand.New(rand.NewPCG(seed, 61))}
}

// finish goes on with a restore to its end, and wants the true bytes. Of what is
// recorded nothing may be missing.
func (r *resumeTrial) finish(what string, data, journal *crash.File, spoilt bool) {
	r.Helper()
	t := resumeOn(r, r.disk, data, journal)
	res, err := Copy(r.Context(), t, r.disk, &CopyOptions{Digests: []string{Tree}, Workers: 1})
	if err == nil {
		err = t.Commit()
	}
	if err != nil {
		r.Fatalf("%s: %v", what, err)
	}
	if !bytes.Equal(data.Bytes(), r.want) {
		r.Fatalf("%s: wrong bytes", what)
	}
	if got := res.Digests[0].String(); got != r.tree {
		r.Fatalf("%s: %s, want %s", what, got, r.tree)
	}
	if n := t.Spoilt(); n > 0 && !spoilt {
		r.Fatalf("%s: %d chunks were recorded before they were there", what, n)
	}
	if j, err := ReadResumeJournal(journal, journal.Size()); err != nil || !j.Whole || len(j.Sums) != 4 {
		r.Fatalf("%s: the journal ends as %+v, %v", what, j, err)
	}
	r.states++
	if t.Kept() > 0 {
		r.kept++
	}
}

// crashes calls yield with states of two files of the same moment, about limit.
func (r *resumeTrial) crashes(data, journal *crash.File, limit int, yield func(d, j *crash.State)) {
	journals := map[int][]*crash.State{}
	opts := &crash.Options{Max: limit, Random: 2, Seed: r.rng.Uint64()}
	journal.States(opts, func(s *crash.State) bool {
		journals[s.Marks] = append(journals[s.Marks], s)
		return true
	})
	data.States(opts, func(s *crash.State) bool {
		all := journals[s.Marks]
		if r.rng.IntN(4) == 0 || s.Ops < 8 { // all of them are too many
			yield(s, all[r.rng.IntN(len(all))])
		}
		return !r.Failed()
	})
}

// TestResumeCrash: whatever a power cut leaves of the unfinished disk and of the
// journal, the restore that goes on with it gives the true bytes, and everything
// that was recorded was there. Some of them are cut off again.
func TestResumeCrash(t *testing.T) {
	r := newResumeTrial(t, 1)
	data, journal := crash.New(nil), crash.New(nil)
	r.finish("no crash", data, journal, false)
	limit := 120
	if os.Getenv("QBIT_FULL") == "1" {
		limit = 3000
	}
	r.crashes(data, journal, limit, func(d, j *crash.State) {
		what := fmt.Sprintf("disk: %v; journal: %v", d, j)
		data, journal := d.File(), j.File()
		r.finish(what, data, journal, false)
		if r.rng.IntN(20) == 0 {
			r.crashes(data, journal, 5, func(d, j *crash.State) {
				r.finish(fmt.Sprintf("%s; then disk: %v; journal: %v", what, d, j), d.File(), j.File(), false)
			})
		}
	})
	if r.kept == 0 || r.states < 30 {
		t.Errorf("in %d of %d states something was kept", r.kept, r.states)
	}
	t.Logf("in %d of %d states something was kept", r.kept, r.states)
}

// TestResumeFaults: every operation on the disk or the journal fails in turn, once
// or from then on; the run says so, and the next one gives the true bytes.
func TestResumeFaults(t *testing.T) {
	r := newResumeTrial(t, 2)
	full := errors.New("the disk is full")
	for i := range 4 {
		for n := 1; ; n++ {
			data, journal := crash.New(nil), crash.New(nil)
			target := resumeOn(t, r.disk, data, journal)
			fault := crash.Fault{N: n, Err: full, Short: 700, From: i >= 2}
			[]*crash.File{data, journal}[i%2].Fail(fault)
			_, err := Copy(t.Context(), target, r.disk, nil)
			if err == nil {
				err = target.Commit()
			}
			target.Abort()
			failed := data.Failed()+journal.Failed() > 0
			if failed != errors.Is(err, full) {
				t.Fatalf("operation %d failed: %t, and there is %v", n, failed, err)
			}
			data.Fail(crash.Fault{})
			journal.Fail(crash.Fault{})
			// A File in memory believes no sync after one that failed.
			r.finish(fmt.Sprint("operation ", n), crash.New(data.Bytes()), crash.New(journal.Bytes()), false)
			if !failed {
				break
			}
		}
	}
}
