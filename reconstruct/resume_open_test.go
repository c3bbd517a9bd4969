package reconstruct

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// What belongs to another restore is refused, and left as it is.
func TestResumeRefuses(t *testing.T) {
	d := newResumedDisk(t, 5)
	if _, _, err := d.run(4); !errors.Is(err, errSource) {
		t.Fatal(err)
	}
	job, size := d.job, d.Size()
	harm := func(path string, at int64) func() error {
		return func() error { return flipBit(filepath.Join(d.folder, path), at) }
	}
	for _, row := range []struct {
		name string
		job  []ResumeFact
		size int64
		do   func() error // done, and undone
		want string
	}{
		{"another file", []ResumeFact{job[0], {"file 2", "inc of 8 bytes"}}, size, nil, "file 2 was inc of 7 bytes then, and is inc of 8 bytes now"},
		{"a file more", append(job[:2:2], ResumeFact{"file 3", "x"}), size, nil, "file 3 is x now, and was not there then"},
		{"a file less", job[:1], size, nil, "file 2 was inc of 7 bytes then, and is not there now"},
		{"another thing", []ResumeFact{job[0], {"point", "p"}}, size, nil, "file 2 was inc of 7 bytes then, and now point is p"},
		{"another size", job, size + 1, nil, "the disk had"},
		{"no journal", job, size, harm(resumedJournal, 3), `it is no journal of a restore: it begins with "qbiujrnl"`},
		{"another version", job, size, harm(resumedJournal, 11), "its version is 0, and not 1"},
		{"a broken header", job, size, harm(resumedJournal, 40), "the xxh64 of its header"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.do != nil {
				if err := row.do(); err != nil {
					t.Fatal(err)
				}
				defer row.do()
			}
			_, err := ResumeRaw(t.Context(), d.path, row.size, row.job, nil)
			var refused *ResumeError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), resumedPartial) {
				t.Errorf("got %v", err)
			}
		})
	}
	target, res, err := d.run(0)
	d.whole(target, res, err)
	if target.Kept() == 0 {
		t.Error("nothing was kept")
	}
}

// flipBit changes the lowest bit of a byte.
func flipBit(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	b[0] ^= 1
	_, err2 := f.WriteAt(b[:], at)
	return errors.Join(err, err2, f.Close())
}

// What stands in the way of the result is found before anything is made; and what is
// no file of ours is not written to.
func TestResumeInTheWay(t *testing.T) {
	d := newResumedDisk(t, 2)
	if err := os.WriteFile(d.path, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := d.open(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("OUT is there: %v", err)
	}
	if names := entries(t, d.folder); names != "disk.raw" {
		t.Errorf("there is %q", names)
	}
	d.opts = &OutputOptions{Overwrite: true}
	if _, _, err := d.run(3); !errors.Is(err, errSource) {
		t.Fatal(err)
	}
	wantFile(t, d.path, []byte("old"))
	target, res, err := d.run(0)
	d.whole(target, res, err)
	if info, _ := os.Stat(d.path); runtime.GOOS != "windows" && info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", info.Mode())
	}
	if _, err := ResumeRaw(t.Context(), d.folder+string(filepath.Separator), 1, nil, nil); err == nil {
		t.Error("a name that is none is accepted")
	}
	wantFile(t, d.path, d.want)
}

// A symbolic link in the place of a hidden file is never written through.
func TestResumeSymlink(t *testing.T) {
	d := newResumedDisk(t, 2)
	other := filepath.Join(t.TempDir(), "other")
	for _, name := range []string{resumedPartial, resumedJournal} {
		if err := os.WriteFile(other, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(other, filepath.Join(d.folder, name)); err != nil {
			t.Skip(err)
		}
		target, err := d.open()
		if err == nil {
			target.Abort()
		}
		if (err != nil) != (name == resumedJournal) && runtime.GOOS == "linux" {
			t.Errorf("%s: %v", name, err)
		}
		wantFile(t, other, nil)
		os.Remove(filepath.Join(d.folder, name))
	}
}

// An input is never the unfinished disk or its journal.
func TestResumeInputs(t *testing.T) {
	d := newResumedDisk(t, 5)
	if _, _, err := d.run(4); !errors.Is(err, errSource) {
		t.Fatal(err)
	}
	for _, name := range []string{resumedPartial, resumedJournal} {
		info, err := os.Stat(filepath.Join(d.folder, name))
		if err != nil {
			t.Fatal(err)
		}
		d.opts = &OutputOptions{Inputs: []fs.FileInfo{info}}
		if _, err := d.open(); err == nil {
			t.Errorf("%s is read and written", name)
		}
	}
	d.opts = nil
	target, res, err := d.run(0)
	d.whole(target, res, err)
}

// Two at once: the second is refused, and the first goes on.
func TestResumeBusy(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there are no locks here")
	}
	d := newResumedDisk(t, 3)
	first, err := d.open()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Abort()
	if _, err := d.open(); !errors.Is(err, ErrResumeBusy) {
		t.Errorf("the second: %v", err)
	}
	res, err := d.copy(first, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.open(); !errors.Is(err, ErrResumeBusy) {
		t.Errorf("the second, later: %v", err)
	}
	d.whole(first, res, first.Commit())
}

// A run that ended between Commit and Forget is known to be whole: what differs is
// told, and never written to.
func TestResumeWhole(t *testing.T) {
	d := newResumedDisk(t, 4)
	again := func() (*ResumeTarget, *Result, error) {
		target, err := d.open()
		if err != nil {
			t.Fatal(err)
		}
		defer target.Abort()
		res, err := d.copy(target, 0)
		if err == nil {
			err = target.Commit()
		}
		return target, res, err
	}
	first, _, err := again()
	if err != nil {
		t.Fatal(err)
	}
	first.end.leave()
	for _, at := range []int64{5, ChunkSize + 100, 4 * ChunkSize} {
		if err := flipBit(d.path, at); err != nil {
			t.Fatal(err)
		}
		if target, _, err := again(); !errors.Is(err, errNotWhole) {
			t.Errorf("byte %d differs: %v", at, err)
			target.end.leave()
		}
		if err := flipBit(d.path, at); err != nil {
			t.Fatal(err)
		}
	}
	target, res, err := again()
	d.whole(target, res, err)
	if res.Read != 0 || target.Kept() == 0 {
		t.Errorf("%d bytes were read, %d kept", res.Read, target.Kept())
	}
}

// A manifest that says otherwise has a kept chunk made again.
func TestResumeExpect(t *testing.T) {
	d := newResumedDisk(t, 5)
	if _, _, err := d.run(4); !errors.Is(err, errSource) {
		t.Fatal(err)
	}
	target, err := d.open()
	if err != nil {
		t.Fatal(err)
	}
	defer target.Abort()
	d.storage = d.source
	_, err = Copy(t.Context(), target, d.fake, &CopyOptions{Expect: func(chunk int64) (uint64, bool) { return 5, chunk == 0 }})
	var differs *ChunkError
	if !errors.As(err, &differs) || differs.Chunk != 0 || target.Spoilt() != 1 {
		t.Errorf("%v, %d spoilt", err, target.Spoilt())
	}
}

// Over a file that holds something: what is not kept is written or zeroed.
func TestResumeOnto(t *testing.T) {
	d := newResumedDisk(t, 7)
	journal := filepath.Join(d.folder, "journal")
	junk := bytes.Repeat([]byte{0xaa}, int(d.Size())+100)
	if err := os.WriteFile(d.path, junk, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() *ResumeTarget {
		onto, err := OpenOnto(d.path, d.Size(), nil)
		if err != nil {
			t.Fatal(err)
		}
		target, err := ResumeOnto(journal, onto, d.job, nil)
		if err != nil {
			t.Fatal(err)
		}
		return target
	}
	first := open()
	if _, err := d.copy(first, 6); !errors.Is(err, errSource) {
		t.Fatal(err)
	}
	if err := first.Abort(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(flipBit(d.path, 3), flipBit(d.path, ChunkSize+3), flipBit(d.path, 7*ChunkSize+3)); err != nil {
		t.Fatal(err)
	}
	second := open()
	res, err := d.copy(second, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(second.Commit(), second.Forget()); err != nil {
		t.Fatal(err)
	}
	wantFile(t, d.path, append(d.want, junk[d.Size():]...))
	checkDigests(t, res.Digests, d.want[:d.Size()])
	if second.Kept() == 0 || second.Spoilt() != 1 || entries(t, d.folder) != "disk.raw" {
		t.Errorf("%d kept, %d spoilt, there is %q", second.Kept(), second.Spoilt(), entries(t, d.folder))
	}
}

// A journal may not be what is written over, nor another file that is there.
func TestResumeOntoRefuses(t *testing.T) {
	folder := t.TempDir()
	path, other := filepath.Join(folder, "disk"), filepath.Join(folder, "letter")
	for _, p := range []string{path, other} {
		if err := os.WriteFile(p, []byte("Dear Sir or Madam"), 0o600); err != nil {
			t.Fatal(err)
		}
		onto, err := OpenOnto(path, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ResumeOnto(p, onto, nil, nil); err == nil {
			t.Errorf("%s is taken as journal", p)
		}
		onto.Abort()
		wantFile(t, p, []byte("Dear Sir or Madam"))
	}
}
