package reconstruct

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/manifest"
)

// A deltaTree is a random tree of backups: each but the first stands on another.
type deltaTree struct {
	r       *rand.Rand
	links   []Link
	parents []int
}

func newDeltaTree(r *rand.Rand) *deltaTree {
	t := &deltaTree{r: r}
	size := 1 + r.Int64N(200<<10)
	for i := range 2 + r.IntN(7) {
		d := randomFake(r, size, allKinds...)
		if i == 0 {
			d = randomFake(r, size, qcow2.Data, qcow2.Zero, qcow2.Absent)
		}
		l := Link{Name: fmt.Sprintf("link %d", i), Disk: d}
		if i > 0 && r.IntN(3) == 0 {
			l.Changed, l.Raw = randomBitmap(r, size), r.IntN(2) == 0
		}
		t.links, t.parents = append(t.links, l), append(t.parents, r.IntN(max(1, i)))
		if r.IntN(3) == 0 { // the next has another size
			size = 1 + r.Int64N(200<<10)
		}
	}
	return t
}

func randomBitmap(r *rand.Rand, size int64) *bitmap.Bitmap {
	b, err := bitmap.New(size, 512<<r.IntN(4))
	if err != nil {
		panic(err)
	}
	for range r.IntN(8) {
		b.Set(r.Int64N(size), 1+r.Int64N(20<<10))
	}
	return b
}

// route is the way to point i, the full backup first.
func (t *deltaTree) route(i int) []Link {
	var route []Link
	for ; ; i = t.parents[i] {
		route = append(route, t.links[i])
		if i == 0 {
			break
		}
	}
	slices.Reverse(route)
	return route
}

// mayDiffer says of each byte of the second point whether a link behind the last
// common one holds it, or the disk was smaller somewhere.
func mayDiffer(from, to []Link) []bool {
	common := commonLinks(from, to)
	low := from[common-1].Disk.Size()
	may := make([]bool, to[len(to)-1].Disk.Size())
	for _, l := range slices.Concat(from[common:], to[common:]) {
		low = min(low, l.Disk.Size())
		copied := copiedIn(l)
		for i := range min(int64(len(may)), l.Disk.Size()) {
			may[i] = may[i] || viewOf(l, copied, i) != qcow2.Absent
		}
	}
	for i := low; i < int64(len(may)); i++ {
		may[i] = true
	}
	return may
}

// A countingTarget is a device in memory that counts how often each byte is written.
type countingTarget struct {
	mu     sync.Mutex
	bytes  []byte
	writes []int
	left   int // so many writes until one fails; -1: none does
}

var errTorn = errors.New("the power went")

func newCountingTarget(content []byte) *countingTarget {
	return &countingTarget{bytes: content, writes: make([]int, len(content)), left: -1}
}

func (c *countingTarget) WriteAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 {
		n := copy(c.bytes[off:], p[:len(p)/2])
		return n, errTorn
	}
	c.left--
	for i := range p {
		c.writes[off+int64(i)]++
	}
	return copy(c.bytes[off:], p), nil
}

func (c *countingTarget) Zero(off, n int64) error {
	_, err := c.WriteAt(make([]byte, n), off)
	return err
}

func (c *countingTarget) Commit() error { return nil }
func (c *countingTarget) Abort() error  { return nil }

func (c *countingTarget) disk(size int64) qcow2.Disk {
	return NewRaw(bytes.NewReader(slices.Clone(c.bytes[:size])), size, nil)
}

// TestDeltaModel goes from any point of a random tree to any other, and wants the
// bytes of the model, and not a write too many.
func TestDeltaModel(t *testing.T) {
	rounds := 5
	if os.Getenv("QBIT_FULL") == "1" {
		rounds = 3000
	}
	for seed := range uint64(rounds) {
		tree := newDeltaTree(rand.New(rand.NewPCG(seed, 77)))
		for i := range tree.links {
			for j := range tree.links {
				d := deltaCase{T: t, r: tree.r, name: fmt.Sprintf("seed %d from %d to %d", seed, i, j), from: tree.route(i), to: tree.route(j)}
				d.run()
			}
		}
	}
}

// A deltaCase is one way from a point to another.
type deltaCase struct {
	*testing.T
	r        *rand.Rand
	name     string
	from, to []Link
	delta    *Delta
	old, new []byte // of the points
	device   []byte
}

func (d *deltaCase) run() {
	d.Helper()
	var err error
	if d.delta, err = NewDelta(d.from, d.to); err != nil {
		d.Fatal(err)
	}
	d.old, d.new = contentOf(model(d.from)), contentOf(model(d.to))
	d.device = bytes.Repeat([]byte{0xaa}, max(len(d.old), len(d.new))+d.r.IntN(1000))
	copy(d.device, d.old)
	may := mayDiffer(d.from, d.to)
	d.prove(may)
	target := newCountingTarget(slices.Clone(d.device))
	result := d.copy(target)
	d.wantNew(target)
	written := int64(0)
	for i, n := range target.writes {
		if want := i < len(may) && may[i]; n > 0 != want || n > 1 {
			d.Fatalf("%s: byte %d is written %d times, and may differ: %v", d.name, i, n, want)
		}
		written += int64(n)
	}
	if result.Written+result.Zeroed != written {
		d.Fatalf("%s: %d bytes written and %d zeroed are not %d", d.name, result.Written, result.Zeroed, written)
	}
	d.wantBitmap(may)
	d.interrupt()
}

func (d *deltaCase) copy(target Target) *Result {
	d.Helper()
	opts := &CopyOptions{KeepZeros: d.r.IntN(2) == 0}
	if d.r.IntN(3) == 0 {
		opts.Digests = []string{Tree}
	}
	result, err := d.delta.Copy(d.Context(), target, opts)
	if err != nil {
		d.Fatalf("%s: %v", d.name, err)
	}
	return result
}

func (d *deltaCase) wantNew(target *countingTarget) {
	d.Helper()
	if !bytes.Equal(target.bytes[:len(d.new)], d.new) || !bytes.Equal(target.bytes[len(d.new):], d.device[len(d.new):]) {
		d.Fatalf("%s: the device does not hold the second point, or not what was beyond it", d.name)
	}
}

func (d *deltaCase) wantBitmap(may []bool) {
	d.Helper()
	b, err := d.delta.Bitmap(d.Context(), 512)
	if err != nil {
		d.Fatal(err)
	}
	want := mustBitmap(d.T, int64(len(may)), 512)
	for i, dirty := range may {
		if dirty {
			want.Set(int64(i), 1)
		}
	}
	if !b.Equal(want) {
		d.Fatalf("%s: the bitmap marks %d bytes, not %d", d.name, b.Count(), want.Count())
	}
}

// prove wants the device to be accepted as it is, and refused for any one byte that is
// to be written and is of neither point; any other byte only All finds.
func (d *deltaCase) prove(may []bool) {
	d.Helper()
	size := int64(len(d.old))
	if p, err := d.tryProve(d.device[:size], nil); err != nil || p.Mixed != 0 {
		d.Fatalf("%s: %+v, %v", d.name, p, err)
	}
	i := d.r.Int64N(size)
	bad := slices.Clone(d.device[:size])
	for bad[i] == d.old[i] || i < int64(len(d.new)) && bad[i] == d.new[i] {
		bad[i]++
	}
	var differs *DeviceError
	_, err := d.tryProve(bad, nil)
	if want := i < int64(len(may)) && may[i] || d.looksAt(i); errors.As(err, &differs) != want {
		d.Fatalf("%s: byte %d was spoilt, and is looked at: %v: %v", d.name, i, want, err)
	}
	_, err = d.tryProve(bad, &ProveOptions{All: true})
	if !errors.As(err, &differs) || differs.Off > i || differs.Off+differs.Len <= i {
		d.Fatalf("%s: byte %d was spoilt: %v", d.name, i, err)
	}
}

// looksAt says that a link from the last common one on holds a byte or ends before it;
// the full backup does not count, but for its end.
func (d *deltaCase) looksAt(i int64) bool {
	common := commonLinks(d.from, d.to)
	links := slices.Concat(d.from[common:], d.to[common:])
	if common > 1 {
		links = append(links, d.from[common-1])
	}
	return i >= d.from[common-1].Disk.Size() || slices.ContainsFunc(links, func(l Link) bool {
		return i >= l.Disk.Size() || viewOf(l, copiedIn(l), i) != qcow2.Absent
	})
}

func (d *deltaCase) tryProve(device []byte, opts *ProveOptions) (*Proof, error) {
	return d.delta.Prove(d.Context(), NewRaw(bytes.NewReader(device), int64(len(device)), nil), opts)
}

// interrupt has a copy fail in the middle of a write: what it leaves is accepted, and
// the next copy makes it whole.
func (d *deltaCase) interrupt() {
	d.Helper()
	target := newCountingTarget(slices.Clone(d.device))
	target.left = d.r.IntN(4)
	if _, err := d.delta.Copy(d.Context(), target, &CopyOptions{Workers: 1}); err != nil && !errors.Is(err, errTorn) {
		d.Fatalf("%s: %v", d.name, err)
	}
	if _, err := d.delta.Prove(d.Context(), target.disk(int64(len(d.old))), nil); err != nil {
		d.Fatalf("%s: an interrupted copy is not accepted: %v", d.name, err)
	}
	target.left = -1
	d.copy(target)
	d.wantNew(target)
}

// A chain of a few chunks, sealed at each point: chunks are hashed, what is not what
// it was is found, and a link that is missing is seen.
func TestDeltaSealed(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	const size = 3*ChunkSize + 5000
	full := newFake(r, size, 64<<10, func(i int) qcow2.Kind { return qcow2.Data })
	inc := func(blocks ...int) Link {
		return Link{Disk: newFake(r, size, 64<<10, func(i int) qcow2.Kind {
			if slices.Contains(blocks, i) {
				return qcow2.Data
			}
			return qcow2.Absent
		})}
	}
	links := []Link{{Name: "full", Disk: full}, inc(0, 1), inc(70)}
	links[1].Name, links[2].Name = "inc1", "inc2"
	var views []*manifest.View
	for i := range links {
		v, err := Seal(t.Context(), links[:i+1], nil)
		if err != nil {
			t.Fatal(err)
		}
		views = append(views, v)
	}
	device := contentOf(model(links[:1]))
	raw := func() qcow2.Disk { return NewRaw(bytes.NewReader(device), size, nil) }
	d, err := NewDelta(links[:1], links)
	if err != nil {
		t.Fatal(err)
	}
	opts := &ProveOptions{From: views[0], To: views[2]}
	p, err := d.Prove(t.Context(), raw(), opts)
	if err != nil || !p.Sealed || p.Read != 2*ChunkSize || p.Mixed != 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	target := newCountingTarget(device)
	if _, err := d.Copy(t.Context(), target, &CopyOptions{Expect: views[2].Chunk}); err != nil {
		t.Fatal(err)
	}
	if p, err = d.Prove(t.Context(), raw(), opts); err != nil || p.Mixed < 3*60<<10 {
		t.Errorf("the second point is not taken for an interrupted copy: %+v, %v", p, err)
	}
	device[2*ChunkSize] ^= 1 // in a chunk that no link touches
	if _, err = d.Prove(t.Context(), raw(), opts); err != nil {
		t.Error(err)
	}
	opts.All = true
	var differs *DeviceError
	if _, err = d.Prove(t.Context(), raw(), opts); !errors.As(err, &differs) || differs.Off != 2*ChunkSize || differs.Len != 1 {
		t.Errorf("got %v", err)
	}

	if d, err = NewDelta(links[:2], links[:1]); err != nil {
		t.Fatal(err)
	}
	copy(device, contentOf(model(links))) // one point too new
	if _, err = d.Prove(t.Context(), raw(), nil); err != nil {
		t.Error(err)
	}
	for _, from := range []*manifest.View{nil, views[1]} {
		_, err = d.Prove(t.Context(), raw(), &ProveOptions{From: from, Witnesses: links[2:]})
		if !errors.As(err, &differs) || differs.Off != 70<<16 || differs.Len != 64<<10 {
			t.Errorf("a later point is not told from the first: %v", err)
		}
	}
	copy(device, contentOf(model(links[:1])))

	gap, err := NewDelta(links[:1], []Link{links[0], links[2]})
	if err != nil {
		t.Fatal(err)
	}
	var chain *ChainError
	if _, err := gap.Prove(t.Context(), raw(), opts); !errors.As(err, &chain) || !strings.Contains(err.Error(), "bytes 0 to 4194304 differ") {
		t.Errorf("a missing link is not seen: %v", err)
	}
	if d, err = NewDelta(links[:1], links); err != nil {
		t.Fatal(err)
	}
	full.content[5] ^= 2 // the backup and the device rot alike
	full.store(0)
	copy(device, contentOf(model(links[:1])))
	if _, err = d.Prove(t.Context(), raw(), &ProveOptions{From: views[0]}); !errors.As(err, &differs) || !differs.Sealed {
		t.Errorf("got %v", err)
	}
}

func TestDeltaRefuses(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	a, b := Link{Name: "a", Disk: randomFake(r, 5000, qcow2.Data)}, Link{Name: "b", Disk: randomFake(r, 5000, qcow2.Data)}
	var chain *ChainError
	if _, err := NewDelta([]Link{a}, []Link{b}); !errors.As(err, &chain) || !strings.Contains(err.Error(), "no backup in common") {
		t.Errorf("got %v", err)
	}
	if _, err := NewDelta(nil, []Link{b}); !errors.As(err, &chain) {
		t.Errorf("got %v", err)
	}
	d, err := NewDelta([]Link{a}, []Link{a, b})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Prove(t.Context(), NewRaw(bytes.NewReader(nil), 0, nil), nil); !errors.As(err, new(*SizeError)) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Copy(ctx, newCountingTarget(make([]byte, 5000)), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// What a device holds is read from it, and not from what the system remembers.
func TestDeltaOnto(t *testing.T) {
	r := rand.New(rand.NewPCG(10, 10))
	tree := newDeltaTree(r)
	from, to := tree.route(1), tree.route(len(tree.links)-1)
	d, err := NewDelta(from, to)
	if err != nil {
		t.Fatal(err)
	}
	old, want := contentOf(model(from)), contentOf(model(to))
	path := filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(path, append(slices.Clone(old), make([]byte, 300<<10)...), 0o600); err != nil {
		t.Fatal(err)
	}
	target, err := OpenOnto(path, d.To().Size(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Abort()
	disk, err := target.Disk(d.From().Size())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Prove(t.Context(), disk, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Copy(t.Context(), target, nil); err != nil {
		t.Fatal(err)
	}
	if err := target.Commit(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got[:len(want)], want) || int64(len(got)) != target.Size() {
		t.Errorf("the device does not hold the second point: %v", err)
	}
	if _, err := target.Disk(1 << 40); err == nil {
		t.Error("more than the device has is read")
	}
}
