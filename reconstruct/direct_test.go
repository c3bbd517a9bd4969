package reconstruct

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

// directTemp is a folder of a filesystem that has direct I/O.
func directTemp(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out, err := CreateOutput(filepath.Join(dir, "probe"), &OutputOptions{Direct: true})
	if errors.Is(err, ErrNoDirect) {
		t.Skipf("the folder for temporary files: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	out.Abort()
	return dir
}

// Whatever is written where, from memory that is aligned or not: it is in the file.
func TestDirectWrites(t *testing.T) {
	dir := directTemp(t)
	whole := make([]byte, 5<<19+directAlign)
	whole = whole[directAlign-misaligned(whole):]
	rapid.Check(t, func(rt *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		out, err := CreateOutput(filepath.Join(dir, "x"), &OutputOptions{Direct: true, Overwrite: true})
		if err != nil {
			rt.Fatal(err)
		}
		defer out.Abort()
		f, want := out.Storage(), make([]byte, 4<<20)
		for range 1 + r.IntN(5) {
			off, n := r.Int64N(1<<20), r.IntN(len(whole)-9)
			if r.IntN(2) == 0 {
				off, n = off&^4095, n&^4095
			}
			p := whole[[]int{0, 0, 1, 9}[r.IntN(4)]:][:n]
			for i := 0; i < n; i += 100 {
				p[i] = byte(r.Uint32())
			}
			if got, err := f.WriteAt(p, off); got != n || err != nil {
				rt.Fatalf("%d of %d bytes written at %d: %v", got, n, off, err)
			}
			copy(want[off:], p)
			back := make([]byte, n)
			if err := readFull(f, back, off); err != nil || !bytes.Equal(back, p) {
				rt.Fatalf("[%d, +%d) reads back differently: %v", off, n, err)
			}
		}
		got, err := os.ReadFile(out.temp)
		if err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(got, want[:len(got)]) || !allZero(want[len(got):]) {
			rt.Fatal("wrong bytes")
		}
	})
}

// Restores around the page cache give the same as those through it.
func TestDirectTargets(t *testing.T) {
	dir := directTemp(t)
	r := rand.New(rand.NewPCG(60, 60))
	d := bigDisk(r, 9<<20+777)
	path := filepath.Join(dir, "raw")
	raw, err := CreateRaw(path, d.Size(), &OutputOptions{Direct: true})
	if err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(dir, "old")
	os.WriteFile(old, bytes.Repeat([]byte{0xaa}, int(d.Size())), 0o600)
	onto, err := OpenOnto(old, d.Size(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := onto.Direct(); err != nil {
		t.Fatal(err)
	}
	for target, path := range map[Target]string{raw: path, onto: old} {
		if _, err := Copy(t.Context(), target, d, nil); err != nil {
			t.Fatal(err)
		}
		if err := target.Commit(); err != nil {
			t.Fatal(err)
		}
		wantFile(t, path, d.guest())
	}
}

// What a system refuses to write directly goes through the page cache.
func TestDirectRefused(t *testing.T) {
	dir := directTemp(t)
	out, err := CreateOutput(filepath.Join(dir, "x"), &OutputOptions{Direct: true})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Abort()
	want := bytes.Repeat([]byte{5}, 64<<10+1) // no block is that long
	if n, err := out.direct.writeWhole(want, 0); n != len(want) || err != nil {
		t.Fatal(n, err)
	}
	if !out.direct.refused.Load() {
		t.Skip("what is not aligned is written directly here")
	}
	if n, err := out.Storage().WriteAt(want, 1<<20); n != len(want) || err != nil {
		t.Fatal(n, err)
	}
	got := make([]byte, len(want))
	for _, off := range []int64{0, 1 << 20} {
		if err := readFull(out.f, got, off); err != nil || !bytes.Equal(got, want) {
			t.Errorf("wrong bytes at %d: %v", off, err)
		}
	}
}

// Another file under the name is not written to, and nothing is left behind.
func TestDirectOpen(t *testing.T) {
	dir := directTemp(t)
	path := filepath.Join(dir, "x")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	os.Rename(path, path+".old")
	if _, err := openDirect(f); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is gone: %v", err)
	}
	os.WriteFile(path, []byte("another"), 0o600)
	if _, err := openDirect(f); err == nil {
		t.Error("another file is taken for the one that is open")
	}
	os.Remove(path)
	os.Remove(path + ".old")
	if names := entries(t, dir); names != "" {
		t.Errorf("left %q", names)
	}
}

// Where there is no direct I/O, that is said.
func TestDirectNone(t *testing.T) {
	f, err := os.OpenFile("/proc/self/comm", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	if _, err := openDirect(f); !errors.Is(err, ErrNoDirect) {
		t.Errorf("got %v", err)
	}
}
