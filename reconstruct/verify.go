package reconstruct

import (
	"context"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/qbitkit/qbit/reconstruct/manifest"
)

// VerifyOptions are the options of VerifyPoint. The zero value is the usual case.
type VerifyOptions struct {
	// Parent says that the point without the last link was verified before: what
	// neither the last link touches nor the manifest records for it is not read
	// again.
	Parent bool
	// Bad are the chunks of that point that differ; they are looked at again.
	Bad []ChunkRange
	// Differs takes each chunk that differs, ascending. An error from it ends the
	// walk. nil: they are only returned.
	Differs func(*ChunkError) error
	// Workers, Memory and Progress are those of SealOptions.
	Workers  int
	Memory   int64
	Progress func(Progress)
}

// VerifyPoint compares the content of the point that links bring back with what was
// sealed, and returns the chunks that differ. A disk of another size than the sealed
// one is a *ChainError. opts may be nil.
func VerifyPoint(ctx context.Context, links []Link, sealed *manifest.View, opts *VerifyOptions) ([]ChunkRange, error) {
	v := VerifyOptions{}
	if opts != nil {
		v = *opts
	}
	disk, err := Point(links)
	if err != nil {
		return nil, err
	}
	if err := checkSealedSize(links, sealed); err != nil {
		return nil, err
	}
	chunks, err := v.chunks(ctx, links, sealed)
	if err != nil {
		return nil, err
	}
	var bad []ChunkRange
	_, err = hashChunks(ctx, disk, chunks, CopyOptions{Workers: v.Workers, Memory: v.Memory, Expect: sealed.Chunk,
		Progress: countedProgress(chunks, disk.Size(), v.Progress),
		Differs: func(e *ChunkError) error {
			bad = addChunks(bad, ChunkRange{e.Chunk, 1})
			if v.Differs == nil {
				return nil
			}
			return v.Differs(e)
		}}, nil)
	return bad, err
}

// checkSealedSize refuses a disk that has not the size of the sealed one.
func checkSealedSize(links []Link, sealed *manifest.View) error {
	last := len(links) - 1
	if got := links[last].Disk.Size(); got != sealed.Size() {
		return &ChainError{Link: links[last].Name, Index: last, Msg: "the disk has another size than when it was sealed",
			Missing: bytesText(sealed.Size()), Found: bytesText(got)}
	}
	return nil
}

// chunks are those that have to be read.
func (v *VerifyOptions) chunks(ctx context.Context, links []Link, sealed *manifest.View) ([]ChunkRange, error) {
	size := sealed.Size()
	if !v.Parent || len(links) == 1 {
		return allChunks(size), nil
	}
	changed, err := touched(ctx, links)
	if err != nil {
		return nil, err
	}
	var recorded []ChunkRange
	for _, r := range sealed.Point().Runs {
		recorded = append(recorded, ChunkRange{r.First, r.Count})
	}
	return unionChunks(manifest.Chunks(size), changed, recorded, v.Bad), nil
}

// Blame finds the link at which a chunk stopped being what was sealed: the oldest
// of links as of which the content differs. sealed has the view of each point on
// the way, nil where it is not known. It returns -1 where no point that is known
// differs.
func Blame(ctx context.Context, links []Link, sealed []*manifest.View, chunk int64) (int, error) {
	for i := range links {
		if sealed[i] == nil {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return -1, err
		}
		same, err := sameChunk(links[:i+1], sealed[i], chunk)
		if err != nil || !same {
			return i, err
		}
	}
	return -1, nil
}

// sameChunk compares a chunk of the point of links with what was sealed. One that
// neither has is the same.
func sameChunk(links []Link, sealed *manifest.View, chunk int64) (bool, error) {
	disk, err := Point(links)
	if err != nil {
		return false, err
	}
	n := min(ChunkSize, disk.Size()-chunk*ChunkSize)
	want, known := sealed.Chunk(chunk)
	if n <= 0 || !known {
		return (n > 0) == known, nil
	}
	p := make([]byte, n)
	if err := readFull(disk, p, chunk*ChunkSize); err != nil {
		return false, err
	}
	return xxhash.Sum64(p) == want, nil
}

func bytesText(n int64) string { return fmt.Sprintf("%d bytes", n) }
