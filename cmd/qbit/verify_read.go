package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct"
	"github.com/qbitkit/qbit/reconstruct/plan"
	"github.com/qbitkit/qbit/reconstruct/virtnbd"
)

// A fileReader reads one file.
type fileReader struct {
	v     *verifier
	f     *fileReport
	layer *layer
	share share
	mu    sync.Mutex // of f's findings
}

func (r *fileReader) find(state fileState, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.f.find(state, fmt.Sprintf(format, args...))
}

// note says something that makes nothing worse.
func (r *fileReader) note(format string, args ...any) { r.find(fileSound, format, args...) }

func (r *fileReader) state() fileState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.f.State
}

// read reads the file. The error is for what ends the run.
func (r *fileReader) read(ctx context.Context) error {
	r.share.m, r.share.size = r.v.meter, r.f.Size
	o, err := r.v.k.newOpener(r.v.c)
	if err != nil {
		return err
	}
	defer o.close()
	if r.layer, err = o.openBackup(r.v.s, r.f.backup); err != nil {
		if errors.Is(err, qcow2.ErrLocked) || errors.As(err, new(*refusedError)) {
			return err
		}
		r.find(fileDamaged, "%v", err)
		return r.sums(ctx) // it may still be what was sealed
	}
	switch {
	case r.layer.image != nil:
		err = r.readImage(ctx)
	case r.f.Format == plan.FormatVirtnbd:
		err = r.readStream(ctx)
	default:
		err = r.readRaw(ctx)
	}
	if err != nil {
		return err
	}
	if err := r.layer.file.unchanged(); err != nil {
		r.find(fileDamaged, "%v", err)
	}
	r.share.set(r.f.Size)
	r.compareSealed()
	return nil
}

// sums opens and reads a file that cannot be read as what it should be.
func (r *fileReader) sums(ctx context.Context) error {
	file, err := r.v.s.open(r.f.backup.Source)
	if err != nil {
		return ctx.Err()
	}
	defer file.Close()
	r.layer = &layer{file: file}
	if err := r.readRaw(ctx); err != nil {
		return err
	}
	r.compareSealed()
	return nil
}

// readRaw reads all bytes of a file, and takes their checksums if they are of use.
func (r *fileReader) readRaw(ctx context.Context) error {
	opts := &reconstruct.CopyOptions{Workers: 2, Memory: int64(r.v.k.memory) / int64(r.v.fileWorkers()),
		Progress: func(p reconstruct.Progress) { r.share.set(p.Done) }}
	wanted := r.v.wantsSums(r.f)
	if wanted {
		opts.Digests = []string{reconstruct.Tree}
	}
	if r.v.k.sha256 {
		opts.Digests = append(opts.Digests, reconstruct.SHA256)
	}
	sums, err := hashFile(ctx, r.layer.file, opts)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		r.find(fileDamaged, "%v", err)
	}
	if err != nil || !wanted {
		return nil
	}
	r.f.sum, r.f.summed = sums, true
	r.f.Tree, r.f.SHA256 = sums.Sum.String(), sums.SHA256
	return nil
}

// readImage reads a qcow2 image: its tables, then all its bytes, while compressed
// clusters are decoded.
func (r *fileReader) readImage(ctx context.Context) error {
	if err := r.checkImage(ctx); err != nil {
		return err
	}
	return both(
		func() error { return r.readRaw(ctx) },
		func() error { return r.decode(ctx) },
	)
}

// both runs two functions at once, and returns when both have.
func both(a, b func() error) error {
	var wg sync.WaitGroup
	var errB error
	wg.Go(func() { errB = b() })
	errA := a()
	wg.Wait()
	return errors.Join(errA, errB)
}

// checkImage checks the tables of an image, as qbit check does.
func (r *fileReader) checkImage(ctx context.Context) error {
	img := r.layer.image
	if img.Corrupt() {
		r.find(fileDoubt, "the image is marked corrupt: a program found it broken")
	}
	res, err := img.Check(ctx, &qcow2.CheckOptions{Memory: int64(r.v.k.memory)}, func(f qcow2.Finding) error {
		if f.Severity == qcow2.SeverityCorruption {
			r.find(damageOf(f), "%s", findingLine(f))
		}
		return nil
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		r.find(fileDamaged, "%v", err)
	case res.CheckErrors > 0:
		r.find(fileDamaged, "%d places could not be read", res.CheckErrors)
	}
	return nil
}

// harmless are corruptions that a program which writes can make worse, and a
// restore does not meet.
var harmless = map[qcow2.FindingKind]bool{
	qcow2.FindDirty: true, qcow2.FindCorruptBit: true, qcow2.FindRefcountLow: true, qcow2.FindRefcountHigh: true,
	qcow2.FindRefcountWidth: true, qcow2.FindCopied: true, qcow2.FindCopiedPacked: true,
	qcow2.FindSnapshotTable: true, qcow2.FindSnapshotExtra: true,
	qcow2.FindBitmapsStale: true, qcow2.FindBitmapsExt: true, qcow2.FindBitmapDirectory: true, qcow2.FindBitmapInUse: true,
	qcow2.FindBitmapFlags: true, qcow2.FindBitmapType: true, qcow2.FindBitmapExtra: true, qcow2.FindBitmapName: true,
	qcow2.FindBitmapTable: true, qcow2.FindBitmapEntry: true, qcow2.FindBitmapTail: true, qcow2.FindBitmapPadding: true,
}

// damageOf is what a corruption makes of a backup. What is wrong in a snapshot does
// not concern the disk.
func damageOf(f qcow2.Finding) fileState {
	if harmless[f.Kind] || f.Snapshot != "" {
		return fileDoubt
	}
	return fileDamaged
}

// decode decodes all compressed clusters, and reads with the second reader.
func (r *fileReader) decode(ctx context.Context) error {
	opts := &reconstruct.CopyOptions{Workers: 2, Memory: int64(r.v.k.memory) / int64(r.v.fileWorkers())}
	err := reconstruct.VerifyCompressed(ctx, r.layer.disk, opts, func(e *reconstruct.RangeError) error {
		r.find(fileDamaged, "%v", e)
		return nil
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		r.find(fileDamaged, "%v", err)
	}
	if !r.v.k.second {
		return nil
	}
	return r.secondReader(ctx)
}

// readStream reads a stream of virtnbdbackup: all its frames and checksums.
func (r *fileReader) readStream(ctx context.Context) error {
	stream := r.layer.disk.(namedDisk).Disk.(*virtnbd.Stream)
	raw := func() error { return nil }
	if r.v.wantsSums(r.f) {
		raw = func() error { return r.readRaw(ctx) }
	}
	return both(raw, func() error { return r.verifyStream(ctx, stream) })
}

func (r *fileReader) verifyStream(ctx context.Context, stream *virtnbd.Stream) error {
	sum, err := stream.VerifySum(ctx, r.share.set)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	found := virtnbd.Findings(err)
	for _, f := range found {
		r.find(fileDamaged, "%v", f)
	}
	if err != nil && len(found) == 0 {
		r.find(fileDamaged, "%v", err)
		return nil
	}
	r.f.Adler32 = &sum
	r.compareChecksum(sum)
	return nil
}

// compareChecksum compares the adler32 of a stream with the file beside it.
func (r *fileReader) compareChecksum(sum uint32) {
	name := r.f.backup.Source.Checksum
	if name == "" {
		if r.f.sealed == nil && !r.layer.disk.(namedDisk).Disk.(*virtnbd.Stream).Meta().Compressed {
			r.note("the stream is not compressed and has no .chksum file: rot in what it holds would not be seen")
		}
		return
	}
	src := plan.Source{Path: name}
	if r.f.backup.Source.Member != "" {
		src = plan.Source{Path: r.f.backup.Source.Path, Member: name}
	}
	file, err := r.v.s.open(src)
	if err != nil {
		r.find(fileDoubt, "its checksum file cannot be read: %v", err)
		return
	}
	defer file.Close()
	want, err := virtnbd.ReadChecksum(io.NewSectionReader(file, 0, file.size))
	switch {
	case errors.Is(err, virtnbd.ErrNoChecksum):
		r.find(fileDoubt, "%s: %v, so that bit rot in the payload would not be seen", escapeName(src.String()), err)
	case err != nil:
		r.find(fileDoubt, "%s: %v", escapeName(src.String()), err)
	case want != sum:
		r.find(fileDamaged, "its adler32 is %d, and %s says %s", sum, escapeName(src.String()), strconv.FormatUint(uint64(want), 10))
	}
}

// compareSealed compares the checksums of a file with those of the manifest.
func (r *fileReader) compareSealed() {
	f := r.f
	if f.sealed == nil || !f.summed {
		return
	}
	msg := differsFrom(*f.sealed, f.sum)
	same := msg == ""
	f.Sealed = &same
	if !same {
		r.find(fileDoubt, "%s", msg)
	}
}
