package reconstruct

import (
	"context"

	"github.com/qbitkit/qbit/bitmap"
	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/manifest"
)

// BackupOptions are the options of Backup. The zero value makes a full backup.
type BackupOptions struct {
	// Changed is what an increment has to hold; nil: all of the disk. It has the size of
	// the disk, and nobody may change it meanwhile.
	Changed *bitmap.Bitmap
	// Unit is what the ranges of an increment are rounded out to, in bytes: a power of
	// two, at least the clusters of the target. Less than 64 KiB, which QEMU's own
	// backups are rounded to, counts as that.
	Unit int64

	// Seal has the content hashed, for a manifest: that of every chunk which is read, as
	// the disk has it now. Of an increment with a Parent the others are taken from there.
	Seal bool
	// Parent is the view of the point on which an increment stands.
	Parent *manifest.View

	// Digests are those of the whole disk; of an increment too, for which all of the disk
	// has to be read then.
	Digests []string
	// KeepZeros, Workers and Memory are those of CopyOptions.
	KeepZeros bool
	Workers   int
	Memory    int64
	// Progress is called in the goroutine that called Backup, often. Its numbers are of
	// what is read, not of the disk.
	Progress func(Progress)
}

// A BackupResult says what Backup did.
type BackupResult struct {
	Result
	// Covered is how many bytes of the disk the backup holds, as data or as zero.
	Covered int64
	// View is what the disk holds; nil where nothing was to be sealed. The caller says
	// what its point is called and of which files it is.
	View *manifest.View
}

// Backup writes a disk at rest to dst: all of it, or the increment that a bitmap says.
// What is dirty is data in it, or zero where the disk reads as zero; nothing else is
// written, so that dst has to keep what was never written apart from zero (the Sparse
// of qcow2.Layout). The disk is read whole, through its backing files.
//
// Nobody may write to the disk meanwhile. Backup neither commits nor aborts dst; errors
// and goroutines are those of Copy. opts may be nil.
func Backup(ctx context.Context, dst Target, disk qcow2.Disk, opts *BackupOptions) (*BackupResult, error) {
	b := backup{disk: disk}
	if opts != nil {
		b.opts = *opts
	}
	if err := b.round(traitsOf(dst).Block); err != nil {
		return nil, err
	}
	return b.run(ctx, dst)
}

// A backup is one Backup.
type backup struct {
	disk   qcow2.Disk
	opts   BackupOptions
	seal   *sealer // nil: nothing is sealed
	ranges []ChunkRange
}

// round rounds what changed out to whole units.
func (b *backup) round(block int64) (err error) {
	changed := b.opts.Changed
	if changed == nil {
		return nil
	}
	if changed.Size() != b.disk.Size() {
		return &SizeError{A: changed.Size(), B: b.disk.Size()}
	}
	if unit := max(copyUnit, block, b.opts.Unit); changed.Granularity() < unit {
		b.opts.Changed, err = changed.WithGranularity(unit)
	}
	return err
}

func (b *backup) run(ctx context.Context, dst Target) (*BackupResult, error) {
	b.plan()
	c := copier{dst: dst, src: b.disk, ranges: b.ranges, opts: CopyOptions{Workers: b.opts.Workers, Memory: b.opts.Memory,
		KeepZeros: b.opts.KeepZeros, Digests: b.opts.Digests, Progress: b.opts.Progress}}
	if b.opts.Changed != nil {
		c.opts.Only = Dirty(b.opts.Changed)
	}
	if b.ranges != nil {
		c.opts.Progress = countedProgress(b.ranges, b.disk.Size(), b.opts.Progress)
	}
	if b.seal != nil {
		c.each = b.seal.take
	}
	result, err := c.run(ctx)
	if err != nil {
		return nil, err
	}
	return b.result(result)
}

// plan decides what is read, and what is recorded of it.
func (b *backup) plan() {
	size := b.disk.Size()
	var touched []ChunkRange // nil: all
	if b.opts.Changed != nil && len(b.opts.Digests) == 0 {
		touched = b.touched()
		b.ranges = touched
	}
	if !b.opts.Seal {
		return
	}
	b.seal = &sealer{chunks: allChunks(size)}
	b.seal.point.Size = size
	if b.opts.Changed == nil || b.opts.Parent == nil {
		b.ranges = nil // all of it has to be hashed
		return
	}
	b.seal.opts.Parent = b.opts.Parent
	b.seal.chunks = unionChunks(manifest.Chunks(size), b.touched(), resized(b.opts.Parent.Size(), size))
	if touched != nil {
		b.ranges = b.seal.chunks
	}
}

// touched are the chunks in which something changed.
func (b *backup) touched() []ChunkRange {
	all := []ChunkRange{}
	for r := range b.opts.Changed.Ranges() {
		all = addChunks(all, chunksOf(r.Off, r.Len))
	}
	return all
}

func (b *backup) result(res *Result) (*BackupResult, error) {
	r := &BackupResult{Result: *res, Covered: b.disk.Size()}
	if b.opts.Changed != nil {
		r.Covered = b.opts.Changed.Count()
	}
	if b.seal == nil {
		return r, nil
	}
	var err error
	r.View, err = b.seal.view()
	return r, err
}
