package manifest

import "encoding/binary"

// A Run is chunks that follow each other.
type Run struct {
	First, Count int64
	// Sums are the checksums, eight bytes a chunk in big-endian order; nil where
	// all chunks are zero.
	Sums []byte
}

// End is the first chunk behind the run.
func (r Run) End() int64 { return r.First + r.Count }

// Slice is the part of r that lies in the chunks from first up to end.
func (r Run) Slice(first, end int64) Run {
	first, end = max(first, r.First), min(end, r.End())
	if end <= first {
		return Run{}
	}
	part := Run{First: first, Count: end - first}
	if r.Sums != nil {
		part.Sums = r.Sums[8*(first-r.First) : 8*(end-r.First)]
	}
	return part
}

// Runs are ascending and do not overlap.
type Runs []Run

// AddSum appends a chunk, which lies behind all others.
func (r *Runs) AddSum(chunk int64, sum uint64) {
	last := r.open(chunk)
	if last == nil || last.Sums == nil {
		*r = append(*r, Run{First: chunk})
		last = &(*r)[len(*r)-1]
	}
	last.Sums = binary.BigEndian.AppendUint64(last.Sums, sum)
	last.Count++
}

// AddZeros appends count chunks of zeros, which lie behind all others.
func (r *Runs) AddZeros(first, count int64) {
	if count == 0 {
		return
	}
	if last := r.open(first); last != nil && last.Sums == nil {
		last.Count += count
		return
	}
	*r = append(*r, Run{First: first, Count: count})
}

// add appends a run, and joins it to the last one where that is of its kind.
func (r *Runs) add(run Run) {
	last := r.open(run.First)
	switch {
	case run.Count == 0:
	case last == nil || (last.Sums == nil) != (run.Sums == nil):
		*r = append(*r, run)
	default:
		last.Sums = append(last.Sums, run.Sums...)
		last.Count += run.Count
	}
}

// open is the last run if it ends where a chunk begins.
func (r *Runs) open(chunk int64) *Run {
	if n := len(*r); n > 0 && (*r)[n-1].End() == chunk {
		return &(*r)[n-1]
	}
	return nil
}

// count is how many chunks the runs hold.
func (r Runs) count() int64 {
	n := int64(0)
	for _, run := range r {
		n += run.Count
	}
	return n
}
