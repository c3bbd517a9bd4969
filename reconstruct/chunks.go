package reconstruct

import (
	"cmp"
	"context"
	"slices"

	"github.com/qbitkit/qbit/qcow2"
	"github.com/qbitkit/qbit/reconstruct/manifest"
)

// A ChunkRange is chunks of a disk that follow each other, of ChunkSize bytes each;
// the last of a disk may be shorter.
type ChunkRange struct{ First, Count int64 }

// End is the first chunk behind the range.
func (r ChunkRange) End() int64 { return r.First + r.Count }

// bytes is where the range begins and ends in a disk of size bytes.
func (r ChunkRange) bytes(size int64) (off, end int64) {
	return r.First * ChunkSize, min(r.End()*ChunkSize, size)
}

// chunksOf are the chunks that hold [off, off+n), n > 0.
func chunksOf(off, n int64) ChunkRange {
	first := off / ChunkSize
	return ChunkRange{First: first, Count: (off+n-1)/ChunkSize - first + 1}
}

// addChunks appends a range to ascending ones, of which it may touch the last.
func addChunks(all []ChunkRange, r ChunkRange) []ChunkRange {
	if n := len(all); n > 0 && r.First <= all[n-1].End() {
		all[n-1].Count = max(all[n-1].End(), r.End()) - all[n-1].First
		return all
	}
	return append(all, r)
}

// unionChunks is all that is in one of the sets, ascending, within a disk of so
// many chunks. It is never nil.
func unionChunks(chunks int64, sets ...[]ChunkRange) []ChunkRange {
	var sorted []ChunkRange
	for _, set := range sets {
		sorted = append(sorted, set...)
	}
	slices.SortFunc(sorted, func(a, b ChunkRange) int { return cmp.Compare(a.First, b.First) })
	all := []ChunkRange{}
	for _, r := range sorted {
		if r.Count = min(r.End(), chunks) - r.First; r.Count > 0 {
			all = addChunks(all, r)
		}
	}
	return all
}

// touched are the chunks that the newest of links may have changed: those in which
// it holds something, and those that the disk before it does not have, or not of
// this length. Of one link alone that is all.
func touched(ctx context.Context, links []Link) ([]ChunkRange, error) {
	l := links[len(links)-1]
	size := l.Disk.Size()
	if len(links) == 1 {
		return allChunks(size), nil
	}
	walk, err := linkExtents(l)
	if err != nil {
		return nil, &ChainError{Link: l.Name, Index: len(links) - 1, Msg: err.Error()}
	}
	all := []ChunkRange{}
	for e, err := range walkRange(ctx, walk, 0, size) {
		if err != nil {
			return nil, nameLink(err, l.Name)
		}
		if e.Kind != qcow2.Absent {
			all = addChunks(all, chunksOf(e.Off, e.Len))
		}
	}
	return unionChunks(manifest.Chunks(size), all, resized(links[len(links)-2].Disk.Size(), size)), nil
}

// allChunks are the chunks of a disk of size bytes.
func allChunks(size int64) []ChunkRange {
	return unionChunks(manifest.Chunks(size), []ChunkRange{{Count: manifest.Chunks(size)}})
}

// resized are the chunks that a disk of before bytes does not have as one of size
// bytes has them.
func resized(before, size int64) []ChunkRange {
	if before == size {
		return nil
	}
	first := min(before, size) / ChunkSize
	return []ChunkRange{{First: first, Count: manifest.Chunks(size) - first}}
}

// nameLink says in which link an error of its own extents happened.
func nameLink(err error, name string) error {
	if r, ok := err.(*RangeError); ok && r.Link == "" {
		r.Link = name
	}
	return err
}

// hashChunks hashes chunks of a disk and gives them to each, in order: a run of
// zeros as such.
func hashChunks(ctx context.Context, d qcow2.Disk, chunks []ChunkRange, opts CopyOptions, each func(u *unit) error) (*Result, error) {
	c := copier{src: d, opts: opts, ranges: chunks, each: each}
	return c.run(ctx)
}
