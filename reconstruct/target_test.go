package reconstruct

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// entries are the names in a folder.
func entries(t *testing.T, folder string) string {
	t.Helper()
	all, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range all {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func wantFile(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: wrong bytes", filepath.Base(path))
	}
}

func TestRawTarget(t *testing.T) {
	r := rand.New(rand.NewPCG(40, 40))
	d := bigDisk(r, 9<<20+777)
	folder := t.TempDir()
	path := filepath.Join(folder, "disk.raw")
	target, err := CreateRaw(path, d.Size(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Copy(t.Context(), target, d, nil); err != nil {
		t.Fatal(err)
	}
	temp := regexp.MustCompile(`^\.disk\.raw\.qbit-[0-9a-f]{8}\.partial$`)
	if names := entries(t, folder); !temp.MatchString(names) {
		t.Errorf("before Commit there is %q", names)
	}
	if err := target.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := target.Abort(); err != nil {
		t.Errorf("Abort after Commit: %v", err)
	}
	if names := entries(t, folder); names != "disk.raw" {
		t.Errorf("after Commit there is %q", names)
	}
	wantFile(t, path, d.guest())
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm()&^0o644 != 0 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := target.Commit(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("a second Commit: %v", err)
	}
}

// A tool of the target fails at each place: nothing that looks like a result
// is left, and an old file is still what it was.
func TestOutputFailures(t *testing.T) {
	bad := errors.New("bad")
	for name, breakIt := range map[string]func(t *testing.T, target *FileTarget){
		"abort":   func(t *testing.T, target *FileTarget) { target.Abort(); target.Abort() },
		"content": func(t *testing.T, target *FileTarget) { target.Content = badContent{target.Content, bad} },
		"sync":    func(t *testing.T, target *FileTarget) { target.out.sync = func(*os.File) error { return bad } },
		"closed":  func(t *testing.T, target *FileTarget) { target.out.f.Close() },
		"gone":    func(t *testing.T, target *FileTarget) { os.Remove(target.out.temp) },
	} {
		for _, overwrite := range []bool{false, true} {
			folder := t.TempDir()
			path := filepath.Join(folder, "disk.raw")
			want := ""
			if overwrite {
				os.WriteFile(path, []byte("old"), 0o600)
				want = "disk.raw"
			}
			target, err := CreateRaw(path, 1000, &OutputOptions{Overwrite: overwrite})
			if err != nil {
				t.Fatal(err)
			}
			breakIt(t, target)
			if err := target.Commit(); err == nil {
				t.Errorf("%s: Commit succeeds", name)
			}
			if names := entries(t, folder); names != want {
				t.Errorf("%s: Commit left %q, want %q", name, names, want)
			}
			target.Abort()
			if names := entries(t, folder); names != want {
				t.Errorf("%s: left %q, want %q", name, names, want)
			}
			if overwrite {
				wantFile(t, path, []byte("old"))
			}
		}
	}
}

type badContent struct {
	Content
	err error
}

func (b badContent) Close() error { return b.err }

func TestOutputExists(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "disk.raw")
	old := func() {
		t.Helper()
		if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old()
	if _, err := CreateRaw(path, 10, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
	info, _ := os.Stat(path)
	inputs := &OutputOptions{Overwrite: true, Inputs: []fs.FileInfo{nil, info}}
	if _, err := CreateRaw(path, 10, inputs); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over an input: %v", err)
	}
	if _, err := CreateRaw(folder, 10, &OutputOptions{Overwrite: true}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a folder: %v", err)
	}
	if _, err := CreateRaw(folder+"/", 10, nil); err == nil {
		t.Error("no name is accepted")
	}
	if _, err := CreateRaw(filepath.Join(folder, "none", "x"), 10, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in no folder: %v", err)
	}

	target, err := CreateRaw(path, 3, &OutputOptions{Overwrite: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Commit(); err != nil {
		t.Error(err)
	}
	wantFile(t, path, make([]byte, 3))
	if info, _ := os.Stat(path); runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the permissions of the old file are lost: %v", info.Mode())
	}

	os.Remove(path)
	if target, err = CreateRaw(path, 10, nil); err != nil {
		t.Fatal(err)
	}
	old() // it appears meanwhile
	if err := target.Commit(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file that appeared: %v", err)
	}
	wantFile(t, path, []byte("old"))
	if names := entries(t, folder); names != "disk.raw" {
		t.Errorf("left %q", names)
	}
}

// Neither way of renaming replaces a file, whatever was seen before.
func TestRenameNew(t *testing.T) {
	for name, rename := range map[string]func(from, to string) error{"rename": renameNew, "link": linkNew} {
		folder := t.TempDir()
		from, to := filepath.Join(folder, "from"), filepath.Join(folder, "to")
		os.WriteFile(from, []byte("new"), 0o600)
		os.WriteFile(to, []byte("old"), 0o600)
		if err := rename(from, to); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", name, err)
		}
		wantFile(t, to, []byte("old"))
		os.Remove(to)
		if err := rename(from, to); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantFile(t, to, []byte("new"))
		if names := entries(t, folder); names != "to" {
			t.Errorf("%s: left %q", name, names)
		}
	}
}

func TestLongName(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, strings.Repeat("n", 250))
	target, err := CreateRaw(path, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Commit(); err != nil {
		t.Error(err)
	}
	wantFile(t, path, make([]byte, 1))
}

func TestOnto(t *testing.T) {
	r := rand.New(rand.NewPCG(41, 41))
	d := bigDisk(r, 9<<20+777)
	for _, beyond := range []int64{0, 5000} {
		for way := range int32(len(zeroModes) + 1) {
			junk := bytes.Repeat([]byte{0xaa}, int(d.Size()+beyond))
			path := filepath.Join(t.TempDir(), "old")
			os.WriteFile(path, junk, 0o600)
			target, err := OpenOnto(path, d.Size(), nil)
			if err != nil {
				t.Fatal(err)
			}
			target.way.Store(way)
			if target.Beyond() != beyond {
				t.Errorf("beyond: %d, want %d", target.Beyond(), beyond)
			}
			if _, err := Copy(t.Context(), target, d, nil); err != nil {
				t.Fatal(err)
			}
			if err := target.Commit(); err != nil {
				t.Error(err)
			}
			if err := target.Abort(); err != nil {
				t.Errorf("Abort after Commit: %v", err)
			}
			wantFile(t, path, append(d.guest(), junk[d.Size():]...))
		}
	}
}

// Zero zeroes exactly what it is told to, wherever that begins and ends.
func TestOntoZero(t *testing.T) {
	path := filepath.Join(t.TempDir(), "old")
	const size = 40000
	way := int32(-1) // that this filesystem knows; ranges that are too small do not change it
	for _, c := range [][2]int64{{0, size}, {1, 1}, {4095, 2}, {4096, 4096}, {4097, 4095}, {1, 8191}, {100, 30000}, {39999, 1}} {
		want := bytes.Repeat([]byte{0xaa}, size)
		os.WriteFile(path, want, 0o600)
		target, err := OpenOnto(path, size, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := target.Zero(c[0], c[1]); err != nil {
			t.Error(err)
		}
		target.Commit()
		if now := target.way.Load(); way < 0 {
			way = now
		} else if now > way {
			t.Errorf("zeroing %v changed the way from %d to %d", c, way, now)
		}
		clear(want[c[0] : c[0]+c[1]])
		wantFile(t, path, want)
	}
}

// A copy that has to write zeros over a file is stopped between two writes.
func TestOntoZeroStops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "old")
	const size = 8 << 20
	junk := bytes.Repeat([]byte{0xaa}, size)
	os.WriteFile(path, junk, 0o600)
	target, err := OpenOnto(path, size, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Abort()
	target.way.Store(int32(len(zeroModes))) // no way but to write
	ctx := &endingContext{Context: context.Background(), left: 2}
	if err := zero(ctx, target, 0, size); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	clear(junk[:2*len(zeros)])
	wantFile(t, path, junk)
}

// An endingContext ends after it was looked at some times.
type endingContext struct {
	context.Context
	left int
}

func (c *endingContext) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// Who writes much asks the system to store it, again and again.
func TestEagerFile(t *testing.T) {
	for _, device := range []bool{false, true} {
		f, err := os.Create(filepath.Join(t.TempDir(), "x"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		e := newEagerFile(f, device)
		asked := 0
		e.ask = func(f *os.File) {
			startWriteback(f)
			asked++
		}
		want := bytes.Repeat([]byte("eager"), 1<<20)
		for off := int64(0); off < 3*eagerStep; off += int64(len(want)) {
			if _, err := e.WriteAt(want, off); err != nil {
				t.Fatal(err)
			}
		}
		got := make([]byte, len(want))
		if _, err := e.ReadAt(got, int64(len(want))); err != nil || !bytes.Equal(got, want) {
			t.Errorf("wrong bytes, %v", err)
		}
		if asked != 2 {
			t.Errorf("asked %d times", asked)
		}
		f.Close()
		if _, err := e.WriteAt(want, 0); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("writing to a closed file: %v", err)
		}
		startWriteback(f)
	}
}

func TestOntoRefuses(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "file")
	os.WriteFile(path, make([]byte, 999), 0o600)
	if _, err := OpenOnto(path, 1000, nil); err == nil || !strings.Contains(err.Error(), "it holds 999 bytes, the disk has 1000") {
		t.Errorf("too small: %v", err)
	}
	info, _ := os.Stat(path)
	if _, err := OpenOnto(path, 10, []fs.FileInfo{info}); err == nil {
		t.Error("an input is accepted")
	}
	if _, err := OpenOnto(folder, 0, nil); err == nil {
		t.Error("a folder is accepted")
	}
	if _, err := OpenOnto(filepath.Join(folder, "none"), 0, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	if _, err := OpenOnto(os.DevNull, 0, nil); err == nil {
		t.Error("a character device is accepted")
	}
}

func TestStream(t *testing.T) {
	r := rand.New(rand.NewPCG(42, 42))
	d := bigDisk(r, 9<<20+777)
	var out bytes.Buffer
	s := NewStream(&out)
	if _, err := Copy(t.Context(), s, d, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), d.guest()) {
		t.Error("wrong bytes")
	}
	if _, err := s.WriteAt([]byte("x"), 5); err == nil {
		t.Error("a write at another place is accepted")
	}
	if err := errors.Join(s.Commit(), s.Abort()); err != nil {
		t.Error(err)
	}
	full := errors.New("full")
	if _, err := Copy(t.Context(), NewStream(fullWriter{full}), d, nil); !errors.Is(err, full) {
		t.Errorf("a full disk: %v", err)
	}
}

type fullWriter struct{ err error }

func (f fullWriter) Write(p []byte) (int, error) { return 0, f.err }
