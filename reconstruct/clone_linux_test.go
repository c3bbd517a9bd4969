package reconstruct

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/testimages/interop"
)

// Random chains on a filesystem that really shares blocks, into targets there and
// elsewhere; what was read is afterwards what it was, times of change included.
func TestInteropShare(t *testing.T) {
	folder := interop.Reflinking(t)
	shared := int64(0)
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 96))
		d, files := sharedChain(t, r)
		for i, f := range files {
			if i > 0 && r.IntN(4) == 0 {
				continue // it stays on another filesystem
			}
			moveTo(t, folder, f)
		}
		want, before := plainContent(t, d), evidence(t, files)
		for _, cluster := range []int64{0, 4 << 10, 64 << 10, -1} {
			for _, dir := range []string{folder, t.TempDir()} {
				path := filepath.Join(dir, "out")
				dst := shareTargetOf(t, path, d.Size(), cluster)
				opts := randomShareOptions(r, want)
				opts.Share = true
				res, err := Copy(context.Background(), dst, d, &opts)
				if err == nil {
					err = dst.Commit()
				}
				if err != nil {
					t.Fatal(err)
				}
				if dir == folder {
					shared += res.Shared
				} else if res.Shared > 0 {
					t.Errorf("%d bytes shared across filesystems", res.Shared)
				}
				wantGuest(t, path, cluster, want)
				os.Remove(path)
			}
		}
		if after := evidence(t, files); !bytes.Equal(after, before) {
			t.Errorf("seed %d: what was read has changed", seed)
		}
	}
	if shared == 0 {
		t.Error("nothing was shared")
	}
}

func wantGuest(t *testing.T, path string, cluster int64, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if cluster > 0 {
		got = guestOf(t, got)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s, clusters of %d: wrong bytes", path, cluster)
	}
}

// moveTo makes an open file one of another folder.
func moveTo(t *testing.T, folder string, f *os.File) {
	t.Helper()
	p, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, filepath.Base(f.Name()))
	if err := os.WriteFile(path, p, 0o400); err != nil {
		t.Fatal(err)
	}
	moved, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOATIME, 0)
	if err != nil {
		t.Fatal(err)
	}
	*f = *moved
	t.Cleanup(func() { os.Remove(path) })
}

// evidence is the content of files and all that stat says of their change.
func evidence(t *testing.T, files []*os.File) []byte {
	t.Helper()
	var all []byte
	for _, f := range files {
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		p := make([]byte, info.Size())
		if err := readFull(f, p, 0); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(p)
		all = append(all, sum[:]...)
		for _, n := range []int64{st.Mtim.Nano(), st.Ctim.Nano(), st.Size, int64(st.Nlink)} {
			for shift := 0; shift < 64; shift += 8 {
				all = append(all, byte(n>>shift))
			}
		}
	}
	return all
}

// One bad moment of a filesystem does not end the sharing; a refusal does.
func TestShareRefused(t *testing.T) {
	for errno, more := range map[error]bool{syscall.ENOSPC: true, syscall.EIO: true, syscall.EXDEV: false, syscall.EOPNOTSUPP: false, syscall.EINVAL: false} {
		r := rand.New(rand.NewPCG(97, 97))
		d := newFake(r, 4<<20, 256<<10, func(i int) qcow2.Kind { return []qcow2.Kind{qcow2.Data, qcow2.Zero}[i%2] })
		f := d.onFile(t, rand.New(rand.NewPCG(2, 2)), t.TempDir())
		m := &wholePlacer{&shareMem{memTarget: newMemTarget(t, d.Size()), file: f, rand: r}}
		clone := &fakeClone{t: t, fail: 1, errno: errno, put: func(_ *os.File, p []byte, off int64) error { copy(m.disk[off:], p); return nil }}
		res, err := runShared(m, d, clone, CopyOptions{Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		if (clone.calls > 1) != more || (res.Shared > 0) != more || !bytes.Equal(m.disk, d.guest()) {
			t.Errorf("%v: %d calls, %d shared", errno, clone.calls, res.Shared)
		}
	}
	if momentary(errors.New("another")) {
		t.Error("an error that is not known is taken for one of the moment")
	}
}
