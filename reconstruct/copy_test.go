package reconstruct

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/cespare/xxhash/v2"

	"github.com/qbitkit/qbit/qcow2"
)

// A memTarget is a target full of junk that checks how it is written.
type memTarget struct {
	t      testing.TB
	traits Traits
	fail   int64 // the operation that fails, from 1
	err    error

	ops   atomic.Int64
	mu    sync.Mutex
	disk  []byte
	times []uint8 // how often each byte was written
	pos   int64
	zeros int64 // bytes that were zeroed
}

func newMemTarget(t testing.TB, size int64) *memTarget {
	return &memTarget{t: t, disk: bytes.Repeat([]byte{0xaa}, int(size)), times: make([]uint8, size)}
}

func (m *memTarget) Traits() Traits { return m.traits }
func (m *memTarget) Commit() error  { return nil }
func (m *memTarget) Abort() error   { return nil }

func (m *memTarget) WriteAt(p []byte, off int64) (int, error) {
	if err := m.op(off, int64(len(p))); err != nil {
		return len(p) / 2, err
	}
	return copy(m.disk[off:], p), nil
}

func (m *memTarget) Zero(off, n int64) error {
	if err := m.op(off, n); err != nil {
		return err
	}
	clear(m.disk[off : off+n])
	m.mu.Lock()
	m.zeros += n
	m.mu.Unlock()
	return nil
}

func (m *memTarget) op(off, n int64) error {
	if m.ops.Add(1) == m.fail {
		return m.err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	end := off + n
	if b := m.traits.Block; n <= 0 || b > 0 && (off%b != 0 || end%b != 0 && end != int64(len(m.disk))) {
		m.t.Errorf("[%d, +%d) is not in blocks of %d", off, n, b)
	}
	if m.traits.Sequential && off != m.pos {
		m.t.Errorf("written at %d, want %d", off, m.pos)
	}
	m.pos = end
	for i := range m.times[off:end] {
		m.times[off+int64(i)]++
	}
	return nil
}

func (m *memTarget) check(want []byte) {
	m.t.Helper()
	for i, n := range m.times {
		if n != 1 {
			m.t.Fatalf("byte %d was written %d times", i, n)
		}
	}
	if !bytes.Equal(m.disk, want) {
		m.t.Fatal("wrong bytes")
	}
}

// bigDisk is a random disk of several chunks, with some zeros stored as data.
func bigDisk(r *rand.Rand, size int64) *fake {
	k, left := qcow2.Absent, 0
	d := newFake(r, size, 64<<10, func(int) qcow2.Kind {
		if left == 0 {
			k, left = allKinds[r.IntN(len(allKinds))], 1+r.IntN(150)
		}
		left--
		return k
	})
	for range 20 {
		off := r.Int64N(size)
		clear(d.content[off:min(size, off+r.Int64N(100<<10))])
	}
	d.store(4096)
	return d
}

func TestCopy(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 10))
		d := bigDisk(r, 1+r.Int64N(16<<20))
		want := d.guest()
		for _, traits := range []Traits{{}, {Block: 64 << 10}, {Block: 2 << 20}, {Sequential: true}, {Sequential: true, Block: ChunkSize}} {
			m := newMemTarget(t, d.Size())
			m.traits = traits
			opts := &CopyOptions{Workers: 1 + r.IntN(6), Memory: r.Int64N(20 << 20), KeepZeros: r.IntN(2) == 0, Digests: DigestNames()}
			res, err := Copy(t.Context(), m, d, opts)
			if err != nil {
				t.Fatal(err)
			}
			m.check(want)
			checkDigests(t, res.Digests, want)
			if res.Written+res.Zeroed != d.Size() || res.Zeroed != m.zeros {
				t.Errorf("written %d, zeroed %d of %d", res.Written, res.Zeroed, d.Size())
			}
			checkTally(t, res, d)
		}
	}
}

func checkTally(t *testing.T, res *Result, d *fake) {
	t.Helper()
	var want Tally
	for e := range d.Extents(0, d.Size()) {
		want.count(e)
	}
	if len(res.Layers) != 1 || res.Layers[0] != want || res.Read != want.Data+want.Compressed {
		t.Errorf("tallies %+v, read %d, want %+v", res.Layers, res.Read, want)
	}
}

func checkDigests(t *testing.T, got []Digest, content []byte) {
	t.Helper()
	sha := sha256.Sum256(content)
	want := fmt.Sprintf("[sha256:%x xxh64:%016x xxh64-4m:%016x]", sha, xxhash.Sum64(content), naiveTree(content))
	if fmt.Sprint(got) != want {
		t.Errorf("digests %v, want %s", got, want)
	}
}

// naiveTree is the definition of Tree.
func naiveTree(content []byte) uint64 {
	var all []byte
	for rest := content; len(rest) > 0; {
		n := min(len(rest), 4<<20)
		all = binary.BigEndian.AppendUint64(all, xxhash.Sum64(rest[:n]))
		rest = rest[n:]
	}
	return xxhash.Sum64(binary.BigEndian.AppendUint64(all, uint64(len(content))))
}

func TestKeepZeros(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 11))
	d := newFake(r, 64<<10, 4096, func(i int) qcow2.Kind { return []qcow2.Kind{qcow2.Data, qcow2.Zero}[i%2] })
	clear(d.content)
	for keep, want := range map[bool]int64{false: 64 << 10, true: 32 << 10} {
		m := newMemTarget(t, d.Size())
		d.storage = bytes.NewReader(make([]byte, d.shift+d.Size()))
		if _, err := Copy(t.Context(), m, d, &CopyOptions{KeepZeros: keep}); err != nil || m.zeros != want {
			t.Errorf("KeepZeros %v: %d bytes zeroed, want %d; %v", keep, m.zeros, want, err)
		}
	}
}

// A huge disk: memory stays what it was, and holes cost next to nothing.
func TestHugeDisk(t *testing.T) {
	const size = 64<<40 + 12345
	d := sparseDisk{size: size, at: 5<<40 + 999, data: []byte("something")}
	var progress []Progress
	res, err := Copy(t.Context(), nil, d, &CopyOptions{Digests: []string{Tree},
		Progress: func(p Progress) { progress = append(progress, p) }})
	if err != nil {
		t.Fatal(err)
	}
	h := xxhash.New()
	chunk := make([]byte, ChunkSize)
	empty := binary.BigEndian.AppendUint64(nil, xxhash.Sum64(chunk))
	copy(chunk[999:], "something")
	filled := binary.BigEndian.AppendUint64(nil, xxhash.Sum64(chunk))
	for i := range int64(64 << 40 / ChunkSize) {
		if i == 5<<40/ChunkSize {
			h.Write(filled)
		} else {
			h.Write(empty)
		}
	}
	h.Write(binary.BigEndian.AppendUint64(nil, xxhash.Sum64(make([]byte, 12345))))
	h.Write(binary.BigEndian.AppendUint64(nil, size))
	if got := hex.EncodeToString(res.Digests[0].Sum); got != hex.EncodeToString(h.Sum(nil)) {
		t.Errorf("digest %s, want %x", got, h.Sum(nil))
	}
	if last := progress[len(progress)-1]; last.Done != size || last.Total != size || last.Read != 9 {
		t.Errorf("progress ends with %+v", last)
	}
}

// A sparseDisk is zero but for a few bytes.
type sparseDisk struct {
	size, at int64
	data     []byte
}

func (d sparseDisk) Size() int64 { return d.size }

func (d sparseDisk) ReadAt(p []byte, off int64) (int, error) {
	return diskReadAt(p, off, d.size, func(p []byte, off int64) (int, error) {
		clear(p)
		return len(p), nil
	})
}

func (d sparseDisk) Extents(off, n int64) seq {
	return func(yield func(qcow2.Extent, error) bool) {
		end, from, to := off+n, d.at, d.at+int64(len(d.data))
		e := qcow2.Extent{Off: off, Len: n, Kind: qcow2.Zero}
		if to <= off || end <= from {
			yield(e, nil)
			return
		}
		data := qcow2.Extent{Off: from, Len: to - from, Kind: qcow2.Data, Storage: bytes.NewReader(d.data)}
		for _, part := range []qcow2.Extent{{Off: off, Len: from - off, Kind: qcow2.Zero}, data, {Off: to, Len: end - to, Kind: qcow2.Zero}} {
			if part.Len > 0 && !yield(part, nil) {
				return
			}
		}
	}
}

func TestEmptyDisk(t *testing.T) {
	d := randomFake(rand.New(rand.NewPCG(1, 1)), 0, qcow2.Data)
	m := newMemTarget(t, 0)
	res, err := Copy(t.Context(), m, d, &CopyOptions{Digests: DigestNames()})
	if err != nil {
		t.Fatal(err)
	}
	// sha256sum and xxhsum of nothing, and of eight zero bytes.
	const want = "[sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 xxh64:ef46db3751d8e999 xxh64-4m:34c96acdcadb1bbb]"
	if got := fmt.Sprint(res.Digests); got != want {
		t.Errorf("digests %s, want %s", got, want)
	}
}

func TestDigestNames(t *testing.T) {
	d := randomFake(rand.New(rand.NewPCG(1, 1)), 0, qcow2.Data)
	for _, names := range [][]string{{"md5"}, {SHA256, SHA256}, {""}} {
		if _, err := Copy(t.Context(), nil, d, &CopyOptions{Digests: names}); err == nil {
			t.Errorf("%q is accepted", names)
		}
	}
	m := newMemTarget(t, 0)
	m.traits.Block = 3000
	if _, err := Copy(t.Context(), m, d, nil); err == nil {
		t.Error("a block of 3000 bytes is accepted")
	}
}

// Each operation on the target fails once: the error comes out and nothing of
// the copy goes on.
func TestFailingTarget(t *testing.T) {
	r := rand.New(rand.NewPCG(12, 12))
	d := bigDisk(r, 6<<20)
	for _, sequential := range []bool{false, true} {
		all := newMemTarget(t, d.Size())
		all.traits.Sequential = sequential
		if _, err := Copy(t.Context(), all, d, nil); err != nil {
			t.Fatal(err)
		}
		for n := int64(1); n <= all.ops.Load(); n++ {
			synctest.Test(t, func(t *testing.T) {
				m := newMemTarget(t, d.Size())
				m.traits.Sequential, m.fail, m.err = sequential, n, syscall.ENOSPC
				_, err := Copy(t.Context(), m, d, &CopyOptions{Workers: 3})
				var where *RangeError
				if !errors.Is(err, syscall.ENOSPC) || !errors.As(err, &where) || where.Op != "write" && where.Op != "zero" {
					t.Fatalf("operation %d failed: %v", n, err)
				}
			})
		}
	}
}

type shortTarget struct{ *memTarget }

func (s shortTarget) WriteAt(p []byte, off int64) (int, error) { return len(p) - 1, nil }

func TestShortWrite(t *testing.T) {
	d := randomFake(rand.New(rand.NewPCG(1, 1)), 4096, qcow2.Data)
	if _, err := Copy(t.Context(), shortTarget{newMemTarget(t, 4096)}, d, nil); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a write that is short: %v", err)
	}
}

// failingReader fails after some reads, or calls do.
type failingReader struct {
	io.ReaderAt
	left *atomic.Int64
	do   func() error
}

func (f *failingReader) ReadAt(p []byte, off int64) (int, error) {
	if f.left.Add(-1) < 0 {
		if err := f.do(); err != nil {
			return 0, err
		}
	}
	return f.ReaderAt.ReadAt(p, off)
}

func TestFailingSource(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 13))
	d := newFake(r, 20<<20, 1<<20, func(int) qcow2.Kind { return qcow2.Data })
	base := d.storage
	bad := errors.New("bad sector")
	for n := range int64(5) {
		synctest.Test(t, func(t *testing.T) {
			left := new(atomic.Int64)
			left.Store(n)
			d.storage = &failingReader{base, left, func() error { return bad }}
			c := mustPoint(t, Link{Name: "full.qcow2", Disk: d})
			_, err := Copy(t.Context(), newMemTarget(t, d.Size()), c, nil)
			if !errors.Is(err, bad) || !strings.Contains(err.Error(), `of link "full.qcow2" at host offset`) {
				t.Errorf("read %d failed: %v", n, err)
			}
		})
	}
}

// The first error in the order of the disk comes out, whoever is faster.
func TestFirstErrorWins(t *testing.T) {
	r := rand.New(rand.NewPCG(14, 14))
	d := newFake(r, 40<<20, 64<<10, func(int) qcow2.Kind { return qcow2.Data })
	d.storage = io.NewSectionReader(d.storage, 0, d.shift+9<<20)
	for range 5 {
		_, err := Copy(t.Context(), nil, d, &CopyOptions{Workers: 4})
		var where *RangeError
		if !errors.Is(err, io.ErrUnexpectedEOF) || !errors.As(err, &where) || where.Off != 9<<20 {
			t.Fatalf("a storage that was cut at 9 MiB: %v", err)
		}
	}
}

func TestCopyCancel(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 15))
	d := newFake(r, 60<<20, 64<<10, func(int) qcow2.Kind { return qcow2.Data })
	base := d.storage
	why := errors.New("interrupted")
	for n := range int64(4) {
		for _, sequential := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				left := new(atomic.Int64)
				left.Store(n)
				d.storage = &failingReader{base, left, func() error { cancel(why); return nil }}
				m := newMemTarget(t, d.Size())
				m.traits.Sequential = sequential
				if _, err := Copy(ctx, m, d, &CopyOptions{Workers: 2, Memory: 16 << 20}); !errors.Is(err, why) {
					t.Errorf("cancelled at read %d: %v", n, err)
				}
				if done := -left.Load() + n; done > 8 {
					t.Errorf("%d more reads after it was cancelled", done)
				}
			})
		}
	}
}

// A walk that only makes zeros, and one that is hashed byte for byte, end too.
func TestCancelHoles(t *testing.T) {
	for _, opts := range []*CopyOptions{{}, {Digests: []string{SHA256}}} {
		ctx, cancel := context.WithCancel(t.Context())
		opts.Progress = func(p Progress) { cancel() }
		var dst Target = NewStream(io.Discard)
		if opts.Digests != nil {
			dst = nil
		}
		if _, err := Copy(ctx, dst, sparseDisk{size: 1 << 60}, opts); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if _, err := Copy(ctx, dst, sparseDisk{size: 1 << 60}, opts); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled before: %v", err)
		}
	}
}

// What takes long in one piece looks whether it was cancelled.
func TestCancelLongUnits(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := copier{dst: NewStream(io.Discard), src: sparseDisk{size: 1 << 60}, traits: Traits{Sequential: true}}
	c.digests, _ = newDigests([]string{XXH64}, 1<<60)
	u := &unit{len: 1 << 60, zero: true}
	if err := c.hash(ctx, u); !errors.Is(err, context.Canceled) {
		t.Errorf("hash: %v", err)
	}
	if err := c.storeInOrder(ctx, u); !errors.Is(err, context.Canceled) {
		t.Errorf("storeInOrder: %v", err)
	}
	c.traits.Sequential = false
	if err := c.work(ctx, u); !errors.Is(err, context.Canceled) {
		t.Errorf("work, where zeros are written: %v", err)
	}
}

// Absent bytes that are elsewhere are an error of Copy, though it need not read
// them.
func TestCopyAsksAbsent(t *testing.T) {
	d := randomFake(rand.New(rand.NewPCG(16, 16)), 10<<20, qcow2.Absent)
	d.absent = &qcow2.RefError{Ref: qcow2.Ref{Name: "base"}}
	for _, src := range []qcow2.Disk{d, mustPoint(t, Link{Name: "full", Disk: d})} {
		var ref *qcow2.RefError
		_, err := Copy(t.Context(), nil, src, nil)
		if !errors.As(err, &ref) || strings.Count(err.Error(), "guest bytes") != 1 {
			t.Errorf("%T: %v", src, err)
		}
	}
}

// A countingReader counts the bytes that are read.
type countingReader struct {
	io.ReaderAt
	bytes atomic.Int64
}

func (c *countingReader) ReadAt(p []byte, off int64) (int, error) {
	c.bytes.Add(int64(len(p)))
	return c.ReaderAt.ReadAt(p, off)
}

// No more units than memory allows are under way, however slow the end is.
func TestCopyMemory(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 17))
	d := newFake(r, 80<<20, 1<<20, func(int) qcow2.Kind { return qcow2.Data })
	base := d.storage
	const memory = 12 << 20
	for _, digests := range [][]string{nil, {Tree}, {XXH64}} {
		reader := &countingReader{ReaderAt: base}
		d.storage = reader
		_, err := Copy(t.Context(), nil, d, &CopyOptions{Workers: 8, Memory: memory, Digests: digests, Progress: func(p Progress) {
			if ahead := reader.bytes.Load() - (p.Done - ChunkSize); ahead > memory {
				t.Errorf("%q at %d: %d bytes are read ahead, memory is %d", digests, p.Done, ahead, memory)
			}
		}})
		if err != nil {
			t.Error(err)
		}
	}
}

// The buffers of a large copy are those of its workers, not of its chunks, unless
// the disk is wanted in order.
func TestCopyBuffers(t *testing.T) {
	r := rand.New(rand.NewPCG(18, 18))
	d := newFake(r, 64<<20, 1<<20, func(int) qcow2.Kind { return qcow2.Data })
	for name, most := range map[string]uint64{Tree: 4 << 20, XXH64: 24 << 20} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := Copy(t.Context(), nil, d, &CopyOptions{Workers: 2, Memory: 16 << 20, Digests: []string{name}}); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > most {
			t.Errorf("%s: %d bytes were allocated, want at most %d", name, took, most)
		}
	}
}

// A compressed cluster is read once, in one piece, however large it is.
func TestCompressedInOnePiece(t *testing.T) {
	r := rand.New(rand.NewPCG(19, 19))
	d := newFake(r, 12<<20, 2<<20, func(int) qcow2.Kind { return qcow2.Compressed })
	reads := &diskReads{fake: d}
	m := newMemTarget(t, d.Size())
	if _, err := Copy(t.Context(), m, reads, &CopyOptions{Digests: []string{Tree}}); err != nil {
		t.Fatal(err)
	}
	m.check(d.guest())
	for _, length := range reads.lengths {
		if length%(2<<20) != 0 {
			t.Errorf("%d bytes were read of clusters of 2 MiB", length)
		}
	}
}

// diskReads remembers what is read through the disk.
type diskReads struct {
	*fake
	mu      sync.Mutex
	lengths []int
}

func (d *diskReads) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	d.lengths = append(d.lengths, len(p))
	d.mu.Unlock()
	return d.fake.ReadAt(p, off)
}
