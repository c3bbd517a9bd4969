package reconstruct

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
)

const (
	resumedPartial = ".disk.raw.qbit-resume.partial"
	resumedJournal = ".disk.raw.qbit-resume.journal"
)

// A resumedDisk is a disk that is restored into a folder in several runs.
type resumedDisk struct {
	*testing.T
	*fake
	folder, path string
	source       *bytes.Reader
	want         []byte
	job          []ResumeFact
	opts         *OutputOptions
}

// newResumedDisk is a disk of some chunks and a bit. A chunk is read with two reads,
// the short one with one, and the second, which is zero, with none.
func newResumedDisk(t *testing.T, chunks int64) *resumedDisk {
	r := rand.New(rand.NewPCG(70, uint64(chunks)))
	d := newFake(r, chunks*ChunkSize+12345, 1<<20, func(i int) qcow2.Kind {
		switch {
		case i/4 == 1:
			return qcow2.Zero
		case i%4 == 0:
			return qcow2.Data
		}
		return qcow2.Absent
	})
	folder := t.TempDir()
	return &resumedDisk{T: t, fake: d, folder: folder, path: filepath.Join(folder, "disk.raw"), source: d.storage.(*bytes.Reader), want: d.guest(),
		job: []ResumeFact{{"file 1", "full of 5 bytes"}, {"file 2", "inc of 7 bytes"}}}
}

func (d *resumedDisk) open() (*ResumeTarget, error) {
	return ResumeRaw(d.Context(), d.path, d.Size(), d.job, d.opts)
}

// run restores, with an error at the read number fail; 0: none. The error is
// that of Copy.
func (d *resumedDisk) run(fail int64) (*ResumeTarget, *Result, error) {
	d.Helper()
	t, err := d.open()
	if err != nil {
		d.Fatal(err)
	}
	defer t.Abort()
	res, err := d.copy(t, fail)
	if err == nil {
		if err := t.Commit(); err != nil {
			d.Fatal(err)
		}
	}
	return t, res, err
}

var errSource = errors.New("the source is gone")

func (d *resumedDisk) copy(t *ResumeTarget, fail int64) (*Result, error) {
	d.storage = d.source
	if fail > 0 {
		left := new(atomic.Int64)
		left.Store(fail - 1)
		d.storage = &failingReader{d.source, left, func() error { return errSource }}
	}
	return Copy(d.Context(), t, d.fake, &CopyOptions{Digests: DigestNames(), Workers: 1, Memory: 1})
}

// whole wants the result of a run that came to its end.
func (d *resumedDisk) whole(t *ResumeTarget, res *Result, err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
	wantFile(d.T, d.path, d.want)
	checkDigests(d.T, res.Digests, d.want)
	if err := t.Forget(); err != nil {
		d.Error(err)
	}
	if names := entries(d.T, d.folder); names != "disk.raw" {
		d.Errorf("at the end there is %q", names)
	}
}

func TestResume(t *testing.T) {
	d := newResumedDisk(t, 9)
	total := int64(0)
	for _, fail := range []int64{4, 6, 3} {
		target, _, err := d.run(fail)
		if !errors.Is(err, errSource) {
			t.Fatal(err)
		}
		if target.Kept() < total {
			t.Errorf("%d bytes were kept, and %d before", target.Kept(), total)
		}
		total = target.Kept()
		if names := entries(t, d.folder); names != resumedJournal+" "+resumedPartial {
			t.Errorf("after it was interrupted there is %q", names)
		}
	}
	target, res, err := d.run(0)
	d.whole(target, res, err)
	if target.Kept() <= total || total == 0 || target.Kept()%ChunkSize != 0 || res.Read+target.Kept()/4 != 8<<20+12345 {
		t.Errorf("kept %d bytes, then %d, and %d were read", total, target.Kept(), res.Read)
	}
	if info, err := os.Stat(d.path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm()&0o400 == 0 || info.Mode().Perm()&0o133 != 0 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// A first run without an error leaves nothing either, and so does one that has
// done nothing that can be kept.
func TestResumeNothing(t *testing.T) {
	d := newResumedDisk(t, 3)
	target, res, err := d.run(0)
	d.whole(target, res, err)
	os.Remove(d.path)
	if _, _, err := d.run(1); !errors.Is(err, errSource) {
		t.Error(err)
	}
	if names := entries(t, d.folder); names != "" {
		t.Errorf("there is %q", names)
	}
}

// Whatever somebody did to the unfinished disk between two runs, the result is right.
func TestResumeDamaged(t *testing.T) {
	for name, row := range map[string]struct {
		harm   func(f *os.File) error
		spoilt bool
	}{
		"nothing":      {func(f *os.File) error { return nil }, false},
		"a bit":        {func(f *os.File) error { _, err := f.WriteAt([]byte{0}, 1000); return err }, true},
		"a hole":       {func(f *os.File) error { _, err := f.WriteAt([]byte{1}, ChunkSize+7); return err }, false},
		"behind":       {func(f *os.File) error { _, err := f.WriteAt([]byte{1}, 9*ChunkSize+12344); return err }, false},
		"beyond":       {func(f *os.File) error { return f.Truncate(20 * ChunkSize) }, false},
		"cut":          {func(f *os.File) error { return f.Truncate(ChunkSize / 2) }, true},
		"empty":        {func(f *os.File) error { return f.Truncate(0) }, true},
		"all is there": {func(f *os.File) error { _, err := f.WriteAt(bytes.Repeat([]byte{7}, 9*ChunkSize), 0); return err }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newResumedDisk(t, 9)
			if _, _, err := d.run(6); !errors.Is(err, errSource) {
				t.Fatal(err)
			}
			f, err := os.OpenFile(filepath.Join(d.folder, resumedPartial), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(row.harm(f), f.Close()); err != nil {
				t.Fatal(err)
			}
			target, res, err := d.run(0)
			d.whole(target, res, err)
			if (target.Spoilt() > 0) != row.spoilt {
				t.Errorf("%d chunks were spoilt", target.Spoilt())
			}
		})
	}
}

// The same with a journal that is harmed, or gone, or without the unfinished disk.
func TestResumeJournalHarmed(t *testing.T) {
	for name, row := range map[string]struct {
		harm func(journal, partial string) error
		kept bool
	}{
		"torn":       {func(j, _ string) error { return cutFile(j, -5) }, true},
		"longer":     {func(j, _ string) error { return appendFile(j, bytes.Repeat([]byte{9}, 100)) }, true},
		"empty":      {func(j, _ string) error { return os.Truncate(j, 0) }, false},
		"gone":       {func(j, _ string) error { return os.Remove(j) }, false},
		"disk gone":  {func(_, p string) error { return os.Remove(p) }, false},
		"head, disk": {func(j, p string) error { return errors.Join(os.Truncate(j, 30), os.Remove(p)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newResumedDisk(t, 9)
			if _, _, err := d.run(6); !errors.Is(err, errSource) {
				t.Fatal(err)
			}
			if err := row.harm(filepath.Join(d.folder, resumedJournal), filepath.Join(d.folder, resumedPartial)); err != nil {
				t.Fatal(err)
			}
			// It is interrupted once more, so that the mended journal counts too.
			again, _, err := d.run(8)
			if !errors.Is(err, errSource) {
				t.Fatal(err)
			}
			target, res, err := d.run(0)
			d.whole(target, res, err)
			if (again.Kept() > 0) != row.kept || target.Kept() <= again.Kept() || target.Spoilt() != 0 {
				t.Errorf("kept %d bytes, then %d; %d chunks spoilt", again.Kept(), target.Kept(), target.Spoilt())
			}
		})
	}
}

func cutFile(path string, by int64) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, info.Size()+by)
}

func appendFile(path string, p []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(p)
	return errors.Join(err, f.Close())
}

// The context ends the tidying up where no holes can be punched.
func TestResumeClearStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := (resumeFile{File: f}).cut(ctx, []ResumeSum{{Chunk: 1 << 30}}, 1<<60); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestResumeName(t *testing.T) {
	long := strings.Repeat("x", 300)
	a, b := resumeName("d/"+long+"a", "partial"), resumeName("d/"+long+"b", "partial")
	if a == b || len(filepath.Base(a)) > 255 {
		t.Errorf("%s and %s", a, b)
	}
	if got := resumeName("d/disk.raw", "partial"); got != filepath.Join("d", resumedPartial) {
		t.Error(got)
	}
}

func TestResumeJournal(t *testing.T) {
	j := &ResumeJournal{Header: ResumeHeader{Size: 3*ChunkSize + 1, Mode: 0o644, Nonce: 7, Job: []ResumeFact{{"a", "b"}}},
		Sums: []ResumeSum{{0, 5}, {2, 6}, {3, 7}}, Whole: true}
	b, err := j.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	read := func(b []byte) *ResumeJournal {
		got, err := ReadResumeJournal(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	got := read(b)
	if !reflect.DeepEqual(got.Header, j.Header) || !reflect.DeepEqual(got.Sums, j.Sums) || !got.Whole || got.end != int64(len(b)) {
		t.Errorf("%+v", got)
	}
	b = appendRecord(b, got.key, 2, 9)   // the later one counts
	b = appendRecord(b, got.key, 4, 1)   // beyond the disk
	b = appendRecord(b, got.key+1, 0, 1) // of another journal
	got = read(append(b, 1, 2, 3))
	if want := []ResumeSum{{0, 5}, {2, 9}, {3, 7}}; !reflect.DeepEqual(got.Sums, want) || got.end != int64(len(b))-2*recordSize {
		t.Errorf("%+v", got)
	}
}
