package reconstruct

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/qbitkit/qbit/qcow2"
)

// CopyOptions are the options of Copy. The zero value is the usual case.
type CopyOptions struct {
	// Workers is how many goroutines read and write; 0 means one for each
	// processor, but 2 to 8.
	Workers int
	// Memory bounds the buffers, in bytes, whatever the size of the disk; 0
	// means 64 MiB. At least two chunks (8 MiB) are used.
	Memory int64
	// KeepZeros writes zeros that are stored as data as they are. Otherwise whole
	// blocks of zeros (Traits.Block) become holes too.
	KeepZeros bool
	// Digests names the digests to compute: SHA256, XXH64, Tree.
	Digests []string
	// Share has the filesystem share blocks between a storage that is a file (see
	// FileStorage) and a target that is one (see Placer), where it can, instead of
	// copying them. Zeros in them stay data. Where bytes are wanted all the same,
	// for a digest or Expect, they are read, and not written.
	Share bool
	// DigestsIfRead wants Tree only where all bytes are read anyway: with the first
	// block that is shared the digest is given up, and the Result has none. Other
	// digests, and Expect, have all bytes read; then it has no effect.
	DigestsIfRead bool
	// Expect says the 64-bit xxHash that a chunk (of ChunkSize bytes, the last may
	// be shorter) has to have, where it is known; a manifest.View does. It is called
	// from several goroutines. A chunk that has another one is a *ChunkError. In a
	// target that is not sequential it may have been written by then.
	Expect func(chunk int64) (sum uint64, known bool)
	// Differs takes the chunks that are not what Expect says, in order, in the
	// goroutine that called Copy; the copy goes on while it returns nil. Without it
	// the first of them ends the copy.
	Differs func(*ChunkError) error
	// Only selects what is stored; nil: everything. The rest is neither written nor
	// zeroed, as where an increment leaves it absent. What is selected has to begin and
	// end with blocks of the target (Traits.Block), or with the disk: see
	// Selection.Granularity. Expect is asked only of chunks in which something is
	// selected; only Digests have the others read. The Layers of the Result count what
	// is selected. It does not go with a target that is sequential or resumed.
	Only Selection
	// Progress is called in the goroutine that called Copy, often.
	Progress func(Progress)
}

// Progress says how far a Copy or Compare is, in bytes of the disk.
type Progress struct {
	Done, Total int64
	Read        int64 // bytes read so far
}

// A Tally counts bytes by how a layer holds them.
type Tally struct {
	Data, Compressed, Zero, Absent int64
}

func (t *Tally) add(o Tally) {
	t.Data += o.Data
	t.Compressed += o.Compressed
	t.Zero += o.Zero
	t.Absent += o.Absent
}

func (t *Tally) count(e qcow2.Extent) {
	switch e.Kind {
	case qcow2.Data:
		t.Data += e.Len
	case qcow2.Compressed:
		t.Compressed += e.Len
	case qcow2.Zero:
		t.Zero += e.Len
	default:
		t.Absent += e.Len
	}
}

// A Result says what Copy did.
type Result struct {
	Size    int64
	Layers  []Tally  // by Extent.Depth; see Chain.ByLink
	Digests []Digest // in the order in which they were asked for
	Read    int64    // bytes of the disk read from where they are stored
	Written int64    // bytes written as data
	Zeroed  int64    // bytes made zero, or left as a hole
	Shared  int64    // bytes of blocks that the target shares with a storage
	GivenUp bool     // Digests were left out, for blocks are shared: see DigestsIfRead
}

// Copy reads the whole of src, once and in parallel, and writes it to dst; with
// a nil dst it only computes digests. It neither commits nor aborts dst. After an
// error, or when ctx ends, dst holds an unknown part of the disk and must be
// aborted. opts may be nil.
//
// An error in the middle of the disk is a *RangeError. A storage that ends before
// the bytes that should be in it is io.ErrUnexpectedEOF, and an absent range
// whose bytes are elsewhere is a *qcow2.RefError: neither is taken for zeros.
//
// Copy uses some goroutines, which have ended when it returns.
func Copy(ctx context.Context, dst Target, src qcow2.Disk, opts *CopyOptions) (*Result, error) {
	c := copier{dst: dst, src: src}
	if opts != nil {
		c.opts = *opts
	}
	return c.run(ctx)
}

func (c *copier) run(ctx context.Context) (*Result, error) {
	c.traits, c.result = traitsOf(c.dst), Result{Size: c.src.Size()}
	if b := c.traits.Block; bits.OnesCount64(uint64(b)) != 1 {
		return nil, fmt.Errorf("the block size of a target must be a power of two, is %d", b)
	}
	var err error
	if c.digests, err = newDigests(c.opts.Digests, c.src.Size()); err != nil {
		return nil, err
	}
	c.resume, _ = c.dst.(*ResumeTarget)
	if c.opts.Only != nil && (c.streams() || c.resume != nil) {
		return nil, errors.New("only a part of a disk cannot be copied to a target that is sequential or resumed")
	}
	c.sums = c.digests.tree != nil || c.opts.Expect != nil || c.each != nil
	c.initShare()
	slots := slotsFor(c.opts.Memory, ChunkSize)
	p := pipeline[unit]{slots: slots, workers: workersFor(c.opts.Workers, slots), plan: c.plan,
		work: func(u *unit) error { return c.work(ctx, u) }, take: func(u *unit) error { return c.take(ctx, u) }}
	if err := p.run(ctx); err != nil {
		return nil, err
	}
	if c.result.GivenUp = c.spared.Load(); !c.result.GivenUp {
		c.result.Digests = c.digests.sums()
	}
	c.result.Shared = c.shared.Load()
	c.result.Read, c.result.Written, c.result.Zeroed = c.read.Load(), c.written.Load(), c.zeroed.Load()
	return &c.result, nil
}

// slotsFor is how many buffers of a size the memory allows.
func slotsFor(memory, size int64) int {
	if memory <= 0 {
		memory = 64 << 20
	}
	return int(max(2, min(memory/size, 1024)))
}

func workersFor(asked, slots int) int {
	if asked <= 0 {
		asked = max(2, min(runtime.GOMAXPROCS(0), 8))
	}
	return min(asked, slots)
}

// A copier is one Copy.
type copier struct {
	dst     Target // nil: only digests
	src     qcow2.Disk
	opts    CopyOptions
	traits  Traits
	digests *digests
	result  Result // its Layers belong to plan

	sums   bool                    // the hashes of chunks are wanted
	ranges []ChunkRange            // which chunks; nil: all
	each   func(u *unit) error     // takes every unit; nil: nobody does
	broken func(*RangeError) error // takes what cannot be read; nil: that ends the copy
	zeros  zeroSums
	resume *ResumeTarget // dst, if it is one

	sharer *sharer     // nil: nothing is shared
	spare  bool        // the hashes of chunks are given up when something is shared
	spared atomic.Bool // they were

	read, written, zeroed, shared atomic.Int64

	desks sync.Pool // of *desk, one for each worker
}

// inOrder reports that the bytes of a chunk are wanted when it is its turn, and
// not only while it is worked on.
func (c *copier) inOrder() bool { return len(c.digests.plain) > 0 || c.streams() }

// streams reports a target that is written in order.
func (c *copier) streams() bool { return c.dst != nil && c.traits.Sequential }

// plan walks the disk and cuts it into units.
func (c *copier) plan(ctx context.Context, f *feed[unit]) error {
	if c.ranges == nil {
		return c.planRange(ctx, f, 0, c.src.Size())
	}
	for _, r := range c.ranges {
		off, end := r.bytes(c.src.Size())
		if err := c.planRange(ctx, f, off, end); err != nil {
			return err
		}
	}
	return nil
}

// planRange plans what lies from one chunk up to another, or to the end.
func (c *copier) planRange(ctx context.Context, f *feed[unit], off, end int64) error {
	cut := cutter{feed: f, size: c.src.Size(), keep: c.inOrder(), whole: c.whole}
	for e, err := range walkRange(ctx, c.src.Extents, off, end) {
		if err != nil {
			return err
		}
		c.count(e)
		if e.Kind == qcow2.Absent && c.reads(e) {
			if err := checkAbsent(c.src, e); err != nil {
				return rangeError("read", c.src, e, err)
			}
		}
		if err := cut.add(e); err != nil {
			return err
		}
	}
	return nil
}

// count tallies what is to be stored of an extent.
func (c *copier) count(e qcow2.Extent) {
	if c.opts.Only != nil {
		c.tallySelected(e)
		return
	}
	c.tally(e)
}

// reads reports that the bytes of an extent are wanted.
func (c *copier) reads(e qcow2.Extent) bool {
	if c.opts.Only == nil || c.sums || len(c.digests.plain) > 0 {
		return true
	}
	for range c.opts.Only(e) {
		return true
	}
	return false
}

func (c *copier) tally(e qcow2.Extent) {
	for len(c.result.Layers) <= e.Depth {
		c.result.Layers = append(c.result.Layers, Tally{})
	}
	c.result.Layers[e.Depth].count(e)
}

// take adds a unit to what wants the disk in order.
func (c *copier) take(ctx context.Context, u *unit) error {
	switch {
	case c.digests.tree == nil:
	case u.zero:
		c.digests.tree.zero(u.len)
	default:
		c.digests.tree.chunk(u.sum)
	}
	if err := c.takeSums(u); err != nil {
		return err
	}
	if err := c.hash(ctx, u); err != nil {
		return err
	}
	if c.streams() {
		if err := c.storeInOrder(ctx, u); err != nil {
			return err
		}
	}
	if c.opts.Progress != nil {
		c.opts.Progress(Progress{Done: u.end(), Total: c.src.Size(), Read: c.read.Load()})
	}
	return nil
}

// hash adds a unit to the plain digests.
func (c *copier) hash(ctx context.Context, u *unit) error {
	if len(c.digests.plain) == 0 {
		return nil
	}
	if !u.zero {
		c.digests.write(u.buf)
		return nil
	}
	for n := u.len; n > 0; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		part := min(n, int64(len(zeros)))
		c.digests.write(zeros[:part])
		n -= part
	}
	return nil
}
