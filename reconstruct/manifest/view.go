package manifest

import (
	"encoding/binary"
	"fmt"
	"sort"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// A View says which checksum every chunk of a point has, whether the point or one
// of its parents records it. It may be used from several goroutines.
type View struct {
	point *Point
	runs  []Run // cover all chunks
	short uint64
}

// View resolves a point through its parents: in time that grows with the number of
// runs in all of them, little more.
func (d *Disk) View(id string) (*View, error) {
	route, err := d.Route(id)
	if err != nil {
		return nil, err
	}
	return newView(route[len(route)-1], flatten(route))
}

// NewView is the view of a point, given that of its parent; nil where it has none.
// For point after point it costs less than resolving each anew.
func NewView(p *Point, parent *View) (*View, error) {
	if (parent == nil) != (p.Parent == nil) {
		return nil, &Error{Point: p.ID, Msg: "the view of a point needs that of its parent"}
	}
	if parent == nil {
		return newView(p, wholeRuns(p))
	}
	return newView(p, overlay(p.Runs, parent.runs, shared(parent.point.Size, p.Size)))
}

func newView(p *Point, runs []Run) (*View, error) {
	at := int64(0)
	for _, r := range runs {
		if r.First != at {
			break
		}
		at = r.End()
	}
	if at != Chunks(p.Size) {
		return nil, &Error{Point: p.ID, Msg: fmt.Sprintf("chunk %d is neither recorded nor that of a parent", at)}
	}
	return &View{point: p, runs: runs, short: hashZeros(p.Size % ChunkSize)}, nil
}

// flatten is what the last of a route says of its chunks. The halves are resolved
// first, so that no run is copied more often than a logarithm.
func flatten(route []*Point) []Run {
	if len(route) == 1 {
		return wholeRuns(route[0])
	}
	mid := len(route) / 2
	limit := int64(1) << 62
	for i := mid; i < len(route); i++ {
		limit = min(limit, shared(route[i-1].Size, route[i].Size))
	}
	return overlay(flatten(route[mid:]), flatten(route[:mid]), limit)
}

// wholeRuns are the runs of a point; what a whole backup does not record is zero.
func wholeRuns(p *Point) []Run {
	if p.Parent != nil {
		return p.Runs
	}
	return overlay(p.Runs, []Run{{Count: Chunks(p.Size)}}, Chunks(p.Size))
}

// shared is how many chunks two disks of these sizes have both, of the same length.
func shared(a, b int64) int64 {
	if a == b {
		return Chunks(a)
	}
	return min(a, b) / ChunkSize
}

// overlay is upper, and lower before limit where upper has nothing.
func overlay(upper, lower []Run, limit int64) []Run {
	var all []Run
	at := int64(0) // up to here all is decided
	fill := func(end int64) {
		for len(lower) > 0 && lower[0].End() <= at {
			lower = lower[1:]
		}
		for len(lower) > 0 && lower[0].First < end {
			if part := lower[0].Slice(at, end); part.Count > 0 {
				all = append(all, part)
			}
			if lower[0].End() > end {
				break
			}
			lower = lower[1:]
		}
	}
	for _, r := range upper {
		fill(min(r.First, limit))
		all = append(all, r)
		at = r.End()
	}
	fill(limit)
	return all
}

// Size is that of the disk in bytes.
func (v *View) Size() int64 { return v.point.Size }

// Point is what the view is of.
func (v *View) Point() *Point { return v.point }

// Chunk is the checksum of a chunk; known is false where the disk has no such
// chunk.
func (v *View) Chunk(chunk int64) (sum uint64, known bool) {
	i := sort.Search(len(v.runs), func(i int) bool { return v.runs[i].End() > chunk })
	if i == len(v.runs) || chunk < 0 {
		return 0, false
	}
	r := v.runs[i]
	switch {
	case r.Sums != nil:
		return binary.BigEndian.Uint64(r.Sums[8*(chunk-r.First):]), true
	case (chunk+1)*ChunkSize > v.point.Size:
		return v.short, true
	}
	return zeroSum(), true
}

// Root is the digest of the content as its chunks give it: the 64-bit xxHash of
// the checksums of all chunks and the size in bytes, each a 64-bit number in
// big-endian order. It is what qbit digest calls xxh64-4m. It takes time for each
// chunk of the disk, recorded or not, about 100 ms for a million million bytes.
func (v *View) Root() Sum {
	h := xxhash.New()
	for _, r := range v.runs {
		if r.Sums != nil {
			h.Write(r.Sums)
		} else {
			v.zeros(h, r)
		}
	}
	writeSum(h, uint64(v.point.Size))
	return Sum(h.Sum64())
}

// zeros adds the checksums of a run of zeros.
func (v *View) zeros(h *xxhash.Digest, r Run) {
	whole := min(r.End(), v.point.Size/ChunkSize) - r.First
	sums := zeroSums()
	for n := 8 * whole; n > 0; n -= int64(len(sums)) {
		h.Write(sums[:min(n, int64(len(sums)))])
	}
	if whole < r.Count {
		writeSum(h, v.short)
	}
}

func writeSum(h *xxhash.Digest, sum uint64) {
	var b [8]byte
	h.Write(binary.BigEndian.AppendUint64(b[:0], sum))
}

// Check finds a root that does not follow from the chunks.
func (v *View) Check() error {
	if root := v.Root(); root != v.point.Root {
		return &Error{Point: v.point.ID, Msg: "the root is " + v.point.Root.String() + ", and that of the chunks is " + root.String() +
			": the manifest was damaged or changed by hand"}
	}
	return nil
}

// The checksum of a chunk of zeros, and many of them. They are made when they are
// first needed.
var (
	zeroSum  = sync.OnceValue(func() uint64 { return hashZeros(ChunkSize) })
	zeroSums = sync.OnceValue(func() []byte { return repeatSum(zeroSum(), 1024) })
)

func hashZeros(n int64) uint64 {
	h, zeros := xxhash.New(), make([]byte, 64<<10)
	for ; n > 0; n -= int64(len(zeros)) {
		h.Write(zeros[:min(n, int64(len(zeros)))])
	}
	return h.Sum64()
}

func repeatSum(sum uint64, n int) []byte {
	var b []byte
	for range n {
		b = binary.BigEndian.AppendUint64(b, sum)
	}
	return b
}
