package reconstruct

import (
	"context"
	"encoding/hex"

	"github.com/qbitkit/qbit/reconstruct/manifest"
)

// SealOptions are the options of Seal. The zero value is the usual case.
type SealOptions struct {
	// Parent is the view of the sealed point of the links without the last one.
	// What the last one does not touch is taken from there and not read. nil: all
	// is hashed.
	Parent *manifest.View
	// SHA256 also takes that of the content, for which all of it is read.
	SHA256 bool
	// Workers and Memory are those of CopyOptions.
	Workers int
	Memory  int64
	// Progress is called in the goroutine that called Seal, often. Its numbers are
	// of what is hashed, not of the disk.
	Progress func(Progress)
}

// Seal hashes the content of the point that links bring back, and returns its view:
// a point with size, parent, root, runs and, if it was asked for, sha256. The
// caller says what it is called and of which files it is. opts may be nil.
func Seal(ctx context.Context, links []Link, opts *SealOptions) (*manifest.View, error) {
	s := sealer{}
	if opts != nil {
		s.opts = *opts
	}
	disk, err := Point(links)
	if err != nil {
		return nil, err
	}
	if s.chunks, err = s.changed(ctx, links); err != nil {
		return nil, err
	}
	s.point.Size = disk.Size()
	o := CopyOptions{Workers: s.opts.Workers, Memory: s.opts.Memory, Progress: s.opts.Progress}
	read := s.chunks
	if s.opts.SHA256 {
		o.Digests, read = []string{SHA256}, nil
	}
	if read != nil {
		o.Progress = countedProgress(read, disk.Size(), s.opts.Progress)
	}
	res, err := hashChunks(ctx, disk, read, o, s.take)
	if err != nil {
		return nil, err
	}
	for _, d := range res.Digests {
		s.point.SHA256 = hex.EncodeToString(d.Sum)
	}
	return s.view()
}

// A sealer makes one point.
type sealer struct {
	opts   SealOptions
	chunks []ChunkRange // those to record; taken from the front
	point  manifest.Point
}

// changed are the chunks that may not be those of the parent.
func (s *sealer) changed(ctx context.Context, links []Link) ([]ChunkRange, error) {
	if s.opts.Parent == nil || len(links) == 1 {
		s.opts.Parent = nil
		return allChunks(links[len(links)-1].Disk.Size()), nil
	}
	before := links[len(links)-2].Disk.Size()
	if sealed := s.opts.Parent.Size(); sealed != before {
		return nil, &ChainError{Link: links[len(links)-2].Name, Index: len(links) - 2,
			Msg: "the disk has another size than when it was sealed", Missing: bytesText(sealed), Found: bytesText(before)}
	}
	return touched(ctx, links)
}

// take records a chunk, or a run of chunks that are zero.
func (s *sealer) take(u *unit) error {
	for off := u.off; off < u.end(); {
		first := off / ChunkSize
		for len(s.chunks) > 0 && s.chunks[0].End() <= first {
			s.chunks = s.chunks[1:]
		}
		if len(s.chunks) == 0 {
			return nil
		}
		first = max(first, s.chunks[0].First)
		end := min(s.chunks[0].End(), chunksOf(u.off, u.len).End())
		if first < end {
			s.record(u, first, end)
		}
		off = max(end, first) * ChunkSize
	}
	return nil
}

func (s *sealer) record(u *unit, first, end int64) {
	switch {
	case !u.zero:
		s.point.Runs.AddSum(first, u.sum)
	case s.opts.Parent != nil: // what a whole backup does not record is zero
		s.point.Runs.AddZeros(first, end-first)
	}
}

// view ends the point: its root follows from its chunks and those of the parent.
func (s *sealer) view() (*manifest.View, error) {
	p := &s.point
	if parent := s.opts.Parent; parent != nil {
		p.Parent = &manifest.Parent{ID: parent.Point().ID, Root: parent.Point().Root}
	}
	v, err := manifest.NewView(p, s.opts.Parent)
	if err != nil {
		return nil, err
	}
	p.Root = v.Root()
	return v, nil
}

// countedProgress is progress in bytes of the chunks that are read, where they are
// not all.
func countedProgress(chunks []ChunkRange, size int64, f func(Progress)) func(Progress) {
	if f == nil {
		return nil
	}
	total := chunkBytes(chunks, size)
	before, at := int64(0), 0 // bytes of the ranges before chunks[at]
	return func(p Progress) {
		for at < len(chunks) {
			off, end := chunks[at].bytes(size)
			if p.Done < end {
				p.Done = before + max(0, p.Done-off)
				break
			}
			before, at = before+end-off, at+1
		}
		if at == len(chunks) {
			p.Done = before
		}
		p.Total = total
		f(p)
	}
}

func chunkBytes(chunks []ChunkRange, size int64) int64 {
	n := int64(0)
	for _, r := range chunks {
		off, end := r.bytes(size)
		n += end - off
	}
	return n
}
