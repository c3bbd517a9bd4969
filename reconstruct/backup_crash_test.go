package reconstruct

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
)

// errKilled ends a run where it stands: nothing cleans up after it.
var errKilled = errors.New("killed")

// killAt is a step that ends the run at its n-th call, from 0.
func killAt(n int) (step func(string) error, steps *[]string) {
	steps = new([]string)
	return func(what string) error {
		*steps = append(*steps, what)
		if len(*steps) > n {
			return errKilled
		}
		return nil
	}, steps
}

// A crashSite is images in a folder each, and a folder for their backups.
type crashSite struct {
	t      *testing.T
	images []string
	out    string
	disks  [][]byte
}

const crashBitmap = "cp1"

// memoryDir is a folder in memory, where there is one: a kill loses nothing that was
// written, so that syncs would only cost time.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "qbit-test")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newCrashSite(t *testing.T, n int) *crashSite {
	s := &crashSite{t: t, out: memoryDir(t)}
	for i := range n {
		path := filepath.Join(memoryDir(t), fmt.Sprintf("disk%d.qcow2", i))
		s.images = append(s.images, path)
		s.disks = append(s.disks, bytes.Repeat([]byte{byte('a' + i)}, 3*4096))
		f := s.must(os.Create(path))
		w, err := qcow2.Create(f, qcow2.Layout{Size: int64(3 * 4096), ClusterSize: 4096})
		s.check(err)
		_, err = w.WriteAt(s.disks[i], 0)
		s.check(errors.Join(err, w.Close()))
		e, err := editFile(f, nil)
		s.check(err)
		bits := mustBitmap(t, 3*4096, 4096)
		bits.Set(4096, 1)
		s.check(e.Update(func(tx *qcow2.Tx) error { return tx.AddBitmap("older", bits, true) }))
		s.check(f.Close())
	}
	return s
}

func (s *crashSite) must(f *os.File, err error) *os.File {
	s.t.Helper()
	s.check(err)
	return f
}

func (s *crashSite) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// backup makes the backups of all images with a checkpoint. The process ends with it,
// as its files do.
func (s *crashSite) backup(step func(string) error, commit func(*BackupCommit) error) error {
	b := NewBackupCommit()
	b.step = step
	for i, path := range s.images {
		f := s.must(os.OpenFile(path, os.O_RDWR, 0))
		defer f.Close()
		s.check(qcow2.Lock(f, qcow2.LockWrite))
		dst, err := CreateRaw(s.output(i), int64(len(s.disks[i])), nil)
		s.check(err)
		img, err := qcow2.Open(f, fileSize(f), nil)
		s.check(err)
		_, err = Backup(s.t.Context(), dst, img, nil)
		s.check(err)
		b.AddTarget(dst)
		s.check(b.AddCheckpoint(path, f, nil, crashBitmap, 65536))
	}
	s.check(b.AddDocument(filepath.Join(s.out, "cp1.xml"), []byte("<domaincheckpoint/>\n"), nil))
	err := commit(b)
	for _, f := range b.files { // what a killed process had open
		if f.out.f != nil {
			f.out.f.Close()
		}
	}
	return err
}

func fileSize(f *os.File) int64 {
	n, _ := f.Seek(0, 2)
	return n
}

func (s *crashSite) output(i int) string { return filepath.Join(s.out, fmt.Sprintf("full%d.raw", i)) }

// judge says whether backup and checkpoint are there. Anything but all or nothing, and
// anything left behind, is an error.
func (s *crashSite) judge() (there bool) {
	s.t.Helper()
	have := map[bool]int{}
	for i, path := range s.images {
		f := s.must(os.Open(path))
		img, err := qcow2.Open(f, fileSize(f), nil)
		s.check(err)
		got := make([]byte, img.Size())
		_, err = img.ReadAt(got, 0)
		s.check(err)
		if !bytes.Equal(got, s.disks[i]) {
			s.t.Errorf("disk %d has other bytes", i)
		}
		list, err := img.Bitmaps()
		s.check(err)
		names := []string{}
		for _, b := range list {
			names = append(names, b.Name)
		}
		if !slices.Contains(names, "older") || slices.ContainsFunc(list, func(b qcow2.BitmapInfo) bool { return b.InUse || !b.Auto }) {
			s.t.Errorf("disk %d has the bitmaps %q", i, names)
		}
		have[slices.Contains(names, crashBitmap)]++
		f.Close()
		content, err := os.ReadFile(s.output(i))
		have[err == nil]++
		if err == nil && !bytes.Equal(content, s.disks[i]) {
			s.t.Errorf("backup %d has other bytes", i)
		}
	}
	_, err := os.Stat(filepath.Join(s.out, "cp1.xml"))
	have[err == nil]++
	if len(have) != 1 {
		s.t.Errorf("backups and bitmaps are there %d times and missing %d times", have[true], have[false])
	}
	s.clean()
	return have[true] > 0
}

// clean finds what was left behind.
func (s *crashSite) clean() {
	s.t.Helper()
	for _, dir := range append([]string{s.out}, s.folders()...) {
		entries, err := os.ReadDir(dir)
		s.check(err)
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") {
				s.t.Errorf("%s was left", filepath.Join(dir, e.Name()))
			}
		}
	}
}

func (s *crashSite) folders() (dirs []string) {
	for _, path := range s.images {
		dirs = append(dirs, filepath.Dir(path))
	}
	return dirs
}

// TestBackupCrash kills a backup with a checkpoint before each of its steps, and the
// recovery, which any of the images can set off, before each of its own.
func TestBackupCrash(t *testing.T) {
	most := 2
	if os.Getenv("QBIT_FULL") == "1" {
		most = 4
	}
	for disks := 1; disks <= most; disks++ {
		count, seen := 0, map[bool]int{}
		for kill := 0; ; kill++ {
			step, steps := killAt(kill)
			s := newCrashSite(t, disks)
			err := s.backup(step, (*BackupCommit).commit)
			if err == nil {
				if !s.judge() || len(*steps) != kill {
					t.Errorf("a backup that was not interrupted is not there")
				}
				break
			}
			if !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			count += s.recoverAnyhow(t, disks, kill, seen)
		}
		if seen[true] == 0 || seen[false] == 0 {
			t.Errorf("%d disks: %d finished, %d undone: both must be tried", disks, seen[true], seen[false])
		}
		t.Logf("%d disks: %d crashes, %d finished and %d undone", disks, count, seen[true], seen[false])
	}
}

// recoverAnyhow recovers the state that a kill left: by each image in turn, killed
// before each step, and then once more.
func (s *crashSite) recoverAnyhow(t *testing.T, disks, kill int, seen map[bool]int) (count int) {
	for by := range disks {
		for again := 0; ; again++ {
			step, _ := killAt(kill)
			s := newCrashSite(t, disks)
			if err := s.backup(step, (*BackupCommit).commit); !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			if s.recoverOnce(by, again) {
				break
			}
			count++
			seen[s.judgeAfter(by, kill, again)]++
		}
	}
	return count
}

// recoverOnce kills a recovery before a step; whole says that there was no such step.
func (s *crashSite) recoverOnce(by, again int) (whole bool) {
	step, steps := killAt(again)
	_, err := recoverBackup(s.images[by], qcow2.Limits{}, step)
	if err != nil && !errors.Is(err, errKilled) {
		s.t.Fatalf("recovery by image %d killed at step %d (%q): %v", by, again, *steps, err)
	}
	return err == nil && again > 0
}

// judgeAfter ends the recovery by all images, and judges.
func (s *crashSite) judgeAfter(by, kill, again int) bool {
	for i := range s.images {
		_, err := RecoverBackup(s.images[(by+i)%len(s.images)], qcow2.Limits{})
		s.check(err)
	}
	s.removeNoteless()
	there := s.judge()
	if s.t.Failed() {
		s.t.Fatalf("killed at step %d, recovered by image %d, that killed at step %d", kill, by, again)
	}
	return there
}

// removeNoteless removes the unfinished files of a run that was killed before it wrote a
// note, which any killed process leaves.
func (s *crashSite) removeNoteless() {
	for i := range s.images {
		if _, err := os.Stat(s.output(i)); err == nil {
			return
		}
	}
	found, _ := filepath.Glob(filepath.Join(s.out, ".*.partial"))
	for _, f := range found {
		os.Remove(f)
	}
}

// TestBackupCommitFails has each step fail, where the process goes on: it cleans up
// itself, or says that the rest is for the next run.
func TestBackupCommitFails(t *testing.T) {
	for kill := 0; ; kill++ {
		step, steps := killAt(kill)
		s := newCrashSite(t, 2)
		committed := false
		err := s.backup(step, func(b *BackupCommit) error {
			err := b.Commit()
			committed = b.Committed()
			return errors.Join(err, b.Abort())
		})
		if err == nil {
			break
		}
		if committed {
			r, err := RecoverBackup(s.images[0], qcow2.Limits{})
			s.check(err)
			if r == nil || !r.Finished {
				t.Errorf("failed at %q: the recovery did %+v", *steps, r)
			}
		}
		if there := s.judge(); there != committed {
			t.Errorf("failed at %q: there %t, committed %t", *steps, there, committed)
		}
	}
}

// TestBackupRecoverRefuses leaves all alone where it cannot be right.
func TestBackupRecoverRefuses(t *testing.T) {
	interrupted := func(what string) *crashSite {
		s := newCrashSite(t, 2)
		err := s.backup(func(step string) error {
			if step == what {
				return errKilled
			}
			return nil
		}, (*BackupCommit).commit)
		if !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		return s
	}
	t.Run("locked", func(t *testing.T) {
		s := interrupted("name")
		f := s.must(os.OpenFile(s.images[1], os.O_RDWR, 0))
		defer f.Close()
		s.check(qcow2.Lock(f, qcow2.LockWrite))
		if _, err := RecoverBackup(s.images[0], qcow2.Limits{}); !errors.Is(err, qcow2.ErrLocked) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("another file has the name", func(t *testing.T) {
		s := interrupted("name")
		s.check(os.WriteFile(s.output(0), []byte("theirs"), 0o600))
		if _, err := RecoverBackup(s.images[0], qcow2.Limits{}); !errors.Is(err, fs.ErrExist) {
			t.Errorf("got %v", err)
		}
		if b, _ := os.ReadFile(s.output(0)); string(b) != "theirs" {
			t.Error("it was replaced")
		}
	})
	t.Run("the unfinished files are gone", func(t *testing.T) {
		s := interrupted("name")
		s.check(os.RemoveAll(s.out))
		if _, err := RecoverBackup(s.images[0], qcow2.Limits{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an image is gone", func(t *testing.T) {
		s := interrupted("decide")
		s.check(os.Remove(s.images[0]))
		if _, err := RecoverBackup(s.images[1], qcow2.Limits{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an image that has no such note", func(t *testing.T) {
		s, other := interrupted("decide"), interrupted("decide")
		s.check(os.Remove(intentBeside(other.images[0])))
		s.check(os.Remove(intentBeside(other.images[1])))
		note := intentBeside(s.images[0])
		text, err := os.ReadFile(note)
		s.check(err)
		s.check(os.WriteFile(note, bytes.ReplaceAll(text, []byte(s.images[1]), []byte(other.images[1])), 0o600))
		_, err = RecoverBackup(s.images[0], qcow2.Limits{})
		s.check(err)
		f := s.must(os.Open(other.images[1]))
		defer f.Close()
		img, err := qcow2.Open(f, fileSize(f), nil)
		s.check(err)
		if _, err := img.LoadBitmap(crashBitmap); err != nil {
			t.Errorf("the bitmap of another image went: %v", err)
		}
	})
	t.Run("moved", func(t *testing.T) {
		s := interrupted("decide")
		now := filepath.Join(memoryDir(t), "elsewhere.qcow2")
		s.check(os.Rename(s.images[1], now))
		s.check(os.Rename(intentBeside(s.images[1]), intentBeside(now)))
		if _, err := RecoverBackup(now, qcow2.Limits{}); err == nil || !strings.Contains(err.Error(), "moved here") {
			t.Errorf("got %v", err)
		}
	})
}

// TestBackupIntentStranger finds notes that would have foreign files touched.
func TestBackupIntentStranger(t *testing.T) {
	const head = `{"format":"qbit-backup-intent","version":1,"run":"1","state":"prepared","images":[{"path":"/i","bitmap":"b"}],"files":[`
	for _, files := range []string{
		`{"partial":"/etc/passwd","path":"/etc/shadow"}`,
		`{"partial":"/etc/.x.qbit-00000000.partial","path":"/tmp/x"}`,
		`{"partial":"/etc/../etc/.x.qbit-00000000.partial","path":"/etc/x"}`,
		`{"partial":".x.qbit-00000000.partial","path":"x"}`,
	} {
		if _, err := decodeIntent([]byte(head + files + "]}")); err == nil {
			t.Errorf("%s is taken", files)
		}
	}
	if _, err := decodeIntent([]byte(head + `{"partial":"/etc/.x.qbit-00000000.partial","path":"/etc/x"}]}`)); err != nil {
		t.Error(err)
	}
}

// FuzzBackupIntent: a note of a stranger is refused, or all that it would have renamed
// or removed is an unfinished file of ours.
func FuzzBackupIntent(f *testing.F) {
	f.Add([]byte(`{"format":"qbit-backup-intent","version":1,"run":"1","state":"committed","images":[{"path":"/i","bitmap":"b"}],"files":[{"partial":"/.x.qbit-00000000.partial","path":"/x"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := decodeIntent(b)
		if err != nil {
			return
		}
		for _, file := range in.Files {
			if !strings.HasSuffix(file.Partial, ".partial") || filepath.Dir(file.Partial) != filepath.Dir(file.Path) {
				t.Errorf("it would touch %q and %q", file.Partial, file.Path)
			}
		}
	})
}
