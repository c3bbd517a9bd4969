package reconstruct

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/cespare/xxhash/v2"
	"pgregory.net/rapid"

	"github.com/qbitkit/qbit/qcow2"
)

const testAlign = 4096 // of the filesystem that the tests make up

// A fakeClone is the ioctl of a filesystem that shares blocks: it copies, wants what
// a kernel wants, and fails when it is told to.
type fakeClone struct {
	t       testing.TB
	put     func(dst *os.File, p []byte, off int64) error
	fail    int                // the call that fails, from 1
	ever    bool               // and all after it
	errno   error              // what it fails with
	foreign map[*os.File]error // files of other filesystems

	mu    sync.Mutex
	calls int
	most  int64 // of one call that did not fail
	bytes int64
}

func (f *fakeClone) clone(dst, src *os.File, to, from, n int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	info, err := src.Stat()
	if err != nil || n <= 0 || from < 0 || (to|from|n)%testAlign != 0 || from+n > info.Size() {
		f.t.Errorf("sharing [%d, +%d) of a file at %d: a kernel refuses that (%v)", from, n, to, err)
		return syscall.EINVAL
	}
	if err := f.foreign[src]; err != nil {
		return err
	}
	failed := f.calls == f.fail || f.ever && f.fail > 0 && f.calls > f.fail
	if failed {
		n = n / 2 &^ (testAlign - 1) // the kernel had got so far
	}
	p := make([]byte, n)
	if err := readFull(src, p, from); err != nil {
		return err
	}
	if err := f.put(dst, p, to); err != nil {
		return err
	}
	if failed {
		return f.errno
	}
	f.most, f.bytes = max(f.most, n), f.bytes+n
	return nil
}

// putInFile is the fakeClone.put of targets that are files.
func putInFile(dst *os.File, p []byte, off int64) error { return writeFull(dst, p, off) }

// A shareMem is a memTarget that can share. It places as much as it likes.
type shareMem struct {
	*memTarget
	file *os.File
	rand *rand.Rand
	mu   sync.Mutex
}

func (m *shareMem) shareFile() *os.File { return m.file }

func (m *shareMem) Place(off, n int64) (host, run int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch m.rand.IntN(6) {
	case 0:
		return off, 1 + m.rand.Int64N(n), nil
	case 1:
		return 0, 0, errors.New("no room")
	}
	return off, n, nil
}

// A namedFile is a FileStorage, as the images of a command are.
type namedFile struct{ *os.File }

func (f namedFile) SysFile() *os.File { return f.File }

// onFile puts the storage of a disk into a file, its bytes aligned or not.
func (d *fake) onFile(t testing.TB, r *rand.Rand, dir string) *os.File {
	t.Helper()
	d.shift = []int64{0, testAlign, 64 << 10, 512, 4097}[r.IntN(5)]
	d.store([]int64{0, 0, testAlign, 512}[r.IntN(4)])
	p := make([]byte, d.host(d.Size()))
	if err := readFull(d.storage, p, 0); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fmt.Sprintf("%x", r.Uint64()))
	if err := os.WriteFile(path, p, 0o400); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if d.storage = f; r.IntN(2) == 0 {
		d.storage = namedFile{f}
	}
	return f
}

// sharedChain is a random chain of which some links are files, and those files.
func sharedChain(t testing.TB, r *rand.Rand) (qcow2.Disk, []*os.File) {
	t.Helper()
	dir := t.TempDir()
	var links []Link
	var files []*os.File
	for i := range 1 + r.IntN(4) {
		kinds := []qcow2.Kind{qcow2.Data, qcow2.Data, qcow2.Zero, qcow2.Compressed}
		if i > 0 {
			kinds = append(kinds, qcow2.Absent, qcow2.Absent)
		}
		d := newFake(r, 1+r.Int64N(1500<<10), []int64{512, 4 << 10, 12 << 10, 64 << 10, 256 << 10}[r.IntN(5)],
			func(int) qcow2.Kind { return kinds[r.IntN(len(kinds))] })
		for range r.IntN(20) {
			off := r.Int64N(d.Size())
			clear(d.content[off:min(d.Size(), off+r.Int64N(100<<10))])
		}
		if d.store(0); r.IntN(4) > 0 {
			files = append(files, d.onFile(t, r, dir))
		}
		links = append(links, Link{Name: fmt.Sprint("link", i), Disk: d})
	}
	c, err := Point(links)
	if err != nil {
		t.Fatal(err)
	}
	return c, files
}

// plainContent is what is read of a disk without sharing.
func plainContent(t testing.TB, d qcow2.Disk) []byte {
	t.Helper()
	m := newMemTarget(t, d.Size())
	if _, err := Copy(context.Background(), m, d, nil); err != nil {
		t.Fatal(err)
	}
	return m.disk
}

// runShared copies with a sharer that clones as it is told.
func runShared(dst shareTarget, d qcow2.Disk, clone *fakeClone, opts CopyOptions) (*Result, error) {
	target := dst.(Target)
	c := copier{dst: target, src: d, opts: opts}
	if c.sharer = newSharer(target, traitsOf(target).Block); c.sharer != nil {
		c.sharer.align, c.sharer.block = testAlign, max(testAlign, traitsOf(target).Block)
		c.sharer.clone = clone.clone
	}
	return c.run(context.Background())
}

var cloneErrors = []error{syscall.EXDEV, syscall.EOPNOTSUPP, syscall.EINVAL, syscall.ETXTBSY, syscall.ENOSPC, syscall.EIO,
	syscall.EPERM, syscall.EBADF, errors.ErrUnsupported}

// randomClone fails at a random call, or is for some of the files only.
func randomClone(t testing.TB, r *rand.Rand, files []*os.File) *fakeClone {
	f := &fakeClone{t: t, errno: cloneErrors[r.IntN(len(cloneErrors))], ever: r.IntN(2) == 0, foreign: map[*os.File]error{}}
	if r.IntN(2) == 0 {
		f.fail = 1 + r.IntN(8)
	}
	for _, file := range files {
		if r.IntN(4) == 0 {
			f.foreign[file] = syscall.EXDEV
		}
	}
	return f
}

func randomShareOptions(r *rand.Rand, want []byte) CopyOptions {
	opts := CopyOptions{Workers: 1 + r.IntN(3), KeepZeros: r.IntN(2) == 0, DigestsIfRead: r.IntN(2) == 0,
		Digests: [][]string{nil, {Tree}, {Tree}, {Tree, SHA256}}[r.IntN(4)]}
	if r.IntN(4) == 0 {
		opts.Expect = func(chunk int64) (uint64, bool) {
			return xxhash.Sum64(want[chunk*ChunkSize : min((chunk+1)*ChunkSize, int64(len(want)))]), true
		}
	}
	return opts
}

// Whatever the chain, with or without shared blocks, and whatever fails of the
// sharing: the bytes are the same.
func TestShareChains(t *testing.T) {
	var shared, copied int64
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		r := rand.New(rand.NewPCG(seed, 90))
		d, files := sharedChain(t, r)
		want := plainContent(t, d)
		m := &shareMem{memTarget: newMemTarget(t, d.Size()), file: os.Stdin, rand: r}
		m.traits.Block = []int64{0, 4 << 10, 64 << 10, 512 << 10}[rapid.IntRange(0, 3).Draw(rt, "block")]
		clone := randomClone(t, rand.New(rand.NewPCG(seed, 91)), files)
		clone.put = func(_ *os.File, p []byte, off int64) error { copy(m.disk[off:], p); return nil }
		opts := randomShareOptions(rand.New(rand.NewPCG(seed, 92)), want)
		res, err := runShared(m, d, clone, opts)
		if err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(m.disk, want) {
			rt.Fatal("wrong bytes")
		}
		judgeShared(rt, res, clone, opts, want)
		shared, copied = shared+res.Shared, copied+res.Written
	})
	if shared == 0 || copied == 0 {
		t.Errorf("%d bytes were shared, %d copied: the test says nothing", shared, copied)
	}
}

func judgeShared(t *rapid.T, res *Result, clone *fakeClone, opts CopyOptions, want []byte) {
	t.Helper()
	if res.Shared+res.Written+res.Zeroed != int64(len(want)) || res.Shared != clone.bytes {
		t.Errorf("shared %d (%d), written %d, zeroed %d of %d", res.Shared, clone.bytes, res.Written, res.Zeroed, len(want))
	}
	spare := opts.DigestsIfRead && opts.Expect == nil && !slices.Contains(opts.Digests, SHA256)
	if res.GivenUp != (spare && res.Shared > 0) {
		t.Errorf("digests given up: %t, of %q with %d bytes shared", res.GivenUp, opts.Digests, res.Shared)
	}
	if res.GivenUp != (len(res.Digests) < len(opts.Digests)) && len(opts.Digests) > 0 {
		t.Errorf("given up %t, and the digests are %v of %v", res.GivenUp, res.Digests, opts.Digests)
	}
	all := res.Layers[0]
	for _, l := range res.Layers[1:] {
		all.add(l)
	}
	if read := !res.GivenUp && (len(opts.Digests) > 0 || opts.Expect != nil); read && res.Read != all.Data+all.Compressed {
		t.Errorf("read %d of %d bytes", res.Read, all.Data+all.Compressed)
	}
	for _, d := range res.Digests {
		if d.Name == Tree && d.String() != treeOf(want) {
			t.Errorf("digest %v, want %s", d, treeOf(want))
		}
	}
}

// treeOf is the digest Tree of some bytes, computed without the copier.
func treeOf(p []byte) string {
	h := newTreeHash(int64(len(p)))
	for ; len(p) > 0; p = p[min(len(p), ChunkSize):] {
		h.chunk(xxhash.Sum64(p[:min(len(p), ChunkSize)]))
	}
	return Digest{Tree, h.Sum(nil)}.String()
}

// A long extent of a file is shared in few calls, and copied where one of them fails.
func TestShareWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(93, 93))
	path := filepath.Join(t.TempDir(), "raw")
	want := make([]byte, 60<<20+777)
	for i := 0; i < len(want); i += 512 {
		want[i] = byte(r.Uint32()) | 1
	}
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for fail := range 5 {
		for _, errno := range []error{syscall.EINVAL, syscall.EIO} {
			m := &shareMem{memTarget: newMemTarget(t, int64(len(want))), file: f, rand: r}
			clone := &fakeClone{t: t, fail: fail, errno: errno}
			clone.put = func(_ *os.File, p []byte, off int64) error { copy(m.disk[off:], p); return nil }
			d := NewRaw(struct{ FileStorage }{namedFile{f}}, int64(len(want)), nil)
			whole := &wholePlacer{m}
			res, err := runShared(whole, d, clone, CopyOptions{Workers: 1, Memory: 2 * ChunkSize, Digests: []string{Tree}, DigestsIfRead: true})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(m.disk, want) {
				t.Fatalf("failure %d with %v: wrong bytes", fail, errno)
			}
			if fail == 0 && (clone.calls > 8 || clone.most < 40<<20 || res.Read != 777%testAlign || res.Written != res.Read || len(res.Digests) > 0) {
				t.Errorf("%d calls, of %d bytes at the most; %d read, %d written, digests %v", clone.calls, clone.most, res.Read, res.Written, res.Digests)
			}
		}
	}
}

// A wholePlacer places all at once.
type wholePlacer struct{ *shareMem }

func (wholePlacer) Place(off, n int64) (host, run int64, err error) { return off, n, nil }

// What a manifest wants is read and compared though it is shared.
func TestShareExpect(t *testing.T) {
	r := rand.New(rand.NewPCG(94, 94))
	d := newFake(r, 9<<20, 64<<10, func(int) qcow2.Kind { return qcow2.Data })
	d.shift = 0
	d.store(0)
	file := d.onFile(t, rand.New(rand.NewPCG(2, 2)), t.TempDir())
	m := &wholePlacer{&shareMem{memTarget: newMemTarget(t, d.Size()), file: file, rand: r}}
	clone := &fakeClone{t: t, put: func(*os.File, []byte, int64) error { return nil }}
	_, err := runShared(m, d, clone, CopyOptions{DigestsIfRead: true, Expect: func(chunk int64) (uint64, bool) { return 7, chunk == 1 }})
	var differ *ChunkError
	if !errors.As(err, &differ) || differ.Chunk != 1 {
		t.Errorf("%v", err)
	}
}

// shareContent is a new qcow2 image that others may fill.
type shareContent struct {
	*qcow2.Writer
	cluster int64
}

func (c shareContent) Traits() Traits { return Traits{Block: c.cluster} }

func (c shareContent) Place(off, n int64) (host, run int64, err error) {
	at, run, err := c.Writer.Place(off, n)
	return int64(at), run, err
}

// Files of every kind as targets: raw, an image, and what was there before.
func TestShareTargets(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 95))
		d, files := sharedChain(t, r)
		want := plainContent(t, d)
		for _, cluster := range []int64{0, 512, 4 << 10, 64 << 10, 2 << 20, -1} {
			path := filepath.Join(t.TempDir(), "out")
			dst := shareTargetOf(t, path, d.Size(), cluster)
			clone := randomClone(t, r, files)
			clone.put = putInFile
			res, err := runShared(dst.(shareTarget), d, clone, randomShareOptions(r, want))
			if err != nil {
				t.Fatal(err)
			}
			if err := dst.Commit(); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if cluster > 0 {
				got = guestOf(t, got)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("seed %d, clusters of %d: wrong bytes; %+v", seed, cluster, res)
			}
		}
	}
}

// shareTargetOf is a raw file (0), a file to write over (-1), or an image.
func shareTargetOf(t *testing.T, path string, size, cluster int64) Target {
	t.Helper()
	var dst Target
	var err error
	switch cluster {
	case 0:
		dst, err = CreateRaw(path, size, nil)
	case -1:
		if err = os.WriteFile(path, bytes.Repeat([]byte{0xaa}, int(size)), 0o600); err == nil {
			dst, err = OpenOnto(path, size, nil)
		}
	default:
		var out *Output
		if out, err = CreateOutput(path, nil); err != nil {
			break
		}
		var w *qcow2.Writer
		w, err = qcow2.Create(out.Storage(), qcow2.Layout{Size: size, ClusterSize: cluster})
		dst = NewFileTarget(out, shareContent{w, cluster})
	}
	if err != nil {
		t.Fatal(err)
	}
	return dst
}

// guestOf is the guest's content of a sound image.
func guestOf(t *testing.T, image []byte) []byte {
	t.Helper()
	img, err := qcow2.Open(bytes.NewReader(image), int64(len(image)), nil)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, img.Size())
	if n, err := img.ReadAt(p, 0); n != len(p) || err != nil && err != io.EOF {
		t.Fatal(n, err)
	}
	return p
}

func TestGaps(t *testing.T) {
	spans := []span{{10, 20}, {20, 30}, {40, 50}}
	for _, c := range []struct {
		off, end int64
		want     []span
	}{
		{0, 60, []span{{0, 10}, {30, 40}, {50, 60}}}, {10, 50, []span{{30, 40}}}, {15, 25, nil}, {0, 5, []span{{0, 5}}},
		{55, 60, []span{{55, 60}}}, {35, 45, []span{{35, 40}}}, {5, 15, []span{{5, 10}}}, {7, 7, nil},
	} {
		var got []span
		for off, end := range gaps(spans, c.off, c.end) {
			got = append(got, span{off, end})
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("[%d, %d): %v, want %v", c.off, c.end, got, c.want)
		}
	}
}

// A file that was cut is an error, as it is without sharing; its end is not asked for.
func TestShareCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(path, bytes.Repeat([]byte{7}, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := NewRaw(struct{ FileStorage }{namedFile{f}}, 2<<20, nil) // knows no holes
	m := &wholePlacer{&shareMem{memTarget: newMemTarget(t, d.Size()), file: f}}
	clone := &fakeClone{t: t, put: func(*os.File, []byte, int64) error { return nil }}
	if _, err := runShared(m, d, clone, CopyOptions{}); !errors.Is(err, io.ErrUnexpectedEOF) || clone.calls != 0 {
		t.Errorf("%v, after %d calls", err, clone.calls)
	}
}
