package reconstruct

import (
	"context"
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/manifest"
)

// ProveOptions are the options of Delta.Prove. The zero value is the usual case.
type ProveOptions struct {
	// From and To are what a manifest says of the two points; nil: nothing. With From
	// whole chunks are hashed, and the backups of that point are not read.
	From, To *manifest.View
	// All has all of the device compared.
	All bool
	// Witnesses are links that stand on the last one of the first point, so that a
	// device which holds a later point is told from one that holds the first.
	Witnesses []Link
	// Workers and Memory are those of CopyOptions.
	Workers int
	Memory  int64
	// Progress is called in the goroutine that called Prove, often. Its numbers are of
	// what is compared, or, without a manifest, of the disk.
	Progress func(Progress)
}

// A Proof says how a device was shown to hold a point.
type Proof struct {
	Sealed bool  // by the hashes of a manifest, and not by the backups themselves
	Read   int64 // bytes of the device that were compared
	Size   int64 // of the disk
	// Mixed is how many bytes are those of the second point already, as an earlier run
	// leaves them that did not come to its end.
	Mixed int64
}

// A DeviceError is a device that does not hold the point that it should.
type DeviceError struct {
	Off, Len int64 // the first range that differs, in bytes
	// Sealed says that the device holds what the backups do, and that this is not what
	// they held when they were sealed.
	Sealed bool
}

func (e *DeviceError) Error() string {
	if e.Sealed {
		return fmt.Sprintf("its bytes %d to %d are those of the backups, and not what was sealed", e.Off, e.Off+e.Len)
	}
	return fmt.Sprintf("its bytes %d to %d are not those of that point", e.Off, e.Off+e.Len)
}

// Prove shows that a device holds the first point of a delta. It must have the size of
// that point. What may differ is compared, and what the last common link holds, and the
// witnesses: that tells the point from those beside it in the tree. What lies elsewhere
// is neither read nor proven, unless All has it; Copy leaves it as it is.
//
// A device that differs is a *DeviceError, unless all that differs is as of the second
// point: then a Copy was interrupted, and can be made again. With what a manifest says
// of both points it is also shown that the links hold all that differs between them; a
// *ChainError, if not. opts may be nil.
func (d *Delta) Prove(ctx context.Context, device qcow2.Disk, opts *ProveOptions) (*Proof, error) {
	p := prover{Delta: d, device: device, proof: Proof{Size: d.from.Size()}}
	if opts != nil {
		p.opts = *opts
	}
	if device.Size() != d.from.Size() {
		return nil, &SizeError{A: device.Size(), B: d.from.Size()}
	}
	mask, err := p.mask()
	if err != nil {
		return nil, err
	}
	if p.opts.From == nil {
		return &p.proof, p.compare(ctx, mask)
	}
	p.proof.Sealed = true
	return &p.proof, p.hash(ctx, mask)
}

// A prover is one Prove.
type prover struct {
	*Delta
	device qcow2.Disk
	opts   ProveOptions
	proof  Proof
}

// mask marks what is to be compared.
func (p *prover) mask() (extentsFunc, error) {
	if p.opts.All {
		return maskOf([]ChunkRange{{Count: math.MaxInt64 / ChunkSize}}, math.MaxInt64), nil
	}
	links := slices.Concat(p.held.links, p.opts.Witnesses)
	if n := p.common; n > 1 {
		links = append(links, p.from.links[n-1])
	}
	all, err := holders(links)
	if err != nil {
		return nil, err
	}
	return func(off, n int64) iter.Seq2[qcow2.Extent, error] { return all.mask(off, n, p.end) }, nil
}

// hash compares the chunks in which something may differ with a manifest, and those
// that are not what it says with both points.
func (p *prover) hash(ctx context.Context, mask extentsFunc) error {
	chunks, err := chunksIn(ctx, p.Delta.mask, min(p.from.Size(), p.to.Size()))
	if err != nil {
		return err
	}
	if err := p.explained(chunks); err != nil {
		return err
	}
	if chunks, err = chunksIn(ctx, mask, p.from.Size()); err != nil {
		return err
	}
	var bad []ChunkRange
	p.proof.Read = chunkBytes(chunks, p.from.Size())
	_, err = hashChunks(ctx, p.device, chunks, CopyOptions{Workers: p.opts.Workers, Memory: p.opts.Memory,
		Expect: p.opts.From.Chunk, Progress: countedProgress(chunks, p.from.Size(), p.opts.Progress),
		Differs: func(e *ChunkError) error {
			bad = addChunks(bad, ChunkRange{e.Chunk, 1})
			return nil
		}}, nil)
	if err != nil {
		return err
	}
	for _, r := range bad {
		if err := p.judge(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// judge compares chunks of the device that are not what was sealed with the backups.
func (p *prover) judge(ctx context.Context, r ChunkRange) error {
	for ; r.Count > 0; r = (ChunkRange{r.First + 1, r.Count - 1}) {
		one, before := ChunkRange{r.First, 1}, p.proof.Mixed
		if err := p.compare(ctx, maskOf([]ChunkRange{one}, p.from.Size())); err != nil {
			return err
		}
		if p.proof.Mixed == before {
			off, end := one.bytes(p.from.Size())
			return &DeviceError{Off: off, Len: end - off, Sealed: true}
		}
	}
	return nil
}

// chunksIn are the chunks in which a mask marks something of the first size bytes.
func chunksIn(ctx context.Context, mask extentsFunc, size int64) ([]ChunkRange, error) {
	all := []ChunkRange{}
	for r, err := range rangesOf(ctx, mask, size) {
		if err != nil {
			return nil, err
		}
		all = addChunks(all, chunksOf(r.Off, r.Len))
	}
	return all, nil
}

// explained shows that all chunks which differ between the sealed points are among
// those in which a link holds something.
func (p *prover) explained(chunks []ChunkRange) error {
	from, to := p.opts.From, p.opts.To
	if to == nil {
		return nil
	}
	end := manifest.Chunks(from.Size())
	if from.Size() != to.Size() {
		end = min(from.Size(), to.Size()) / ChunkSize
	}
	for chunk := int64(0); chunk < end; chunk++ {
		if len(chunks) > 0 && chunks[0].First == chunk {
			chunk, chunks = chunks[0].End()-1, chunks[1:]
			continue
		}
		a, _ := from.Chunk(chunk)
		if b, _ := to.Chunk(chunk); a != b {
			off, end := ChunkRange{chunk, 1}.bytes(from.Size())
			return &ChainError{Index: -1, Msg: fmt.Sprintf("guest bytes %d to %d differ between the two points as they were sealed, "+
				"and no link between them holds any of it", off, end), Missing: "a link"}
		}
	}
	return nil
}

// compare compares the device with the first point where a mask says, and what differs
// with the second.
func (p *prover) compare(ctx context.Context, mask extentsFunc) error {
	opts := CompareOptions{Workers: p.opts.Workers, Memory: p.opts.Memory}
	if !p.proof.Sealed {
		opts.Progress = p.opts.Progress
	}
	for r, err := range rangesOf(ctx, mask, p.from.Size()) {
		if err != nil {
			return err
		}
		if !p.proof.Sealed {
			p.proof.Read += r.Len
		}
	}
	for r, err := range Compare(ctx, maskedDisk{p.from, mask}, maskedDisk{p.device, mask}, &opts) {
		if err == nil {
			err = p.accept(ctx, r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// accept takes a range that is not as of the first point, if each byte of it is as of
// one of the two.
func (p *prover) accept(ctx context.Context, r bitmap.Range) error {
	const step = 1 << 20
	fail := &DeviceError{Off: r.Off, Len: r.Len}
	if r.Off+r.Len > p.to.Size() {
		return fail
	}
	var b [3][]byte
	for off, end := r.Off, r.Off+r.Len; off < end; off += step {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		for i, disk := range []qcow2.Disk{p.device, p.from, p.to} {
			b[i] = append(b[i][:0], make([]byte, min(step, end-off))...)
			if err := readFull(disk, b[i], off); err != nil {
				return err
			}
		}
		for i, c := range b[0] {
			switch c {
			case b[1][i]:
			case b[2][i]:
				p.proof.Mixed++
			default:
				return fail
			}
		}
	}
	return nil
}
