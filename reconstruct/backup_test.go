package reconstruct

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/manifest"
	"github.com/qbitkit/qbit/testimages/crash"
)

// modelBlock is what a liveDisk stores at a time, in bytes.
const modelBlock = 4096

// A liveDisk is a disk of blocks that are stored or zero.
type liveDisk []byte

func (d liveDisk) Size() int64 { return int64(len(d)) }

func (d liveDisk) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(d).ReadAt(p, off) }

func (d liveDisk) Extents(off, n int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		m := merger{emit: func(e qcow2.Extent) bool { return yield(e, nil) }}
		for end := off + n; off < end; {
			next := min(end, (off/modelBlock+1)*modelBlock)
			e := qcow2.Extent{Off: off, Len: next - off, Kind: qcow2.Compressed} // read through the disk
			if allZero(d[off:next]) {
				e.Kind = qcow2.Zero
			}
			if !m.add(e) {
				return
			}
			off = next
		}
		m.flush()
	}
}

// A memImage is a new qcow2 image in memory, as a target.
type memImage struct {
	*qcow2.Writer
	block    int64
	compress bool
	file     *crash.File
}

func newMemImage(t *testing.T, l qcow2.Layout, compress bool) *memImage {
	t.Helper()
	f := crash.New(nil)
	w, err := qcow2.Create(f, l)
	if err != nil {
		t.Fatal(err)
	}
	return &memImage{Writer: w, block: l.ClusterSize, compress: compress, file: f}
}

func (m *memImage) Traits() Traits { return Traits{Block: m.block} }
func (m *memImage) Commit() error  { return m.Close() }
func (m *memImage) Abort() error   { return nil }

func (m *memImage) WriteAt(p []byte, off int64) (int, error) {
	if m.compress {
		return len(p), m.WriteCompressed(p, off)
	}
	return m.Writer.WriteAt(p, off)
}

func (m *memImage) open(t *testing.T) *qcow2.Image {
	t.Helper()
	img, err := qcow2.Open(m.file, m.file.Size(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// A backupModel is a disk, its checkpoints, and what was backed up of it.
type backupModel struct {
	t     *testing.T
	rng   *rand.Rand
	disk  liveDisk
	names []string
	bits  map[string]*bitmap.Bitmap
	made  map[string]madePoint
}

// A madePoint is the backups up to a checkpoint, and what the disk was then.
type madePoint struct {
	links []Link
	disk  liveDisk
	view  *manifest.View
}

// TestBackupModel backs a disk up at random moments, each time since a random
// checkpoint, while it is written to, zeroed and resized: every point brings back what
// the disk was, by its backups and by its seal, and no increment holds more than it has to.
func TestBackupModel(t *testing.T) {
	rounds := 12
	if os.Getenv("QBIT_FULL") == "1" {
		rounds = 300
	}
	for seed := range rounds {
		m := &backupModel{t: t, rng: rand.New(rand.NewPCG(uint64(seed), 7)), bits: map[string]*bitmap.Bitmap{}, made: map[string]madePoint{}}
		m.disk = make(liveDisk, 512*(1+m.rng.Int64N(20<<10)))
		for i := range 6 {
			m.write()
			m.backup(fmt.Sprintf("cp%d", i))
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

// write changes the disk as a guest does, and its size.
func (m *backupModel) write() {
	for range m.rng.IntN(12) {
		off := m.rng.Int64N(m.disk.Size())
		p := m.disk[off:min(m.disk.Size(), off+1+m.rng.Int64N(200<<10))]
		fill := byte(m.rng.IntN(4)) // 0: zeros, written or discarded
		for i := range p {
			p[i] = fill
		}
		for _, b := range m.bits {
			b.Set(off, int64(len(p)))
		}
	}
	if m.rng.IntN(3) == 0 {
		m.resize(512 * (1 + m.rng.Int64N(20<<10)))
	}
}

func (m *backupModel) resize(size int64) {
	now := make(liveDisk, size)
	copy(now, m.disk)
	m.disk = now
	for _, b := range m.bits {
		if err := b.Resize(size, true); err != nil {
			m.t.Fatal(err)
		}
	}
}

// backup makes a backup since a random checkpoint, or a full one, and a checkpoint.
func (m *backupModel) backup(name string) {
	var base madePoint
	opts := &BackupOptions{Seal: true, Workers: 2}
	if n := m.rng.IntN(len(m.names) + 1); n > 0 {
		since := m.names[n-1]
		base, opts.Changed = m.made[since], m.bits[since].Clone()
		if m.rng.IntN(4) > 0 {
			opts.Parent = base.view
		}
	}
	if m.rng.IntN(4) == 0 {
		opts.Digests = []string{Tree}
	}
	l := qcow2.Layout{Size: m.disk.Size(), ClusterSize: 512 << m.rng.IntN(13), Sparse: opts.Changed != nil}
	target := newMemImage(m.t, l, m.rng.IntN(2) == 0)
	result, err := Backup(m.t.Context(), target, m.disk, opts)
	if err == nil {
		err = target.Commit()
	}
	if err != nil {
		m.t.Fatal(err)
	}
	link := Link{Name: name, Disk: target.open(m.t)}
	m.judge(link, opts, l.ClusterSize)
	m.made[name] = madePoint{links: append(base.links[:len(base.links):len(base.links)], link),
		disk: append(liveDisk{}, m.disk...), view: m.sealed(name, result, opts)}
	m.names = append(m.names, name)
	m.bits[name] = mustBitmap(m.t, m.disk.Size(), 512<<m.rng.IntN(10))
	m.restore()
}

// sealed gives the view a name, as its caller does.
func (m *backupModel) sealed(name string, result *BackupResult, opts *BackupOptions) *manifest.View {
	result.View.Point().ID = name
	tree, err := Copy(m.t.Context(), nil, m.disk, &CopyOptions{Digests: []string{Tree}})
	if err != nil {
		m.t.Fatal(err)
	}
	want := binary.BigEndian.Uint64(tree.Digests[0].Sum)
	if got := uint64(result.View.Point().Root); got != want {
		m.t.Errorf("%s: the root is %016x, the digest of the disk %016x", name, got, want)
	}
	if len(opts.Digests) > 0 && !bytes.Equal(result.Digests[0].Sum, tree.Digests[0].Sum) {
		m.t.Errorf("%s: the digest is %v, that of the disk %v", name, result.Digests[0], tree.Digests[0])
	}
	return result.View
}

// judge finds what an increment holds beyond its bitmap, and what it lacks.
func (m *backupModel) judge(l Link, opts *BackupOptions, cluster int64) {
	if opts.Changed == nil {
		return
	}
	rounded, err := opts.Changed.WithGranularity(max(64<<10, cluster, opts.Changed.Granularity()))
	if err != nil {
		m.t.Fatal(err)
	}
	for _, e := range collect(m.t, l.Disk, 0, l.Disk.Size()) {
		for run := range rounded.Runs(e.Off, e.Len) {
			if run.Dirty != (e.Kind != qcow2.Absent) {
				m.t.Errorf("%s: [%d, +%d) is %v, and dirty: %t", l.Name, run.Off, run.Len, e.Kind, run.Dirty)
			}
		}
	}
}

// restore compares every point with what the disk was.
func (m *backupModel) restore() {
	for name, p := range m.made {
		disk := qcow2.Disk(mustPoint(m.t, p.links...))
		got := make([]byte, p.disk.Size())
		if _, err := disk.ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) {
			m.t.Fatal(err)
		}
		if disk.Size() != p.disk.Size() || !bytes.Equal(got, p.disk) {
			m.t.Errorf("%s: %d links bring back another disk", name, len(p.links))
		}
		bad, err := VerifyPoint(m.t.Context(), p.links, p.view, nil)
		if err != nil || len(bad) > 0 {
			m.t.Errorf("%s: not what was sealed: %v, %v", name, bad, err)
		}
	}
}

// TestBackupRefuses: a bitmap of another size says nothing of this disk.
func TestBackupRefuses(t *testing.T) {
	disk := make(liveDisk, 1<<20)
	_, err := Backup(t.Context(), nil, disk, &BackupOptions{Changed: mustBitmap(t, 2<<20, 65536)})
	if size := new(SizeError); !errors.As(err, &size) {
		t.Errorf("got %v", err)
	}
}

// TestBackupReadsOnlyWhatChanged: of a large disk only what changed is walked and read.
func TestBackupReadsOnlyWhatChanged(t *testing.T) {
	disk := &blockDisk{size: 64 * ChunkSize, broken: -1}
	for range disk.size / blockSize {
		disk.blocks = append(disk.blocks, block{qcow2.Data, 1})
	}
	changed := mustBitmap(t, disk.size, 65536)
	changed.Set(5*ChunkSize, 1)
	changed.Set(60*ChunkSize+blockSize, 65537)
	target := newMemImage(t, qcow2.Layout{Size: disk.size, ClusterSize: 65536, Sparse: true}, false)
	last := Progress{}
	result, err := Backup(t.Context(), target, disk, &BackupOptions{Changed: changed, Progress: func(p Progress) { last = p }})
	if err != nil {
		t.Fatal(err)
	}
	if result.Covered != 3*65536 || result.Written != 3*65536 {
		t.Errorf("covered %d, written %d", result.Covered, result.Written)
	}
	if result.Read > 2*ChunkSize || last.Total != 2*ChunkSize || last.Done != last.Total {
		t.Errorf("read %d bytes, progress %+v", result.Read, last)
	}
}
