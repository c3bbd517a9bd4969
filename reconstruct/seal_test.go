package reconstruct

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/manifest"
)

// blockSize is that of the blocks of a blockDisk: eight to a chunk.
const blockSize = ChunkSize / 8

// A block is absent, zero, or full of one byte.
type block struct {
	kind qcow2.Kind
	fill byte
}

// A blockDisk is a disk of blocks, the last of which may be short. Reading it
// counts.
type blockDisk struct {
	blocks []block
	size   int64
	broken int64 // reading this block fails; -1: none does
	read   atomic.Int64
}

func (d *blockDisk) Size() int64 { return d.size }

var errBroken = errors.New("broken sector")

func (d *blockDisk) ReadAt(p []byte, off int64) (int, error) {
	d.read.Add(int64(len(p)))
	for at := int64(0); at < int64(len(p)); {
		n := (off + at) / blockSize
		if n == d.broken {
			return int(at), errBroken
		}
		end := min(int64(len(p)), (n+1)*blockSize-off)
		copy(p[at:end], d.blocks[n].bytes())
		at = end
	}
	return len(p), nil
}

// bytes are those of a whole block.
func (b block) bytes() []byte {
	if b.kind != qcow2.Data && b.kind != qcow2.Compressed {
		b.fill = 0
	}
	return filled[b.fill]()
}

// filled are blocks of one byte each.
var filled = func() (all [256]func() []byte) {
	for i := range all {
		all[i] = sync.OnceValue(func() []byte { return bytes.Repeat([]byte{byte(i)}, blockSize) })
	}
	return all
}()

func (d *blockDisk) Extents(off, n int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) {
		for end := off + n; off < end; {
			i := off / blockSize
			e := qcow2.Extent{Off: off, Len: min(end, (i+1)*blockSize) - off, Kind: d.blocks[i].kind}
			if e.Kind == qcow2.Data {
				e.Storage, e.Host, e.HasHost = d, qcow2.HostOffset(off), true
			}
			if !yield(e, nil) {
				return
			}
			off = e.End()
		}
	}
}

// hashOf is the hash of a chunk of the disk that blocks make, by the slowest way.
func hashOf(blocks []block, size, chunk int64) uint64 {
	p := make([]byte, min(ChunkSize, size-chunk*ChunkSize))
	parts := blocks[chunk*8 : min(chunk*8+8, int64(len(blocks)))]
	key := fmt.Sprint(len(p), parts)
	if sum, known := hashes[key]; known {
		return sum
	}
	for i := range p {
		if b := parts[i/blockSize]; b.kind == qcow2.Data || b.kind == qcow2.Compressed {
			p[i] = b.fill
		}
	}
	hashes[key] = xxhash.Sum64(p)
	return hashes[key]
}

var hashes = map[string]uint64{}

// A drawnChain is a chain, and the blocks of the disk after each link.
type drawnChain struct {
	links  []Link
	states [][]block
}

var blockKinds = []qcow2.Kind{qcow2.Absent, qcow2.Absent, qcow2.Absent, qcow2.Absent, qcow2.Zero, qcow2.Data, qcow2.Compressed}

func drawChain(t *rapid.T) drawnChain {
	var c drawnChain
	size := int64(0)
	for i := range rapid.IntRange(1, 3).Draw(t, "links") {
		if i == 0 || rapid.IntRange(0, 2).Draw(t, "resize") == 0 {
			size = rapid.SampledFrom([]int64{3 * blockSize, ChunkSize, 11*blockSize - 100, 2 * ChunkSize, 19 * blockSize, 3*ChunkSize - 512}).Draw(t, "size")
		}
		d := &blockDisk{size: size, broken: -1, blocks: make([]block, (size+blockSize-1)/blockSize)}
		quiet := rapid.Bool().Draw(t, "quiet") // changes little
		for j := range d.blocks {
			if !quiet || rapid.IntRange(0, 7).Draw(t, "touch") == 0 {
				d.blocks[j] = block{rapid.SampledFrom(blockKinds).Draw(t, "kind"), byte(rapid.IntRange(0, 3).Draw(t, "fill"))}
			}
		}
		c.add(Link{Name: fmt.Sprint("link", i), Disk: d})
	}
	return c
}

// add applies a link to the disk as it was, block by block. A block that the disk
// before ended in is what was there, and then zeros: blocks are whole here, and so
// the sizes end in blocks that are absent or zero beyond.
func (c *drawnChain) add(l Link) {
	d := l.Disk.(*blockDisk)
	now := slices.Clone(d.blocks)
	if n := len(c.links); n > 0 {
		before := c.states[n-1]
		for i := range now {
			if now[i].kind == qcow2.Absent && i < len(before) {
				now[i] = before[i]
			}
		}
	}
	c.links, c.states = append(c.links, l), append(c.states, now)
}

// whole makes sizes end at blocks, where the model of blocks needs it.
func (c *drawnChain) resizesInBlock() bool {
	for i := 1; i < len(c.links); i++ {
		a, b := c.links[i-1].Disk.Size(), c.links[i].Disk.Size()
		if a < b && a%blockSize != 0 {
			return true
		}
	}
	return false
}

func (c *drawnChain) expect(i int, chunk int64) uint64 {
	return hashOf(c.states[i], c.links[i].Disk.Size(), chunk)
}

// sealAll seals every point of a chain onto the one before.
func sealAll(t interface{ Fatal(...any) }, links []Link, opts SealOptions) []*manifest.View {
	var views []*manifest.View
	for i := range links {
		v, err := Seal(context.Background(), links[:i+1], &opts)
		if err != nil {
			t.Fatal(err)
		}
		v.Point().ID = links[i].Name
		opts.Parent = v
		views = append(views, v)
	}
	return views
}

// TestSealModel: chunks that are taken over from the parent are those that hashing
// anew finds, which are those of the slow model; and the root is the digest.
func TestSealModel(t *testing.T) {
	ctx := context.Background()
	rapid.Check(t, func(t *rapid.T) {
		c := drawChain(t)
		if c.resizesInBlock() {
			t.Skip("the disk grows within a block")
		}
		for i, v := range sealAll(t, c.links, SealOptions{Workers: rapid.IntRange(1, 3).Draw(t, "workers")}) {
			anew, err := Seal(ctx, c.links[:i+1], nil)
			if err != nil {
				t.Fatal(err)
			}
			for n := range manifest.Chunks(v.Size()) {
				reused, known := v.Chunk(n)
				direct, _ := anew.Chunk(n)
				if want := c.expect(i, n); reused != want || direct != want || !known {
					t.Fatalf("point %d, chunk %d: reused %x, anew %x, want %x", i, n, reused, direct, want)
				}
			}
			res, err := Copy(ctx, nil, mustPoint2(t, c.links[:i+1]), &CopyOptions{Digests: []string{Tree}})
			if err != nil {
				t.Fatal(err)
			}
			if got := v.Point().Root.String(); "xxh64-4m:"+got != res.Digests[0].String() || anew.Point().Root != v.Point().Root {
				t.Fatalf("point %d: the root is %s, the digest %s", i, got, res.Digests[0])
			}
		}
	})
}

func mustPoint2(t interface{ Fatal(...any) }, links []Link) qcow2.Disk {
	d, err := Point(links)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// twoChunks is a disk of two chunks with these blocks; letters are data, '.' is
// absent, '0' zero.
func blocksOf(text string) *blockDisk {
	d := &blockDisk{size: int64(len(text)) * blockSize, broken: -1}
	for i := range len(text) {
		switch ch := text[i]; ch {
		case '.':
			d.blocks = append(d.blocks, block{})
		case '0':
			d.blocks = append(d.blocks, block{kind: qcow2.Zero})
		default:
			d.blocks = append(d.blocks, block{qcow2.Data, ch})
		}
	}
	return d
}

func linksOf(texts ...string) []Link {
	var links []Link
	for i, text := range texts {
		links = append(links, Link{Name: fmt.Sprint("link", i), Disk: blocksOf(text)})
	}
	return links
}

// TestSealCheap: only the chunks that an increment touches are read.
func TestSealCheap(t *testing.T) {
	links := linksOf("aaaaaaaabbbbbbbbcccccccc", "................d.......", "........0.......")
	full, inc := links[0].Disk.(*blockDisk), links[1].Disk.(*blockDisk)
	views := sealAll(t, links[:1], SealOptions{})
	full.read.Store(0)
	var last Progress
	v, err := Seal(context.Background(), links[:2], &SealOptions{Parent: views[0], Progress: func(p Progress) { last = p }})
	if err != nil {
		t.Fatal(err)
	}
	if full.read.Load() != 7*blockSize || inc.read.Load() != blockSize {
		t.Errorf("%d bytes of the full and %d of the increment were read", full.read.Load(), inc.read.Load())
	}
	if want := (Progress{ChunkSize, ChunkSize, ChunkSize}); last != want {
		t.Errorf("progress ends with %+v", last)
	}
	if r := v.Point().Runs; len(r) != 1 || r[0].First != 2 || r[0].Count != 1 {
		t.Errorf("runs %v", r)
	}
	v.Point().ID = "inc"
	if v, err = Seal(context.Background(), links, &SealOptions{Parent: v}); err != nil {
		t.Fatal(err)
	}
	if r := v.Point().Runs; len(r) != 1 || r[0].First != 1 || v.Point().Parent.ID != "inc" {
		t.Errorf("runs %v", r)
	}
}

// TestSealZeros: what is zero needs nothing in a whole backup, and a run in an
// increment, however large.
func TestSealZeros(t *testing.T) {
	full := &zeroDisk{size: 64<<40 + 5, kind: qcow2.Absent}
	inc := &zeroDisk{size: 64<<40 + 6, kind: qcow2.Zero}
	views := sealAll(t, []Link{{Name: "full", Disk: full}, {Name: "inc", Disk: inc}}, SealOptions{})
	if r := views[0].Point().Runs; len(r) != 0 {
		t.Errorf("the full has %v", r)
	}
	if r := views[1].Point().Runs; len(r) != 1 || r[0].Count != 1<<24+1 || r[0].Sums != nil {
		t.Errorf("the increment has %d runs", len(r))
	}
}

// A zeroDisk is one extent.
type zeroDisk struct {
	size int64
	kind qcow2.Kind
}

func (d *zeroDisk) Size() int64 { return d.size }
func (d *zeroDisk) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	return len(p), nil
}
func (d *zeroDisk) Extents(off, n int64) iter.Seq2[qcow2.Extent, error] {
	return func(yield func(qcow2.Extent, error) bool) { yield(qcow2.Extent{Off: off, Len: n, Kind: d.kind}, nil) }
}

func TestSealSHA256(t *testing.T) {
	links := linksOf("aaaaaaaabbbb", "........0...")
	v := sealAll(t, links, SealOptions{SHA256: true})[1]
	res, err := Copy(context.Background(), nil, mustPoint(t, links...), &CopyOptions{Digests: []string{SHA256}})
	if err != nil || "sha256:"+v.Point().SHA256 != res.Digests[0].String() {
		t.Errorf("%s, want %v, %v", v.Point().SHA256, res, err)
	}
	if len(v.Point().Runs) != 1 || v.Point().Runs[0].First != 1 {
		t.Errorf("runs %v", v.Point().Runs)
	}
}

func TestSealRefuses(t *testing.T) {
	links := linksOf("aaaaaaaa", "........")
	other := sealAll(t, linksOf("aaaaaaaaaaaa"), SealOptions{})[0]
	var chain *ChainError
	if _, err := Seal(context.Background(), links, &SealOptions{Parent: other}); !errors.As(err, &chain) || chain.Index != 0 {
		t.Errorf("a parent of another size: %v", err)
	}
	links[0].Disk.(*blockDisk).broken = 3
	var where *RangeError
	if _, err := Seal(context.Background(), links, nil); !errors.As(err, &where) || where.Link != "link0" || !errors.Is(err, errBroken) {
		t.Errorf("a broken sector: %v", err)
	}
}

// TestExpect: a restore tells the first chunk that differs, with the links that hold
// it, whether it is read or only zero.
func TestExpect(t *testing.T) {
	sealed := linksOf("aaaaaaaabbbbbbbb00000000", "..........c.............")
	v := sealAll(t, sealed, SealOptions{})[1]
	for name, tt := range map[string]struct {
		links []Link
		chunk int64
		held  string
	}{
		"same":       {sealed, -1, ""},
		"other base": {linksOf("aaaaaaaabbbbbbbx00000000", "..........c............."), 1, `what is there comes from link "link0" (bytes 4194304 to 8388608), link "link1" (bytes 5242880 to 5767168)`},
		"gone":       {linksOf("aaaaaaaabbbbbbbb00000000", "........................"), 1, `link "link0" (bytes 4194304 to 8388608)`},
		"now zero":   {linksOf("........bbbbbbbb00000000", "..........c............."), 0, "no link holds any of it"},
		"now data":   {linksOf("aaaaaaaabbbbbbbb00000000", "..........c............z"), 2, `link "link0" (bytes 8388608 to 12058624), link "link1" (bytes 12058624 to 12582912)`},
	} {
		for _, dst := range []Target{nil, NewStream(io.Discard)} {
			_, err := Copy(context.Background(), dst, mustPoint(t, tt.links...), &CopyOptions{Expect: v.Chunk})
			var differs *ChunkError
			if errors.As(err, &differs) != (tt.chunk >= 0) || tt.chunk < 0 && err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if tt.chunk >= 0 && (differs.Chunk != tt.chunk || !strings.HasSuffix(err.Error(), tt.held)) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestExpectStops: nothing of a chunk that differs, or behind it, goes into a stream.
func TestExpectStops(t *testing.T) {
	v := sealAll(t, linksOf("aaaaaaaabbbbbbbbcccccccc"), SealOptions{})[0]
	var out bytes.Buffer
	links := linksOf("aaaaaaaabbbbbbbxcccccccc")
	_, err := Copy(context.Background(), NewStream(&out), links[0].Disk, &CopyOptions{Expect: v.Chunk})
	if !errors.As(err, new(*ChunkError)) || out.Len() != ChunkSize {
		t.Errorf("%d bytes came out, %v", out.Len(), err)
	}
}

// TestDiffers: all chunks that differ come in order, and the copy goes on.
func TestDiffers(t *testing.T) {
	zeros := strings.Repeat("0", 8*9)
	v := sealAll(t, linksOf("aaaaaaaabbbbbbbb"+zeros+"cccccccc"), SealOptions{})[0]
	now := linksOf("baaaaaaabbbbbbbb" + zeros + "00000000")
	other := sealAll(t, linksOf("baaaaaaabbbbbbbb"+strings.Repeat("9", 8*9)+"00000000"), SealOptions{})[0]
	for _, tt := range []struct {
		expect *manifest.View
		want   []int64
	}{{v, []int64{0, 11}}, {other, []int64{2, 3, 4, 5, 6, 7, 8, 9, 10}}} {
		var got []int64
		res, err := Copy(context.Background(), nil, now[0].Disk, &CopyOptions{Digests: []string{Tree}, Expect: tt.expect.Chunk,
			Differs: func(e *ChunkError) error { got = append(got, e.Chunk); return nil }})
		if err != nil || len(res.Digests) != 1 || !slices.Equal(got, tt.want) {
			t.Errorf("%v, %v", got, err)
		}
	}
	stop := errors.New("stop")
	_, err := Copy(context.Background(), nil, now[0].Disk, &CopyOptions{Expect: v.Chunk, Differs: func(*ChunkError) error { return stop }})
	if err != stop {
		t.Error(err)
	}
}

// TestVerifyModel: whatever a link is replaced by, the chunks that differ are found,
// point after point, without reading more than has to be read.
func TestVerifyModel(t *testing.T) {
	ctx := context.Background()
	rapid.Check(t, func(t *rapid.T) {
		c := drawChain(t)
		if c.resizesInBlock() {
			t.Skip("the disk grows within a block")
		}
		views := sealAll(t, c.links, SealOptions{})
		now := mutate(t, c)
		opts := VerifyOptions{}
		for i := range now.links {
			got, err := VerifyPoint(ctx, now.links[:i+1], views[i], &opts)
			if err != nil {
				t.Fatal(err)
			}
			var want []ChunkRange
			for n := range manifest.Chunks(views[i].Size()) {
				if now.expect(i, n) != c.expect(i, n) {
					want = addChunks(want, ChunkRange{n, 1})
				}
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Fatal(diff)
			}
			opts = VerifyOptions{Parent: true, Bad: got}
		}
	})
}

// mutate replaces some blocks of one link.
func mutate(t *rapid.T, c drawnChain) drawnChain {
	var now drawnChain
	which := rapid.IntRange(0, len(c.links)-1).Draw(t, "which")
	for i, l := range c.links {
		old := l.Disk.(*blockDisk)
		d := &blockDisk{blocks: old.blocks, size: old.size, broken: -1}
		if i == which {
			d.blocks = slices.Clone(d.blocks)
			for range rapid.IntRange(0, 3).Draw(t, "how many") {
				n := rapid.IntRange(0, len(d.blocks)-1).Draw(t, "block")
				d.blocks[n] = block{rapid.SampledFrom(blockKinds).Draw(t, "kind"), byte(rapid.IntRange(0, 3).Draw(t, "fill"))}
			}
		}
		now.add(Link{Name: l.Name, Disk: d})
	}
	return now
}

func TestVerifySize(t *testing.T) {
	v := sealAll(t, linksOf("aaaaaaaaa"), SealOptions{})[0]
	if _, err := VerifyPoint(context.Background(), linksOf("aaaaaaaa"), v, nil); !errors.As(err, new(*ChainError)) {
		t.Error(err)
	}
}

// TestVerifyCheap: an increment of a point that was verified costs what it holds.
func TestVerifyCheap(t *testing.T) {
	links := linksOf("aaaaaaaabbbbbbbbcccccccc", "................d.......")
	views := sealAll(t, links, SealOptions{})
	full := links[0].Disk.(*blockDisk)
	full.read.Store(0)
	bad, err := VerifyPoint(context.Background(), links, views[1], &VerifyOptions{Parent: true})
	if err != nil || bad != nil || full.read.Load() != 7*blockSize {
		t.Errorf("%v, %v, %d bytes read", bad, err, full.read.Load())
	}
}

// TestBlame names the link at which a chunk went wrong, for two links that were
// swapped too.
func TestBlame(t *testing.T) {
	ctx := context.Background()
	links := linksOf("aaaaaaaabbbbbbbb", "c...............", "d.......e.......", "................")
	views := sealAll(t, links, SealOptions{})
	swapped := []Link{links[0], links[2], links[1], links[3]}
	rotten := append(slices.Clone(links), Link{})[:4]
	rotten[0] = Link{Name: "rotten", Disk: blocksOf("aaaaaaaxbbbbbbbb")}
	for i, tt := range []struct {
		links []Link
		views []*manifest.View
		chunk int64
		want  int
	}{
		{links, views, 0, -1},
		{swapped, views, 0, 1},
		{swapped, views, 1, 1},
		{swapped, []*manifest.View{views[0], nil, views[2], views[3]}, 0, 2},
		{rotten, views, 0, 0},
		{rotten, views, 1, -1},
		{links, views, 2, -1},
		{linksOf("aaaaaaaa"), views[:1], 1, 0},
		{linksOf("aaaaaaaabbbbbbbb0"), views[:1], 2, 0},
	} {
		if got, err := Blame(ctx, tt.links, tt.views, tt.chunk); got != tt.want || err != nil {
			t.Errorf("case %d: %d, %v", i, got, err)
		}
	}
	links[1].Disk.(*blockDisk).broken = 0
	if got, err := Blame(ctx, links, views, 0); got != 1 || !errors.Is(err, errBroken) {
		t.Errorf("%d, %v", got, err)
	}
}
